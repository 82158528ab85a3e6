//! Guessing ahead: tokens that followed the same words before are computed together with the token that is due.
//!
//! A batch gives every position the logits that it has alone, bit for bit. So a draft is right exactly if it is what the
//! sampler draws at its position, with the same state of its generator and the same history: the text is that of no
//! guessing at all, also where it is drawn at random. What was guessed wrongly is forgotten by the cache; nobody else sees
//! it (observers hang on [`Session::forward_observed`](super::Session::forward_observed), which guesses nothing).
//!
//! A pass over the weights costs nearly the same for one token as for a few, so a right draft is a token for almost nothing
//! and a wrong one is a little lost. How much is drafted follows from how often drafts were right of late.

use super::InferenceError;
use std::collections::HashMap;

/// Most tokens of a draft.
pub const MAX_DRAFT: usize = 64;
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
    /// Drafts of up to `most` tokens; 0 makes none.
    pub(super) fn new(most: usize) -> Result<Self, InferenceError> {
        if most > MAX_DRAFT {
            return Err(InferenceError::DraftTooLong { tokens: most, most: MAX_DRAFT });
        }
        let pace = Pace::default();
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

    /// What became of a draft: how many of its tokens were drawn.
    pub(super) fn judge(&mut self, drafted: usize, accepted: usize) {
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
    rest: usize,
}

/// What a token more costs in a pass, in passes: an assumption, and rather too much than too little.
const COST: f64 = 0.25;
/// What is left of the past after a draft.
const MEMORY: f64 = 0.875;
/// Passes without a draft when drafts do not pay.
const REST: usize = 32;

impl Default for Pace {
    fn default() -> Self {
        Self { right: 3.0, tried: 4.0, rest: 0 }
    }
}

impl Pace {
    /// Tokens that are worth guessing, as far as is known.
    fn worth(&self, most: usize) -> usize {
        let p = self.right / self.tried;
        let mut share = 1.0;
        (0..most)
            .take_while(|_| {
                share *= p;
                share >= COST
            })
            .count()
    }

    /// Length of the next draft; asked once for each pass.
    fn length(&mut self, most: usize) -> usize {
        if self.rest > 0 {
            self.rest -= 1;
            return 0;
        }
        self.worth(most).max(1)
    }

    fn judge(&mut self, drafted: usize, accepted: usize) {
        self.right = self.right * MEMORY + accepted as f64;
        self.tried = self.tried * MEMORY + (accepted + usize::from(accepted < drafted)) as f64;
        if self.worth(1) == 0 {
            self.rest = REST;
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
}
