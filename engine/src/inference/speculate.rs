//! Guessing ahead: tokens that followed the same words before are computed together with the token that is due.
//!
//! A batch gives every position the logits that it has alone, bit for bit. So a draft is right exactly if it is what the
//! sampler draws at its position, with the same state of its generator and the same history: the text is that of no
//! guessing at all, also where it is drawn at random. What was guessed wrongly is forgotten by the cache; nobody else sees
//! it (observers depend on [`Session::forward_observed`](super::Session::forward_observed), which guesses nothing).
//!
//! A pass over the weights costs nearly the same for one token as for a few, so a right draft is a token for almost nothing
//! and a wrong one is a little lost. How much is drafted follows from how often drafts were right of late, and from what a
//! token more costs in a pass: an assumption, or with [`AUTO_DRAFT`] what was measured in the passes so far.

use super::InferenceError;
use std::collections::HashMap;
use std::time::Duration;

/// Most tokens of a draft.
pub const MAX_DRAFT: usize = 64;
/// In place of a number of tokens: as many as pay, by what passes with and without drafts take on this machine.
pub const AUTO_DRAFT: usize = usize::MAX;
/// The most of those.
const MOST_AUTO: usize = 16;
/// The longest run of tokens that is looked up, and the shortest.
const LONGEST: usize = 4;
const SHORTEST: usize = 2;

/// What guessing ahead came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Speculation {
    /// Passes that carried a draft.
    pub batches: usize,
    /// Tokens that were guessed.
    pub drafted: usize,
    /// Those of them that were drawn, each a pass that was not needed.
    pub accepted: usize,
}

/// Makes drafts from the tokens so far.
#[derive(Debug)]
pub(super) struct Drafts {
    most: usize,
    /// The index of the token that followed a run last. Shorter runs are filled up with an id that no token has.
    next: HashMap<[u32; LONGEST], usize>,
    /// Tokens that are in `next`.
    seen: usize,
    pace: Pace,
    pub(super) speculation: Speculation,
}

impl Drafts {
    /// Drafts of up to `most` tokens; 0 makes none, [`AUTO_DRAFT`] as many as pay.
    pub(super) fn new(most: usize) -> Result<Self, InferenceError> {
        let (most, pace) = match most {
            AUTO_DRAFT => (MOST_AUTO, Pace::measuring()),
            most => (most, Pace::default()),
        };
        if most > MAX_DRAFT {
            return Err(InferenceError::DraftTooLong { tokens: most, most: MAX_DRAFT });
        }
        Ok(Self { most, next: HashMap::new(), seen: 0, pace, speculation: Speculation::default() })
    }

    /// Appends at most `room` tokens to `out` that may follow `history`, which only grows between calls: those that followed
    /// the same last words before, the more words the better, the newest first. Returns how many.
    pub(super) fn draft(&mut self, history: &[u32], room: usize, out: &mut Vec<u32>) -> usize {
        if self.most == 0 {
            return 0;
        }
        self.learn(history);
        let length = self.pace.length(self.most).min(room);
        let followed = || (SHORTEST..=LONGEST).rev().find_map(|n| self.next.get(&last(history, n)?).copied());
        let Some(from) = followed().filter(|_| length > 0) else { return 0 };
        let start = out.len();
        for at in from..from + length {
            // Past the end the draft itself goes on: a repetition that is shorter than the draft.
            let token = history.get(at).copied().unwrap_or_else(|| out[start + at - history.len()]);
            out.push(token);
        }
        length
    }

    /// Takes note of the runs that were followed by something since.
    fn learn(&mut self, history: &[u32]) {
        for at in self.seen..history.len() {
            for key in (SHORTEST..=LONGEST).filter_map(|n| last(&history[..at], n)) {
                self.next.insert(key, at);
            }
        }
        self.seen = history.len();
    }

    /// How many tokens of a draft were drawn, after a pass of one token and the drafted ones that took `time`.
    pub(super) fn judge(&mut self, drafted: usize, accepted: usize, time: Duration) {
        self.pace.took(drafted, time);
        if drafted > 0 {
            self.speculation.batches += 1;
            self.speculation.drafted += drafted;
            self.speculation.accepted += accepted;
            self.pace.judge(drafted, accepted);
        }
    }
}

/// The last `n` tokens as a key.
fn last(history: &[u32], n: usize) -> Option<[u32; LONGEST]> {
    let mut key = [u32::MAX; LONGEST];
    key[..n].copy_from_slice(&history[history.len().checked_sub(n)?..]);
    Some(key)
}

