//! `logits`: the live reference's logits of every position of a passage, within the limits of `thresholds.toml`.

use super::{Check, Context, Failure};
use crate::axes::Cell;
use crate::metrics::Metrics;
use crate::references::{judge, live, questions, side};
use bitnet_golden::thresholds;

pub struct Logits;

impl Check for Logits {
    fn name(&self) -> &'static str {
        "logits"
    }

    fn run(&self, cell: &Cell, ctx: &Context) -> Result<Metrics, Failure> {
        let limits = thresholds::crossval(&ctx.paths.golden, &cell.backend, &cell.model, &cell.quant)?;
        let subject = questions::asked(ctx, cell)?;
        let mut reference = live::reference(ctx, &cell.backend, &subject)?;
        let found = judge::logits(&side(ctx, cell)?, &subject.questions, &mut reference, &limits);
        live::witness(found, &reference, &subject)
    }
}
