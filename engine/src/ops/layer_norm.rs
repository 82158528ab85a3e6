//! `dst = (src - mean) / sqrt(variance + eps) * weight + bias` (arXiv:1607.06450), the population's variance.

use super::cases::LENGTHS;
use super::state::serial;
use super::{Cases, Operation, ShapeError, Shapes, Slot, State, Unit, VectorId};

/// Layer norm.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerNorm {
    /// Input.
    pub src: Slot,
    /// Output; may be `src`.
    pub dst: Slot,
    /// The weight.
    pub weight: VectorId,
    /// The bias.
    pub bias: VectorId,
    /// Added to the variance.
    pub eps: f32,
}

pub(super) static UNIT: Unit = Unit { name: "layer_norm", cases };

impl Operation for LayerNorm {
    fn slots(&self) -> [Vec<Slot>; 2] {
        [vec![self.src], vec![self.dst]]
    }

    fn check(&self, shapes: &mut Shapes<'_>) -> Result<(), ShapeError> {
        let width = shapes.read(self.src)?;
        for vector in [self.weight, self.bias].map(|id| shapes.vector(id).len()) {
            shapes.ensure(vector == width, || format!("a weight or bias of {vector} elements for rows of {width}"))?;
        }
        shapes.write(self.dst, width);
        Ok(())
    }

    fn run(&self, state: &mut State<'_>) {
        let (kernels, eps) = (state.kernels, self.eps);
        let [weight, bias] = [self.weight, self.bias].map(|id| state.tensors.vector(id));
        let width = weight.len();
        state.map_rows(self.src, self.dst, width, serial(4, width), &|_, x, y| {
            kernels.layer_norm(x, weight, bias, eps, y);
        });
    }
}

fn cases(cases: &mut Cases<'_>) {
    for &n in cases.some(&LENGTHS) {
        let (x, w, b) = (cases.values(n, 8.0), cases.values(n, 3.0), cases.values(n, 1.0));
        cases.change(&format!("of {n}"), &vec![f32::NAN; n], |k, out| k.layer_norm(&x, &w, &b, 1e-5, out));
    }
}
