//! Merging a long piece rank by rank: all places of one rank, from left to right, then the next rank. A piece of one character
//! again and again has few ranks, and no piece needs a heap of its places.
//!
//! That is the order of [`super::merge`] as long as no merge makes a pair of its own rank or a lower one. Lists of merges that were
//! learned have no such pairs, but where two merges make one token, or two tokens have one score, there may be: then the heap goes on.

use super::merge::{END, Merge, NO_RANK, NONE, PairTable, Scratch, heap};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// Places by rank.
#[derive(Default)]
struct Levels {
    ranks: BinaryHeap<Reverse<u32>>,
    /// Index into `places`.
    of_rank: HashMap<u32, usize>,
    places: Vec<Vec<u32>>,
    /// Lists that are empty again.
    free: Vec<usize>,
}

/// What was asked last, and where its rank's places are: text of one kind asks the same again.
#[derive(Clone, Copy)]
struct Last {
    pair: (u32, u32),
    merge: Merge,
    places: usize,
}

const NOTHING: Last = Last { pair: (u32::MAX, u32::MAX), merge: NONE, places: usize::MAX };

impl Levels {
    fn places(&mut self, rank: u32) -> usize {
        *self.of_rank.entry(rank).or_insert_with(|| {
            self.ranks.push(Reverse(rank));
            self.free.pop().unwrap_or_else(|| {
                self.places.push(Vec::new());
                self.places.len() - 1
            })
        })
    }

    /// The lowest rank and its places, ascending.
    fn next(&mut self) -> Option<(u32, usize, Vec<u32>)> {
        let Reverse(rank) = self.ranks.pop()?;
        let index = self.of_rank.remove(&rank)?;
        let mut places = std::mem::take(&mut self.places[index]);
        if !places.is_sorted() {
            places.sort_unstable();
        }
        Some((rank, index, places))
    }
}

/// Merges `symbols` in place; `scratch.merges[i]` is what `symbols[i]` and `symbols[i + 1]` become.
pub(super) fn merge(table: &PairTable, symbols: &mut Vec<u32>, scratch: &mut Scratch) {
    scratch.link(symbols.len());
    if !levels(table, symbols, scratch) {
        heap(table, symbols, scratch);
    }
    scratch.compact(symbols);
}

/// Whether that came to an end.
fn levels(table: &PairTable, symbols: &mut [u32], scratch: &mut Scratch) -> bool {
    let mut levels = Levels::default();
    let mut last = (NO_RANK, usize::MAX);
    for (at, merge) in (0..).zip(&scratch.merges) {
        if merge.rank != NO_RANK {
            if last.0 != merge.rank {
                last = (merge.rank, levels.places(merge.rank));
            }
            levels.places[last.1].push(at);
        }
    }
    while let Some((rank, index, mut places)) = levels.next() {
        // Lists that were found before may be others' now.
        let mut lasts = [NOTHING; 2];
        for &at in &places {
            if scratch.merges[at as usize].rank != rank {
                continue;
            }
            scratch.join(symbols, at as usize);
            let (before, after) = (scratch.prev[at as usize], scratch.next[at as usize]);
            for ((left, right), last) in [(at, after), (before, at)].into_iter().zip(&mut lasts) {
                if left == END || right == END {
                    continue;
                }
                let pair = (symbols[left as usize], symbols[right as usize]);
                if last.pair != pair {
                    let merge = table.find(pair.0, pair.1);
                    let places = if merge.rank == NO_RANK { usize::MAX } else { levels.places(merge.rank) };
                    *last = Last { pair, merge, places };
                }
                scratch.merges[left as usize] = last.merge;
                if last.merge.rank <= rank {
                    return false;
                }
                if last.merge.rank != NO_RANK {
                    levels.places[last.places].push(left);
                }
            }
        }
        places.clear();
        levels.places[index] = places;
        levels.free.push(index);
    }
    true
}
