//! Several short pieces merged at once: while one waits for memory, the others go on.
//!
//! The order of merges is that of [`super::merge`], piece by piece: of all pairs the one of lowest rank, of equal ranks the leftmost.

use super::merge::{Asked, Merge, PairTable};

/// Most symbols of a piece.
pub(super) const MOST: usize = 64;
/// Pieces at once.
const LANES: usize = 16;

/// Ranks below fit into a number with their place; others are none. (No vocabulary has so many merges.)
pub(super) const RANKS: u32 = (i32::MAX as usize / MOST) as u32;
/// No merge.
const NEVER: i32 = i32::MAX;

/// Memory of [`merge`], to be used again.
#[derive(Debug, Default)]
pub(super) struct Lanes(Vec<Lane>);

/// A piece that is being merged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lane {
    /// Which piece.
    piece: usize,
    symbols: [u32; MOST],
    /// Of neighbours, where the left one is: the rank of their merge above that place, and what they become. A vector of signed
    /// numbers has its least one found soon by any CPU.
    ranks: [i32; MOST],
    becomes: [u32; MOST],
    len: usize,
    /// Which places still have a symbol.
    live: u64,
    /// Merges that are being looked up, and the places of their left symbols.
    asked: [(Asked, u8); 2],
}

impl Lane {
    /// Adds a symbol, and what the one before becomes with it.
    #[inline]
    pub(super) fn push(&mut self, symbol: u32, with_last: Merge) {
        if let Some(last) = self.len.checked_sub(1) {
            self.note(last, with_last);
        }
        self.symbols[self.len] = symbol;
        self.len += 1;
    }

    /// The key of a merge at a place, and keeps what it makes.
    #[inline(always)]
    fn key(&mut self, at: usize, merge: Merge) -> i32 {
        self.becomes[at] = merge.id;
        if merge.rank < RANKS { (merge.rank as usize * MOST + at) as i32 } else { NEVER }
    }

    #[inline]
    fn note(&mut self, at: usize, merge: Merge) {
        self.ranks[at] = self.key(at, merge);
    }

    /// The least of all keys.
    #[inline(always)]
    fn least(&self) -> i32 {
        const WIDE: usize = 16;
        let (ranks, _) = self.ranks.as_chunks::<WIDE>();
        let mut least = ranks[0];
        for ranks in &ranks[1..self.len.div_ceil(WIDE).max(1)] {
            for (least, rank) in least.iter_mut().zip(ranks) {
                *least = (*least).min(*rank);
            }
        }
        least.into_iter().fold(NEVER, i32::min)
    }

    /// One merge, if there is one. What its neighbours become is asked for, and looked at with the next. There is hardly a branch: which
    /// way one goes, no CPU can guess. And no key is read together with others just after it was written, for which a CPU would wait: those
    /// of the neighbours are [`NEVER`] until they are known.
    #[inline(always)]
    fn step(&mut self, table: &PairTable) -> bool {
        let fresh = self.asked.map(|(asked, place)| {
            let place = usize::from(place) % MOST;
            (place, self.key(place, table.answer(asked)))
        });
        let best = fresh.iter().fold(self.least(), |least, (_, key)| least.min(*key));
        if best == NEVER {
            return false;
        }
        for (place, key) in fresh {
            self.ranks[place] = key;
        }
        let at = best as usize % MOST;
        let above = self.live & (!1 << at);
        let gone = above.trailing_zeros() as usize % MOST;
        self.symbols[at] = self.becomes[at];
        self.live &= !(1 << gone);
        let above = above & above.wrapping_sub(1);
        let below = self.live & ((1 << at) - 1);
        let after = above.trailing_zeros() as usize % MOST;
        let before = if below == 0 { gone } else { below.ilog2() as usize % MOST };
        for place in [gone, at, before] {
            self.ranks[place] = NEVER;
        }
        let [one, two, three] = [before, at, after].map(|place| self.symbols[place]);
        self.asked = [(table.ask(two, three, above != 0), at as u8), (table.ask(one, two, below != 0), before as u8)];
        true
    }
}

/// Merges so many pieces. `fill` puts the symbols of a piece, [`MOST`] at most, into an empty lane; `done` gets what is left of it. The
/// pieces are done in any order.
#[inline(always)]
pub(super) fn merge(
    table: &PairTable,
    lanes: &mut Lanes,
    pieces: usize,
    mut fill: impl FnMut(usize, &mut Lane),
    mut done: impl FnMut(usize, &[u32]),
) {
    if pieces == 0 {
        return;
    }
    let lanes = &mut lanes.0;
    lanes.resize_with(LANES, || Lane {
        piece: usize::MAX,
        symbols: [0; MOST],
        ranks: [NEVER; MOST],
        becomes: [0; MOST],
        len: 0,
        live: 0,
        asked: [(table.nothing(), 0); 2],
    });
    let mut next = 0;
    let mut start = |lane: &mut Lane| {
        if next == pieces {
            return false;
        }
        lane.ranks = [NEVER; MOST];
        lane.len = 0;
        lane.piece = next;
        fill(next, lane);
        lane.live = ((1u128 << lane.len) - 1) as u64;
        // The last place has no neighbour behind it.
        lane.asked = [(table.nothing(), MOST as u8 - 1); 2];
        next += 1;
        true
    };
    let mut busy = lanes.iter_mut().map(&mut start).filter(|started| *started).count();
    // Those that are busy in front.
    let mut order: [usize; LANES] = std::array::from_fn(|lane| lane);
    while busy > 0 {
        let mut at = 0;
        while at < busy {
            let lane = &mut lanes[order[at]];
            if lane.step(table) {
                at += 1;
                continue;
            }
            let (mut live, mut count) = (lane.live, 0);
            while live != 0 {
                // Each moves to a place in front of it, or stays.
                lane.symbols[count % MOST] = lane.symbols[live.trailing_zeros() as usize % MOST];
                live &= live - 1;
                count += 1;
            }
            done(lane.piece, &lane.symbols[..count]);
            if start(lane) {
                // What was written for it is on its way to the cache.
                at += 1;
            } else {
                busy -= 1;
                order.swap(at, busy);
            }
        }
    }
}
