//! The output matrix on a processor: all logits of the held rows, or the few that a sampler looks at.
//!
//! It is read once for all rows: whole, or as its int8 copy, from which each row then takes the few products that it needs. What
//! is needed of a row may depend on the one before.

use super::Cpu;
use crate::inference::Needs;
use crate::inference::head::{self, COLD_ROWS};
use crate::ops::Linear;
use bitnet_kernels::parallel::{self, Product};

impl Cpu {
    /// The logits of all held rows.
    pub(super) fn output(&mut self, out: &mut Vec<f32>) {
        let Some(&Linear { src, weight, .. }) = self.model.output() else { return };
        let matrix = self.model.weights.matrix(weight);
        out.resize(self.held * matrix.rows, 0.0);
        let hidden = &self.work.slots[src.index()];
        self.kernels.prepare(matrix.act, hidden, self.held, &mut self.work.prepared);
        parallel::matmul(&self.pool, self.kernels, &mut [Product { matrix, out }], &self.work.prepared);
    }

    /// Screens the logits of a held row, if that is the way now.
    pub(super) fn screened(&mut self, row: usize, needs: &Needs, out: &mut Vec<f32>) -> bool {
        let model = &*self.model;
        let Some(&Linear { src, weight, .. }) = model.output() else { return false };
        let matrix = model.weights.matrix(weight);
        // A copy that another session made costs nothing any more.
        let whole = if model.screen.get().is_some() { usize::MAX } else { self.whole };
        if !self.copied && !self.how.screens(matrix.data.len(), whole) {
            self.whole += 1;
            return false;
        }
        let Some(screen) = head::screen(model, weight, &self.pool) else { return false };
        let (kernels, pool, work) = (self.kernels, &*self.pool, &mut self.work);
        let hidden = &work.slots[src.index()];
        if !self.copied {
            kernels.prepare(matrix.act, hidden, self.held, &mut work.prepared);
            screen.read((kernels, pool), &work.prepared, &mut self.scratch);
            self.copied = true;
        }
        let hidden = &hidden[row * matrix.cols..(row + 1) * matrix.cols];
        kernels.prepare(matrix.act, hidden, 1, &mut work.prepared);
        out.resize(matrix.rows, 0.0);
        let picked = screen.pick(kernels, &matrix, (row, &work.prepared), needs.wanted(), &mut self.scratch, out);
        let Some(rows) = picked else { return false };
        self.screening.tokens += 1;
        if self.screening.rows / COLD_ROWS != (self.screening.rows + rows) / COLD_ROWS {
            model.weights.release(weight, 0..matrix.rows);
        }
        self.screening.rows += rows;
        true
    }
}
