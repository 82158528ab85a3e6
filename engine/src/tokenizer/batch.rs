//! The loop from pieces to ids: a batch of pieces at a time, so that the waits for memory overlap.
//!
//! First every piece is looked up in the thread's table of recent ones, without a branch. For those that are not there, the entry in
//! the table of all words is asked for, and only then looked at; then the same in the table of merged pieces. What is new is merged,
//! several pieces at once.

use super::lanes::{self, Lane};
use super::merge::PairTable;
use super::recent::{Key, Recent};
use super::words::WordMap;

/// Pieces of a batch.
const BATCH: usize = 256;

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
    /// The id of each piece of the batch, if it has one.
    found: Vec<u32>,
    /// Indices of those that the table of recent ones has no single id for.
    missed: Vec<u32>,
    /// Pieces that the table of recent ones had no single id for.
    rest: Vec<Rest>,
    /// Indices of `rest`.
    unknown: Vec<usize>,
    /// The ids of pieces of more or less than one.
    many: Vec<u32>,
    /// Index in `rest`, and a range of `many`.
    merged: Vec<(usize, usize, usize)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Rest {
    /// In the text.
    start: usize,
    end: usize,
    /// In the batch.
    index: usize,
    key: Key,
    /// In the table of words.
    word: u64,
    /// In [`Room::many`]; none if the piece is one token.
    ids: Option<(usize, usize)>,
}

/// Adds a few ids, four at a time.
#[inline]
fn append(ids: &mut Vec<u32>, new: &[u32]) {
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
        self.room.found.resize(BATCH, 0);
        self.room.missed.resize(BATCH, 0);
        let text = &text[from..];
        let mut start = 0;
        for ends in ends.chunks(BATCH) {
            self.recent(text, start, ends);
            self.known(text);
            self.merge(text);
            let Room { found, rest, many, .. } = &self.room;
            let mut done = 0;
            ids.reserve(ends.len() + many.len());
            for rest in rest {
                if let Some((from, to)) = rest.ids {
                    append(ids, &found[done..rest.index]);
                    append(ids, &many[from..to]);
                    done = rest.index + 1;
                }
            }
            ids.extend_from_slice(&found[done..ends.len()]);
            start = ends.last().map_or(start, |end| *end as usize);
        }
    }

    /// Looks all up among the recent ones; asks for the words of the rest.
    fn recent(&mut self, text: &[u8], first: usize, ends: &[u32]) {
        let Room { found, missed, rest, .. } = &mut self.room;
        let count = self.recent.probe(text, first, ends, found, missed);
        rest.clear();
        rest.extend(missed.iter().take(count).map(|&index| {
            let index = index as usize;
            let start = index.checked_sub(1).map_or(first, |before| ends[before] as usize);
            let end = ends[index] as usize;
            let key = Key::of(text, start, end);
            let word = key.word(&text[start..end]);
            self.words.prefetch(word, end - start);
            self.recent.merged.prefetch_slot(word, end - start);
            Rest { start, end, index, key, word, ids: None }
        }));
    }

    /// Looks up what is known of the rest.
    #[inline]
    fn known(&mut self, text: &[u8]) {
        let Room { found, rest, unknown, many, .. } = &mut self.room;
        unknown.clear();
        many.clear();
        for (at, rest) in rest.iter_mut().enumerate() {
            let piece = &text[rest.start..rest.end];
            match self.recent.ids(rest.key, piece.len()) {
                Some([id]) => found[rest.index] = *id,
                Some(ids) => {
                    rest.ids = Some((many.len(), many.len() + ids.len()));
                    many.extend_from_slice(ids);
                }
                None => match self.words.get_by(rest.word, piece) {
                    Some(id) => {
                        self.recent.note(rest.key, piece.len(), &[id]);
                        found[rest.index] = id;
                    }
                    None => {
                        self.recent.merged.prefetch(rest.word, piece.len());
                        unknown.push(at);
                    }
                },
            }
        }
        let mut new = 0;
        for index in 0..unknown.len() {
            let at = unknown[index];
            let Rest { start, end, key, word, .. } = rest[at];
            let piece = &text[start..end];
            let old = many.len();
            if let Some(ids) = self.recent.merged.get(word, piece) {
                many.extend(ids);
            } else if piece.len() > lanes::MOST {
                self.merging.long(piece, many);
                self.recent.merged.note(word, piece, &many[old..]);
            } else {
                unknown[new] = at;
                new += 1;
                continue;
            }
            rest[at].ids = Some((old, many.len()));
            self.recent.note(key, piece.len(), &many[old..]);
        }
        unknown.truncate(new);
    }

    /// Merges the new ones.
    fn merge(&mut self, text: &[u8]) {
        let Room { rest, unknown, many, merged, .. } = &mut self.room;
        let merging = &self.merging;
        merged.clear();
        let piece_of = |rest: &Rest| &text[rest.start..rest.end];
        lanes::merge(
            merging.table(),
            unknown.len(),
            |piece, lane| merging.fill(piece_of(&rest[unknown[piece]]), lane),
            |piece, symbols| {
                let old = many.len();
                symbols.for_each(|symbol| merging.finish(symbol, many));
                merged.push((unknown[piece], old, many.len()));
            },
        );
        for &(at, from, to) in &*merged {
            let rest = &mut rest[at];
            let piece = piece_of(rest);
            rest.ids = Some((from, to));
            self.recent.merged.note(rest.word, piece, &many[from..to]);
            self.recent.note(rest.key, piece.len(), &many[from..to]);
        }
    }
}
