//! The output matrix on a processor: all logits of the held rows, or the few that a sampler looks at.
//!
//! It is read once for all rows: whole, or as its int8 copy, from which each row then takes the few products that it needs. What
//! is needed of a row may depend on the one before.

use super::Cpu;
use crate::inference::head::{COLD_ROWS, LEAST_TOKENS};
use crate::inference::{Head, Needs};
use crate::model::HugePages;
use crate::ops::{Linear, Workspace};
use bitnet_kernels::parallel::{self, Product};
use bitnet_kernels::screen::Screen;

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
        if !self.copied && !self.read_screen() {
            return false;
        }
        let model = &*self.model;
        let Some(&Linear { src, weight, .. }) = model.output() else { return false };
        let matrix = model.weights.matrix(weight);
        let Some(screen) = model.screen.get().and_then(Option::as_ref).or(self.screen.as_ref()) else { return false };
        let work = &mut self.work;
        let hidden = &work.slots[src.index()][row * matrix.cols..(row + 1) * matrix.cols];
        self.kernels.prepare(matrix.act, hidden, 1, &mut work.prepared);
        out.resize(matrix.rows, 0.0);
        let picked = screen.pick(self.kernels, &matrix, (row, &work.prepared), needs.wanted(), &mut self.scratch, out);
        let Some(rows) = picked else { return false };
        self.screening.tokens += 1;
        if self.screening.rows / COLD_ROWS != (self.screening.rows + rows) / COLD_ROWS {
            model.weights.release(weight, 0..screen.copied());
        }
        self.screening.rows += rows;
        true
    }

    /// Reads the copy of the output matrix for the held rows, and copies what is due of it. A whole copy is the model's: other
    /// sessions have it too. What is copied is cold from then on: its memory is given back.
    fn read_screen(&mut self) -> bool {
        let model = &*self.model;
        let Some(&Linear { src, weight, .. }) = model.output() else { return false };
        let matrix = model.weights.matrix(weight);
        let Some(more) = self.how.copies(matrix.rows, matrix.data.len()) else { return false };
        let prepare = |work: &mut Workspace| {
            self.kernels.prepare(matrix.act, &work.slots[src.index()], self.held, &mut work.prepared);
        };
        let set = (self.kernels, &*self.pool);
        if let Some(shared) = model.screen.get() {
            self.screen = None;
            let Some(screen) = shared else { return false };
            prepare(&mut self.work);
            screen.read(set, &matrix, &self.work.prepared, &mut self.scratch);
        } else {
            if self.screen.is_none() {
                if self.how == Head::Auto && self.passes.left() < LEAST_TOKENS {
                    return false;
                }
                let huge = match model.huge_pages {
                    HugePages::Off => Some(false),
                    HugePages::On => Some(true),
                    HugePages::Auto => None,
                };
                self.screen = Screen::empty(&matrix, huge);
            }
            let Some(screen) = &mut self.screen else {
                let _known = model.screen.set(None);
                return false;
            };
            prepare(&mut self.work);
            let copied = |rows| model.weights.release(weight, rows);
            screen.read_on(set, (&matrix, more), &self.work.prepared, &copied, &mut self.scratch);
            if screen.is_whole() {
                // If another session was first, that copy is the same.
                let _first = model.screen.set(self.screen.take());
            }
        }
        self.copied = true;
        true
    }
}
