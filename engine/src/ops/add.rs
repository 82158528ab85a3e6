//! `dst += src`: a block's output joins the residual stream.

use super::cases::LENGTHS;
use super::{Cases, Operation, ShapeError, Shapes, Slot, State, Unit};

/// Adds one slot to another.
#[derive(Debug, Clone, PartialEq)]
pub struct Add {
    /// The term.
    pub src: Slot,
    /// The sum.
    pub dst: Slot,
}

pub(super) static UNIT: Unit = Unit { name: "add", cases };

impl Operation for Add {
    fn slots(&self) -> [Vec<Slot>; 2] {
        [vec![self.dst, self.src], vec![self.dst]]
    }

    fn check(&self, shapes: &mut Shapes<'_>) -> Result<(), ShapeError> {
        let (a, b) = (shapes.read(self.dst)?, shapes.read(self.src)?);
        shapes.ensure(a == b, || format!("rows of {b} elements are added to rows of {a}"))
    }

    fn run(&self, state: &mut State<'_>) {
        let kernels = state.kernels;
        state.zip_pieces(self.dst, self.src, &|sum, term| kernels.add(sum, term));
    }
}

fn cases(cases: &mut Cases<'_>) {
    for &n in cases.some(&LENGTHS) {
        let (x, y) = (cases.values(n, 8.0), cases.values(n, 3.0));
        cases.change(&format!("of {n}"), &x, |k, out| k.add(out, &y));
    }
}
