//! A quick proof, on the machine at hand, that a kernel set keeps the numerics contract.
//!
//! The suite proves it at length; `BITNET_DETERMINISTIC=1` asks for this short one at every start, so that a build or
//! a processor that breaks the contract is an error and not another text.

use super::{InferenceError, Session, SessionOptions, Want};
use crate::model::Model;
use crate::ops::{self, BrokenContract};
use bitnet_kernels::Kernels;
use std::sync::Arc;

/// Tokens that [`self_check_card`] computes: a batch, and one by itself.
const CARD_TOKENS: usize = 4;

/// Runs a few tokens of a model on the card of `options` and on its kernels, and compares all logits, bit for bit. Nothing is
/// done without a card.
///
/// # Errors
/// [`InferenceError::Broken`] with the first difference; what keeps either from computing.
pub fn self_check_card(model: &Arc<Model>, options: &SessionOptions) -> Result<(), InferenceError> {
    let Some(card) = &options.card else { return Ok(()) };
    let tokens: Vec<u32> = (0..CARD_TOKENS).map(|i| (i * 7919 % model.config.vocab_size) as u32).collect();
    let (batch, last) = tokens.split_at(CARD_TOKENS - 1);
    let logits = |options: SessionOptions| -> Result<Vec<f32>, InferenceError> {
        let mut session = Session::new(Arc::clone(model), SessionOptions { context: Some(CARD_TOKENS), ..options })?;
        let mut all = Vec::new();
        for part in [batch, last] {
            session.forward(part, Want::All, &mut |_, logits| all.extend_from_slice(logits))?;
        }
        Ok(all)
    };
    let expected = logits(SessionOptions { card: None, ..options.clone() })?;
    let found = logits(options.clone())?;
    match (0..expected.len()).find(|&i| found[i].to_bits() != expected[i].to_bits()) {
        None => Ok(()),
        Some(index) => Err(InferenceError::Broken(BrokenContract {
            set: card.name().to_owned(),
            operation: "the logits of this model".to_owned(),
            index,
            found: found[index],
            expected: expected[index],
        })),
    }
}

/// Runs every operation of `kernels` on a few hundred fixed values and compares with the scalar oracle, bit for bit.
///
/// # Errors
/// The first difference.
pub fn self_check(kernels: &dyn Kernels) -> Result<(), BrokenContract> {
    ops::compare(kernels, false, 0).map(|_| ())
}
