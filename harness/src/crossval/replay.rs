//! Every step of our plan, computed from what the *reference* had before it.
//!
//! Two engines that round differently drift apart layer by layer, and in the end a small fault is hidden below what
//! piled up. Here nothing piles up: before each step the reference's own values stand in for ours, so what a step gives
//! can be held against the reference's result with a limit that knows only the rounding of one step. A step that the
//! reference does not show is computed from what came before it and so becomes part of the next.

use std::collections::HashMap;

use bitnet_engine::inference::{InferenceError, Stepwise};
use bitnet_engine::model::Model;
use bitnet_engine::ops::Slot;
use bitnet_kernels::{Kernels, Pool};

use super::reference::Traced;

/// One step, computed from the reference's values.
#[derive(Debug, Clone, PartialEq)]
pub struct Replayed {
    /// Our result.
    pub result: Traced,
    /// The steps whose results went in: the nearest ones that the reference shows.
    pub inputs: Vec<String>,
}

/// Replays the plan over `tokens` in a context of so many positions.
///
/// # Errors
/// More tokens than memory has room for.
pub fn replay(
    model: &Model,
    kernels: &dyn Kernels,
    pool: &Pool,
    (tokens, context): (&[u32], usize),
    reference: &[Traced],
) -> Result<Vec<Replayed>, InferenceError> {
    let shown: HashMap<&str, &Traced> = reference.iter().map(|step| (step.step.as_str(), step)).collect();
    let mut run = Stepwise::new(model, kernels, pool, tokens, context)?;
    // The shown steps that each slot comes from.
    let mut from: Vec<Vec<String>> = vec![Vec::new(); Slot::ALL.len()];
    let mut out = Vec::new();
    for step in &model.plan {
        let [reads, writes] = step.op.as_operation().slots();
        let inputs = joined(reads.iter().map(|slot| &from[slot.index()]));
        run.run(step);
        for slot in writes {
            from[slot.index()].clone_from(&inputs);
        }
        let Some(slot) = step.result() else { continue };
        let Some(theirs) = shown.get(step.name.as_str()) else { continue };
        let values = run.slot(slot).to_vec();
        let (rows, width) = (tokens.len(), values.len() / tokens.len().max(1));
        if theirs.values.len() == values.len() {
            run.replace(slot, &theirs.values);
        }
        out.push(Replayed { result: Traced { step: step.name.clone(), rows, width, values }, inputs });
        from[slot.index()] = vec![step.name.clone()];
    }
    Ok(out)
}

/// All names once, in order.
fn joined<'a>(parts: impl Iterator<Item = &'a Vec<String>>) -> Vec<String> {
    let mut from: Vec<String> = Vec::new();
    for name in parts.flatten() {
        if !from.contains(name) {
            from.push(name.clone());
        }
    }
    from
}
