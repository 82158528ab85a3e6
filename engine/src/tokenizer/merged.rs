//! The pieces of a thread that had to be merged, with their ids.
//!
//! They lie one behind the other, and a table of hashes says where: 5 MiB at most. When there is no room, those that are there stay (a text
//! that comes again and again finds them), until as many others were met.

use super::flat::Flat;
use super::words::{K, fold, key_of, same};

/// Slots of a table, of 4 bytes: it grows when half of them are taken. A short text has a small one, and no page for each piece.
const SIZES: [usize; 3] = [1 << 14, 1 << 16, 1 << 18];
/// Bytes of all pieces and ids: where one lies fits above a tag.
const MOST: usize = 4 << 20;
/// Bytes of pieces and ids from which on a text is long enough for large pages: the first one alone takes as long as a hundred small ones.
const FEW: usize = 512 << 10;
/// Bytes of the longest piece that is kept, and most ids.
const LONGEST: usize = 255;
/// Slots that are looked at.
const PROBES: usize = 16;
/// Bits of a hash in a slot: other pieces are seldom compared.
const TAG: u32 = 0x1FF;
/// As many.
const TAG_BITS: u32 = TAG.count_ones();
/// Bytes of an id: no vocabulary has more than 2^24 tokens.
const ID: usize = 3;

/// The pieces.
#[derive(Default)]
pub(super) struct Merged {
    /// A tag, and above it where the piece lies, plus 1; 0 is a free slot.
    slots: Flat<u32>,
    /// For each piece its length and number of ids (a byte each), the ids, and the piece.
    kept: Flat<u8>,
    /// Of `kept`, how much is used.
    used: usize,
    /// How many pieces there are.
    count: usize,
    /// Bytes for which there was no room.
    refused: usize,
    /// Whether `kept` lies in large pages.
    large: bool,
}

/// Hash of a word's key to where it is looked for first, of any number of slots, and its tag.
#[inline]
fn place(key: u64, len: usize) -> (usize, u32) {
    let hash = fold(key ^ len as u64, K.rotate_left(17));
    ((hash >> 20) as usize, hash as u32 & TAG)
}

impl Merged {
    pub(super) fn clear(&mut self) {
        self.slots.items_mut().fill(0);
        (self.used, self.count, self.refused) = (0, 0, 0);
    }

    /// Asks for the first slot of a piece, by its [`super::words::key_of`].
    #[inline]
    pub(super) fn prefetch_slot(&self, key: u64, len: usize) {
        if let Some(slot) = self.slots.get(place(key, len).0 & self.mask()) {
            bitnet_kernels::text::prefetch(slot);
        }
    }

    /// Asks for what the first slot of a piece says, if that may be the piece; gives whether it may.
    #[inline]
    pub(super) fn prefetch(&self, key: u64, len: usize) -> bool {
        let (first, tag) = place(key, len);
        match self.slots.get(first & self.mask()) {
            Some(&slot) if slot != 0 && slot & TAG == tag => {
                if let Some(kept) = self.kept.get(offset(slot)) {
                    bitnet_kernels::text::prefetch(kept);
                }
                true
            }
            _ => false,
        }
    }

    /// The ids of a piece, if they are known.
    #[inline]
    pub(super) fn get(&self, key: u64, piece: &[u8]) -> Option<impl Iterator<Item = u32>> {
        let (first, tag) = place(key, piece.len());
        for at in first..first + PROBES {
            let slot = *self.slots.get(at & self.mask())?;
            if slot == 0 {
                return None;
            }
            if slot & TAG == tag
                && let Some(([len, count], rest)) = self.kept.get(offset(slot)..)?.split_first_chunk::<2>()
                && usize::from(*len) == piece.len()
                && let Some((ids, rest)) = rest.split_at_checked(ID * usize::from(*count))
                && let Some(kept) = rest.get(..piece.len())
                && same(kept, piece)
            {
                return Some(ids.as_chunks::<ID>().0.iter().map(|&[a, b, c]| u32::from_le_bytes([a, b, c, 0])));
            }
        }
        None
    }