/// How long drafts are.
///
/// If each token is right with the probability p, the k-th of a draft is worth its place while p^k is more than what a
/// token more costs in a pass. Below one token drafting rests, and then tries one.
#[derive(Debug)]
struct Pace {
    /// Drafted tokens that were right, and those that could be: up to the first wrong one. Old ones count less.
    right: f64,
    tried: f64,
    /// Passes without a draft that are still to come, and how many come after the next failure.
    rest: usize,
    pause: usize,
    /// What a token more costs in a pass, in passes.
    cost: f64,
    /// Seconds of a pass without a draft, where times are measured.
    plain: Option<f64>,
    measures: bool,
}

/// What a token more costs in a pass, in passes: an assumption, and rather too much than too little.
const COST: f64 = 0.25;
/// What is left of the past after a draft.
const MEMORY: f64 = 0.875;
/// Passes without a draft when drafts do not pay.
const REST: usize = 32;
/// The most of them where costs are measured: one try is then at most a two-hundredth of what passes by.
const LONGEST_REST: usize = 512;
/// Tries cost no more than this of the passes between them.
const TRIES: f64 = 0.01;

impl Default for Pace {
    fn default() -> Self {
        Self { right: 3.0, tried: 4.0, rest: 0, pause: REST, cost: COST, plain: None, measures: false }
    }
}

impl Pace {
    /// One that measures costs, and expects less luck at first: a text of no repetition is to lose little before that is known.
    fn measuring() -> Self {
        Self { right: 1.0, tried: 2.0, measures: true, ..Self::default() }
    }

    /// Tokens that are worth guessing, as far as is known.
    fn worth(&self, most: usize) -> usize {
        let p = self.right / self.tried;
        let mut share = 1.0;
        (0..most)
            .take_while(|_| {
                share *= p;
                share >= self.cost
            })
            .count()
    }

    /// Length of the next draft; asked once for each pass.
    fn length(&mut self, most: usize) -> usize {
        if self.rest > 0 {
            self.rest -= 1;
            return 0;
        }
        if self.measures && self.plain.is_none() {
            return 0;
        }
        self.worth(most).max(1)
    }

    /// A pass took so long.
    fn took(&mut self, drafted: usize, time: Duration) {
        if !self.measures {
            return;
        }
        let (time, old) = (time.as_secs_f64(), |old: f64, new: f64| MEMORY * old + (1.0 - MEMORY) * new);
        match self.plain {
            _ if drafted == 0 => self.plain = Some(self.plain.map_or(time, |plain| old(plain, time))),
            Some(plain) if plain > 0.0 => {
                // A thread that loses its processor in one pass tells nothing about the next ones.
                let cost = ((time / plain - 1.0) / drafted as f64).clamp(0.02, 1.0);
                self.cost = old(self.cost, cost);
            }
            _ => {}
        }
    }

