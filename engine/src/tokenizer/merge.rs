//! The merge loop that byte-level BPE and SPM share.
//!
//! Both do the same: of all neighbouring symbols that may merge take the pair of lowest rank, of equal ranks the
//! leftmost, until none is left. For BPE the rank is the index of the merge; for SPM it is the place of the merged
//! token's score among all scores (equal scores, equal rank). Short words are scanned (a few numbers in one cache
//! line beat any heap), long ones rank by rank (`levels`) over a linked list: O(n log n) whatever the text.

use super::flat::{Flat, Pod};
use super::words::{bucket_shift, by_bucket};

/// A symbol that is not a token and merges with nothing (a byte the vocabulary lacks).
pub const NO_SYMBOL: u32 = u32::MAX;

pub(super) const NO_RANK: u32 = u32::MAX;

/// Words up to this many symbols are scanned.
const SCAN_LIMIT: usize = 48;

/// What two neighbours become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Merge {
    /// Lower goes first. Below `u32::MAX`.
    pub rank: u32,
    /// The merged symbol.
    pub id: u32,
}

// SAFETY: numbers without bytes between them.
unsafe impl Pod for Merge {}

/// (left, right) -> [`Merge`], open addressing, 16 bytes an entry.
#[derive(Debug, Clone)]
pub struct PairTable {
    /// A power of two, at least two; one is empty.
    entries: Flat<Pair>,
    shift: u32,
    /// Eight bits an entry: that of a hash is set if some pair has it. Most pairs that are asked for are in no entry, and this is so small
    /// that it stays in a core's cache.
    some: Flat<u64>,
    /// Index of an empty entry.
    empty: u32,
}

/// A pair that is looked up, while its entry is on the way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    key: u64,
    /// Of the first entry.
    at: u32,
}

/// Pairs that become a [`PairTable`].
#[derive(Debug, Clone)]
pub struct PairTableBuilder {
    pairs: Vec<Pair>,
}

/// An entry.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Pair {
    /// The left symbol above the right one; all bits: an empty slot.
    key: u64,
    merge: Merge,
}

const _: () = assert!(size_of::<Pair>() == 16);

// SAFETY: numbers without bytes between them.
unsafe impl Pod for Pair {}

pub(super) const NONE: Merge = Merge { rank: NO_RANK, id: NO_SYMBOL };
const EMPTY: Pair = Pair { key: u64::MAX, merge: NONE };

