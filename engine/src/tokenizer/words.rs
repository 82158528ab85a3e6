//! An exact map from byte strings to ids: the whole vocabulary at one probe a word.
//!
//! Open addressing, one 16-byte entry a word. Strings of up to 8 bytes are their own key, so that a hit needs no
//! second look; longer ones are found by hash and compared with the bytes kept in one arena. No hash stands for a
//! string unverified.

use super::flat::{Flat, Pod};

/// Bytes to id. Ready to be asked; [`WordMapBuilder`] makes one.
#[derive(Debug, Clone, Default)]
pub struct WordMap {
    /// A power of two, or none.
    entries: Flat<Entry>,
    arena: Flat<u8>,
}

/// A [`WordMap`] to which words are added.
#[derive(Debug, Clone)]
pub struct WordMapBuilder {
    entries: Vec<Entry>,
    arena: Vec<u8>,
    len: usize,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Entry {
    key: u64,
    /// Bytes of the word, plus 1; 0 is an empty slot.
    len_plus_1: u32,
    /// Up to 8 bytes: the id. Longer: index into `arena` of the id (4 bytes) and the word.
    value: u32,
}

const _: () = assert!(size_of::<Entry>() == 16);

// SAFETY: numbers without bytes between them.
unsafe impl Pod for Entry {}

const EMPTY: Entry = Entry { key: 0, len_plus_1: 0, value: 0 };
const SHORT: usize = 8;
pub(super) const K: u64 = 0x9E37_79B9_7F4A_7C15;

#[inline]
pub(super) fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    (wide as u64) ^ ((wide >> 64) as u64)
}

/// Up to 8 bytes as a little-endian number.
#[inline]
pub(super) fn load(word: &[u8]) -> u64 {
    if let Some((chunk, _)) = word.split_first_chunk::<8>() {
        return u64::from_le_bytes(*chunk);
    }
    if let (Some((a, _)), Some((_, b))) = (word.split_first_chunk::<4>(), word.split_last_chunk::<4>()) {
        let shift = 8 * (word.len() as u32 - 4);
        return u64::from(u32::from_le_bytes(*a)) | u64::from(u32::from_le_bytes(*b)) << shift;
    }
    match *word {
        [] => 0,
        [a] => u64::from(a),
        [a, b] => u64::from(a) | u64::from(b) << 8,
        [a, b, c, ..] => u64::from(a) | u64::from(b) << 8 | u64::from(c) << 16,
    }
}

/// Whether two words of the same length are the same, without a call for the usual lengths.
#[inline]
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    if let (Some(a), Some(b)) = (ends::<8>(a), ends::<8>(b)) {
        return a == b;
    }
    a == b
}

/// The first and the last bytes, if the word is as long as either and no longer than both.
#[inline]
fn ends<const N: usize>(word: &[u8]) -> Option<(&[u8; N], &[u8; N])> {
    let (first, last) = (word.first_chunk()?, word.last_chunk()?);
    (word.len() <= 2 * N).then_some((first, last))
}

/// The word itself up to 8 bytes, a hash beyond.
#[inline]
pub(super) fn key_of(word: &[u8]) -> u64 {
    if word.len() <= SHORT {
        return load(word);
    }
    let mut h = word.len() as u64;
    let mut chunks = word.chunks_exact(8);
    for chunk in &mut chunks {
        h = fold(h ^ load(chunk), K);
    }
    // The last 8 bytes, overlapping: no tail loop.
    fold(h ^ load(&word[word.len() - 8..]), K ^ h)
}

/// Where a key is looked for first.
#[inline]
fn slot(key: u64, len: usize, mask: usize) -> usize {
    // The high half of a product mixes best.
    (fold(key ^ len as u64, K) as usize) & mask
}

/// The id of `word`, whose [`key_of`] is `key`, or where it would be added. As many steps at most as there are entries, whatever
/// these say.
#[inline]
fn search(entries: &[Entry], arena: &[u8], key: u64, word: &[u8]) -> Result<u32, Option<usize>> {
    let len_plus_1 = word.len() as u32 + 1;
    let mask = entries.len().wrapping_sub(1);
    let first = slot(key, word.len(), mask);
    for at in first..first + entries.len() {
        let entry = entries[at & mask];
        if entry.len_plus_1 == 0 {
            return Err(Some(at & mask));
        }
        if entry.key == key && entry.len_plus_1 == len_plus_1 {
            if word.len() <= SHORT {
                return Ok(entry.value);
            }
            let at = entry.value as usize;
            if let Some((id, rest)) = arena.get(at..).and_then(|a| a.split_first_chunk::<4>())
                && let Some(found) = rest.get(..word.len())
                && same(found, word)
            {
                return Ok(u32::from_le_bytes(*id));
            }
        }
    }
    Err(None)
}

