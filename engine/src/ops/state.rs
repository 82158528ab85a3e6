//! What operations compute on: slots, caches and rotary tables of a CPU, for the rows at hand.

use super::batch::{Batch, Span, place};
use super::rope::{RopeId, RopeSpec, RopeTable};
use super::{KvCache, MatrixId, Slot, VectorId};
use bitnet_kernels::lines::Lines;
use bitnet_kernels::parallel::SERIAL_WORK;
use bitnet_kernels::{Activations, Kernels, Matrix, Pool};

/// The tensors of a model, by the ids of its plan.
pub trait Tensors: Sync {
    /// A matrix.
    fn matrix(&self, id: MatrixId) -> Matrix<'_>;
    /// A vector.
    fn vector(&self, id: VectorId) -> &[f32];
}

/// Activations: one buffer a slot, and what operations need on their way.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) slots: [Lines<f32>; Slot::ALL.len()],
    /// Takes results that cannot be written over their inputs; swapped with a slot afterwards.
    pub(crate) spare: Lines<f32>,
    pub(crate) prepared: Activations,
    /// The spans of the rows at hand; kept for its memory.
    pub(super) spans: Vec<Span>,
}

impl Default for Workspace {
    fn default() -> Self {
        Self {
            slots: std::array::from_fn(|_| Lines::new()),
            spare: Lines::new(),
            prepared: Activations::default(),
            spans: Vec::new(),
        }
    }
}

/// What sequences remember: their caches, and the rotary tables that they share.
#[derive(Debug)]
pub(crate) struct Memory {
    /// One for each sequence.
    pub(crate) caches: Vec<KvCache>,
    ropes: Vec<RopeTable>,
}

impl Memory {
    /// `caches` hold up to `context` positions each.
    pub(crate) fn new(caches: Vec<KvCache>, ropes: &[RopeSpec], context: usize) -> Self {
        Self { caches, ropes: ropes.iter().map(|spec| RopeTable::new(spec.within(context))).collect() }
    }
}

/// A step's view of the world.
pub struct State<'a> {
    /// The instruction set.
    pub kernels: &'a dyn Kernels,
    /// The threads.
    pub pool: &'a Pool,
    /// The weights.
    pub tensors: &'a dyn Tensors,
    /// The tokens of all rows.
    pub tokens: &'a [u32],
    pub(crate) work: &'a mut Workspace,
    pub(crate) memory: &'a mut Memory,
}

impl<'a> State<'a> {
    /// The state before the first step of a batch.
    pub(crate) fn new(
        (kernels, pool): (&'a dyn Kernels, &'a Pool),
        tensors: &'a dyn Tensors,
        batch: &Batch<'a>,
        work: &'a mut Workspace,
        memory: &'a mut Memory,
    ) -> Self {
        work.spans.clear();
        work.spans.extend_from_slice(batch.spans);
        let end = batch.spans.iter().map(|span| span.position + span.tokens).max().unwrap_or(0);
        memory.ropes.iter_mut().for_each(|rope| rope.extend_to(end));
        Self { kernels, pool, tensors, tokens: batch.tokens, work, memory }
    }

    /// The activations of a slot, `[rows][width]`.
    pub fn slot(&self, slot: Slot) -> &[f32] {
        &self.work.slots[slot.index()]
    }

    /// The buffer of a slot, to be sized and filled.
    pub fn slot_mut(&mut self, slot: Slot) -> &mut Lines<f32> {
        &mut self.work.slots[slot.index()]
    }

    /// Rows (tokens) at hand.
    pub fn rows(&self) -> usize {
        self.work.spans.iter().map(|span| span.tokens).sum()
    }

    /// Whose the rows are.
    pub fn spans(&self) -> &[Span] {
        &self.work.spans
    }

    /// The sequence and the position of a row.
    pub fn place(&self, row: usize) -> (usize, usize) {
        place(&self.work.spans, row)
    }

    pub(crate) fn rope(&self, id: RopeId) -> &RopeTable {
        &self.memory.ropes[id.0]
    }

    /// Keeps only the rows of which logits are wanted, in one slot; what the others held is stale.
    pub(crate) fn select(&mut self, slot: Slot) {
        let width = self.slot(slot).len() / self.rows().max(1);
        let (spans, values) = (&mut self.work.spans, &mut self.work.slots[slot.index()]);
        let (mut from, mut to) = (0, 0);
        for span in spans {
            let kept = span.wanted.min(span.tokens);
            from += (span.tokens - kept) * width;
            values.copy_within(from..from + kept * width, to);
            (from, to) = (from + kept * width, to + kept * width);
            (span.position, span.tokens) = (span.position + span.tokens - kept, kept);
        }
        values.resize(to);
    }
}

/// Takes the index of a row, the row, and where its result goes.
pub(crate) type RowMap<'f> = &'f (dyn Fn(usize, &[f32], &mut [f32]) + Sync);

/// How many rows of `width` elements one thread should at least take, with `work` multiplications for each element. Any number gives the
/// same bits.
pub(super) fn serial(work: usize, width: usize) -> usize {
    SERIAL_WORK / (work * width)
}

/// Elements that one thread takes of a step that treats each by itself: any split gives the same bits.
const PIECE: usize = 4096;

impl State<'_> {
    /// `dst = f(row, src)` for rows of `width` elements, at least `serial` of them a thread.
    pub(crate) fn map_rows(&mut self, src: Slot, dst: Slot, width: usize, serial: usize, f: RowMap<'_>) {
        let work = &mut *self.work;
        let input = &work.slots[src.index()];
        work.spare.resize(input.len());
        self.pool.for_rows(&mut work.spare, width, serial, &|i, row| f(i, &input[i * width..(i + 1) * width], row));
        std::mem::swap(&mut work.spare, &mut work.slots[dst.index()]);
    }

    /// `f` of the pieces of a slot.
    pub(crate) fn each_piece(&mut self, slot: Slot, f: &(dyn Fn(&mut [f32]) + Sync)) {
        let pool = self.pool;
        pool.for_rows(self.slot_mut(slot), PIECE, serial(1, PIECE), &|_, part| f(part));
    }

    /// `f(dst, src)` for pieces of two slots of one size.
    pub(crate) fn zip_pieces(&mut self, dst: Slot, src: Slot, f: &(dyn Fn(&mut [f32], &[f32]) + Sync)) {
        let work = &mut *self.work;
        let mut values = std::mem::take(&mut work.slots[dst.index()]);
        let other = &work.slots[src.index()];
        self.pool.for_rows(&mut values, PIECE, serial(1, PIECE), &|i, part| {
            f(part, &other[i * PIECE..i * PIECE + part.len()]);
        });
        work.slots[dst.index()] = values;
    }
}
