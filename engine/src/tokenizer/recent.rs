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
/// 32 bytes each: 1 MiB in all.
const SLOTS: usize = 1 << 15;
/// Numbers that [`Recent::probe`] writes for each piece, of which those of the ids stay.
pub(super) const WRITTEN: usize = IDS + 1;
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
        let kept = KEPT[(end - start).min(LONGEST)];
        let Self(low, high) = match text.get(start..).and_then(|text| text.first_chunk::<LONGEST>()) {
            Some(bytes) => Self::whole(bytes),
            None => Self::whole(&last_bytes(text, start)),
        };
        Self(low & kept.0, high & kept.1)
    }

    #[inline(always)]
    fn whole(bytes: &[u8; LONGEST]) -> Self {
        let [low, high] = bytes.as_chunks().0 else { return Self(0, 0) };
        Self(u64::from_le_bytes(*low), u64::from_le_bytes(*high))
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

/// A piece that is looked up.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked {
    pub(super) key: Key,
    slot: u32,
    /// Its bytes.
    len: u32,
}

#[derive(Clone, Copy)]
#[repr(C, align(32))]
struct Slot {
    /// The piece.
    key: Key,
    /// Its ids; behind them its bytes (no piece is empty, so 0 is a free slot), and the number of ids above that.
    ids: [u32; WRITTEN],
}

#[inline(always)]
fn size(len: usize, ids: usize) -> u32 {
    len as u32 | (ids as u32) << 16
}

const FREE: Slot = Slot { key: Key(0, 0), ids: [0; WRITTEN] };

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
    // SAFETY: zeros are free slots. They are the system's own zeros: pages that no text needs are never touched.
    unsafe { Box::new_zeroed().assume_init() }
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

    /// Makes the keys of pieces, `start` is that of the first, `ends` are all their ends; and asks for the memory that
    /// [`Recent::probe`] will look at.
    #[inline(always)]
    pub(super) fn ask(&self, text: &[u8], mut start: usize, ends: &[u32], asked: &mut [Asked]) {
        for (&end, asked) in ends.iter().zip(asked) {
            let end = end as usize;
            let key = Key::of(text, start, end);
            let slot = key.slot();
            bitnet_kernels::text::prefetch(&self.slots[slot]);
            *asked = Asked { key, slot: slot as u32, len: (end - start) as u32 };
            start = end;
        }
    }

    /// Looks pieces up, without a branch. `found` gets the ids of those that are known, one behind the other, and `missed` for each of
    /// the others its index and how many ids are in front of it. Gives how many ids there are, and how many pieces missed.
    #[inline(always)]
    pub(super) fn probe(&self, asked: &[Asked], found: &mut [u32], missed: &mut [(u32, u32)]) -> (usize, usize) {
        let (mut filled, mut count) = (0, 0);
        for (index, asked) in (0..).zip(asked) {
            let slot = &self.slots[asked.slot as usize % SLOTS];
            let size = slot.ids[IDS];
            let other_len = u64::from((size & 0xFFFF) ^ asked.len);
            let same = (slot.key.0 ^ asked.key.0) | (slot.key.1 ^ asked.key.1) | other_len == 0;
            if let Some(four) = found.get_mut(filled..).and_then(|found| found.first_chunk_mut()) {
                *four = slot.ids;
            }
            if let Some(missed) = missed.get_mut(count) {
                *missed = (index, filled as u32);
            }
            filled += ((size >> 16) & u32::from(same).wrapping_neg()) as usize;
            count += usize::from(!same);
        }
        (filled, count)
    }

    /// Notes the ids of a piece, if neither is too long.
    #[inline]
    pub(super) fn note(&mut self, key: Key, len: usize, ids: &[u32]) {
        let mut slot = Slot { key, ..FREE };
        slot.ids[IDS] = size(len, ids.len());
        if let (true, Some(kept)) = (len <= LONGEST, slot.ids[..IDS].get_mut(..ids.len())) {
            kept.copy_from_slice(ids);
            self.slots[key.slot()] = slot;
        }
    }
}
