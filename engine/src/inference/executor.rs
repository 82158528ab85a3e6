//! What runs a plan: one implementation a device. A [`Session`](super::Session) asks nothing else of it.

use super::cpu::Cpu;
use super::cuda::Cuda;
use super::{InferenceError, Needs, Observer, Screening, SessionOptions};
use crate::model::Model;
use crate::ops::Batch;
use std::sync::Arc;

/// A device with the caches of some sequences. Of the last batch that was run, the wanted rows are *held* before the output matrix, until
/// the next one is run; how their logits are computed may depend on what is asked of them.
///
/// Positions are the caller's: what is run at a position replaces what was there, so that forgetting tokens asks nothing of an
/// executor.
pub(super) trait Executor: Send {
    /// Runs the plan up to the output matrix. The caller has checked that tokens and positions are in range.
    fn run(&mut self, batch: &Batch<'_>, observer: Option<&mut (dyn Observer + '_)>) -> Result<(), InferenceError>;

    /// The logits of all held rows, `[rows][vocab]`.
    fn logits(&mut self, out: &mut Vec<f32>) -> Result<(), InferenceError>;

    /// The logits of one held row that a sampler will look at, `[vocab]`; all others are minus infinity. False, with `out` untouched, where
    /// the whole output matrix is the better way.
    fn choose(&mut self, row: usize, needs: &Needs, out: &mut Vec<f32>) -> Result<bool, InferenceError>;

    /// The held rows as the output matrix would read them, `[rows][embedding_length]`.
    fn hidden(&mut self, out: &mut Vec<f32>) -> Result<(), InferenceError>;

    /// So many runs of one token may still come: preparations that pay later are measured by it.
    fn expect(&mut self, _runs: usize) {}

    /// Holds only the last of the held rows, before any logits were asked for.
    fn hold_last(&mut self);

    /// What screening came to so far.
    fn screening(&self) -> Screening;
}

/// The executor that the options ask for, for `sequences` sequences of up to `context` tokens each.
pub(super) fn open(
    model: &Arc<Model>,
    options: &SessionOptions,
    context: usize,
    sequences: usize,
) -> Result<Box<dyn Executor>, InferenceError> {
    Ok(match &options.card {
        Some(card) => Box::new(Cuda::new(model, card, context, options.chunk.min(context), options.head)?),
        None => Box::new(Cpu::new(model, options, context, sequences)?),
    })
}
