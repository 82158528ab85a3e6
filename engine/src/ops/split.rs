//! Tells the parts of a wide row apart: the queries, keys and values of one matrix.

use super::{Cases, Operation, ShapeError, Shapes, Slot, State, Unit};

/// Copies the parts of each row of a slot, one after the other, to slots of their own.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// The wide rows.
    pub src: Slot,
    /// Where the parts go, and how wide they are.
    pub parts: [(Slot, usize); 3],
}

/// Nothing is computed.
pub(super) static UNIT: Unit = Unit { name: "split", cases: |_: &mut Cases<'_>| {} };

impl Operation for Split {
    fn slots(&self) -> [Vec<Slot>; 2] {
        [vec![self.src], self.parts.map(|(slot, _)| slot).to_vec()]
    }

    fn result(&self) -> Option<Slot> {
        None
    }

    fn check(&self, shapes: &mut Shapes<'_>) -> Result<(), ShapeError> {
        let (width, sum) = (shapes.read(self.src)?, self.parts.iter().map(|(_, width)| width).sum::<usize>());
        shapes.ensure(width == sum, || format!("rows of {width} elements are split into {sum}"))?;
        self.parts.iter().for_each(|&(slot, width)| shapes.write(slot, width));
        Ok(())
    }

    fn run(&self, state: &mut State<'_>) {
        let wide = std::mem::take(state.slot_mut(self.src));
        let (rows, width) = (state.rows(), self.parts.iter().map(|(_, width)| width).sum());
        let mut from = 0;
        for &(slot, part) in &self.parts {
            let out = state.slot_mut(slot);
            out.resize(rows * part);
            for (out, row) in out.chunks_exact_mut(part.max(1)).zip(wide.chunks_exact(width)) {
                out.copy_from_slice(&row[from..from + part]);
            }
            from += part;
        }
        *state.slot_mut(self.src) = wide;
    }
}
