//! Pieces that were met lately, with their ids: text repeats itself, and a table that stays in a core's cache answers sooner than one of
//! the whole vocabulary, and much sooner than merging.
//!
//! One slot a hash; a piece stands for itself, byte for byte. One table a thread, of the vocabulary that used it last, and the
//! [`Merged`] pieces.

use super::batch::Room;
use super::merged::Merged;
use super::pretokenize::Windows;
use super::words::{K, fold, key_of};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a text whose pieces are remembered.
const REPEATING: usize = 1024;
/// Bytes of the longest piece that is kept.
const LONGEST: usize = 16;
/// Ids of a piece that is kept.
const IDS: usize = 3;
/// 32 bytes each: 256 KiB in all.
const SLOTS: usize = 1 << 13;
/// Up to 16 bytes and zeros, as two little-endian numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Key(u64, u64);

/// The bytes that a piece of so many has.
const KEPT: [Key; LONGEST + 1] = {
    let mut kept = [Key(0, 0); LONGEST + 1];
    let mut len = 1;
    while len <= LONGEST {
        let Key(low, high) = kept[len - 1];
        kept[len] = if len <= 8 { Key(low << 8 | 0xFF, high) } else { Key(low, high << 8 | 0xFF) };
        len += 1;
    }
    kept
};

impl Key {
    /// Of `text[start..end]`, or of its first 16 bytes.
    #[inline(always)]
    pub(super) fn of(text: &[u8], start: usize, end: usize) -> Self {
        let bytes = match text.get(start..).and_then(|text| text.first_chunk::<LONGEST>()) {
            Some(bytes) => *bytes,
            None => last_bytes(text, start),
        };
        let [low, high] = bytes.as_chunks().0 else { return Self(0, 0) };
        let kept = KEPT[(end - start).min(LONGEST)];
        Self(u64::from_le_bytes(*low) & kept.0, u64::from_le_bytes(*high) & kept.1)
    }

    /// [`key_of`] the piece, which has so many bytes.
    #[inline(always)]
    pub(super) fn word(self, piece: &[u8]) -> u64 {
        if piece.len() <= 8 { self.0 } else { key_of(piece) }
    }

    #[inline(always)]
    fn slot(self) -> usize {
        (fold(self.0 ^ K, self.1 ^ K.rotate_left(32)) >> 7) as usize & (SLOTS - 1)
    }
}

/// Up to the end of the text, and zeros.
#[cold]
fn last_bytes(text: &[u8], start: usize) -> [u8; LONGEST] {
    let mut bytes = [0; LONGEST];
    let rest = text.get(start..).unwrap_or_default();
    bytes[..rest.len()].copy_from_slice(rest);
    bytes
}

#[derive(Clone, Copy)]
#[repr(C, align(32))]
struct Slot {
    /// The piece.
    key: Key,
    ids: [u32; IDS],
    /// Bytes of the piece (no piece is empty, so 0 is a free slot), and the number of ids above that.
    size: u32,
}

#[inline(always)]
fn size(len: usize, ids: usize) -> u32 {
    len as u32 | (ids as u32) << 16
}

const FREE: Slot = Slot { key: Key(0, 0), ids: [0; IDS], size: 0 };

/// The table.
pub(super) struct Recent {
    /// Of which vocabulary.
    owner: u64,
    slots: Box<[Slot; SLOTS]>,
    /// Pieces that had to be merged.
    pub(super) merged: Merged,
    /// To be used again.
    pub(super) windows: Windows,
    pub(super) room: Room,
}

/// A number that no other vocabulary of this process has.
pub(super) fn owner() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

thread_local! {
    static TABLE: Cell<Option<Recent>> = const { Cell::new(None) };
}

fn slots() -> Box<[Slot; SLOTS]> {
    let slots: Box<[Slot]> = vec![FREE; SLOTS].into();
    slots.try_into().unwrap_or_else(|_| unreachable!("as many as asked for"))
}

impl Recent {
    /// This thread's table, for the vocabulary `owner`. [`Recent::put_back`] keeps it for the next text.
    fn take(owner: u64) -> Self {
        match TABLE.take() {
            Some(recent) if recent.owner == owner => recent,
            Some(mut recent) => {
                recent.slots.fill(FREE);
                recent.merged.clear();
                Self { owner, ..recent }
            }
            None => {
                let (merged, windows, room) = Default::default();
                Self { owner, slots: slots(), merged, windows, room }
            }
        }
    }

    /// This thread's table if a text of so many bytes is long enough to repeat itself.
    pub(super) fn for_text(owner: u64, len: usize) -> Option<Self> {
        (len >= REPEATING).then(|| Self::take(owner))
    }

    pub(super) fn put_back(self) {
        TABLE.set(Some(self));
    }

    /// Looks pieces up, without a branch: `start` is that of the first, `ends` are all their ends, `found` gets the id of those that are
    /// known to have one, and `missed` the indices of the others. Gives how many these are.
    pub(super) fn probe(
        &self,
        text: &[u8],
        mut start: usize,
        ends: &[u32],
        found: &mut [u32],
        missed: &mut [u32],
    ) -> usize {
        let mut count = 0;
        for (index, (&end, found)) in ends.iter().zip(found).enumerate() {
            let end = end as usize;
            let key = Key::of(text, start, end);
            let slot = &self.slots[key.slot()];
            let differs = (slot.key.0 ^ key.0) | (slot.key.1 ^ key.1) | u64::from(slot.size ^ size(end - start, 1));
            *found = slot.ids[0];
            if let Some(missed) = missed.get_mut(count) {
                *missed = index as u32;
            }
            count += usize::from(differs != 0);
            start = end;
        }
        count
    }

    /// The ids of a piece of this key and length, if they are known.
    #[inline]
    pub(super) fn ids(&self, key: Key, len: usize) -> Option<&[u32]> {
        let slot = &self.slots[key.slot()];
        let same = slot.key == key && slot.size & 0xFFFF == len as u32;
        same.then(|| slot.ids.get(..(slot.size >> 16) as usize)).flatten()
    }

    /// Notes the ids of a piece, if neither is too long.
    #[inline]
    pub(super) fn note(&mut self, key: Key, len: usize, ids: &[u32]) {
        let mut slot = Slot { key, size: size(len, ids.len()), ..FREE };
        if let (true, Some(kept)) = (len <= LONGEST, slot.ids.get_mut(..ids.len())) {
            kept.copy_from_slice(ids);
            self.slots[key.slot()] = slot;
        }
    }
}
