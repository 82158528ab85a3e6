//! Pieces that were met lately, with their ids: text repeats itself, and a table that stays in a core's cache answers sooner than one of
//! the whole vocabulary, and much sooner than merging.
//!
//! One slot a hash; a piece stands for itself, byte for byte. One table a thread, of the vocabulary that used it last, and the
//! [`Merged`] pieces.

use super::merged::Merged;
use super::words::{K, fold};
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
        let mut last = [0; LONGEST];
        let bytes = match text.get(start..).and_then(|text| text.first_chunk::<LONGEST>()) {
            Some(bytes) => bytes,
            None => {
                let rest = text.get(start..).unwrap_or_default();
                last[..rest.len()].copy_from_slice(rest);
                &last
            }
        };
        let number = u128::from_le_bytes(*bytes);
        let kept = KEPT[(end - start).min(LONGEST)];
        Self(number as u64 & kept.0, (number >> 64) as u64 & kept.1)
    }

    #[inline(always)]
    fn slot(self) -> usize {
        (fold(self.0 ^ K, self.1 ^ K.rotate_left(32)) >> 7) as usize & (SLOTS - 1)
    }
}

#[derive(Clone, Copy)]
#[repr(C, align(32))]
struct Slot {
    /// The piece.
    key: Key,
    ids: [u32; IDS],
    /// Bytes of the piece (no piece is empty, so 0 is a free slot), and ids.
    size: [u16; 2],
}

const FREE: Slot = Slot { key: Key(0, 0), ids: [0; IDS], size: [0; 2] };

/// The table.
pub(super) struct Recent {
    /// Of which vocabulary.
    owner: u64,
    slots: Box<[Slot; SLOTS]>,
    /// Pieces that had to be merged.
    pub(super) merged: Merged,
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
            Some(Self { mut slots, mut merged, .. }) => {
                slots.fill(FREE);
                merged.clear();
                Self { owner, slots, merged }
            }
            None => Self { owner, slots: slots(), merged: Merged::default() },
        }
    }

    /// This thread's table if a text of so many bytes is long enough to repeat itself.
    pub(super) fn for_text(owner: u64, len: usize) -> Option<Self> {
        (len >= REPEATING).then(|| Self::take(owner))
    }

    pub(super) fn put_back(self) {
        TABLE.set(Some(self));
    }

    /// What the slot of `key` has for an id, and whether that is the one id of a piece of this key and length.
    #[inline(always)]
    pub(super) fn one(&self, key: Key, len: usize) -> (u32, bool) {
        let slot = &self.slots[key.slot()];
        let differs = (slot.key.0 ^ key.0) | (slot.key.1 ^ key.1);
        let size = usize::from(slot.size[0]) | usize::from(slot.size[1]) << 16;
        (slot.ids[0], differs | (size ^ (len | 1 << 16)) as u64 == 0)
    }

    /// The ids of a piece of this key and length, if they are known.
    #[inline]
    pub(super) fn ids(&self, key: Key, len: usize) -> Option<&[u32]> {
        let slot = &self.slots[key.slot()];
        let same = slot.key == key && usize::from(slot.size[0]) == len;
        same.then(|| &slot.ids[..usize::from(slot.size[1])])
    }

    /// Notes the ids of a piece, if neither is too long.
    #[inline]
    pub(super) fn note(&mut self, key: Key, len: usize, ids: &[u32]) {
        let mut slot = Slot { key, size: [len as u16, ids.len() as u16], ..FREE };
        if let (true, Some(kept)) = (len <= LONGEST, slot.ids.get_mut(..ids.len())) {
            kept.copy_from_slice(ids);
            self.slots[key.slot()] = slot;
        }
    }
}