impl WordMap {
    /// Of tables that lie in a file; `None` where the number of entries is none that a map has.
    pub(super) fn of(entries: Flat<Entry>, arena: Flat<u8>) -> Option<Self> {
        (entries.is_empty() || entries.len().is_power_of_two()).then_some(Self { entries, arena })
    }

    /// Its entries and its arena.
    pub(super) fn parts(&self) -> (&Flat<Entry>, &Flat<u8>) {
        (&self.entries, &self.arena)
    }

    /// Its entries as they lie, for a device: key (low, high), length + 1 (0: empty), id or index into [`WordMap::arena`]. A search
    /// there ends at an empty entry: `None` where there is none, which a damaged file may have.
    pub(super) fn entries(&self) -> Option<Vec<[u32; 4]>> {
        let ends = self.entries.iter().any(|e| e.len_plus_1 == 0);
        ends.then(|| self.entries.iter().map(|e| [e.key as u32, (e.key >> 32) as u32, e.len_plus_1, e.value]).collect())
    }

    /// Ids and words of more than 8 bytes.
    pub(super) fn arena(&self) -> &[u8] {
        &self.arena
    }

    /// The id of `word`.
    #[inline]
    #[must_use]
    pub fn get(&self, word: &[u8]) -> Option<u32> {
        self.get_by(key_of(word), word)
    }

    /// Asks for the memory that [`WordMap::get_by`] will look at first.
    #[inline]
    pub(super) fn prefetch(&self, key: u64, len: usize) {
        if let Some(entry) = self.entries.get(slot(key, len, self.entries.len().wrapping_sub(1))) {
            bitnet_kernels::text::prefetch(entry);
        }
    }

    /// The id of `word`, whose [`key_of`] is `key`.
    #[inline]
    pub(super) fn get_by(&self, key: u64, word: &[u8]) -> Option<u32> {
        search(&self.entries, &self.arena, key, word).ok()
    }
}

impl WordMapBuilder {
    /// A map for about `n` words.
    #[must_use]
    pub fn with_capacity(n: usize) -> Self {
        let slots = (n.max(4) * 2).next_power_of_two();
        Self { entries: vec![EMPTY; slots], arena: Vec::new(), len: 0 }
    }

    /// Adds `word` unless it is there; gives the id that it has then. The map grows if need be.
    pub fn insert(&mut self, word: &[u8], id: u32) -> u32 {
        if (self.len + 1) * 2 > self.entries.len() {
            self.grow();
        }
        let key = key_of(word);
        let at = match search(&self.entries, &self.arena, key, word) {
            Ok(id) => return id,
            // There is room: the map has just grown if it had to.
            Err(at) => at.unwrap_or_default(),
        };
        let value = if word.len() <= SHORT {
            id
        } else {
            let at = self.arena.len() as u32;
            self.arena.extend_from_slice(&id.to_le_bytes());
            self.arena.extend_from_slice(word);
            at
        };
        self.entries[at] = Entry { key, len_plus_1: word.len() as u32 + 1, value };
        self.len += 1;
        id
    }

    fn grow(&mut self) {
        let slots = self.entries.len() * 2;
        let old = std::mem::replace(&mut self.entries, vec![EMPTY; slots]);
        for entry in old.into_iter().filter(|e| e.len_plus_1 != 0) {
            let mut at = slot(entry.key, entry.len_plus_1 as usize - 1, slots - 1);
            while self.entries[at].len_plus_1 != 0 {
                at = (at + 1) & (slots - 1);
            }
            self.entries[at] = entry;
        }
    }

    /// The id of `word`.
    #[inline]
    #[must_use]
    pub fn get(&self, word: &[u8]) -> Option<u32> {
        search(&self.entries, &self.arena, key_of(word), word).ok()
    }

    /// No more words.
    #[must_use]
    pub fn finish(self) -> WordMap {
        WordMap { entries: self.entries.into(), arena: self.arena.into() }
    }
}
