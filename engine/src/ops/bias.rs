//! `slot += bias`, the same for every token.

use super::cases::LENGTHS;
use super::state::serial;
use super::{Cases, Operation, ShapeError, Shapes, Slot, State, Unit, VectorId};

/// Adds a bias to every row.
#[derive(Debug, Clone, PartialEq)]
pub struct Bias {
    /// The rows.
    pub slot: Slot,
    /// As wide as they are.
    pub bias: VectorId,
}

pub(super) static UNIT: Unit = Unit { name: "bias", cases };

impl Operation for Bias {
    fn slots(&self) -> [Vec<Slot>; 2] {
        [vec![self.slot], vec![self.slot]]
    }

    fn check(&self, shapes: &mut Shapes<'_>) -> Result<(), ShapeError> {
        let (width, bias) = (shapes.read(self.slot)?, shapes.vector(self.bias).len());
        shapes.ensure(width == bias, || format!("a bias of {bias} elements for rows of {width}"))
    }

    fn run(&self, state: &mut State<'_>) {
        let (kernels, bias) = (state.kernels, state.tensors.vector(self.bias));
        let (pool, width) = (state.pool, bias.len());
        pool.for_rows(state.slot_mut(self.slot), width, serial(1, width), &|_, row| kernels.add(row, bias));
    }
}

fn cases(cases: &mut Cases<'_>) {
    for &n in cases.some(&LENGTHS) {
        let (rows, bias) = (cases.values(3 * n, 8.0), cases.values(n, 3.0));
        cases.change(&format!("of {n}"), &rows, |k, out| out.chunks_exact_mut(n).for_each(|row| k.add(row, &bias)));
    }
}
