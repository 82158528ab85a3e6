//! `continuation`: the live reference goes on from each prompt with the same tokens, wherever its own choice is clear.

use super::{Check, Context, Failure};
use crate::axes::Cell;
use crate::metrics::Metrics;
use crate::references::{judge, live, questions, side};
use bitnet_golden::thresholds;

pub struct Continuation;

impl Check for Continuation {
    fn name(&self) -> &'static str {
        "continuation"
    }

    fn run(&self, cell: &Cell, ctx: &Context) -> Result<Metrics, Failure> {
        let limits = thresholds::crossval(&ctx.paths.golden, &cell.backend, &cell.model, &cell.quant)?;
        let subject = questions::asked(ctx, cell)?;
        let mut reference = live::reference(ctx, &cell.backend, &subject)?;
        let found = judge::continuation(&side(ctx, cell)?, &subject.questions, &mut reference, &limits);
        live::witness(found, &reference, &subject)
    }
}
