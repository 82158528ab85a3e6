//! `slot *= factor`.

use super::cases::LENGTHS;
use super::{Cases, Operation, ShapeError, Shapes, Slot, State, Unit};

/// Multiplies with a constant.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    /// In place.
    pub slot: Slot,
    /// The constant.
    pub factor: f32,
}

pub(super) static UNIT: Unit = Unit { name: "scale", cases };

impl Operation for Scale {
    fn slots(&self) -> [Vec<Slot>; 2] {
        [vec![self.slot], vec![self.slot]]
    }

    fn check(&self, shapes: &mut Shapes<'_>) -> Result<(), ShapeError> {
        shapes.read(self.slot).map(|_| ())
    }

    fn run(&self, state: &mut State<'_>) {
        let (kernels, factor) = (state.kernels, self.factor);
        state.each_piece(self.slot, &|part| kernels.scale(part, factor));
    }
}

fn cases(cases: &mut Cases<'_>) {
    for &n in cases.some(&LENGTHS) {
        let x = cases.values(n, 8.0);
        cases.change(&format!("of {n}"), &x, |k, out| k.scale(out, 0.197));
    }
}
