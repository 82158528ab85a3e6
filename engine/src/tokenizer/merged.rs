//! The pieces of a thread that had to be merged, with their ids.
//!
//! They lie one behind the other, and a table of hashes says where: 8 MiB at most. When there is no room, those that are there stay (a text
//! that comes again and again finds them), until as many others were met.

use super::flat::Flat;
use super::words::{K, fold, same};

/// Slots of the table, of 4 bytes.
const SLOTS: usize = 1 << 19;
/// Bytes of all pieces and ids: where one lies fits above a tag.
const MOST: usize = 6 << 20;
/// Bytes of pieces and ids from which on a text is long enough for large pages.
const FEW: usize = 64 << 10;
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
    /// Bytes for which there was no room.
    refused: usize,
    /// Whether the tables lie in large pages, of which the first one alone takes a short text's time.
    large: bool,
}

/// Hash of a word's key to where it is looked for first, and its tag.
#[inline]
fn place(key: u64, len: usize) -> (usize, u32) {
    let hash = fold(key ^ len as u64, K.rotate_left(17));
    ((hash >> 20) as usize & (SLOTS - 1), hash as u32 & TAG)
}

impl Merged {
    pub(super) fn clear(&mut self) {
        self.slots.items_mut().fill(0);
        (self.used, self.refused) = (0, 0);
    }

    /// Asks for the first slot of a piece, by its [`super::words::key_of`].
    #[inline]
    pub(super) fn prefetch_slot(&self, key: u64, len: usize) {
        if let Some(slot) = self.slots.get(place(key, len).0) {
            bitnet_kernels::text::prefetch(slot);
        }
    }

    /// Asks for what the first slot of a piece says, if that may be the piece; gives whether it may.
    #[inline]
    pub(super) fn prefetch(&self, key: u64, len: usize) -> bool {
        let (first, tag) = place(key, len);
        match self.slots.get(first) {
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
            let slot = *self.slots.get(at & (SLOTS - 1))?;
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
        if self.slots.is_empty() {
            // The system's own zeros: pages that no text needs are never touched.
            (self.slots, self.kept) = (vec![0; SLOTS].into(), vec![0; MOST].into());
        } else if self.used >= FEW && !self.large {
            self.large = true;
            let (mut slots, mut kept) = (Flat::zeroed(SLOTS), Flat::zeroed(MOST));
            slots.items_mut().copy_from_slice(&self.slots);
            kept.items_mut()[..self.used].copy_from_slice(&self.kept[..self.used]);
            (self.slots, self.kept) = (slots, kept);
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
        let (first, tag) = place(key, piece.len());
        let free = (first..first + PROBES).find(|at| self.slots[at & (SLOTS - 1)] == 0);
        self.slots.items_mut()[free.unwrap_or(first) & (SLOTS - 1)] = (at as u32 + 1) << TAG_BITS | tag;
    }
}

/// Where the piece of a slot lies.
#[inline]
fn offset(slot: u32) -> usize {
    ((slot >> TAG_BITS) as usize).wrapping_sub(1)
}
