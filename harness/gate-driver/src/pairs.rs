//! Two kernel sets on the same work, in turns.
//!
//! A pair is a slice of work on one set and then, at once, on the other; odd pairs are the other way round. What the machine
//! does beside hits both slices of a pair, or few of the pairs: the faster half of them is kept, since an interruption only ever takes
//! time, and the median of their ratios stands where each time does not.
//! The plainer set is the yardstick: it is in the same process and works on the same memory, so that no machine, clock, heat or buffer
//! comes between. (That it has not become slower itself is for the counted instructions to say, or for its own pair.)
//!
//! Where the stack lies decides how fast a kernel with many spilled registers is: the same program has shown ratios of 0.39 and
//! of 0.73 for one case, by 16 bytes. A store also delays a load of another buffer at the same place of its page. So pairs go through
//! [`PLACES`], and the result is the geometric mean of the medians of the places: it depends on no single one.

use crate::cases::Case;
use crate::{CALLS, Paired};
use bitnet_kernels::Kernels;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// What a slice takes at least: a thousand times the clock's step (some tens of nanoseconds), so that it adds a thousandth at most; and
/// less than a tenth of the millisecond or more between two ticks of the system, so that most pairs meet none.
const SLICE: Duration = Duration::from_micros(60);
/// What a case may take if it is slow: the scalar set takes a millisecond for some, and a process should end in some seconds.
const BUDGET: Duration = Duration::from_millis(60);
/// How many pairs a case has at each place. Half of them are kept, so that three at least have a median. More than seven of eight places
/// would not help: most of the spread is between processes.
const ROUNDS: std::ops::RangeInclusive<usize> = 6..=14;

/// Moves the stack down and does the work there.
type Place = fn(&mut dyn FnMut());

/// Every alignment that a stack can have within two cache lines (a call keeps 16 bytes), in eight parts of a page.
const PLACES: [Place; 8] = [
    below::<272>,
    below::<800>,
    below::<1328>,
    below::<1856>,
    below::<2384>,
    below::<2912>,
    below::<3440>,
    below::<3968>,
];

#[inline(never)]
fn below<const BYTES: usize>(work: &mut dyn FnMut()) {
    let taken = [0u8; BYTES];
    black_box(&taken);
    work();
    // Still in use here, so that the call above is not the function's end, which would give the stack back before.
    black_box(&taken);
}

/// A side of a pair.
struct Side {
    set: &'static dyn Kernels,
    /// Of a slice.
    calls: u32,
    /// A slice, about.
    slice: Duration,
}

impl Side {
    /// The calls of a slice: a multiple of `step`.
    fn new(case: &mut Case, set: &'static dyn Kernels, step: u32) -> Self {
        let mut side = Self { set, calls: step, slice: Duration::ZERO };
        loop {
            // The better of two: the first may find cold caches.
            side.slice = side.time(case, 0).min(side.time(case, 0));
            if side.slice >= SLICE || side.calls >= 1 << 20 {
                return side;
            }
            side.calls *= 2;
        }
    }

    fn time(&self, case: &mut Case, more: u32) -> Duration {
        let start = Instant::now();
        case.call(self.set, self.calls + more);
        start.elapsed()
    }
}

/// Runs a case by both sets in turns, by the first with `plant` percent more work.
pub fn run(
    case: &mut Case,
    (set, fast): (&str, &'static dyn Kernels),
    (against, plain): (&str, &'static dyn Kernels),
    plant: u32,
) -> Paired {
    // So that a tenth can be planted. Slices of the other side need not have as many calls.
    let (ours, theirs) = (Side::new(case, fast, CALLS), Side::new(case, plain, 1));
    let more = ours.calls * plant / 100;
    let calls = f64::from(ours.calls) / f64::from(theirs.calls);
    let fit = (BUDGET.as_nanos() / (ours.slice + theirs.slice).as_nanos().max(1)) as usize / PLACES.len();
    let rounds = fit.clamp(*ROUNDS.start(), *ROUNDS.end());
    let mut least = [Duration::MAX; 2];
    let (mut all, mut log) = (Vec::with_capacity(rounds * PLACES.len()), 0.0);
    for place in PLACES {
        let mut pairs = Vec::with_capacity(rounds);
        for round in 0..rounds {
            place(&mut || {
                let (ours, theirs) = if round % 2 == 0 {
                    let ours = ours.time(case, more);
                    (ours, theirs.time(case, 0))
                } else {
                    let theirs = theirs.time(case, 0);
                    (ours.time(case, more), theirs)
                };
                let ratio = calls * theirs.as_secs_f64().max(1e-9) / ours.as_secs_f64().max(1e-9);
                pairs.push((ours + theirs, ratio));
                least = [least[0].min(ours), least[1].min(theirs)];
            });
        }
        pairs.sort_by_key(|(time, _)| *time);
        let mut ratios: Vec<f64> = pairs[..rounds.div_ceil(2)].iter().map(|(_, ratio)| *ratio).collect();
        log += part(&mut ratios, 2).ln();
        all.append(&mut ratios);
    }
    Paired {
        set: set.to_owned(),
        against: against.to_owned(),
        case: case.name.clone(),
        rounds: rounds * PLACES.len(),
        ratio: (log / PLACES.len() as f64).exp(),
        lower: part(&mut all, 1),
        upper: part(&mut all, 3),
        nanoseconds: [
            least[0].as_secs_f64() * 1e9 / f64::from(ours.calls + more),
            least[1].as_secs_f64() * 1e9 / f64::from(theirs.calls),
        ],
    }
}

/// The value that so many quarters of the values lie below.
fn part(values: &mut [f64], quarters: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() * quarters / 4).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_every_one_of_two_lines_and_spread_over_a_page() {
        let mut found = Vec::new();
        // One piece of code for all places: a compiler that knows the places makes another one for the first, with another frame.
        let mut look = || {
            let here = 0u8;
            found.push(black_box(&raw const here) as usize);
        };
        for place in black_box(PLACES) {
            place(black_box(&mut look));
        }
        assert!(found.windows(2).all(|pair| pair[0].abs_diff(pair[1]) == 528), "{found:x?}");
        let mut within: Vec<usize> = found.iter().map(|at| at % 128 / 16).collect();
        within.sort_unstable();
        assert_eq!(within, [0, 1, 2, 3, 4, 5, 6, 7], "{found:x?}");
    }

    #[test]
    fn quarters_are_of_the_sorted_values() {
        let mut values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!([1, 2, 3].map(|quarters| part(&mut values, quarters)), [2.0, 3.0, 4.0]);
        assert_eq!(part(&mut [], 2), 0.0);
    }
}
