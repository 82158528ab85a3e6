//! How well a model predicts a text: teacher-forced negative log-likelihood.

use super::{InferenceError, Session, Want, argmax};
use crate::tokenizer::Tokenizer;
use bitnet_kernels::numerics::{exp, sum};
use bitnet_kernels::trig::ln;

/// Result of [`perplexity`].
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Perplexity {
    /// Tokens that were predicted.
    pub tokens: usize,
    /// Characters (Unicode scalar values) of the text.
    pub characters: usize,
    /// Windows that the text was cut into.
    pub windows: usize,
    /// Negative log-likelihood of the whole text, in nats.
    pub nats: f64,
    /// `exp(nats / tokens)`.
    pub perplexity: f64,
    /// `nats / ln 2 / tokens`.
    pub bits_per_token: f64,
    /// `nats / ln 2 / characters`.
    pub bits_per_character: f64,
    /// Share of the tokens that were the model's first choice.
    pub top1: f64,
}

/// `-ln softmax(logits)[target]`, in nats: the sum in f32 in the canonical order, the logarithm in f64.
#[must_use]
pub fn nll(logits: &[f32], target: usize) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f32> = logits.iter().map(|&l| exp(l - max)).collect();
    ln(f64::from(sum(&weights))) + f64::from(max) - f64::from(logits[target])
}

/// Predicts every token of `text` from those before it. A text longer than the session's context is cut into windows
/// that start over; each starts with the beginning-of-sequence token if the model wants one, and its first token is
/// otherwise only context. `progress(done, total)` is told after each window.
///
/// # Errors
/// A text or a context of fewer than two tokens, or the errors of the tokenizer and of the forward pass.
pub fn perplexity(
    session: &mut Session,
    tokenizer: &dyn Tokenizer,
    text: &str,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Perplexity, InferenceError> {
    let options = crate::tokenizer::EncodeOptions { add_special: false, parse_special: false };
    let ids = tokenizer.encode(text, options)?;
    let special = tokenizer.special();
    let bos = if special.add_bos { special.bos } else { None };
    let (mut nats, mut tokens, mut hits, mut windows) = (0.0, 0usize, 0usize, 0);
    let width = session.context();
    if width < 2 {
        let what = "the context must hold two tokens, so that one can be predicted from the other: choose a longer --context";
        return Err(InferenceError::Option { what });
    }
    let per_window = width - usize::from(bos.is_some());
    if ids.len() + usize::from(bos.is_some()) < 2 {
        return Err(InferenceError::TextTooShort { tokens: ids.len() });
    }
    for window in ids.chunks(per_window) {
        session.truncate(0);
        let sequence: Vec<u32> = bos.iter().chain(window).copied().collect();
        session.forward(&sequence, Want::All, &mut |position, logits| {
            let Some(&target) = sequence.get(position + 1) else { return };
            nats += nll(logits, target as usize);
            hits += usize::from(argmax(logits) == target);
            tokens += 1;
        })?;
        windows += 1;
        progress((windows * per_window).min(ids.len()), ids.len());
    }
    session.truncate(0);
    let characters = text.chars().count();
    let bits = nats / std::f64::consts::LN_2;
    Ok(Perplexity {
        tokens,
        characters,
        windows,
        nats,
        perplexity: (nats / tokens as f64).exp(),
        bits_per_token: bits / tokens as f64,
        bits_per_character: bits / characters as f64,
        top1: hits as f64 / tokens as f64,
    })
}