    fn judge(&mut self, drafted: usize, accepted: usize) {
        self.right = self.right * MEMORY + accepted as f64;
        self.tried = self.tried * MEMORY + (accepted + usize::from(accepted < drafted)) as f64;
        if self.worth(1) == 0 {
            self.rest = self.pause;
            if self.measures {
                self.pause = (2 * self.pause).min(LONGEST_REST);
            }
        } else if self.measures {
            self.pause = REST.max((self.cost / TRIES) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(history: &[u32], most: usize) -> Vec<u32> {
        let mut drafts = Drafts::new(most).unwrap();
        drafts.pace.right = drafts.pace.tried;
        let mut out = vec![7, 7];
        let made = drafts.draft(history, 100, &mut out);
        assert_eq!((&out[..2], out.len()), (&[7, 7][..], 2 + made));
        out.split_off(2)
    }

    #[test]
    fn what_followed_the_same_words_last() {
        assert_eq!(draft(&[1, 2, 3, 4, 9, 1, 2], 2), [3, 4]);
        assert_eq!(draft(&[1, 2, 3, 9, 1, 2, 4, 9, 1, 2], 1), [4], "the newest");
        assert_eq!(draft(&[5, 1, 2, 3, 9, 6, 1, 2, 4, 9, 5, 1, 2], 1), [3], "more words before a newer place");
        assert_eq!(draft(&[1, 2, 3, 9, 2], 4), [] as [u32; 0], "one word is too little");
        assert_eq!(draft(&[1, 2, 3, 4], 4), [] as [u32; 0]);
        assert_eq!(draft(&[], 4), [] as [u32; 0]);
        assert_eq!(draft(&[1, 2, 3, 1, 2, 3, 1, 2], 7), [3, 1, 2, 3, 1, 2, 3], "a short circle goes on");
        assert_eq!(draft(&[4, 4, 4], 3), [4, 4, 4]);
        assert_eq!(draft(&[1, 2, 3, 1, 2], 0), [] as [u32; 0]);
    }

    #[test]
    fn no_more_than_there_is_room_for() {
        let mut drafts = Drafts::new(8).unwrap();
        let mut out = Vec::new();
        assert_eq!(drafts.draft(&[1, 2, 3, 4, 1, 2], 0, &mut out), 0);
        assert_eq!((drafts.draft(&[1, 2, 3, 4, 1, 2], 1, &mut out), &out[..]), (1, &[3][..]));
        let message = Drafts::new(MAX_DRAFT + 1).unwrap_err().to_string();
        assert!(message.contains("65") && message.contains("64") && message.contains("--speculate"), "{message}");
        assert!(Drafts::new(MAX_DRAFT).is_ok());
    }

    /// The index that grows with the text is the one that is made of all of it.
    #[test]
    fn learning_by_and_by_is_learning_at_once() {
        let history: Vec<u32> = (0..500u32).map(|i| i * i / 7 % 5).collect();
        let mut drafts = Drafts::new(3).unwrap();
        for end in 0..history.len() {
            let (mut one, mut other) = (Vec::new(), Vec::new());
            drafts.pace = Pace::default();
            drafts.draft(&history[..end], 3, &mut one);
            Drafts::new(3).unwrap().draft(&history[..end], 3, &mut other);
            assert_eq!(one, other, "{end}");
        }
        assert!(drafts.next.len() < 5usize.pow(4) + 5usize.pow(3) + 5usize.pow(2));
    }

    #[test]
    fn drafts_follow_their_luck() {
        let mut pace = Pace::default();
        let first = pace.length(16);
        assert!((2..16).contains(&first), "{first}");
        for _ in 0..8 {
            let length = pace.length(16);
            pace.judge(length, length);
        }
        assert_eq!(pace.length(16), 16, "always right");
        let mut lost = 0;
        for _ in 0..1000 {
            let length = pace.length(16);
            if length > 0 {
                pace.judge(length, 0);
                lost += length;
            }
        }
        assert!((30..250).contains(&lost), "{lost} tokens in 1,000 passes without luck");
        for _ in 0..5 * REST {
            let length = pace.length(16);
            if length > 0 {
                pace.judge(length, length);
            }
        }
        assert!(pace.length(16) > 4, "luck comes back");
    }

    /// What a text of 4,000 passes takes where the k-th of a draft is right with the probability `luck` and costs `cost`
    /// passes, in passes without drafts.
    fn taken(luck: f64, cost: f64) -> f64 {
        let mut pace = Pace::measuring();
        let (mut seed, mut made, mut time) = (7u64, 0, 0.0);
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 11) as f64 / (1u64 << 53) as f64
        };
        while made < 4000 {
            let drafted = pace.length(MOST_AUTO);
            let accepted = (0..drafted).take_while(|_| random() < luck).count();
            // Every twentieth pass loses its processor for a while.
            let noise = if random() < 0.05 { 3.0 } else { 1.0 };
            let pass = 1.0 + cost * drafted as f64;
            pace.took(drafted, Duration::from_secs_f64(1e-3 * pass * noise));
            if drafted > 0 {
                pace.judge(drafted, accepted);
            }
            time += pass;
            made += 1 + accepted;
        }
        time / made as f64
    }

    #[test]
    fn measured_drafts_never_lose_and_gain_where_they_can() {
        for cost in [0.02, 0.1, 0.25, 0.5, 1.0] {
            for luck in [0.0, 0.05, 0.2, 0.5, 0.9, 1.0] {
                let taken = taken(luck, cost);
                assert!(taken < 1.02, "luck {luck} at {cost}: {taken}");
            }
        }
        assert!(taken(0.9, 0.1) < 0.4 && taken(0.5, 0.05) < 0.7 && taken(1.0, 0.5) < 0.7);
    }

    #[test]
    fn nothing_is_drafted_before_a_pass_was_timed() {
        let mut drafts = Drafts::new(AUTO_DRAFT).unwrap();
        let (history, mut out) = ([1, 2, 3, 1, 2], Vec::new());
        assert_eq!(drafts.draft(&history, 8, &mut out), 0);
        drafts.judge(0, 0, Duration::from_millis(1));
        assert!(drafts.draft(&history, 8, &mut out) > 0);
    }

    fn near(found: [f64; 3], expected: [f64; 3]) {
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?} {expected:?}");
    }

