//! `ops`: every operation of a plan, bit-equal to the scalar oracle, by the cases that each says of itself.

use super::{Check, Context, Failure};
use crate::axes::Cell;
use crate::metrics::Metrics;
use crate::models;
use bitnet_engine::ops;
use bitnet_kernels::Kernels;

pub struct Ops;

impl Check for Ops {
    fn name(&self) -> &'static str {
        "ops"
    }

    fn run(&self, cell: &Cell, ctx: &Context) -> Result<Metrics, Failure> {
        let compared = compare(models::kernels(cell)?, ctx.seed(cell))?;
        Ok(Metrics::new().with("values_compared", compared).ran(models::kernels(cell)?.name()))
    }
}

/// Runs all cases of all operations; returns how many values were compared.
///
/// # Errors
/// The first value whose bits differ.
pub fn compare(kernels: &dyn Kernels, seed: u64) -> Result<usize, Failure> {
    Ok(ops::compare(kernels, true, seed)?)
}
