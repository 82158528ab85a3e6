//! The merge loop that byte-level BPE and SPM share.
//!
//! Both do the same: of all neighbouring symbols that may merge take the pair of lowest rank, of equal ranks the
//! leftmost, until none is left. For BPE the rank is the index of the merge; for SPM it is the place of the merged
//! token's score among all scores (equal scores, equal rank). Short words are scanned (a few numbers in one cache
//! line beat any heap), long ones rank by rank (`levels`) over a linked list: O(n log n) whatever the text.

/// A symbol that is no token and merges with nothing (a byte the vocabulary lacks).
pub const NO_SYMBOL: u32 = u32::MAX;

pub(super) const NO_RANK: u32 = u32::MAX;

/// Words up to this many symbols are scanned.
const SCAN_LIMIT: usize = 48;

/// What two neighbours become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merge {
    /// Lower goes first. Below `u32::MAX`.
    pub rank: u32,
    /// The merged symbol.
    pub id: u32,
}

/// (left, right) -> [`Merge`], open addressing, 16 bytes an entry.
#[derive(Debug, Clone)]
pub struct PairTable {
    entries: Vec<(u64, Merge)>,
    shift: u32,
    len: usize,
}

const EMPTY: (u64, Merge) = (u64::MAX, Merge { rank: NO_RANK, id: NO_SYMBOL });
pub(super) const NONE: Merge = EMPTY.1;

#[inline]
fn key(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

impl PairTable {
    /// A table for `n` pairs.
    #[must_use]
    pub fn with_capacity(n: usize) -> Self {
        let slots = (n.max(4) * 2).next_power_of_two();
        Self { entries: vec![EMPTY; slots], shift: 64 - slots.trailing_zeros(), len: 0 }
    }

    /// Pairs in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its entries as they lie, for a device: right, left (both `u32::MAX`: empty), rank, id.
    pub(super) fn entries(&self) -> Vec<[u32; 4]> {
        self.entries.iter().map(|&(key, merge)| [key as u32, (key >> 32) as u32, merge.rank, merge.id]).collect()
    }

    #[inline]
    fn slot(&self, key: u64) -> usize {
        let mixed = (key ^ (key >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> self.shift) as usize
    }

    /// Adds a pair unless it is there already (of duplicate merges the first counts); says whether it was added.
    pub fn insert(&mut self, left: u32, right: u32, merge: Merge) -> bool {
        if (self.len + 1) * 2 > self.entries.len() {
            let mut bigger = Self::with_capacity(self.entries.len());
            for &(k, m) in self.entries.iter().filter(|e| e.0 != u64::MAX) {
                bigger.insert((k >> 32) as u32, k as u32, m);
            }
            *self = bigger;
        }
        let key = key(left, right);
        let mask = self.entries.len() - 1;
        let mut slot = self.slot(key);
        while self.entries[slot].0 != u64::MAX {
            if self.entries[slot].0 == key {
                return false;
            }
            slot = (slot + 1) & mask;
        }
        self.entries[slot] = (key, merge);
        self.len += 1;
        true
    }

    /// Asks for the memory that [`PairTable::find`] will look at first.
    #[inline]
    pub(super) fn prefetch(&self, left: u32, right: u32) {
        if let Some(entry) = self.entries.get(self.slot(key(left, right))) {
            bitnet_kernels::text::prefetch(entry);
        }
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
        let mask = self.entries.len() - 1;
        let mut slot = self.slot(key);
        loop {
            let (k, merge) = self.entries[slot & mask];
            if k == key {
                return merge;
            }
            if k == u64::MAX {
                return NONE;
            }
            slot = (slot + 1) & mask;
        }
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

/// What pairs of bytes become: the first look at a piece, in 512 KiB instead of a table of all pairs.
#[derive(Debug, Clone)]
pub struct BytePairs {
    /// Symbol of each byte, [`NO_SYMBOL`] where there is none.
    pub symbols: [u32; 256],
    /// `[left][right]`.
    merges: Box<[Merge]>,
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
        let mut merges = vec![NONE; 1 << 16].into_boxed_slice();
        for &(key, merge) in table.entries.iter().filter(|(key, _)| *key != EMPTY.0) {
            let (left, right) = ((key >> 32) as u32, key as u32);
            if left <= largest
                && right <= largest
                && let (Some(left), Some(right)) = (byte_of.get(&left), byte_of.get(&right))
            {
                merges[left << 8 | right] = merge;
            }
        }
        Self { symbols, merges }
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
