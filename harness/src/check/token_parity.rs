//! `token-parity`: the live reference makes the same ids of texts of many scripts. Where it does not, the message has its
//! ids, ours, and HuggingFace's, which are what models are trained with.

use super::{Check, Context, Failure};
use crate::axes::Cell;
use crate::metrics::Metrics;
use crate::references::{huggingface, judge, live, questions};

pub struct TokenParity;

impl Check for TokenParity {
    fn name(&self) -> &'static str {
        "token-parity"
    }

    fn run(&self, cell: &Cell, ctx: &Context) -> Result<Metrics, Failure> {
        let subject = questions::subject(ctx, cell)?;
        let mut reference = live::reference(ctx, &cell.backend, &subject)?;
        let found = judge::tokens(&subject, &mut reference, &|text| huggingface::ids(ctx, cell, text));
        live::witness(found, &reference, &subject)
    }
}
