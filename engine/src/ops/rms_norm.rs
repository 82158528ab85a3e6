//! `dst = src / sqrt(mean(src^2) + eps) * weight` (arXiv:1910.07467), over rows as wide as the weight: a weight as wide as a head norms
//! every head by itself.

use super::cases::LENGTHS;
use super::state::serial;
use super::{Cases, Operation, ShapeError, Shapes, Slot, State, Unit, VectorId};

/// Root mean square norm.
#[derive(Debug, Clone, PartialEq)]
pub struct RmsNorm {
    /// Input.
    pub src: Slot,
    /// Output; may be `src`.
    pub dst: Slot,
    /// The weight.
    pub weight: VectorId,
    /// Added to the mean square.
    pub eps: f32,
}

pub(super) static UNIT: Unit = Unit { name: "rms_norm", cases };

impl Operation for RmsNorm {
    fn slots(&self) -> [Vec<Slot>; 2] {
        [vec![self.src], vec![self.dst]]
    }

    fn check(&self, shapes: &mut Shapes<'_>) -> Result<(), ShapeError> {
        let (width, weight) = (shapes.read(self.src)?, shapes.vector(self.weight).len());
        shapes.ensure(weight > 0 && width % weight == 0, || {
            format!("a weight of {weight} elements for rows of {width}")
        })?;
        shapes.write(self.dst, width);
        Ok(())
    }

    fn run(&self, state: &mut State<'_>) {
        let (kernels, weight, eps) = (state.kernels, state.tensors.vector(self.weight), self.eps);
        let width = weight.len();
        state.map_rows(self.src, self.dst, width, serial(4, width), &|_, x, y| {
            kernels.rms_norm(x, weight, eps, y);
        });
    }
}

fn cases(cases: &mut Cases<'_>) {
    for &n in cases.some(&LENGTHS) {
        let (x, w) = (cases.values(n, 8.0), cases.values(n, 3.0));
        cases.change(&format!("of {n}"), &vec![f32::NAN; n], |k, out| k.rms_norm(&x, &w, 1e-5, out));
    }
}
