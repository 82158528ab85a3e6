//! The loop from pieces to ids: a batch of pieces at a time, so that the waits for memory overlap.
//!
//! First every piece is looked up in the thread's table of recent ones, without a branch. Of those that are not there, each is looked for
//! once: its entry in the table of merged pieces is asked for, and only then looked at; then the same in the table of all words. What is
//! new is merged, several pieces at once.

use super::lanes::{self, Lane, Lanes};
use super::merge::PairTable;
use super::recent::{Asked, Key, Recent, WRITTEN};
use super::words::{K, SHORT, WordMap, fold, same};
use bitnet_kernels::text::TextSet;

/// Pieces of a batch: the lines that are asked for fit into a core's nearest cache, with what else is there.
const BATCH: usize = 128;
/// Pieces whose rest is looked up together, about those of 4 KiB: the more, the more waits overlap and the more copies are found (cold, mixed
/// text: 86 MB/s in groups of 512 without a look for copies, 99 in groups of 1,024 with one).
const GROUP: usize = 8 * BATCH;

/// How pieces that are not words are merged.
pub(super) trait Merging {
    /// The merges.
    fn table(&self) -> &PairTable;
    /// Puts the symbols of a piece of at most [`lanes::MOST`] bytes into an empty lane.
    fn fill(&self, piece: &[u8], lane: &mut Lane);
    /// Adds the ids of a symbol that is left.
    fn finish(&self, symbol: u32, ids: &mut Vec<u32>);
    /// Adds the ids of a piece of any length.
    fn long(&mut self, piece: &[u8], ids: &mut Vec<u32>);
}

/// Turns pieces into ids.
pub(super) struct Batch<'a, M> {
    /// Whose instructions are used.
    pub(super) set: &'static TextSet,
    /// The pieces that are one token.
    pub(super) words: &'a WordMap,
    /// What was met lately.
    pub(super) recent: &'a mut Recent,
    /// For all others.
    pub(super) merging: M,
    /// Reusable.
    pub(super) room: Room,
}

/// Reusable memory.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// All pieces.
    asked: Vec<Asked>,
    /// The ids of the pieces that are known, one behind the other.
    found: Vec<u32>,
    /// Indices of the others, and how many of `found` are in front of each.
    missed: Vec<(u32, u32)>,
    /// The others.
    rest: Vec<Rest>,
    /// Of `rest`, the first of each piece.
    unknown: Vec<usize>,
    /// Pairs of indices of `rest`: a piece, and the same in front of it.
    copies: Vec<(usize, usize)>,
    /// Where a piece may be in `rest`, by its hash.
    seen: Seen,
    /// The ids of the others.
    many: Vec<u32>,
    /// Index in `rest`, and a range of `many`.
    merged: Vec<(usize, usize, usize)>,
    lanes: Lanes,
}

/// A piece that the table of recent ones does not have.
#[derive(Debug, Clone, Copy, Default)]
struct Rest {
    /// In the text.
    start: usize,
    end: usize,
    /// In [`Room::found`].
    at: usize,
    key: Key,
    /// In the table of words.
    word: u64,
    /// In [`Room::many`].
    ids: (usize, usize),
}

/// Indices by a hash; a group's are told from those of the groups before.
#[derive(Debug, Default)]
struct Seen {
    slots: Vec<u32>,
    /// What index 0 of this group is.
    base: u32,
}

impl Seen {
    /// Of different pieces few meet.
    const SLOTS: usize = 2 * GROUP;

    /// The next group; so many indices were there before.
    fn start(&mut self, before: usize) {
        self.base += before as u32;
        if self.base == 0 || self.base > u32::MAX / 2 {
            self.slots.clear();
            self.slots.resize(Self::SLOTS, 0);
            self.base = 1;
        }
    }

    /// The index that was there, and puts this one there.
    #[inline]
    fn swap(&mut self, hash: u64, index: usize) -> Option<usize> {
        let slot = self.slots.get_mut(hash as usize % Self::SLOTS)?;
        let before = std::mem::replace(slot, self.base + index as u32);
        before.checked_sub(self.base).map(|before| before as usize)
    }
}

/// Adds ids, a few of them four at a time.
#[inline]
fn append(ids: &mut Vec<u32>, new: &[u32]) {
    if new.len() > 32 {
        return ids.extend_from_slice(new);
    }
    let (fours, rest) = new.as_chunks::<4>();
    for four in fours {
        ids.extend_from_slice(four);
    }
    for id in rest {
        ids.push(*id);
    }
}

