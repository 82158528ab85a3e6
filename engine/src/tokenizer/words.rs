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

/// Words that become a [`WordMap`].
#[derive(Debug, Clone)]
pub struct WordMapBuilder {
    /// One a word, in the order in which they came.
    entries: Vec<Entry>,
    arena: Vec<u8>,
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
/// Bytes of the longest word that is its own [`key_of`].
pub(super) const SHORT: usize = 8;
pub(super) const K: u64 = 0x9E37_79B9_7F4A_7C15;

#[inline(always)]
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

/// The id of the word whose key is `key`, from place `first` on. As many steps at most as there are entries,
/// whatever these say.
#[inline]
fn search(entries: &[Entry], arena: &[u8], word: &[u8], key: u64, first: usize) -> Option<u32> {
    let len_plus_1 = word.len() as u32 + 1;
    let mask = entries.len().wrapping_sub(1);
    for at in first..first + entries.len() {
        let entry = entries[at & mask];
        if entry.len_plus_1 == 0 {
            return None;
        }
        if entry.key == key && entry.len_plus_1 == len_plus_1 {
            if word.len() <= SHORT {
                return Some(entry.value);
            }
            let at = entry.value as usize;
            if let Some((id, rest)) = arena.get(at..).and_then(|a| a.split_first_chunk::<4>())
                && let Some(found) = rest.get(..word.len())
                && same(found, word)
            {
                return Some(u32::from_le_bytes(*id));
            }
        }
    }
    None
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
        let entries = &*self.entries;
        search(entries, &self.arena, word, key, slot(key, word.len(), entries.len().wrapping_sub(1)))
    }

    /// The ids of many words, in order. Where one lies outside of the caches, the next ones are fetched meanwhile.
    pub(super) fn get_each<'w>(&self, mut words: impl Iterator<Item = &'w [u8]>, mut found: impl FnMut(Option<u32>)) {
        const AT_ONCE: usize = 32;
        /// Entries that were met before, in a core's own cache.
        const NEAR: usize = 1 << 11;
        let entries = &*self.entries;
        if entries.is_empty() {
            return words.for_each(|_| found(None));
        }
        let mut near = vec![EMPTY; NEAR];
        let mut batch = [(&[][..], 0, 0, EMPTY); AT_ONCE];
        loop {
            let mut n = 0;
            for (place, word) in batch.iter_mut().zip(&mut words) {
                let key = key_of(word);
                let first = slot(key, word.len(), entries.len() - 1);
                let near = &mut near[first & (NEAR - 1)];
                if near.key != key {
                    *near = entries[first];
                }
                *place = (word, key, first, *near);
                n += 1;
            }
            for &(word, key, first, entry) in &batch[..n] {
                let short = word.len() <= SHORT && entry.key == key && entry.len_plus_1 == word.len() as u32 + 1;
                found(if short { Some(entry.value) } else { search(entries, &self.arena, word, key, first) });
            }
            if n < AT_ONCE {
                return;
            }
        }
    }
}

/// Items in the order of their buckets, those of a bucket in the order in which they came.
pub(super) fn by_bucket<T: Copy>(items: &[T], buckets: usize, bucket: impl Fn(&T) -> usize) -> Vec<T> {
    let Some(first) = items.first() else { return Vec::new() };
    let mut starts = vec![0usize; buckets + 1];
    items.iter().for_each(|item| starts[bucket(item) + 1] += 1);
    for at in 1..=buckets {
        starts[at] += starts[at - 1];
    }
    let mut sorted = vec![*first; items.len()];
    for item in items {
        let at = &mut starts[bucket(item)];
        sorted[*at] = *item;
        *at += 1;
    }
    sorted
}

/// Buckets of a table of so many slots, each of which lies in a core's nearest cache: the power of two that a slot is shifted by.
pub(super) fn bucket_shift(slots: usize) -> u32 {
    slots.trailing_zeros().min(8)
}

