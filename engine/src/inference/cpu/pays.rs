//! When copies into huge pages pay: what they cost is measured on this machine, what they gain is known of the passes so far,
//! and how many passes may still come was said by the caller.

use bitnet_kernels::pages::cost_of_huge_pages;
use std::time::Duration;

/// A run of more tokens is bound by arithmetic, not by reading the weights.
const FEW_TOKENS: usize = 16;
/// Reading from huge pages takes so much less of a pass (2B shape, two threads).
const GAIN: f64 = 1.0 / 8.0;
/// With fewer passes to come it is not even worth measuring.
const LEAST: usize = 64;
/// What is measured on a few pages is so much too little for many, at worst.
const MARGIN: f64 = 2.0;

/// What is known of the passes of a session.
#[derive(Debug, Default)]
pub(super) struct Passes {
    /// Runs of few tokens so far.
    runs: usize,
    /// The shortest of them.
    shortest: Option<Duration>,
    /// Passes that the caller expects still, if it said.
    expected: Option<usize>,
}

impl Passes {
    /// `tokens` passes may still come.
    pub(super) fn expect(&mut self, tokens: usize) {
        self.expected = Some(tokens);
    }

    /// A run of so many tokens took so long.
    pub(super) fn ran(&mut self, tokens: usize, time: Duration) {
        if tokens < FEW_TOKENS {
            self.runs += 1;
            self.expected = self.expected.map(|left| left.saturating_sub(1));
            self.shortest = Some(self.shortest.map_or(time, |shortest| shortest.min(time)));
        }
    }

    /// Passes that may still come; where nobody said, it is what came already.
    pub(super) fn left(&self) -> usize {
        self.expected.map_or(self.runs, |left| left.max(self.runs / 2))
    }

    /// Whether it pays to spend `cost` (seconds a byte, by what a huge page costs) on bytes that each pass reads; a pass reads
    /// `read` bytes in all.
    pub(super) fn pay(&self, read: usize, cost: impl Fn(f64) -> f64) -> bool {
        let left = self.left();
        let Some(pass) = self.shortest.filter(|_| left >= LEAST) else { return false };
        let gain = pass.as_secs_f64() / read.max(1) as f64 * GAIN;
        cost_of_huge_pages().is_some_and(|huge| MARGIN * cost(huge) <= gain * left as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(expected: usize, runs: usize) -> Passes {
        let mut passes = Passes::default();
        passes.expect(expected + runs);
        // A prompt says nothing of the time that a token takes.
        passes.ran(512, Duration::from_nanos(1));
        (0..runs).for_each(|_| passes.ran(1, Duration::from_millis(80)));
        passes
    }

    /// A pass of 80 ms over 800 bytes gains 12.5 us a byte.
    #[test]
    fn copies_that_the_passes_to_come_pay_for() {
        let pays = |expected, runs, cost: f64| passes(expected, runs).pay(800, |_| cost);
        // Where the system has no huge pages, nothing pays.
        let there = cost_of_huge_pages().is_some();
        assert_eq!(pays(100, 1, 0.00062), there);
        assert!(!pays(100, 1, 0.00063), "more than half of what a hundred passes gain");
        assert!(!pays(63, 1, 0.0) && !pays(100, 0, 0.0), "too few, or none timed");
        // Nobody said: as many as came already; half as many if more was said not to come.
        let unsaid = |runs| Passes { expected: None, ..passes(0, runs) }.pay(800, |_| 0.00062);
        assert_eq!((unsaid(100), unsaid(98)), (there, false));
        assert_eq!((pays(1, 200, 0.00062), pays(1, 198, 0.00062)), (there, false));
    }

    #[test]
    fn passes_of_few_tokens_are_counted_and_timed() {
        let mut passes = Passes::default();
        for (tokens, time) in [(15, 5), (16, 1), (3, 9)] {
            passes.ran(tokens, Duration::from_millis(time));
        }
        assert_eq!((passes.left(), passes.shortest), (2, Some(Duration::from_millis(5))));
        passes.expect(10);
        assert_eq!(passes.left(), 10);
        (0..7).for_each(|_| passes.ran(1, Duration::from_millis(6)));
        assert_eq!((passes.left(), passes.runs), (4, 9), "three of ten are left, but half of what came is more");
        (0..90).for_each(|_| passes.ran(1, Duration::from_millis(6)));
        assert_eq!(passes.left(), 49);
    }
}
