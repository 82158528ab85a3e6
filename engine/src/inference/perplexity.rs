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
    /// Characters (Unicode scalar values) that they spell.
    pub characters: usize,
    /// Windows that the text was cut into.
    pub windows: usize,
    /// Negative log-likelihood of these tokens, in nats.
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

/// Predicts every token of `text` from those before it. A text longer than the session's context is cut into windows;
/// each starts with the beginning-of-sequence token if the model wants one, else with the last token of the window before
/// it (the first token of the text is then only context). `progress(done, total)` is told after each window.
///
/// # Errors
/// A text or a context of fewer than two tokens, or the errors of the tokenizer and of the forward pass.
pub fn perplexity(
    session: &mut Session,
    tokenizer: &dyn Tokenizer,
    text: &str,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Perplexity, InferenceError> {
    // As a prompt begins: with the beginning-of-sequence token if the model wants one.
    let ids = crate::chat::prompt::encode(tokenizer, text, false)?;
    let special = tokenizer.special();
    let bos = if special.add_bos { special.bos } else { None };
    let own = ids.len() - usize::from(bos.is_some() && ids.first().copied() == bos);
    let (mut nats, mut tokens, mut hits, mut windows) = (0.0, 0usize, 0usize, 0);
    let width = session.context();
    if width < 2 {
        let what =
            "the context must hold two tokens, so that one can be predicted from the other: choose a longer --context";
        return Err(InferenceError::Option { what });
    }
    // Each window starts with a token that is only context: the beginning-of-sequence token, or the last one before it.
    let stride = width - 1;
    let Some((&first, rest)) = ids.split_first().filter(|(_, rest)| !rest.is_empty()) else {
        return Err(InferenceError::TextTooShort { tokens: own });
    };
    let mut context = first;
    for window in rest.chunks(stride) {
        session.truncate(0);
        let sequence: Vec<u32> = std::iter::once(context).chain(window.iter().copied()).collect();
        session.forward(&sequence, Want::All, &mut |position, logits| {
            let Some(&target) = sequence.get(position + 1) else { return };
            nats += nll(logits, target as usize);
            hits += usize::from(argmax(logits) == target);
            tokens += 1;
        })?;
        context = bos.unwrap_or(window[window.len() - 1]);
        windows += 1;
        progress(tokens, rest.len());
    }
    session.truncate(0);
    // What was predicted: without a beginning-of-sequence token the first token was only context.
    let given =
        if bos.is_some() { 0 } else { String::from_utf8_lossy(&tokenizer.decode(&ids[..1], false)).chars().count() };
    let characters = text.chars().count().saturating_sub(given).max(1);
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
