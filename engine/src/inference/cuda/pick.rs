//! The output matrix on a device: all logits, the few that a sampler looks at, or the one choice that the device goes on with.

use super::{Cuda, Pending, SCREENED_ROWS, no_room, room};
use crate::inference::{InferenceError, Needs, Screening};
use crate::ops::Linear;
use bitnet_kernels::cuda::device::{Buffer, CudaError, record};
use bitnet_kernels::cuda::head::{Output, Picked, ScreenedHead, TopK};
use bitnet_kernels::cuda::launches::{Rows, token_of};
use std::sync::Arc;

impl Cuda {
    /// The logits of all held rows, `[rows][vocab]`.
    pub(super) fn all(&mut self, logits: &mut Vec<f32>) -> Result<(), InferenceError> {
        self.catch_up()?;
        let (model, vocab) = (Arc::clone(&self.model), self.model.config.vocab_size);
        let (first, rows) = self.held;
        let device = Arc::clone(self.launches.device());
        let room = self.room()?;
        if room.logits.bytes() < 4 * rows * vocab {
            room.logits = room::slot_of_logits(&device, &model.widths, rows)?;
        }
        self.head(first, rows, None)?;
        logits.resize(rows * vocab, 0.0);
        Ok(self.room()?.logits.read(0, logits)?)
    }

    /// The logits of a held row that a sampler will look at; `None` where nothing could be drawn.
    pub(super) fn pick(&mut self, row: usize, needs: &Needs) -> Result<Option<Picked>, InferenceError> {
        let screens = self.screens()?;
        if needs.count == 1 && needs.within == 0.0 && needs.also.is_empty() {
            return self.best(row, screens);
        }
        self.catch_up()?;
        let (_, rows) = self.held;
        let room = self.room.as_ref().ok_or_else(no_room)?;
        let Some(&Linear { src, weight: id, .. }) = self.model.output() else { return Ok(None) };
        let matrix = self.weights.matrix(id);
        let held = (room.slot(src), 4 * self.held.0 * matrix.cols);
        match &self.screen {
            Some(screen) if screens => {
                if !self.screened {
                    screen.screen(held, rows, None)?;
                    self.screened = true;
                }
                screen.want(needs.wanted())?;
                screen.pick(&matrix.buffer, held, row)?;
                Ok(Some(screen.read(row)?))
            }
            _ => {
                self.head(self.held.0 + row, 1, None)?;
                if self.top.is_none() {
                    self.top = Some(TopK::new(self.launches.device(), matrix.rows, 1)?);
                }
                let Some(top) = &self.top else { return Ok(None) };
                top.want(needs.wanted())?;
                top.launch(&room.logits, 0..1)?;
                Ok(Some(top.read(&room.logits, 0)?))
            }
        }
    }

    /// The most likely token of a held row.
    fn best(&mut self, row: usize, screens: bool) -> Result<Option<Picked>, InferenceError> {
        // The screen of one row takes the place of that of all.
        self.screened = false;
        let key;
        if self.pending == Pending::Chosen {
            if self.going_on.is_none() {
                let launches = || -> Result<(), CudaError> {
                    self.next()?;
                    self.plan()?;
                    self.best_of(0, screens)
                };
                self.going_on = Some(record(&**self.launches.device(), &mut || launches())?);
            }
            let going_on = self.going_on.as_ref().ok_or_else(no_room)?;
            if !std::mem::take(&mut self.ahead) {
                going_on.start()?;
            }
            // As a rule it is asked to go on, so it does while the host looks at the choice.
            let goes_on = self.single.is_some_and(|position| position + 1 < self.shape.capacity);
            key = self.best.word_before(0, &mut || if goes_on { going_on.start() } else { Ok(()) })?;
            self.ahead = goes_on;
            self.pending = Pending::Nothing;
        } else {
            self.catch_up()?;
            if std::mem::take(&mut self.key) {
                self.best.write(0, &[0u64])?;
            }
            self.best_of(self.held.0 + row, screens)?;
            key = self.best.word_before(0, &mut || Ok(()))?;
        }
        self.key = key != 0;
        let best = token_of(key);
        self.chosen = best.and_then(|(token, _)| Some((token, self.single? + 1)));
        // How many rows were multiplied stays on the device until somebody asks.
        Ok(best.map(|pair| Picked { pairs: vec![pair], rescored: 0, sound: pair.1.is_finite() }))
    }

    /// Leaves the key of the largest logit of a row.
    fn best_of(&self, row: usize, screens: bool) -> Result<(), CudaError> {
        let (Some(room), Some(&Linear { src, weight: id, .. })) = (&self.room, self.model.output()) else {
            return Ok(());
        };
        let matrix = self.weights.matrix(id);
        match &self.screen {
            Some(screen) if screens => {
                screen.greedy(&matrix.buffer, (room.slot(src), 4 * row * matrix.cols), 1, &self.best)
            }
            _ => self.head(row, 1, Some(&self.best)),
        }
    }

    /// What screening came to so far, that of a token that the device went on to by itself included; nothing if the device does not say.
    pub(super) fn screened_so_far(&self) -> Screening {
        let totals = self.screen.as_ref().and_then(|screen| screen.totals().ok()).unwrap_or_default();
        let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        Screening { tokens: count(totals.tokens), rows: count(totals.rows) }
    }

    /// Whether the held rows are screened; makes the copy when it is first wanted.
    fn screens(&mut self) -> Result<bool, InferenceError> {
        let Some(&Linear { weight: id, .. }) = self.model.output() else { return Ok(false) };
        let matrix = self.weights.matrix(id);
        if self.how.copies(matrix.rows, matrix.buffer.bytes()).is_none() || self.held.1 > SCREENED_ROWS {
            return Ok(false);
        }
        if !self.tried {
            self.tried = true;
            let (w, rows, cols, multiplier) = (&matrix.buffer, matrix.rows, matrix.cols, matrix.multiplier);
            let output = Output { w, rows, cols, multiplier };
            self.screen = match ScreenedHead::build(self.launches.device(), output, SCREENED_ROWS) {
                // Without the copy it goes on, as with it.
                Err(error @ CudaError::Memory { .. }) => {
                    tracing::debug!(%error, "the output matrix is not screened");
                    None
                }
                built => built?,
            };
        }
        Ok(self.screen.is_some())
    }

    /// The output matrix for `rows` rows from `first` on.
    fn head(&self, first: usize, rows: usize, best: Option<&Buffer>) -> Result<(), CudaError> {
        let (Some(room), Some(&Linear { src, weight: id, .. })) = (&self.room, self.model.output()) else {
            return Ok(());
        };
        let matrix = self.weights.matrix(id);
        let x = Rows { buffer: room.slot(src), from: first * matrix.cols };
        self.launches.dense(&self.product(id, &room.logits), x, (rows, matrix.cols), best)
    }
}