impl<M: Merging> Batch<'_, M> {
    /// Adds the ids of the pieces that start at `from` in `text` and end so far behind it.
    #[inline]
    pub(super) fn encode(&mut self, text: &[u8], from: usize, ends: &[u32], ids: &mut Vec<u32>) {
        #[cfg(target_arch = "x86_64")]
        if self.set.wide() {
            // SAFETY: the CPU has the features.
            return unsafe { self.encode_wide(text, from, ends, ids) };
        }
        self.encode_any(text, from, ends, ids);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    fn encode_wide(&mut self, text: &[u8], from: usize, ends: &[u32], ids: &mut Vec<u32>) {
        self.encode_any(text, from, ends, ids);
    }

    #[inline(always)]
    fn encode_any(&mut self, text: &[u8], from: usize, ends: &[u32], ids: &mut Vec<u32>) {
        self.room.asked.resize(BATCH, Asked::default());
        self.room.found.resize(GROUP * WRITTEN, 0);
        self.room.missed.resize(BATCH, (0, 0));
        self.room.seen.start(0);
        let text = &text[from..];
        let mut start = 0;
        for ends in ends.chunks(GROUP) {
            let mut filled = 0;
            self.room.rest.clear();
            for ends in ends.chunks(BATCH) {
                filled += self.recent(text, start, ends, filled);
                start = ends.last().map_or(start, |end| *end as usize);
            }
            if self.room.rest.is_empty() {
                ids.extend_from_slice(&self.room.found[..filled]);
                continue;
            }
            self.known(text);
            self.merge(text);
            let Room { found, rest, many, .. } = &self.room;
            let mut done = 0;
            ids.reserve(filled + many.len());
            for rest in rest {
                append(ids, &found[done..rest.at]);
                append(ids, &many[rest.ids.0..rest.ids.1]);
                done = rest.at;
            }
            append(ids, &found[done..filled]);
        }
    }

    /// Looks all up among the recent ones; asks for the slots of the rest among the merged ones. Gives how many ids were found, behind
    /// those that are there.
    #[inline(always)]
    fn recent(&mut self, text: &[u8], first: usize, ends: &[u32], before: usize) -> usize {
        let Room { asked, found, missed, rest, .. } = &mut self.room;
        let asked = &mut asked[..ends.len()];
        self.recent.ask(text, first, ends, asked);
        let (filled, count) = self.recent.probe(asked, &mut found[before..], missed);
        rest.extend(missed.iter().take(count).map(|&(index, at)| {
            let index = index as usize;
            let start = index.checked_sub(1).map_or(first, |before| ends[before] as usize);
            let end = ends[index] as usize;
            let key = asked[index].key;
            let word = key.word(&text[start..end]);
            self.recent.merged.prefetch_slot(word, end - start);
            Rest { start, end, at: before + at as usize, key, word, ids: (0, 0) }
        }));
        filled
    }

    /// Looks up what is known of the rest.
    #[inline(always)]
    fn known(&mut self, text: &[u8]) {
        let Room { rest, unknown, copies, seen, many, .. } = &mut self.room;
        unknown.clear();
        copies.clear();
        many.clear();
        // The merged ones first: a text that is not English has more of them, and one table is asked for instead of two.
        for at in 0..rest.len() {
            let Rest { start, end, word, .. } = rest[at];
            let len = end - start;
            if let Some(other) = seen.swap(fold(word, K), at)
                && let Some(first) = rest.get(other)
                && (first.word, first.end - first.start) == (word, len)
                && (len <= SHORT || same(&text[start..end], &text[first.start..first.end]))
            {
                copies.push((at, other));
                continue;
            }
            unknown.push(at);
            if !self.recent.merged.prefetch(word, len) {
                self.words.prefetch(word, len);
            }
        }
        seen.start(rest.len());
        let mut new = 0;
        for index in 0..unknown.len() {
            let at = unknown[index];
            let Rest { start, end, key, word, .. } = rest[at];
            let piece = &text[start..end];
            let old = many.len();
            if let Some(ids) = self.recent.merged.get(word, piece) {
                many.extend(ids);
            } else {
                unknown[new] = at;
                new += 1;
                continue;
            }
            rest[at].ids = (old, many.len());
            self.recent.note(key, piece.len(), &many[old..]);
        }
        unknown.truncate(new);
        let mut new = 0;
        for index in 0..unknown.len() {
            let at = unknown[index];
            let Rest { start, end, key, word, .. } = rest[at];
            let piece = &text[start..end];
            let old = many.len();
            if let Some(id) = self.words.get_by(word, piece) {
                many.push(id);
            } else if piece.len() > lanes::MOST {
                self.merging.long(piece, many);
                self.recent.merged.note(word, piece, &many[old..]);
            } else {
                unknown[new] = at;
                new += 1;
                continue;
            }
            rest[at].ids = (old, many.len());
            self.recent.note(key, piece.len(), &many[old..]);
        }
        unknown.truncate(new);
    }

    /// Merges the new ones.
    #[inline(always)]
    fn merge(&mut self, text: &[u8]) {
        let Room { rest, unknown, copies, many, merged, lanes, .. } = &mut self.room;
        let merging = &self.merging;
        merged.clear();
        let piece_of = |rest: &Rest| &text[rest.start..rest.end];
        lanes::merge(
            merging.table(),
            lanes,
            unknown.len(),
            |piece, lane| merging.fill(piece_of(&rest[unknown[piece]]), lane),
            |piece, symbols| {
                let old = many.len();
                symbols.iter().for_each(|symbol| merging.finish(*symbol, many));
                merged.push((unknown[piece], old, many.len()));
            },
        );
        for &(at, from, to) in &*merged {
            let rest = &mut rest[at];
            let piece = piece_of(rest);
            rest.ids = (from, to);
            self.recent.merged.note(rest.word, piece, &many[from..to]);
            self.recent.note(rest.key, piece.len(), &many[from..to]);
        }
        // Of a copy of a copy the first one is known by then.
        for &(at, first) in &*copies {
            rest[at].ids = rest[first].ids;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_those_of_their_group() {
        let mut seen = Seen::default();
        seen.start(0);
        assert_eq!(
            [seen.swap(5, 0), seen.swap(5, 1), seen.swap(6, 2), seen.swap(5, 3)],
            [None, Some(0), None, Some(1)]
        );
        seen.start(4);
        assert_eq!([seen.swap(5, 0), seen.swap(5, 1), seen.swap(6, 2)], [None, Some(0), None]);
        // The numbers begin anew before they end.
        seen.start(u32::MAX as usize / 2);
        assert_eq!([seen.base, seen.slots.iter().copied().max().unwrap()], [1, 0]);
        assert_eq!([seen.swap(5, 7), seen.swap(5, 8)], [None, Some(7)]);
    }
}