#[inline]
fn key(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

#[inline(always)]
fn hash(key: u64) -> u64 {
    let mixed = (key ^ (key >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9)
}

/// Where a key is looked for first, of `2^(64 - shift)` slots.
#[inline(always)]
fn slot(key: u64, shift: u32) -> usize {
    (hash(key) >> shift) as usize
}

/// The bit of a hash among eight for each slot.
#[inline(always)]
fn bit(hash: u64, shift: u32) -> usize {
    (hash >> (shift - 3)) as usize
}

/// Words of eight bits for each of so many slots.
fn words_of(slots: usize) -> usize {
    (slots * 8).div_ceil(64)
}

fn shift_of(slots: usize) -> u32 {
    64 - slots.trailing_zeros()
}

impl PairTable {
    /// Of tables that lie in a file; `None` where they have lengths that they cannot have, or no entry is empty.
    pub(super) fn of(entries: Flat<Pair>, some: Flat<u64>) -> Option<Self> {
        let sound = entries.len() >= 2 && entries.len().is_power_of_two() && some.len() == words_of(entries.len());
        let empty = entries.iter().position(|pair| pair.key == EMPTY.key).filter(|_| sound)?;
        Some(Self { shift: shift_of(entries.len()), empty: empty as u32, entries, some })
    }

    pub(super) fn parts(&self) -> (&Flat<Pair>, &Flat<u64>) {
        (&self.entries, &self.some)
    }

    /// Its entries as they lie, for a device: right, left (both `u32::MAX`: empty), rank, id. A search there ends at an empty
    /// entry: `None` where there is none, which a damaged file may have.
    pub(super) fn entries(&self) -> Option<Vec<[u32; 4]>> {
        let ends = self.entries.iter().any(|pair| pair.key == EMPTY.key);
        let entry = |pair: &Pair| [pair.key as u32, (pair.key >> 32) as u32, pair.merge.rank, pair.merge.id];
        ends.then(|| self.entries.iter().map(entry).collect())
    }

    /// Asks for the memory that [`PairTable::answer`] will look at; there is no such pair unless it is `wanted`.
    #[inline(always)]
    pub(super) fn ask(&self, left: u32, right: u32, wanted: bool) -> Asked {
        let key = key(left, right);
        let hash = hash(key);
        let bit = bit(hash, self.shift);
        let some = self.some.get(bit / 64).copied().unwrap_or_default() >> (bit % 64) & u64::from(wanted);
        // No branch: nobody can guess it, and the bit may be on the way.
        let mask = (some as u32).wrapping_neg();
        let at = (hash >> self.shift) as u32 & mask | self.empty & !mask;
        if let Some(entry) = self.entries.get(at as usize) {
            bitnet_kernels::text::prefetch(entry);
        }
        Asked { key, at }
    }

    /// No pair.
    pub(super) fn nothing(&self) -> Asked {
        Asked { key: EMPTY.key - 1, at: self.empty }
    }

    /// What was asked for. Nearly always its first entry says it.
    #[inline(always)]
    pub(super) fn answer(&self, asked: Asked) -> Merge {
        let entries: &[Pair] = &self.entries;
        let pair = entries[asked.at as usize & (entries.len() - 1)];
        let same = pair.key == asked.key;
        if !same & (pair.key != EMPTY.key) {
            return self.from(asked.key, asked.at as usize + 1);
        }
        Merge { rank: if same { pair.merge.rank } else { NO_RANK }, id: pair.merge.id }
    }

    /// What `left` and `right` become, if they merge.
    #[inline]
    #[must_use]
    pub fn get(&self, left: u32, right: u32) -> Option<Merge> {
        let merge = self.find(left, right);
        (merge.rank != NO_RANK).then_some(merge)
    }

    #[inline]
    pub(super) fn find(&self, left: u32, right: u32) -> Merge {
        let key = key(left, right);
        self.from(key, slot(key, self.shift))
    }

    /// As many steps at most as there are entries, whatever these say.
    #[inline]
    fn from(&self, key: u64, first: usize) -> Merge {
        let entries: &[Pair] = &self.entries;
        let mask = entries.len() - 1;
        for at in first..first + entries.len() {
            let pair = entries[at & mask];
            if pair.key == key {
                return pair.merge;
            }
            if pair.key == EMPTY.key {
                return NONE;
            }
        }
        NONE
    }
}

impl PairTableBuilder {
    /// For about `n` pairs.
    #[must_use]
    pub fn with_capacity(n: usize) -> Self {
        Self { pairs: Vec::with_capacity(n) }
    }

    /// Whether there are no pairs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Adds a pair; of the same pair added twice the first counts.
    pub fn add(&mut self, left: u32, right: u32, merge: Merge) {
        self.pairs.push(Pair { key: key(left, right), merge });
    }

    /// The table, and how many pairs were there already.
    #[must_use]
    pub fn finish(self) -> (PairTable, usize) {
        // At most three fifths full: most pairs that are asked for are not there, and of a fuller table they would cross many entries.
        let slots = (self.pairs.len().max(4) * 5).div_ceil(3).next_power_of_two();
        let (mut table, mut duplicates) = (Flat::filled(EMPTY, slots), 0);
        let entries = table.items_mut();
        let (shift, small) = (shift_of(slots), bucket_shift(slots));
        // In the order of the slots, so that the table is filled from front to back and not all over the memory.
        for pair in by_bucket(&self.pairs, slots >> small, |pair| slot(pair.key, shift) >> small) {
            let mut at = slot(pair.key, shift);
            while entries[at].key != EMPTY.key && entries[at].key != pair.key {
                at = (at + 1) & (slots - 1);
            }
            if entries[at].key == pair.key {
                duplicates += 1;
            } else {
                entries[at] = pair;
            }
        }
        let mut some = vec![0; words_of(slots)];
        let mut empty = 0;
        for (at, pair) in (0..).zip(&*entries) {
            if pair.key == EMPTY.key {
                empty = at;
            } else {
                let bit = bit(hash(pair.key), shift);
                some[bit / 64] |= 1 << (bit % 64);
            }
        }
        (PairTable { entries: table, shift, some: some.into(), empty }, duplicates)
    }
}

/// Reusable memory of [`merge_all`].
#[derive(Debug, Default)]
pub struct Scratch {
    /// What the symbol at a place and the one behind become.
    pub(super) merges: Vec<Merge>,
    /// Places of the neighbours, [`END`] for none.
    pub(super) next: Vec<u32>,
    pub(super) prev: Vec<u32>,
}

/// Of the list of symbols.
pub(super) const END: u32 = u32::MAX;

impl Scratch {
    /// Makes the list of so many symbols.
    pub(super) fn link(&mut self, n: usize) {
        self.merges.push(NONE);
        self.next.clear();
        self.next.extend((1..n as u32).chain([END]));
        self.prev.clear();
        self.prev.extend([END].into_iter().chain(0..n as u32 - 1));
    }

    /// Merges the symbol at `at` with the one behind. What they become with their neighbours is not known then.
    #[inline]
    pub(super) fn join(&mut self, symbols: &mut [u32], at: usize) {
        let gone = self.next[at] as usize;
        let after = self.next[gone];
        symbols[at] = self.merges[at].id;
        self.merges[gone] = NONE;
        self.merges[at] = NONE;
        self.next[at] = after;
        if let Some(prev) = self.prev.get_mut(after as usize) {
            *prev = at as u32;
        }
    }

    /// Leaves only the symbols of the list.
    pub(super) fn compact(&self, symbols: &mut Vec<u32>) {
        let (mut from, mut to) = (0u32, 0);
        while from != END {
            symbols[to] = symbols[from as usize];
            to += 1;
            from = self.next[from as usize];
        }
        symbols.truncate(to);
    }
}

/// Merges `symbols` in place until nothing merges any more. At most `u32::MAX - 1` symbols.
pub fn merge_all(table: &PairTable, symbols: &mut Vec<u32>, scratch: &mut Scratch) {
    scratch.merges.clear();
    scratch.merges.extend(symbols.windows(2).map(|w| table.find(w[0], w[1])));
    merge(table, symbols, scratch);
}

/// All pairs of bytes.
const BYTE_PAIRS: usize = 1 << 16;

/// What pairs of bytes become: the first look at a piece, in 512 KiB instead of a table of all pairs.
#[derive(Debug, Clone)]
pub struct BytePairs {
    /// Symbol of each byte, [`NO_SYMBOL`] where there is none.
    pub symbols: [u32; 256],
    /// `[left][right]`.
    merges: Flat<Merge>,
}

impl BytePairs {
    /// The pairs of these symbols.
    #[must_use]
    pub fn new(symbols: [u32; 256], table: &PairTable) -> Self {
        let mut byte_of = std::collections::HashMap::new();
        for (byte, &symbol) in symbols.iter().enumerate().filter(|(_, symbol)| **symbol != NO_SYMBOL) {
            byte_of.insert(symbol, byte);
        }
        // Every symbol that is a byte is small, or nearly all are: most entries are told apart by one comparison.
        let largest = byte_of.keys().copied().max().unwrap_or(0);
        let mut merges = vec![NONE; BYTE_PAIRS];
        for &Pair { key, merge } in table.entries.iter().filter(|pair| pair.key != EMPTY.key) {
            let (left, right) = ((key >> 32) as u32, key as u32);
            if left <= largest
                && right <= largest
                && let (Some(left), Some(right)) = (byte_of.get(&left), byte_of.get(&right))
            {
                merges[left << 8 | right] = merge;
            }
        }
        Self { symbols, merges: merges.into() }
    }

    /// Of tables that lie in a file; `None` where they are not as long as they must be.
    pub(super) fn of(symbols: &[u32], merges: Flat<Merge>) -> Option<Self> {
        let symbols = symbols.try_into().ok()?;
        (merges.len() == BYTE_PAIRS).then_some(Self { symbols, merges })
    }

    pub(super) fn merges(&self) -> &Flat<Merge> {
        &self.merges
    }

    /// What two bytes become.
    #[inline]
    pub(super) fn pair(&self, left: u8, right: u8) -> Merge {
        self.merges[usize::from(left) << 8 | usize::from(right)]
    }

    /// Merges the bytes of a piece; those without a symbol are left out first.
    pub fn merge_all(&self, table: &PairTable, piece: &[u8], symbols: &mut Vec<u32>, scratch: &mut Scratch) {
        symbols.clear();
        symbols.reserve(piece.len());
        scratch.merges.clear();
        scratch.merges.reserve(piece.len());
        let mut last = None;
        for &byte in piece {
            let symbol = self.symbols[usize::from(byte)];
            if symbol == NO_SYMBOL {
                continue;
            }
            if let Some(last) = last.replace(byte) {
                scratch.merges.push(self.merges[usize::from(last) << 8 | usize::from(byte)]);
            }
            symbols.push(symbol);
        }
        merge(table, symbols, scratch);
    }
}

/// `scratch.merges[i]` is what `symbols[i]` and `symbols[i + 1]` become.
fn merge(table: &PairTable, symbols: &mut Vec<u32>, scratch: &mut Scratch) {
    if symbols.len() <= SCAN_LIMIT {
        scan(table, symbols, &mut scratch.merges);
    } else {
        super::levels::merge(table, symbols, scratch);
    }
}

/// `merges[i]` is what `symbols[i]` and `symbols[i + 1]` become.
fn scan(table: &PairTable, symbols: &mut Vec<u32>, merges: &mut Vec<Merge>) {
    loop {
        let (mut best, mut at) = (NO_RANK, 0);
        for (i, m) in merges.iter().enumerate() {
            if m.rank < best {
                (best, at) = (m.rank, i);
            }
        }
        if best == NO_RANK {
            return;
        }
        symbols[at] = merges[at].id;
        symbols.remove(at + 1);
        merges.remove(at);
        if at > 0 {
            merges[at - 1] = table.find(symbols[at - 1], symbols[at]);
        }
        if at < merges.len() {
            merges[at] = table.find(symbols[at], symbols[at + 1]);
        }
    }
}
