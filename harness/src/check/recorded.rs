//! `recorded`: everything that the live checks ask, asked of the reference's recorded answers. Needs no worker, so it runs
//! everywhere; a recording that is missing, or of another file than the model is now, is a failure.

use super::{Check, Context, Failure};
use crate::axes::Cell;
use crate::metrics::Metrics;
use crate::references::questions::Subject;
use crate::references::recorded::Recorded;
use crate::references::{huggingface, judge, live, questions, side};
use bitnet_golden::thresholds;

pub struct RecordedAnswers;

impl Check for RecordedAnswers {
    fn name(&self) -> &'static str {
        crate::setup::RECORDED
    }

    fn asks_backend(&self) -> bool {
        false
    }

    fn run(&self, cell: &Cell, ctx: &Context) -> Result<Metrics, Failure> {
        let subject = questions::asked(ctx, cell)?;
        let mut reference = Recorded::of(ctx, cell, &subject)?;
        let found = compare(ctx, cell, &subject, &mut reference);
        live::witness(found, &reference, &subject)
    }
}

fn compare(ctx: &Context, cell: &Cell, subject: &Subject, reference: &mut Recorded) -> Result<Metrics, Failure> {
    let mut all = judge::tokens(subject, reference, &|text| huggingface::ids(ctx, cell, text))?;
    if subject.vocabulary_only {
        return Ok(all);
    }
    let limits = thresholds::crossval(&ctx.paths.golden, &cell.backend, &cell.model, &cell.quant)?;
    let ours = side(ctx, cell)?;
    for found in [
        judge::logits(&ours, &subject.questions, reference, &limits)?,
        judge::continuation(&ours, &subject.questions, reference, &limits)?,
    ] {
        all.values.extend(found.values);
        all.kernel = found.kernel;
    }
    Ok(all)
}
