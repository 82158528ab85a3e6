//! From logits to a token: penalties, top-k, softmax, top-p, min-p, temperature, one seeded draw.
//!
//! The exponential is the kernels' own and the generator's output is pinned by its crate, so a seed gives the same
//! text on every machine. Ties are broken by the lower token id.

use super::Needs;
use bitnet_kernels::numerics::exp;
use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};

/// How tokens are chosen. The default is greedy.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct SamplerOptions {
    /// 0 takes the most likely token; 1 samples from the model's own distribution.
    pub temperature: f32,
    /// Keep the k most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set of tokens whose probability reaches this; 1 keeps all.
    pub top_p: f32,
    /// Drop tokens below this share of the most likely one's probability; 0 keeps all.
    pub min_p: f32,
    /// Divide (multiply, if negative) the logits of recent tokens by this; 1 is off.
    pub repetition_penalty: f32,
    /// How many of the last tokens the penalty looks at.
    pub repetition_window: usize,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            repetition_window: 64,
            seed: 0,
        }
    }
}

/// Below this share, what is left out might still change a sum of probabilities in its last bit.
const LEAST_MIN_P: f32 = 1e-6;

/// An option out of range.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("sampling option {option} is {value}, expected {expected}")]
pub struct SamplerError {
    /// Which one.
    pub option: &'static str,
    /// What was given.
    pub value: f32,
    /// What is valid.
    pub expected: &'static str,
}

/// Chooses tokens by [`SamplerOptions`]; keeps its buffers and the state of its generator.
#[derive(Debug)]
pub struct Sampler {
    options: SamplerOptions,
    rng: Pcg64,
    candidates: Vec<(u32, f32)>,
    penalised: Vec<f32>,
}

impl Sampler {
    /// A sampler at the start of its seed's sequence.
    ///
    /// # Errors
    /// An option that is not a number in its range.
    pub fn new(options: SamplerOptions) -> Result<Self, SamplerError> {
        let check = |option, value: f32, ok: bool, expected| {
            if ok && value.is_finite() { Ok(()) } else { Err(SamplerError { option, value, expected }) }
        };
        let o = &options;
        check("temperature", o.temperature, o.temperature >= 0.0, "0 or more")?;
        check("top_p", o.top_p, o.top_p > 0.0 && o.top_p <= 1.0, "more than 0, at most 1")?;
        check("min_p", o.min_p, (0.0..=1.0).contains(&o.min_p), "0 to 1")?;
        check("repetition_penalty", o.repetition_penalty, o.repetition_penalty > 0.0, "more than 0")?;
        let rng = Pcg64::seed_from_u64(options.seed);
        Ok(Self { options, rng, candidates: Vec::new(), penalised: Vec::new() })
    }

    /// The options in force.
    #[must_use]
    pub fn options(&self) -> &SamplerOptions {
        &self.options
    }

    /// The logits that [`Sampler::sample`] will look at, or `None` if it will at all of them.
    #[must_use]
    pub fn needs(&self, recent: &[u32]) -> Option<Needs> {
        let o = &self.options;
        // A penalised token may fall out of the highest and let another in.
        let mut also = if o.repetition_penalty == 1.0 { Vec::new() } else { self.window(recent).to_vec() };
        also.sort_unstable();
        also.dedup();
        let (count, within) = if o.temperature == 0.0 {
            (1, 0.0)
        } else if o.top_k > 0 {
            (o.top_k, 0.0)
        } else if o.top_p == 1.0 && o.min_p >= LEAST_MIN_P {
            // A little more than the distance, which is compared after an `exp` of two ulp.
            (1, -o.min_p.ln() + 1e-3)
        } else {
            return None;
        };
        Some(Needs { count: count.saturating_add(also.len()), within, also })
    }

