//! The gate of a feed-forward block: `gate = f(gate) * up`, element by element.

use super::cases::LENGTHS;
use super::{Cases, Operation, ShapeError, Shapes, Slot, State, Unit};
use bitnet_kernels::Kernels;

/// The function of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gating {
    /// `relu(gate)^2 * up` (BitNet b1.58 2B-4T).
    Relu2,
    /// `gate * sigmoid(gate) * up` (LLaMA, the first BitNet models).
    Silu,
    /// `gelu(gate) * up` (Gemma).
    Gelu,
}

/// Gates [`Slot::Gate`] with [`Slot::Up`] in place.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate(pub Gating);

pub(super) static UNIT: Unit = Unit { name: "gate", cases };

impl Gating {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Relu2, Self::Silu, Self::Gelu];

    fn apply(self, kernels: &dyn Kernels, gate: &mut [f32], up: &[f32]) {
        match self {
            Self::Relu2 => kernels.relu2_gate(gate, up),
            Self::Silu => kernels.silu_gate(gate, up),
            Self::Gelu => kernels.gelu_gate(gate, up),
        }
    }
}

impl Operation for Gate {
    fn slots(&self) -> [Vec<Slot>; 2] {
        [vec![Slot::Gate, Slot::Up], vec![Slot::Gate]]
    }

    fn check(&self, shapes: &mut Shapes<'_>) -> Result<(), ShapeError> {
        let (gate, up) = (shapes.read(Slot::Gate)?, shapes.read(Slot::Up)?);
        shapes.ensure(gate == up, || format!("a gate of {gate} elements for {up}"))
    }

    fn run(&self, state: &mut State<'_>) {
        let kernels = state.kernels;
        state.zip_pieces(Slot::Gate, Slot::Up, &|gate, up| self.0.apply(kernels, gate, up));
    }
}

fn cases(cases: &mut Cases<'_>) {
    for gating in Gating::ALL {
        for &n in cases.some(&LENGTHS) {
            // Far beyond where the exponential under- and overflows.
            let x: Vec<f32> =
                cases.values(n, 8.0).iter().enumerate().map(|(i, x)| x * [1.0, 0.01, 30.0][i % 3]).collect();
            let y = cases.values(n, 3.0);
            cases.change(&format!("{gating:?} of {n}"), &x, |k, out| gating.apply(k, out, &y));
        }
    }
}
