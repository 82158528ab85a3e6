//! Logits that are computed when they are asked for: the last rows of a call are held before the output matrix.
//!
//! Whoever looks at the rows one by one may stop at any of them (a draft that was not what the sampler drew), and what it
//! needs of a row may depend on the one before. The output matrix is still read once for all rows: whole when the first row
//! is asked for, or as its int8 copy, from which each row then takes the few products that it needs.

use super::cuda::Cuda;
use super::head::{self, COLD_ROWS, Needs, Screening};
use super::sampler::some;
use super::session::{Session, Until};
use super::{InferenceError, Want};
use crate::model::Slot;
use bitnet_kernels::ActKind;
use std::sync::Arc;

/// The rows that are held.
#[derive(Debug, Default)]
pub(super) struct Held {
    rows: usize,
    /// Position of the first.
    first: usize,
    read: Option<Read>,
}

/// What was read for them.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Read {
    /// The whole matrix: [`Slot::Logits`] is `[rows][vocab]`.
    Whole,
    /// The copy: [`Slot::Logits`] is that of the row that was asked for last, `[vocab]`.
    Copy,
}

impl Session {
    /// Appends tokens and holds the last `rows` of them, for [`Session::held`]. Those are computed together, whatever the
    /// chunk; observers are for [`Session::forward_observed`].
    ///
    /// # Errors
    /// As [`Session::forward`], or no row at all, or more rows than tokens.
    pub fn hold(&mut self, tokens: &[u32], rows: usize) -> Result<(), InferenceError> {
        if tokens.is_empty() {
            return Err(InferenceError::EmptyPrompt);
        }
        if rows == 0 || rows > tokens.len() {
            return Err(InferenceError::Option {
                what: "at least one row can be held, and at most one for each token",
            });
        }
        self.check(tokens)?;
        let chunk = self.options.chunk;
        let (before, end) = tokens.split_at(((tokens.len() - 1) / chunk * chunk).min(tokens.len() - rows));
        self.forward(before, Want::Nothing, &mut |_, _| {})?;
        self.run(end, end.len() - rows, Until::Head, &mut None)?;
        self.position += end.len();
        self.held = Held { rows, first: self.position - rows, read: None };
        Ok(())
    }

    /// The logits of row `row` of those that [`Session::hold`] holds, `[vocab]`; with `needs` all that it does not name may be
    /// minus infinity. Rows are held until the next tokens are appended, also those of tokens that were forgotten since.
    ///
    /// # Errors
    /// A row that is not held. Logits that are not numbers.
    pub fn held(&mut self, row: usize, needs: Option<&Needs>) -> Result<&[f32], InferenceError> {
        if row >= self.held.rows {
            return Err(InferenceError::Option { what: "the logits of a row that is not held" });
        }
        let vocab = self.model.config.vocab_size;
        let screened = match needs {
            Some(needs) if self.cuda.is_some() => self.picked(row, needs)?,
            Some(needs) => self.screened(row, needs),
            None => false,
        };
        if !screened && self.held.read != Some(Read::Whole) {
            let model = Arc::clone(&self.model);
            if let Some(cuda) = &mut self.cuda {
                cuda.logits(&model, &mut self.slots[Slot::Logits.index()])?;
            } else if let Some((src, id)) = head::matrix(&model) {
                self.linear(src, &[(id, Slot::Logits)], self.held.rows);
            }
            self.held.read = Some(Read::Whole);
        }
        let start = if screened { 0 } else { row * vocab };
        let logits = &self.slots[Slot::Logits.index()][start..start + vocab];
        let sound = match needs {
            None => !some(logits, |l| !l.is_finite()),
            // Screened logits are finite by their bound; the others say that nobody looks at them.
            Some(_) => !some(logits, |l| l.is_nan() || l == f32::INFINITY) && some(logits, f32::is_finite),
        };
        if sound { Ok(logits) } else { Err(InferenceError::NotFinite { position: self.held.first + row }) }
    }

    /// Appends tokens and returns the logits of the last one, `[vocab]`, of which only some are looked at: all others may be
    /// minus infinity.
    ///
    /// # Errors
    /// As [`Session::logits`].
    pub fn logits_needed(&mut self, tokens: &[u32], needs: &Needs) -> Result<&[f32], InferenceError> {
        self.hold(tokens, 1)?;
        self.held(0, Some(needs))
    }

    /// What screening came to so far.
    #[must_use]
    pub fn screening(&self) -> Screening {
        self.cuda.as_ref().map_or(self.screening, Cuda::screening)
    }

    /// Lets the device pick the logits of a held row, if it can and not all are here already.
    fn picked(&mut self, row: usize, needs: &Needs) -> Result<bool, InferenceError> {
        let Some(cuda) = self.cuda.as_mut().filter(|_| self.held.read != Some(Read::Whole)) else { return Ok(false) };
        let Some(picked) = cuda.pick(&self.model, row, needs)? else { return Ok(false) };
        if !picked.sound {
            return Err(InferenceError::NotFinite { position: self.held.first + row });
        }
        let logits = &mut self.slots[Slot::Logits.index()];
        logits.clear();
        logits.resize(self.model.config.vocab_size, f32::NEG_INFINITY);
        for (token, logit) in picked.pairs {
            if let Some(to) = logits.get_mut(token as usize) {
                *to = logit;
            }
        }
        self.held.read = Some(Read::Copy);
        Ok(true)
    }

    /// Screens the logits of a held row, if that is the way now.
    fn screened(&mut self, row: usize, needs: &Needs) -> bool {
        let model = Arc::clone(&self.model);
        let Some((src, id)) = head::matrix(&model) else { return false };
        let matrix = model.weights.matrix(id);
        let copied = self.held.read == Some(Read::Copy);
        // A copy that another session made costs nothing any more.
        let whole = if model.screen.get().is_some() { usize::MAX } else { self.whole };
        if !copied && (self.held.read.is_some() || !self.options.head.screens(matrix.data.len(), whole)) {
            self.whole += 1;
            return false;
        }
        let Some(screen) = head::screen(&model, id, &self.options.pool) else { return false };
        let (kernels, pool) = (self.options.kernels, &*self.options.pool);
        let hidden = &self.slots[src.index()];
        if !copied {
            kernels.prepare(ActKind::F32, hidden, self.held.rows, &mut self.prepared);
            screen.read((kernels, pool), &self.prepared, &mut self.scratch);
            self.held.read = Some(Read::Copy);
        }
        let hidden = &hidden[row * matrix.cols..(row + 1) * matrix.cols];
        kernels.prepare(ActKind::F32, hidden, 1, &mut self.prepared);
        let logits = &mut self.slots[Slot::Logits.index()];
        logits.resize(matrix.rows, 0.0);
        let picked = screen.pick(kernels, &matrix, (row, &self.prepared), needs.wanted(), &mut self.scratch, logits);
        let Some(rows) = picked else { return false };
        self.screening.tokens += 1;
        if self.screening.rows / COLD_ROWS != (self.screening.rows + rows) / COLD_ROWS {
            model.weights.release(id, 0..matrix.rows);
        }
        self.screening.rows += rows;
        true
    }
}
