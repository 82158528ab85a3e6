//! `trace`: every step of every layer that the live reference shows is near ours. Each step is computed from the reference's
//! own inputs, so that its limit knows the rounding of one step and not what piled up before it.

use super::{Check, Context, Failure};
use crate::axes::Cell;
use crate::crossval::bisect::bisect;
use crate::crossval::replay::replay;
use crate::crossval::{Ours, Reference, Thresholds};
use crate::metrics::Metrics;
use crate::references::questions::{CONTEXT, Subject};
use crate::references::{live, questions, side};
use bitnet_golden::thresholds;

/// Tokens of the passage that are traced.
const TOKENS: usize = 8;

pub struct Trace;

impl Check for Trace {
    fn name(&self) -> &'static str {
        "trace"
    }

    fn run(&self, cell: &Cell, ctx: &Context) -> Result<Metrics, Failure> {
        let limits = thresholds::crossval(&ctx.paths.golden, &cell.backend, &cell.model, &cell.quant)?;
        let subject = questions::subject(ctx, cell)?;
        let mut reference = live::reference(ctx, &cell.backend, &subject)?;
        let found = compare(&side(ctx, cell)?, &subject, &mut reference, &limits);
        live::witness(found, &reference, &subject)
    }
}

fn compare(
    ours: &Ours,
    subject: &Subject,
    reference: &mut dyn Reference,
    limits: &Thresholds,
) -> Result<Metrics, Failure> {
    let mut tokens = subject.questions.passages.first().cloned().unwrap_or_default();
    tokens.truncate(TOKENS);
    let theirs = reference.trace(&tokens)?;
    let own = ours.trace(&tokens)?;
    let replayed = replay(&ours.loaded.model, ours.kernels, &ours.pool, (&tokens, CONTEXT), &theirs)?;
    let found = bisect(&own, &theirs, &replayed, limits);
    let peak = |d: f64, step: f64| if d.is_nan() || step.is_nan() { f64::NAN } else { d.max(step) };
    let peaks = found.steps.iter().map(|step| step.own.as_ref().map_or(f64::NAN, |own| own.peak));
    let metrics = Metrics::new()
        .with("steps", found.steps.len())
        .with("steps_not_shown", found.not_shown.len())
        .with("largest_step_peak", peaks.fold(0.0, peak))
        .ran(ours.kernels.name());
    // Some tensors have other names or are fused in a reference; most of the plan must be there all the same.
    if found.steps.len() < 2 * found.not_shown.len() {
        return Err(Failure::new(format_args!(
            "{} shows {} of our steps and not {}: {}",
            reference.name(),
            found.steps.len(),
            found.not_shown.len(),
            found.not_shown.join(", ")
        ))
        .with_metrics(metrics));
    }
    match found.problem() {
        None => Ok(metrics),
        Some(problem) => Err(Failure::new(format_args!("{}: {problem}", reference.name())).with_metrics(metrics)),
    }
}
