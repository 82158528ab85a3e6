//! Rotary position embedding (arXiv:2104.09864): pairs of a head's elements are turned by an angle that grows with the position.
//!
//! All scalings come down to a [`RopeSpec`]: pair `i` of `n` turns by `position * theta^(-2i/dims) / factors[i]`, and cosine and
//! sine are multiplied with one magnitude. The tables are computed once, on the host, by our own sine and cosine.

use super::state::serial;
use super::{Cases, Operation, ShapeError, Shapes, Slot, State, Unit};
use bitnet_kernels::{Rope, rope_table};

/// Index of a rotation of a model: most have one, some another in blocks with a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RopeId(pub usize);

/// By which angles a model turns.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeSpec {
    /// Elements of a head that are turned; even.
    pub dims: usize,
    /// Base of the frequencies.
    pub theta: f32,
    /// Divisors of the frequencies, `[dims / 2]`; none divides by 1.
    pub factors: Option<Vec<f32>>,
    /// What cosines and sines are multiplied with.
    pub magnitude: f32,
    /// A context longer than so many positions takes these divisors instead, from its first position on (LongRoPE).
    pub beyond: Option<(usize, Vec<f32>)>,
}

impl RopeSpec {
    /// The rotation in a context of so many positions.
    pub fn within(&self, context: usize) -> Self {
        let mut spec = self.clone();
        if let Some((_, divisors)) = spec.beyond.take().filter(|(length, _)| context > *length) {
            spec.factors = Some(divisors);
        }
        spec
    }
}

/// Rotates the heads of a slot in place by the position of each token.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotate {
    /// Queries or keys.
    pub slot: Slot,
    /// Heads in the slot.
    pub heads: usize,
    /// Elements of a head; those from [`RopeSpec::dims`] on stay.
    pub dim: usize,
    /// Which elements are turned together.
    pub kind: Rope,
    /// By which angles.
    pub rope: RopeId,
}

pub(super) static UNIT: Unit = Unit { name: "rope", cases };

impl Operation for Rotate {
    fn slots(&self) -> [Vec<Slot>; 2] {
        [vec![self.slot], vec![self.slot]]
    }

    fn check(&self, shapes: &mut Shapes<'_>) -> Result<(), ShapeError> {
        let (width, &Self { heads, dim, .. }) = (shapes.read(self.slot)?, self);
        shapes.ensure(width == heads * dim, || format!("rows of {width} elements for {heads} heads of {dim}"))
    }

    fn run(&self, state: &mut State<'_>) {
        let width = self.heads * self.dim;
        let mut values = std::mem::take(state.slot_mut(self.slot));
        let (kernels, rope) = (state.kernels, state.rope(self.rope));
        state.pool.for_rows(&mut values, width, serial(1, width), &|row, values| {
            let (cos, sin) = rope.at(state.place(row).1);
            for head in values.chunks_exact_mut(self.dim) {
                kernels.rope(self.kind, head, cos, sin);
            }
        });
        *state.slot_mut(self.slot) = values;
    }
}

fn cases(cases: &mut Cases<'_>) {
    for &(dim, rotated) in cases.some(&[(128, 128), (80, 64), (32, 20), (64, 64)]) {
        let (x, cos, sin) = (cases.values(dim, 5.0), cases.values(rotated / 2, 1.0), cases.values(rotated / 2, 1.0));
        for kind in [Rope::Neox, Rope::Norm] {
            cases.change(&format!("{kind:?} of {rotated} in {dim}"), &x, |k, out| k.rope(kind, out, &cos, &sin));
        }
    }
}

/// Cosines and sines, `[positions][dims / 2]` each; grows with the sequence.
#[derive(Debug)]
pub(crate) struct RopeTable {
    spec: RopeSpec,
    positions: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeTable {
    pub(crate) fn new(spec: RopeSpec) -> Self {
        Self { spec, positions: 0, cos: Vec::new(), sin: Vec::new() }
    }

    /// Makes [`RopeTable::at`] valid below `positions`.
    pub(crate) fn extend_to(&mut self, positions: usize) {
        if positions <= self.positions {
            return;
        }
        let RopeSpec { dims, theta, factors, magnitude, .. } = &self.spec;
        let half = dims / 2;
        self.cos.resize(positions * half, 0.0);
        self.sin.resize(positions * half, 0.0);
        for position in self.positions..positions {
            let range = position * half..(position + 1) * half;
            let (cos, sin) = (&mut self.cos[range.clone()], &mut self.sin[range]);
            rope_table(*dims, *theta, factors.as_deref(), position, cos, sin);
            if *magnitude != 1.0 {
                cos.iter_mut().chain(sin).for_each(|value| *value *= magnitude);
            }
        }
        self.positions = positions;
    }

    /// Cosines and sines of all positions so far.
    pub(crate) fn all(&self) -> (&[f32], &[f32]) {
        (&self.cos, &self.sin)
    }

    /// Cosines and sines of a position.
    pub(crate) fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let half = self.spec.dims / 2;
        let range = position * half..(position + 1) * half;
        (&self.cos[range.clone()], &self.sin[range])
    }
}