    fn window<'a>(&self, recent: &'a [u32]) -> &'a [u32] {
        &recent[recent.len().saturating_sub(self.options.repetition_window)..]
    }

    /// Chooses the next token. `logits` is `[vocab]`, `recent` the tokens so far (prompt included).
    pub fn sample(&mut self, logits: &[f32], recent: &[u32]) -> u32 {
        let mut penalised = std::mem::take(&mut self.penalised);
        let logits = self.penalise(logits, recent, &mut penalised);
        let token = if self.options.temperature == 0.0 { argmax(logits) } else { self.draw(logits) };
        self.penalised = penalised;
        token
    }

    fn penalise<'a>(&self, logits: &'a [f32], recent: &[u32], buffer: &'a mut Vec<f32>) -> &'a [f32] {
        let penalty = self.options.repetition_penalty;
        if penalty == 1.0 {
            return logits;
        }
        buffer.clear();
        buffer.extend_from_slice(logits);
        for &token in self.window(recent) {
            // Each distinct token once: the source is the untouched array.
            if let Some(&logit) = logits.get(token as usize) {
                buffer[token as usize] = if logit > 0.0 { logit / penalty } else { logit * penalty };
            }
        }
        buffer
    }

    fn draw(&mut self, logits: &[f32]) -> u32 {
        let o = &self.options;
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.clear();
        // What is minus infinity can never be drawn; of screened logits that is nearly all.
        for (at, piece) in (0u32..).step_by(PIECE).zip(logits.chunks(PIECE)) {
            if some(piece, |l| l != f32::NEG_INFINITY) {
                let there = (at..).zip(piece).filter(|(_, l)| **l != f32::NEG_INFINITY);
                candidates.extend(there.map(|(token, &l)| (token, l)));
            }
        }
        if candidates.is_empty() {
            self.candidates = candidates;
            return argmax(logits);
        }
        // Most likely first, equal ones by id: a total order, so that the draw does not depend on the algorithm.
        let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if o.top_k > 0 && o.top_k < candidates.len() {
            candidates.select_nth_unstable_by(o.top_k - 1, order);
            candidates.truncate(o.top_k);
        }
        candidates.sort_unstable_by(order);
        let top = candidates[0].1;
        if o.top_p < 1.0 || o.min_p > 0.0 {
            let weight = |logit: f32| exp(logit - top);
            let keep = candidates.iter().position(|c| weight(c.1) < o.min_p).unwrap_or(candidates.len());
            let total: f32 = candidates.iter().map(|c| weight(c.1)).sum();
            candidates.truncate(keep.max(1));
            let mut reached = 0.0;
            let nucleus = candidates.iter().position(|c| {
                reached += weight(c.1);
                reached >= o.top_p * total
            });
            candidates.truncate(nucleus.map_or(candidates.len(), |last| last + 1));
        }
        for c in &mut candidates {
            c.1 = exp((c.1 - top) / o.temperature);
        }
        let total: f32 = candidates.iter().map(|c| c.1).sum();
        // 24 bits: every value is exact in f32, and 1 is never reached.
        let mut rest = (self.rng.next_u32() >> 8) as f32 / (1u32 << 24) as f32 * total;
        let mut token = candidates[candidates.len() - 1].0;
        for c in &candidates {
            rest -= c.1;
            if rest < 0.0 {
                token = c.0;
                break;
            }
        }
        self.candidates = candidates;
        token
    }
}

/// The most likely token, the lower id on a tie; NaN never wins. An empty slice gives 0.
#[must_use]
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (at, piece) in (0u32..).step_by(PIECE).zip(logits.chunks(PIECE)) {
        if some(piece, |l| l > best.1) {
            for (token, &logit) in (at..).zip(piece) {
                if logit > best.1 {
                    best = (token, logit);
                }
            }
        }
    }
    best.0
}

/// Logits that are looked at together before they are looked at one by one: most pieces of a vocabulary have nothing new.
const PIECE: usize = 256;

