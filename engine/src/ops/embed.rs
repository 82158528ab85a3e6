//! `dst[t] = table[token[t]]`: the rows of the embedding.

use super::{Cases, MatrixId, Operation, ShapeError, Shapes, Slot, State, Unit};

/// Looks up the tokens' rows of a table `[vocab][width]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Embed {
    /// The table.
    pub table: MatrixId,
    /// Where the rows go.
    pub dst: Slot,
}

/// Unpacking is not a kernel's: there is nothing to compare.
pub(super) static UNIT: Unit = Unit { name: "embed", cases: |_: &mut Cases<'_>| {} };

impl Operation for Embed {
    fn slots(&self) -> [Vec<Slot>; 2] {
        [Vec::new(), vec![self.dst]]
    }

    fn check(&self, shapes: &mut Shapes<'_>) -> Result<(), ShapeError> {
        shapes.write(self.dst, shapes.matrix(self.table).cols);
        Ok(())
    }

    fn run(&self, state: &mut State<'_>) {
        let table = state.tensors.matrix(self.table);
        let tokens = state.tokens;
        let out = state.slot_mut(self.dst);
        out.resize(tokens.len() * table.cols);
        for (row, &token) in out.chunks_exact_mut(table.cols).zip(tokens) {
            table.unpack_row(token as usize, row);
        }
    }
}