    /// Notes the ids of a piece, if neither is too long.
    pub(super) fn note(&mut self, key: u64, piece: &[u8], ids: &[u32]) {
        if piece.len() > LONGEST || ids.len() > LONGEST {
            return;
        }
        if self.kept.is_empty() {
            // The system's own zeros: pages that no text needs are never touched.
            self.kept = vec![0; MOST].into();
        } else if self.used >= FEW && !self.large {
            self.large = true;
            let mut kept = Flat::zeroed(MOST);
            kept.items_mut()[..self.used].copy_from_slice(&self.kept[..self.used]);
            self.kept = kept;
        }
        if 2 * self.count >= self.slots.len()
            && let Some(&slots) = SIZES.iter().find(|slots| **slots > self.slots.len())
        {
            self.grow(slots);
        }
        // The same may come twice before the first is noted.
        if self.get(key, piece).is_some() {
            return;
        }
        let size = 2 + ID * ids.len() + piece.len();
        if self.kept.len() - self.used < size + 1 {
            self.refused += size;
            if self.refused < MOST {
                return;
            }
            self.clear();
        }
        let at = self.used;
        let Some(room) = self.kept.items_mut().get_mut(at..at + size + 1) else { return };
        (room[0], room[1]) = (piece.len() as u8, ids.len() as u8);
        for (at, id) in (2..).step_by(ID).zip(ids) {
            // A byte more, which what comes next takes.
            room[at..at + ID + 1].copy_from_slice(&id.to_le_bytes());
        }
        room[2 + ID * ids.len()..size].copy_from_slice(piece);
        self.used += size;
        self.put(key, piece.len(), at);
    }

    /// Puts a piece into the table that lies at a place of `kept`.
    #[inline]
    fn put(&mut self, key: u64, len: usize, at: usize) {
        let ((first, tag), mask) = (place(key, len), self.mask());
        let free = (first..first + PROBES).find(|at| self.slots[at & mask] == 0);
        self.slots.items_mut()[free.unwrap_or(first) & mask] = (at as u32 + 1) << TAG_BITS | tag;
        self.count += 1;
    }

    #[cold]
    fn grow(&mut self, slots: usize) {
        (self.slots, self.count) = (Flat::zeroed(slots), 0);
        let mut at = 0;
        while let Some(&[len, count]) = self.kept[..self.used].get(at..).and_then(|rest| rest.first_chunk()) {
            let start = at + 2 + ID * usize::from(count);
            let end = start + usize::from(len);
            let key = key_of(&self.kept[start..end]);
            self.put(key, usize::from(len), at);
            at = end;
        }
    }

    fn mask(&self) -> usize {
        self.slots.len().wrapping_sub(1)
    }
}

/// Where the piece of a slot lies.
#[inline]
fn offset(slot: u32) -> usize {
    ((slot >> TAG_BITS) as usize).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_stays_while_the_table_grows() {
        let pieces: Vec<Vec<u8>> =
            (0..60_000u32).map(|n| format!(" {}", n.wrapping_mul(2_654_435_761)).into_bytes()).collect();
        let ids = |n: usize| [n as u32, 70_000 + n as u32 % 7];
        let mut merged = Merged::default();
        let found = |merged: &Merged, n: usize| {
            let piece = &pieces[n];
            merged.get(key_of(piece), piece).map(Iterator::collect::<Vec<u32>>)
        };
        for (n, piece) in pieces.iter().enumerate() {
            assert_eq!(found(&merged, n), None);
            merged.note(key_of(piece), piece, &ids(n)[..1 + n % 2]);
        }
        assert_eq!((merged.slots.len(), merged.large), (SIZES[2], true));
        // Of places that are full a piece may have been taken.
        let there = (0..pieces.len()).filter_map(|n| found(&merged, n).map(|ids| (n, ids))).collect::<Vec<_>>();
        assert!(there.len() > pieces.len() * 99 / 100, "{}", there.len());
        assert!(there.iter().all(|(n, found)| *found == ids(*n)[..1 + n % 2]));
        merged.clear();
        assert!((0..pieces.len()).all(|n| found(&merged, n).is_none()));
    }
}
