//! Merging a long piece rank by rank: all places of one rank, from left to right, then those of the next. A piece of one character again
//! and again has few ranks, so that nearly all of the work is going through lists.
//!
//! The order is that of [`super::merge`]: where a merge makes a pair of a lower rank, that goes first, and the list is gone on with
//! later; what comes to a list out of order is kept in a heap beside it.

use super::merge::{END, Merge, NO_RANK, NONE, PairTable, Scratch};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// The places of a rank. Some may be stale: there the rank is another now.
#[derive(Default)]
struct Level {
    rank: u32,
    /// Ascending.
    places: Vec<u32>,
    /// Of `places`, how many are done.
    done: usize,
    /// Those that came too late for that.
    late: BinaryHeap<Reverse<u32>>,
    /// Whether its rank is in [`Levels::ranks`], or being merged.
    waits: bool,
}

impl Level {
    /// What [`Level::next`] will give.
    #[inline]
    fn peek(&self) -> Option<u32> {
        let late = self.late.peek().map(|late| late.0);
        let place = self.places.get(self.done).copied();
        late.into_iter().chain(place).min()
    }

    #[inline]
    fn next(&mut self) -> Option<u32> {
        let place = self.places.get(self.done).copied();
        match self.late.peek() {
            Some(&Reverse(late)) if place.is_none_or(|place| late < place) => {
                self.late.pop();
                Some(late)
            }
            _ => {
                self.done += usize::from(place.is_some());
                place
            }
        }
    }
}

#[derive(Default)]
struct Levels {
    levels: Vec<Level>,
    of_rank: HashMap<u32, usize>,
    ranks: BinaryHeap<Reverse<u32>>,
}

impl Levels {
    /// Index of a rank's level; none for no rank.
    fn of(&mut self, rank: u32) -> usize {
        if rank == NO_RANK {
            return usize::MAX;
        }
        *self.of_rank.entry(rank).or_insert_with(|| {
            self.levels.push(Level { rank, ..Level::default() });
            self.levels.len() - 1
        })
    }

    #[inline]
    fn push(&mut self, level: usize, place: u32) {
        let Some(level) = self.levels.get_mut(level) else { return };
        if !std::mem::replace(&mut level.waits, true) {
            self.ranks.push(Reverse(level.rank));
        }
        match level.places.last() {
            Some(&last) if last > place => level.late.push(Reverse(place)),
            _ => level.places.push(place),
        }
    }
}

/// What was asked last, and its rank's level: text of one kind asks the same again.
#[derive(Clone, Copy)]
struct Last {
    pair: (u32, u32),
    merge: Merge,
    level: usize,
}

/// Merges `symbols` in place; `scratch.merges[i]` is what `symbols[i]` and `symbols[i + 1]` become.
pub(super) fn merge(table: &PairTable, symbols: &mut Vec<u32>, scratch: &mut Scratch) {
    scratch.link(symbols.len());
    let mut levels = Levels::default();
    let mut last = (NO_RANK, usize::MAX);
    for (at, merge) in (0..).zip(&scratch.merges).filter(|(_, merge)| merge.rank != NO_RANK) {
        if last.0 != merge.rank {
            last = (merge.rank, levels.of(merge.rank));
        }
        levels.push(last.1, at);
    }
    let mut lasts = [Last { pair: (u32::MAX, u32::MAX), merge: NONE, level: usize::MAX }; 2];
    while let Some(Reverse(rank)) = levels.ranks.pop() {
        let level = levels.of(rank);
        let mut lower = false;
        while !lower && let Some(at) = levels.levels[level].next() {
            if scratch.merges[at as usize].rank != rank {
                continue;
            }
            scratch.join(symbols, at as usize);
            let (before, after) = (scratch.prev[at as usize], scratch.next[at as usize]);
            for ((left, right), last) in [(before, at), (at, after)].into_iter().zip(&mut lasts) {
                if left == END || right == END {
                    continue;
                }
                let pair = (symbols[left as usize], symbols[right as usize]);
                if last.pair != pair {
                    let merge = table.find(pair.0, pair.1);
                    *last = Last { pair, merge, level: levels.of(merge.rank) };
                }
                // If the one behind merges next, what it is now is never joined.
                if left == at && !lower && last.merge.rank > rank {
                    let next = levels.levels[level].peek();
                    if next == Some(after) && scratch.merges[after as usize].rank == rank {
                        continue;
                    }
                }
                scratch.merges[left as usize] = last.merge;
                levels.push(last.level, left);
                lower |= last.merge.rank < rank;
            }
        }
        if lower {
            levels.ranks.push(Reverse(rank));
        } else {
            let done = &mut levels.levels[level];
            (done.done, done.waits) = (0, false);
            done.places.clear();
        }
    }
    scratch.compact(symbols);
}

#[cfg(test)]
mod tests {
    use super::super::lanes;
    use super::super::merge::{PairTableBuilder, merge_all};
    use super::*;
    use proptest::prelude::*;

    /// The rule of [`super::super::merge`], word for word.
    fn naive(table: &PairTable, symbols: &mut Vec<u32>) {
        loop {
            let pairs = symbols.windows(2).enumerate().filter_map(|(at, w)| Some((table.get(w[0], w[1])?, at)));
            let Some((merge, at)) = pairs.min_by_key(|(merge, at)| (merge.rank, *at)) else { return };
            symbols[at] = merge.id;
            symbols.remove(at + 1);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        /// Any merges, most of them in an order that no training gives: equal ranks, lower ranks for what higher ones make.
        #[test]
        fn every_way_to_merge_is_the_naive_one(
            merges in prop::collection::vec((0u32..7, 0u32..7, 0u32..12, 0u32..7), 0..24),
            pieces in prop::collection::vec(prop::collection::vec(0u32..4, 0..=lanes::MOST), 1..20),
            long in prop::collection::vec(0u32..3, 49..200),
        ) {
            let mut table = PairTableBuilder::with_capacity(merges.len());
            for (left, right, rank, id) in merges {
                table.add(left, right, Merge { rank, id });
            }
            let (table, _) = table.finish();
            let merged = |symbols: &[u32]| {
                let mut symbols = symbols.to_vec();
                naive(&table, &mut symbols);
                symbols
            };
            let wanted: Vec<Vec<u32>> = pieces.iter().map(|piece| merged(piece)).collect();
            let mut scratch = Scratch::default();
            for (piece, wanted) in pieces.iter().chain([&long]).zip(wanted.iter().chain([&merged(&long)])) {
                let mut symbols = piece.clone();
                merge_all(&table, &mut symbols, &mut scratch);
                prop_assert_eq!(&symbols, wanted);
                if piece.len() > 1 {
                    let mut symbols = piece.clone();
                    scratch.merges.clear();
                    scratch.merges.extend(piece.windows(2).map(|w| table.find(w[0], w[1])));
                    merge(&table, &mut symbols, &mut scratch);
                    prop_assert_eq!(&symbols, wanted, "rank by rank");
                }
            }
            let mut found = vec![None; pieces.len()];
            lanes::merge(
                &table,
                &mut lanes::Lanes::default(),
                pieces.len(),
                |index, lane| {
                    let mut last = None;
                    for &symbol in &pieces[index] {
                        lane.push(symbol, last.replace(symbol).map_or(NONE, |last| table.find(last, symbol)));
                    }
                },
                |index, symbols| assert!(found[index].replace(symbols.to_vec()).is_none()),
            );
            let found: Option<Vec<Vec<u32>>> = found.into_iter().collect();
            prop_assert_eq!(found, Some(wanted), "several at once");
        }
    }
}
