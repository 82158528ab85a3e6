//! Whether the steps of a plan fit each other: the widths of the slots, followed from step to step.

use super::{MatrixId, Slot, Step, Tensors, VectorId};
use bitnet_kernels::Matrix;

/// A step whose inputs do not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("step `{step}`: {what}")]
pub struct ShapeError {
    /// The step.
    pub step: String,
    /// What does not fit.
    pub what: String,
}

/// The largest width of each slot over a plan, in the order of [`Slot::ALL`]; 0 for a slot that the plan does not use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Widths([usize; Slot::ALL.len()]);

impl Widths {
    /// Elements of a token's row, at most.
    pub fn of(&self, slot: Slot) -> usize {
        self.0[slot.index()]
    }
}

/// The widths of the slots before a step.
pub struct Shapes<'a> {
    tensors: &'a dyn Tensors,
    step: &'a str,
    now: Widths,
    most: Widths,
}

impl<'a> Shapes<'a> {
    /// Checks a plan from its first step to its last, and returns how wide slots become.
    ///
    /// # Errors
    /// The first step that does not fit.
    pub fn check(plan: &'a [Step], tensors: &'a dyn Tensors) -> Result<Widths, ShapeError> {
        let mut shapes = Self::new(tensors, "");
        for step in plan {
            shapes.step = &step.name;
            step.op.as_operation().check(&mut shapes)?;
        }
        Ok(shapes.most)
    }

    /// Before a step, with nothing in any slot.
    pub(super) fn new(tensors: &'a dyn Tensors, step: &'a str) -> Self {
        Self { tensors, step, now: Widths::default(), most: Widths::default() }
    }

    /// The error that the step does not fit.
    pub fn error(&self, what: impl Into<String>) -> ShapeError {
        ShapeError { step: self.step.to_owned(), what: what.into() }
    }

    /// `what` unless `fits`.
    ///
    /// # Errors
    /// The text as the step's error.
    pub fn ensure(&self, fits: bool, what: impl FnOnce() -> String) -> Result<(), ShapeError> {
        if fits { Ok(()) } else { Err(self.error(what())) }
    }

    /// The width of a slot.
    ///
    /// # Errors
    /// Nothing was written to it yet.
    pub fn read(&self, slot: Slot) -> Result<usize, ShapeError> {
        match self.now.of(slot) {
            0 => Err(self.error(format!("nothing is in {slot:?}"))),
            width => Ok(width),
        }
    }

    /// Sets the width of a slot.
    pub fn write(&mut self, slot: Slot, width: usize) {
        self.now.0[slot.index()] = width;
        let most = &mut self.most.0[slot.index()];
        *most = width.max(*most);
    }

    /// A matrix of the model.
    pub fn matrix(&self, id: MatrixId) -> Matrix<'a> {
        self.tensors.matrix(id)
    }

    /// A vector of the model.
    pub fn vector(&self, id: VectorId) -> &'a [f32] {
        self.tensors.vector(id)
    }
}
