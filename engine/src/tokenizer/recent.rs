//! Pieces that were met lately, with their ids: text repeats itself, and a table that stays in a core's cache answers sooner than one of
//! the whole vocabulary, and much sooner than merging.
//!
//! Two places a hash; a piece stands for itself, byte for byte. One table a thread, of the vocabulary that used it last, and the
//! [`Merged`] pieces.

use super::batch::Room;
use super::flat::{Flat, Pod};
use super::merged::Merged;
use super::pretokenize::Windows;
use super::words::{K, SHORT, fold, key_of};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a text whose pieces are remembered.
const REPEATING: usize = 1024;
/// Bytes of the longest piece that is kept: the last byte of a [`Key`] is its length.
const LONGEST: usize = 15;
/// Ids of a piece that is kept.
const IDS: usize = 3;
/// Numbers that [`Recent::probe`] writes for each piece, of which those of the ids stay.
pub(super) const WRITTEN: usize = IDS + 1;
/// Sets of a table, of 64 bytes: a table grows when half of its ways were written. A short text has a small one, and no page for each piece.
const SIZES: [usize; 4] = [1 << 10, 1 << 12, 1 << 14, 1 << 16];
/// A table of the first number of sets gets the memory of the second, of which the rest is never touched: a whole huge page.
const LARGE: (usize, usize) = (1 << 14, 1 << 15);

/// Up to 15 bytes, zeros, and their number, as two little-endian numbers; of more bytes the first 15 and 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub(super) struct Key(u64, u64);

/// The bytes that a piece of so many has.
const KEPT: [Key; LONGEST + 2] = {
    let mut kept = [Key(0, 0); LONGEST + 2];
    let mut len = 1;
    while len <= LONGEST {
        let Key(low, high) = kept[len - 1];
        kept[len] = if len <= 8 { Key(low << 8 | 0xFF, high) } else { Key(low, high << 8 | 0xFF) };
        len += 1;
    }
    kept[len] = kept[LONGEST];
    kept
};

impl Key {
    /// Of `text[start..end]`.
    #[inline(always)]
    pub(super) fn of(text: &[u8], start: usize, end: usize) -> Self {
        const WHOLE: usize = LONGEST + 1;
        let len = (end - start).min(WHOLE);
        let (low, high) = match text.get(start..).and_then(|text| text.first_chunk::<WHOLE>()) {
            Some(bytes) => Self::halves(bytes),
            None => Self::halves(&last_bytes(text, start)),
        };
        let kept = KEPT[len];
        Self(low & kept.0, high & kept.1 | (len as u64) << 56)
    }

    #[inline(always)]
    fn halves(bytes: &[u8; LONGEST + 1]) -> (u64, u64) {
        let [low, high] = bytes.as_chunks().0 else { return (0, 0) };
        (u64::from_le_bytes(*low), u64::from_le_bytes(*high))
    }

    /// [`key_of`] the piece, which has so many bytes.
    #[inline(always)]
    pub(super) fn word(self, piece: &[u8]) -> u64 {
        if piece.len() <= SHORT { self.0 } else { key_of(piece) }
    }

    #[inline(always)]
    fn hash(self) -> usize {
        (fold(self.0 ^ K, self.1 ^ K.rotate_left(32)) >> 7) as usize
    }
}

/// Up to the end of the text, and zeros.
#[cold]
fn last_bytes(text: &[u8], start: usize) -> [u8; LONGEST + 1] {
    let mut bytes = [0; LONGEST + 1];
    let rest = text.get(start..).unwrap_or_default();
    bytes[..rest.len()].copy_from_slice(rest);
    bytes
}

/// A piece that is looked up.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked {
    pub(super) key: Key,
    set: usize,
}

/// A piece that was met.
#[derive(Clone, Copy)]
#[repr(C)]
struct Way {
    /// No piece has the key 0.
    key: Key,
    /// Its ids; behind them how many there are, at most [`IDS`].
    ids: [u32; WRITTEN],
}

/// The two places of a piece, in one line of a cache. A new piece takes the first, and the one that was there the second.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Set([Way; 2]);

// SAFETY: numbers without bytes between them.
unsafe impl Pod for Set {}

impl Set {
    #[inline]
    fn put(&mut self, way: Way) {
        self.0 = [way, self.0[0]];
    }
}

