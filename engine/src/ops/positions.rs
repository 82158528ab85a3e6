//! `slot += table[position]`: learnt embeddings of absolute positions.

use super::{Cases, MatrixId, Operation, ShapeError, Shapes, Slot, State, Unit};

/// Adds the rows of a table `[positions][width]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Positions {
    /// The rows of the tokens.
    pub slot: Slot,
    /// The table; no sequence is longer.
    pub table: MatrixId,
}

/// Sums are those of `add`, and unpacking is not a kernel's.
pub(super) static UNIT: Unit = Unit { name: "positions", cases: |_: &mut Cases<'_>| {} };

impl Operation for Positions {
    fn slots(&self) -> [Vec<Slot>; 2] {
        [vec![self.slot], vec![self.slot]]
    }

    fn check(&self, shapes: &mut Shapes<'_>) -> Result<(), ShapeError> {
        let (width, table) = (shapes.read(self.slot)?, shapes.matrix(self.table).cols);
        shapes.ensure(width == table, || format!("a table of {table} columns for rows of {width}"))
    }

    fn run(&self, state: &mut State<'_>) {
        let table = state.tensors.matrix(self.table);
        let (work, kernels) = (&mut *state.work, state.kernels);
        let (slots, spare) = (&mut work.slots, &mut work.spare);
        spare.resize(table.cols);
        let positions = work.spans.iter().flat_map(|span| span.position..span.position + span.tokens);
        for (row, position) in slots[self.slot.index()].chunks_exact_mut(table.cols).zip(positions) {
            table.unpack_row(position, spare);
            kernels.add(row, spare);
        }
    }
}
