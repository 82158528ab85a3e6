//! Two kernel sets on the same work, in turns.
//!
//! A pair is a slice of work on one set and then, at once, on the other; odd pairs are the other way round. What the machine
//! does beside hits both slices of a pair, or few of the pairs, so the median of the ratios stands where each time does not.
//! The plainer set is the yardstick: it is in the same process, so that no machine, clock or heat comes between. (That it
//! has not become slower itself is for the counted instructions to say, or for its own pair.)

use crate::cases::Case;
use crate::{CALLS, Paired};
use std::time::{Duration, Instant};

/// What a slice of the faster side takes at least: far more than the clock's step, far less than a time slice of the system.
const SLICE: Duration = Duration::from_micros(300);
/// What a case may take, and how many pairs it has at least and at most.
const BUDGET: Duration = Duration::from_millis(400);
const ROUNDS: std::ops::RangeInclusive<usize> = 15..=151;

fn time(case: &mut Case, calls: u32) -> Duration {
    let start = Instant::now();
    case.call(calls);
    start.elapsed()
}

/// How often both sides are called for a slice: a multiple of [`CALLS`], so that a tenth can be planted.
fn calls(under_test: &mut Case) -> (u32, Duration) {
    let mut calls = CALLS;
    loop {
        // The better of two: the first may find cold caches.
        let slice = time(under_test, calls).min(time(under_test, calls));
        if slice >= SLICE || calls >= 1 << 20 {
            return (calls, slice);
        }
        calls *= 2;
    }
}

/// Runs both in turns, `under_test` with `plant` percent more work.
pub fn run((set, under_test): (&str, &mut Case), (against, yardstick): (&str, &mut Case), plant: u32) -> Paired {
    let (calls, slice) = calls(under_test);
    let more = calls + calls * plant / 100;
    let pair = slice + time(yardstick, calls);
    let fit = BUDGET.as_nanos() / pair.as_nanos().max(1);
    // Odd, so that the median is one of them.
    let rounds = usize::try_from(fit).unwrap_or(usize::MAX).clamp(*ROUNDS.start(), *ROUNDS.end()) | 1;
    let mut ratios = Vec::with_capacity(rounds);
    for round in 0..rounds {
        let (ours, theirs) = if round % 2 == 0 {
            let ours = time(under_test, more);
            (ours, time(yardstick, calls))
        } else {
            let theirs = time(yardstick, calls);
            (time(under_test, more), theirs)
        };
        ratios.push(theirs.as_secs_f64() / ours.as_secs_f64().max(1e-9));
    }
    ratios.sort_by(f64::total_cmp);
    let at = |part: usize| ratios.get(rounds * part / 4).copied().unwrap_or_default();
    Paired {
        set: set.to_owned(),
        against: against.to_owned(),
        case: under_test.name.clone(),
        rounds,
        ratio: at(2),
        lower: at(1),
        upper: at(3),
    }
}