impl WordMapBuilder {
    /// For about `n` words.
    #[must_use]
    pub fn with_capacity(n: usize) -> Self {
        Self { entries: Vec::with_capacity(n), arena: Vec::new() }
    }

    /// Adds `word`; where it is there already, the first id stays.
    pub fn add(&mut self, word: &[u8], id: u32) {
        let value = if word.len() <= SHORT {
            id
        } else {
            let at = self.arena.len() as u32;
            self.arena.extend_from_slice(&id.to_le_bytes());
            self.arena.extend_from_slice(word);
            at
        };
        self.entries.push(Entry { key: key_of(word), len_plus_1: word.len() as u32 + 1, value });
    }

    /// The map.
    #[must_use]
    pub fn finish(self) -> WordMap {
        self.finish_with_duplicates().0
    }

    /// The map, and the words that were there already: the id that stayed and the one that did not.
    #[must_use]
    pub fn finish_with_duplicates(self) -> (WordMap, Vec<(u32, u32)>) {
        let Self { entries: added, arena } = self;
        let slots = (added.len().max(4) * 2).next_power_of_two();
        let (mut table, mut duplicates, shift) = (Flat::filled(EMPTY, slots), Vec::new(), bucket_shift(slots));
        let entries = table.items_mut();
        let first = |entry: &Entry| slot(entry.key, entry.len_plus_1 as usize - 1, slots - 1);
        let text = |entry: &Entry| {
            let at = entry.value as usize;
            arena.get(at + 4..at + 3 + entry.len_plus_1 as usize).unwrap_or_default()
        };
        let id = |entry: &Entry| match arena.get(entry.value as usize..).and_then(|rest| rest.first_chunk()) {
            Some(id) if entry.len_plus_1 as usize > SHORT + 1 => u32::from_le_bytes(*id),
            _ => entry.value,
        };
        // In the order of the slots, so that the table is filled from front to back and not all over the memory.
        for entry in by_bucket(&added, slots >> shift, |entry| first(entry) >> shift) {
            let mut at = first(&entry);
            loop {
                let other = entries[at];
                if other.len_plus_1 == 0 {
                    entries[at] = entry;
                    break;
                }
                let short = entry.len_plus_1 as usize <= SHORT + 1;
                if (other.key, other.len_plus_1) == (entry.key, entry.len_plus_1)
                    && (short || text(&other) == text(&entry))
                {
                    duplicates.push((id(&other), id(&entry)));
                    break;
                }
                at = (at + 1) & (slots - 1);
            }
        }
        (WordMap { entries: table, arena: arena.into() }, duplicates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_one_by_one_and_many_at_once() {
        let word = |n: u32| match n % 3 {
            0 => n.to_string().into_bytes(),
            1 => format!("a longer word {n}").into_bytes(),
            _ => format!("{n:08}").into_bytes(),
        };
        for n in [0, 1, 5, 31, 32, 33, 1000] {
            let mut map = WordMapBuilder::with_capacity(n as usize);
            (0..n).for_each(|id| map.add(&word(id), id));
            // Words that are there already, of all lengths.
            (0..n.min(6)).for_each(|id| map.add(&word(id), id + 5000));
            let (map, mut duplicates) = map.finish_with_duplicates();
            duplicates.sort_unstable();
            assert_eq!(duplicates, (0..n.min(6)).map(|id| (id, id + 5000)).collect::<Vec<_>>());
            let words: Vec<Vec<u8>> = (0..n + 50).map(word).collect();
            let wanted: Vec<Option<u32>> = (0..n + 50).map(|id| Some(id).filter(|id| *id < n)).collect();
            assert_eq!(words.iter().map(|word| map.get(word)).collect::<Vec<_>>(), wanted);
            let mut found = Vec::new();
            map.get_each(words.iter().map(Vec::as_slice), |id| found.push(id));
            assert_eq!(found, wanted);
        }
        let mut none = Vec::new();
        WordMap::default().get_each([&b"a"[..]].into_iter(), |id| none.push(id));
        assert_eq!((none, WordMap::default().get(b"a")), (vec![None], None));
    }
}
