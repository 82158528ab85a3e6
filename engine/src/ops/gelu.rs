//! `slot = gelu(slot)`, by the approximation with tanh (arXiv:1606.08415).

use super::cases::LENGTHS;
use super::{Cases, Operation, ShapeError, Shapes, Slot, State, Unit};

/// The activation of a feed-forward block without a gate.
#[derive(Debug, Clone, PartialEq)]
pub struct Gelu {
    /// In place.
    pub slot: Slot,
}

pub(super) static UNIT: Unit = Unit { name: "gelu", cases };

impl Operation for Gelu {
    fn slots(&self) -> [Vec<Slot>; 2] {
        [vec![self.slot], vec![self.slot]]
    }

    fn check(&self, shapes: &mut Shapes<'_>) -> Result<(), ShapeError> {
        shapes.read(self.slot).map(|_| ())
    }

    fn run(&self, state: &mut State<'_>) {
        let kernels = state.kernels;
        state.each_piece(self.slot, &|part| kernels.gelu(part));
    }
}

fn cases(cases: &mut Cases<'_>) {
    for &n in cases.some(&LENGTHS) {
        let x: Vec<f32> = cases.values(n, 8.0).iter().enumerate().map(|(i, x)| x * [1.0, 0.01, 30.0][i % 3]).collect();
        cases.change(&format!("of {n}"), &x, |k, out| k.gelu(out));
    }
}
