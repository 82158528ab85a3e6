//! Keeps the rows of which logits were asked for: what follows runs on these only.

use super::{Cases, Operation, ShapeError, Shapes, Slot, State, Unit};

/// Keeps the wanted rows of a slot.
#[derive(Debug, Clone, PartialEq)]
pub struct SelectRows {
    /// The slot; what other slots hold is not used any more.
    pub slot: Slot,
}

pub(super) static UNIT: Unit = Unit { name: "select_rows", cases: |_: &mut Cases<'_>| {} };

impl Operation for SelectRows {
    fn slots(&self) -> [Vec<Slot>; 2] {
        [vec![self.slot], vec![self.slot]]
    }

    fn result(&self) -> Option<Slot> {
        None
    }

    fn check(&self, shapes: &mut Shapes<'_>) -> Result<(), ShapeError> {
        shapes.read(self.slot).map(|_| ())
    }

    fn run(&self, state: &mut State<'_>) {
        state.select(self.slot);
    }
}