/// The table.
pub(super) struct Recent {
    /// Of which vocabulary.
    owner: u64,
    sets: Flat<Set>,
    /// How many of `sets` are used, less one: a power of two less one.
    mask: usize,
    /// Ways that were written since the table grew.
    noted: usize,
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

/// A table of so many sets.
fn table(sets: usize) -> Flat<Set> {
    // The system's own zeros: pages that no text needs are never touched.
    Flat::zeroed(if sets == LARGE.0 { LARGE.1 } else { sets })
}

impl Recent {
    /// This thread's table, for the vocabulary `owner`. [`Recent::put_back`] keeps it for the next text.
    fn take(owner: u64) -> Self {
        let (windows, room, merged) = match TABLE.take() {
            Some(recent) if recent.owner == owner => return recent,
            Some(Self { windows, room, mut merged, .. }) => {
                merged.clear();
                (windows, room, merged)
            }
            None => Default::default(),
        };
        let [sets, ..] = SIZES;
        Self { owner, sets: table(sets), mask: sets - 1, noted: 0, merged, windows, room }
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
    // Not inlined: it needs all registers for itself.
    #[inline(never)]
    pub(super) fn ask(&self, text: &[u8], mut start: usize, ends: &[u32], asked: &mut [Asked]) {
        let (sets, mask) = (&*self.sets, self.mask);
        for (&end, asked) in ends.iter().zip(asked) {
            let end = end as usize;
            let key = Key::of(text, start, end);
            let set = key.hash() & mask;
            if let Some(set) = sets.get(set) {
                bitnet_kernels::text::prefetch(set);
            }
            *asked = Asked { key, set };
            start = end;
        }
    }

    /// Looks pieces up, without a branch. `found` gets the ids of those that are known, one behind the other, and `missed` for each of
    /// the others its index and how many ids are in front of it. Gives how many ids there are, and how many pieces missed.
    #[inline(never)]
    pub(super) fn probe(&self, asked: &[Asked], found: &mut [u32], missed: &mut [(u32, u32)]) -> (usize, usize) {
        assert!(found.len() >= asked.len() * WRITTEN && missed.len() >= asked.len(), "no room for so many pieces");
        let sets = &*self.sets;
        let (mut filled, mut count) = (0, 0);
        for (index, asked) in (0..).zip(asked) {
            let Some(Set([first, second])) = sets.get(asked.set) else { continue };
            let differs = |way: &Way| (way.key.0 ^ asked.key.0) | (way.key.1 ^ asked.key.1);
            let is_second = differs(second) == 0;
            let is = (differs(first) == 0) | is_second;
            let ids = if is_second { &second.ids } else { &first.ids };
            // SAFETY: there is room for `WRITTEN` numbers and one miss a piece, and no piece before had more: its ids are `IDS` at most.
            unsafe {
                found.as_mut_ptr().add(filled).cast::<[u32; WRITTEN]>().write_unaligned(*ids);
                missed.as_mut_ptr().add(count).write((index, filled as u32));
            }
            filled += (ids[IDS] & u32::from(is).wrapping_neg()) as usize;
            count += usize::from(!is);
        }
        (filled, count)
    }

    /// Notes the ids of a piece, if neither is too long.
    #[inline]
    pub(super) fn note(&mut self, key: Key, len: usize, ids: &[u32]) {
        let mut way = Way { key, ids: [0; WRITTEN] };
        way.ids[IDS] = ids.len() as u32;
        let Some(kept) = way.ids[..IDS].get_mut(..ids.len()).filter(|_| len <= LONGEST) else { return };
        kept.copy_from_slice(ids);
        let at = key.hash() & self.mask;
        let Some(set) = self.sets.items_mut().get_mut(at) else { return };
        // The same may come twice before the first is noted.
        if set.0.iter().any(|way| way.key == key) {
            return;
        }
        set.put(way);
        self.noted += 1;
        if self.noted > self.mask {
            self.grow();
        }
    }

    #[cold]
    fn grow(&mut self) {
        self.noted = 0;
        let Some(&sets) = SIZES.iter().find(|sets| **sets > self.mask + 1) else { return };
        let old = std::mem::replace(&mut self.sets, table(sets));
        let new = self.sets.items_mut();
        for way in old.iter().take(self.mask + 1).flat_map(|Set([first, second])| [second, first]) {
            if way.key != Key(0, 0) {
                new[way.key.hash() & (sets - 1)].put(*way);
            }
        }
        self.mask = sets - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_stays_while_the_table_grows() {
        let mut recent = Recent::take(owner());
        // Pieces of 1 to 20 bytes; those of more than 15 are not kept.
        let pieces: Vec<String> = (0..20_000usize).map(|n| format!("{n:0>width$}", width = 1 + n % 20)).collect();
        let text = pieces.concat();
        let ends: Vec<u32> = pieces
            .iter()
            .scan(0, |end, piece| {
                *end += piece.len() as u32;
                Some(*end)
            })
            .collect();
        let mut start = 0;
        for (n, &end) in ends.iter().enumerate() {
            let key = Key::of(text.as_bytes(), start, end as usize);
            recent.note(key, end as usize - start, &[n as u32, 1, 2, 3][..1 + n % 4]);
            start = end as usize;
        }
        assert_eq!(recent.mask + 1, SIZES[2]);
        let kept = |n: usize| pieces[n].len() <= LONGEST && n % 4 < IDS;
        let (mut asked, mut found, mut missed) = (vec![Asked::default(); 100], vec![0; 400], vec![(0, 0); 100]);
        let (mut known, mut wanted, mut first) = (0, 0, 0);
        for (batch, ends) in ends.chunks(100).enumerate() {
            recent.ask(text.as_bytes(), first, ends, &mut asked);
            first = ends[99] as usize;
            let (filled, count) = recent.probe(&asked, &mut found, &mut missed);
            let missed: Vec<usize> = missed[..count].iter().map(|(index, _)| 100 * batch + *index as usize).collect();
            let here = (100 * batch..100 * (batch + 1)).filter(|n| !missed.contains(n));
            let ids: Vec<u32> = here.clone().flat_map(|n| [n as u32, 1, 2].into_iter().take(1 + n % 4)).collect();
            assert_eq!(found[..filled], ids);
            assert!(here.clone().all(kept));
            known += here.count();
            wanted += (100 * batch..100 * (batch + 1)).filter(|n| kept(*n)).count();
        }
        // Of three pieces for two places one is gone.
        assert!(known > wanted * 4 / 5, "{known} of {wanted}");
    }
}
