//! How fast both sides are, timed the same way: from our side of the pipe, several times in turn. No limit is attached;
//! a receipt keeps the figures and can be asked for the rates again.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::reference::{Positions, Reference, SideError};
use crate::bench::ratio::median;

/// Seconds of one side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Speed {
    /// Prompt to the logits of its last token, run by run.
    pub prefill_s: Vec<f64>,
    /// Prompt and continuation, run by run.
    pub generate_s: Vec<f64>,
    /// Tokens that were made.
    pub generated: usize,
    /// Prompt tokens a second, by the median.
    #[serde(with = "super::number")]
    pub prefill_tokens_per_s: f64,
    /// New tokens a second after the first, by the difference of the medians.
    #[serde(with = "super::number")]
    pub decode_tokens_per_s: f64,
}

/// Speed of both sides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Performance {
    pub prompt_tokens: usize,
    pub max_tokens: usize,
    pub ours: Speed,
    pub reference: Speed,
    /// Our decoding rate in units of the reference's.
    #[serde(with = "super::number")]
    pub decode_ratio: f64,
    /// Our prefill rate in units of the reference's.
    #[serde(with = "super::number")]
    pub prefill_ratio: f64,
}

impl Speed {
    /// The rates of these times; no number where there was nothing to time.
    pub fn of(prefill_s: Vec<f64>, generate_s: Vec<f64>, generated: usize, prompt_tokens: usize) -> Self {
        let (prefill, whole) = (median(&prefill_s), median(&generate_s));
        let rate = |count: usize, seconds: f64| {
            if count > 0 && seconds > 0.0 { count as f64 / seconds } else { f64::NAN }
        };
        Self {
            prefill_tokens_per_s: rate(prompt_tokens, prefill),
            decode_tokens_per_s: rate(generated.saturating_sub(1), whole - prefill),
            prefill_s,
            generate_s,
            generated,
        }
    }
}

impl Performance {
    pub fn of(prompt_tokens: usize, max_tokens: usize, ours: Speed, reference: Speed) -> Self {
        Self {
            prompt_tokens,
            max_tokens,
            decode_ratio: ours.decode_tokens_per_s / reference.decode_tokens_per_s,
            prefill_ratio: ours.prefill_tokens_per_s / reference.prefill_tokens_per_s,
            ours,
            reference,
        }
    }
}

/// Times both sides in turn, after one run of each that does not count.
pub fn measure<'a>(
    sides: (&'a mut dyn Reference, &'a mut dyn Reference),
    prompt: &[u32],
    max_tokens: usize,
    repeats: usize,
) -> Result<Performance, SideError> {
    let (first, second) = sides;
    let mut sides = [first, second];
    let mut times = [(Vec::new(), Vec::new(), 0), (Vec::new(), Vec::new(), 0)];
    for run in 0..=repeats {
        for (side, times) in sides.iter_mut().zip(&mut times) {
            let started = Instant::now();
            side.logits(prompt, &Positions::List(vec![prompt.len().saturating_sub(1)]))?;
            let prefill = started.elapsed().as_secs_f64();
            let started = Instant::now();
            let made = side.generate(prompt, max_tokens)?.tokens.len();
            let whole = started.elapsed().as_secs_f64();
            if run > 0 {
                times.0.push(prefill);
                times.1.push(whole);
                times.2 = made;
            }
        }
    }
    let [a, b] = times.map(|(prefill, whole, made)| Speed::of(prefill, whole, made, prompt.len()));
    Ok(Performance::of(prompt.len(), max_tokens, a, b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_come_from_medians() {
        let speed = Speed::of(vec![0.5, 9.0, 0.4], vec![1.5, 1.4, 8.0], 11, 100);
        assert_eq!((speed.prefill_tokens_per_s, speed.decode_tokens_per_s), (200.0, 10.0));
        let nothing = Speed::of(Vec::new(), Vec::new(), 0, 5);
        assert!(nothing.prefill_tokens_per_s.is_nan() && nothing.decode_tokens_per_s.is_nan());
        let both = Performance::of(100, 11, speed.clone(), speed);
        assert_eq!((both.decode_ratio, both.prefill_ratio), (1.0, 1.0));
    }
}