    #[test]
    fn a_draft_is_as_long_as_its_last_token_is_worth() {
        let pace = |right, tried, cost| Pace { right, tried, cost, ..Pace::default() };
        // Powers of 3/4 are more than a quarter up to the fourth; the second power of 1/2 is a quarter.
        assert_eq!((pace(3.0, 4.0, 0.25).worth(16), pace(3.0, 4.0, 0.25).worth(2)), (4, 2));
        assert_eq!((pace(2.0, 4.0, 0.25).worth(16), pace(1.0, 5.0, 0.25).worth(16)), (2, 0));
        assert_eq!((pace(4.0, 4.0, 1.0).worth(16), pace(0.0, 4.0, 0.02).worth(16)), (16, 0));
        // Not worth it: one is tried. At rest: none, until it is over.
        let mut pace = Pace { rest: 2, ..pace(1.0, 5.0, 0.25) };
        assert_eq!([pace.length(16), pace.length(16), pace.length(16)], [0, 0, 1]);
        let first = Pace::measuring();
        near([first.right, first.tried, first.cost], [1.0, 2.0, COST]);
        assert!(first.measures && first.plain.is_none() && !Pace::default().measures);
    }

    #[test]
    fn luck_is_counted_and_fades() {
        let mut pace = Pace { right: 8.0, tried: 16.0, ..Pace::default() };
        // Two of four are right, and the third was wrong: what came after it could not be.
        pace.judge(4, 2);
        near([pace.right, pace.tried, 0.0], [9.0, 17.0, 0.0]);
        pace.judge(2, 2);
        near([pace.right, pace.tried, 0.0], [9.875, 16.875, 0.0]);
        assert_eq!((pace.rest, pace.pause), (0, REST));
        let mut unlucky = Pace { right: 0.0, tried: 8.0, ..Pace::default() };
        unlucky.judge(1, 0);
        near([unlucky.right, unlucky.tried, 0.0], [0.0, 8.0, 0.0]);
        assert_eq!((unlucky.rest, unlucky.pause), (REST, REST), "without a clock pauses do not grow");
        let mut timed = Pace { right: 0.0, tried: 8.0, ..Pace::measuring() };
        let pauses: Vec<usize> = std::iter::from_fn(|| {
            timed.judge(1, 0);
            Some(timed.rest)
        })
        .take(6)
        .collect();
        assert_eq!(pauses, [32, 64, 128, 256, 512, 512]);
        // Luck comes back: tries cost a hundredth of what passes between them, and 32 passes lie between them at least.
        for (cost, pause) in [(0.5, 50), (0.1, 32)] {
            let mut lucky = Pace { right: 8.0, tried: 8.0, cost, pause: 512, ..Pace::measuring() };
            lucky.judge(1, 1);
            assert_eq!((lucky.rest, lucky.pause), (0, pause));
        }
    }

    #[test]
    fn costs_are_measured_by_and_by() {
        let ms = |ms: f64| Duration::from_secs_f64(ms / 1000.0);
        let mut pace = Pace::measuring();
        pace.took(3, ms(90.0));
        assert_eq!((pace.plain, pace.cost), (None, COST), "there is nothing to compare with yet");
        pace.took(0, ms(10.0));
        pace.took(0, ms(18.0));
        let plain = pace.plain.unwrap();
        near([plain, pace.cost, 0.0], [0.011, COST, 0.0]);
        pace.took(3, Duration::from_secs_f64(1.6 * plain));
        near([pace.plain.unwrap(), pace.cost, 0.0], [plain, 0.875 * COST + 0.125 * 0.2, 0.0]);
        // What cannot be is bounded: less than nothing, and more than a pass.
        for (time, bound) in [(0.5, 0.02), (99.0, 1.0)] {
            let mut pace = Pace { plain: Some(1.0), ..Pace::measuring() };
            pace.took(2, Duration::from_secs_f64(time));
            near([pace.cost, 0.0, 0.0], [0.875 * COST + 0.125 * bound, 0.0, 0.0]);
        }
        let mut zero = Pace { plain: Some(0.0), ..Pace::measuring() };
        zero.took(2, ms(1.0));
        assert_eq!(zero.cost, COST, "a clock that stood still tells nothing");
        let mut untimed = Pace::default();
        untimed.took(0, ms(10.0));
        untimed.took(2, ms(90.0));
        assert_eq!((untimed.plain, untimed.cost), (None, COST));
    }

    #[test]
    fn passes_with_drafts_are_counted() {
        let mut drafts = Drafts::new(8).unwrap();
        for (drafted, accepted) in [(4, 3), (0, 0), (2, 0)] {
            drafts.judge(drafted, accepted, Duration::ZERO);
        }
        assert_eq!(drafts.speculation, Speculation { batches: 2, drafted: 6, accepted: 3 });
    }
}
