//! Pieces that were met lately, with their ids: text repeats itself, and a table that stays in a core's cache answers sooner than one of
//! the whole vocabulary, and much sooner than merging.
//!
//! One slot a hash; a piece stands for itself, byte for byte. One table a thread, of the vocabulary that used it last, and a larger one
//! of the pieces that had to be merged.

use super::words::{K, fold, key_of, load};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of the longest piece that is kept.
const LONGEST: usize = 24;
/// Ids of a piece that is kept.
const IDS: usize = 7;
/// 64 bytes each: 256 KiB in all.
const SLOTS: usize = 1 << 12;
/// Bytes of the longest merged piece that is kept.
const MERGED_LONGEST: usize = 78;
/// Ids of a merged piece that is kept.
const MERGED_IDS: usize = 12;
/// 128 bytes each: 2 MiB, of which only what was met is touched.
const MERGED: usize = 1 << 14;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Slot {
    /// The piece, and zeros.
    bytes: [u64; 3],
    ids: [u32; IDS],
    /// Bytes of the piece; no piece is empty, so 0 is a free slot.
    len: u8,
    count: u8,
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct MergedSlot {
    ids: [u32; MERGED_IDS],
    len: u8,
    count: u8,
    piece: [u8; MERGED_LONGEST],
}

const NOT_MERGED: MergedSlot = MergedSlot { ids: [0; MERGED_IDS], len: 0, count: 0, piece: [0; MERGED_LONGEST] };
const FREE: Slot = Slot { bytes: [0; 3], ids: [0; IDS], len: 0, count: 0 };

/// The table.
pub(super) struct Recent {
    /// Of which vocabulary.
    owner: u64,
    slots: Box<[Slot]>,
    merged: Box<[MergedSlot]>,
}

/// Where the ids of a piece are to be noted.
#[derive(Clone, Copy)]
pub(super) struct Place {
    bytes: [u64; 3],
    slot: usize,
    len: u8,
}

/// A number that no other vocabulary of this process has.
pub(super) fn owner() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

thread_local! {
    static TABLE: Cell<Option<Recent>> = const { Cell::new(None) };
}

impl Recent {
    /// This thread's table, for the vocabulary `owner`. [`Recent::put_back`] keeps it for the next text.
    pub(super) fn take(owner: u64) -> Self {
        match TABLE.take() {
            Some(recent) if recent.owner == owner => recent,
            Some(Self { mut slots, mut merged, .. }) => {
                slots.fill(FREE);
                merged.fill(NOT_MERGED);
                Self { owner, slots, merged }
            }
            None => Self { owner, slots: vec![FREE; SLOTS].into(), merged: vec![NOT_MERGED; MERGED].into() },
        }
    }

    pub(super) fn put_back(self) {
        TABLE.set(Some(self));
    }

    /// Adds the ids of `piece` to `ids`. Else where they may be noted, if the piece is not too long for that.
    #[inline]
    pub(super) fn ids(&self, piece: &[u8], ids: &mut Vec<u32>) -> Result<(), Option<Place>> {
        let len = piece.len();
        if len > LONGEST {
            return Err(None);
        }
        let word = |i: usize| if len > 8 * i { load(&piece[8 * i..len.min(8 * i + 8)]) } else { 0 };
        let bytes = [word(0), word(1), word(2)];
        let slot = (fold(fold(bytes[0] ^ len as u64, K) ^ bytes[1], K ^ bytes[2]) >> 7) as usize & (SLOTS - 1);
        let found = &self.slots[slot];
        if usize::from(found.len) != len || found.bytes != bytes {
            return Err(Some(Place { bytes, slot, len: len as u8 }));
        }
        match found.count {
            1 => ids.push(found.ids[0]),
            count => ids.extend_from_slice(&found.ids[..usize::from(count)]),
        }
        Ok(())
    }

    /// Notes the ids of the piece that `place` is of, if they are few enough.
    pub(super) fn note(&mut self, place: Place, ids: &[u32]) {
        let mut slot = Slot { bytes: place.bytes, len: place.len, count: ids.len() as u8, ..FREE };
        if let Some(kept) = slot.ids.get_mut(..ids.len()) {
            kept.copy_from_slice(ids);
            self.slots[place.slot] = slot;
        }
    }

    /// Adds the ids of a piece that was merged before, if they are known.
    pub(super) fn merged(&self, piece: &[u8], ids: &mut Vec<u32>) -> bool {
        let slot = &self.merged[merged_slot(piece)];
        let same = usize::from(slot.len) == piece.len() && &slot.piece[..piece.len()] == piece;
        if same {
            ids.extend_from_slice(&slot.ids[..usize::from(slot.count)]);
        }
        same
    }

    /// Notes the ids of a piece that was merged, if neither is too long.
    pub(super) fn note_merged(&mut self, piece: &[u8], ids: &[u32]) {
        let mut slot = MergedSlot { len: piece.len() as u8, count: ids.len() as u8, ..NOT_MERGED };
        if let (Some(text), Some(kept)) = (slot.piece.get_mut(..piece.len()), slot.ids.get_mut(..ids.len())) {
            text.copy_from_slice(piece);
            kept.copy_from_slice(ids);
            self.merged[merged_slot(piece)] = slot;
        }
    }
}

fn merged_slot(piece: &[u8]) -> usize {
    (fold(key_of(piece) ^ piece.len() as u64, K) >> 7) as usize & (MERGED - 1)
}