/// Whether some logit is `so`; all are looked at, without a branch for each.
pub(super) fn some(logits: &[f32], so: impl Fn(f32) -> bool) -> bool {
    logits.iter().fold(false, |any, &l| any | so(l))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(options: SamplerOptions) -> Sampler {
        Sampler::new(options).unwrap()
    }

    #[test]
    fn greedy_takes_the_first_of_the_highest() {
        assert_eq!(sampler(SamplerOptions::default()).sample(&[1.0, 3.0, 3.0, -1.0], &[]), 1);
        assert_eq!(argmax(&[f32::NAN, 2.0, f32::NAN]), 1);
    }

    #[test]
    fn draws_follow_the_distribution_and_the_seed() {
        let options = SamplerOptions { temperature: 1.0, seed: 7, ..Default::default() };
        let logits = [0.0, 3f32.ln(), f32::NEG_INFINITY];
        let run = |options: &SamplerOptions| -> Vec<u32> {
            let mut s = sampler(options.clone());
            (0..4000).map(|_| s.sample(&logits, &[])).collect()
        };
        let tokens = run(&options);
        assert_eq!(tokens, run(&options), "a seed repeats");
        assert_ne!(tokens, run(&SamplerOptions { seed: 8, ..options.clone() }));
        let ones = tokens.iter().filter(|&&t| t == 1).count();
        assert!((2850..3150).contains(&ones), "3 of 4 expected, got {ones} of 4000");
        assert!(!tokens.contains(&2));
    }

    /// As many as there can be, and more are penalised: all of them, not none.
    #[test]
    fn the_largest_count_has_no_successor() {
        let options =
            SamplerOptions { temperature: 1.0, top_k: usize::MAX, repetition_penalty: 1.5, ..Default::default() };
        assert_eq!(sampler(options).needs(&[3, 4]).map(|needs| needs.count), Some(usize::MAX));
    }

    #[test]
    fn filters_cut_the_tail() {
        let logits = [5.0, 4.9, 1.0, 0.9];
        for options in [
            SamplerOptions { top_k: 2, ..Default::default() },
            SamplerOptions { top_p: 0.9, ..Default::default() },
            SamplerOptions { min_p: 0.5, ..Default::default() },
        ] {
            let mut s = sampler(SamplerOptions { temperature: 3.0, ..options.clone() });
            let drawn: std::collections::BTreeSet<u32> = (0..500).map(|_| s.sample(&logits, &[])).collect();
            assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [0, 1], "{options:?}");
        }
    }

    /// The tokens that may be drawn, as the options are documented, in f64; or `None` where a border is too close to tell.
    fn allowed(logits: &[f32], o: &SamplerOptions) -> Option<Vec<u32>> {
        let near = |a: f64, b: f64| (a - b).abs() < 1e-5;
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
        if o.top_k > 0 {
            order.truncate(o.top_k);
        }
        let weights: Vec<f64> = order
            .iter()
            .map(|&t| (f64::from(logits[t as usize]) - f64::from(logits[order[0] as usize])).exp())
            .collect();
        let total: f64 = weights.iter().sum();
        let (mut set, mut before) = (Vec::new(), 0.0);
        for (&token, weight) in order.iter().zip(&weights) {
            let exact = weights.iter().all(|w| *w == 1.0);
            if !exact && (near(before / total, f64::from(o.top_p)) || near(*weight, f64::from(o.min_p))) {
                return None;
            }
            // In the smallest set that reaches top_p: what is more likely does not reach it yet.
            if before / total < f64::from(o.top_p) && *weight >= f64::from(o.min_p) {
                set.push(token);
            }
            before += weight;
        }
        set.sort_unstable();
        Some(set)
    }

    fn drawn(logits: &[f32], options: &SamplerOptions, times: usize) -> Vec<u32> {
        let mut s = sampler(SamplerOptions { temperature: 8.0, ..options.clone() });
        let drawn: std::collections::BTreeSet<u32> = (0..times).map(|_| s.sample(logits, &[])).collect();
        drawn.into_iter().collect()
    }

    #[test]
    fn a_nucleus_that_is_reached_exactly_is_closed() {
        // Equal logits have weights of 1, so that every sum is exact.
        for n in [2usize, 4, 8, 16] {
            for kept in 1..=n {
                let options = SamplerOptions { top_p: kept as f32 / n as f32, ..Default::default() };
                let wanted: Vec<u32> = (0..kept as u32).collect();
                assert_eq!(allowed(&vec![0.5; n], &options).as_ref(), Some(&wanted));
                assert_eq!(drawn(&vec![0.5; n], &options, 400), wanted, "{kept} of {n}");
            }
        }
    }

    #[test]
    fn filters_together_are_those_of_a_plain_computation() {
        let mut rng = Pcg64::seed_from_u64(3);
        let mut unit = || (rng.next_u32() >> 8) as f32 / (1u32 << 24) as f32;
        let mut compared = 0;
        for _ in 0..60 {
            let logits: Vec<f32> = (0..12).map(|_| 3.0 * unit()).collect();
            let options = SamplerOptions {
                top_p: 0.05 + 0.95 * unit(),
                min_p: [0.0, 0.6 * unit()][usize::from(unit() > 0.3)],
                top_k: [0, 1 + (12.0 * unit()) as usize][usize::from(unit() > 0.5)],
                ..Default::default()
            };
            let Some(wanted) = allowed(&logits, &options) else { continue };
            compared += 1;
            assert_eq!(drawn(&logits, &options, 600), wanted, "{options:?} {logits:?}");
        }
        assert!(compared > 50, "{compared}");
    }

    #[test]
    fn repetition_penalty_looks_at_the_window_only() {
        let options = SamplerOptions { repetition_penalty: 2.0, repetition_window: 2, ..Default::default() };
        let logits = [1.0, 1.5, 1.2];
        assert_eq!(sampler(options.clone()).sample(&logits, &[1, 1, 0]), 2, "1 and 0 are penalised, once each");
        assert_eq!(sampler(options).sample(&logits, &[1, 0, 0]), 1, "1 is out of the window");
    }

    #[test]
    fn options_out_of_range_are_named() {
        let bad = |options| Sampler::new(options).unwrap_err().option;
        assert_eq!(bad(SamplerOptions { temperature: -1.0, ..Default::default() }), "temperature");
        assert_eq!(bad(SamplerOptions { temperature: f32::NAN, ..Default::default() }), "temperature");
        assert_eq!(bad(SamplerOptions { top_p: 0.0, ..Default::default() }), "top_p");
        assert_eq!(bad(SamplerOptions { min_p: 1.5, ..Default::default() }), "min_p");
        assert_eq!(bad(SamplerOptions { repetition_penalty: 0.0, ..Default::default() }), "repetition_penalty");
    }
}
