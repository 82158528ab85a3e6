//! A recording as a reference: it answers what it was asked when it was made, and nothing else.

use super::questions::Subject;
use crate::axes::Cell;
use crate::context::Context;
use crate::crossval::reference::Continuation;
use crate::crossval::{Logits, Positions, Reference, Row, SideError, Traced};
use crate::failure::Failure;
use bitnet_golden::reference::{Passage, Recording, file};
use std::path::Path;

/// A recording of the very file that a cell is about.
#[derive(Debug, Clone)]
pub struct Recorded {
    recording: Recording,
    name: String,
}

impl Recorded {
    /// The recording of a cell.
    ///
    /// # Errors
    /// There is none, it cannot be read, or it is of another file: the message says how to record again.
    pub fn of(ctx: &Context, cell: &Cell, subject: &Subject) -> Result<Self, Failure> {
        let (backend, model, quant) = (&cell.backend, &cell.model, &cell.quant);
        let golden = &ctx.paths.golden;
        let path = file(Path::new("golden"), backend, model, quant);
        let command = format!("cargo xtask reference record {backend} --model {model}");
        let Some(recording) = Recording::read(golden, backend, model, quant)? else {
            return Err(Failure::new(format_args!(
                "{} is missing: nothing is recorded of {model} in {quant} by {backend}; record it: {command}",
                path.display()
            )));
        };
        let hash = subject.file.content_hash();
        if recording.model_sha256 != hash {
            return Err(Failure::new(format_args!(
                "{} is stale: it is about the file {}, the model is now {hash}; record it again: {command}",
                path.display(),
                recording.model_sha256
            )));
        }
        let name = format!("{backend} as recorded");
        Ok(Self { recording, name })
    }

    pub fn recording(&self) -> &Recording {
        &self.recording
    }

    fn absent(&self, what: &'static str) -> SideError {
        let backend = &self.recording.backend;
        let why =
            format!("this was not asked when it was recorded; record it again: cargo xtask reference record {backend}");
        SideError::absent(&self.name, what, why)
    }

    fn row(&self, passage: &Passage, position: usize) -> Option<Row> {
        let kept = passage.positions.get(position.checked_sub(passage.from)?)?;
        let (mut ids, mut values): (Vec<u32>, Vec<f32>) = kept.top.iter().copied().unzip();
        let top = ids.len();
        for (&id, &value) in self.recording.sample_ids.iter().zip(&kept.sample) {
            if !ids[..top].contains(&id) {
                ids.push(id);
                values.push(value);
            }
        }
        Some(Row::Sampled { ids, values, top, log_sum: kept.log_sum_exp })
    }
}

impl Reference for Recorded {
    fn name(&self) -> &str {
        &self.name
    }

    fn version(&self) -> serde_json::Value {
        self.recording.reference.clone()
    }

    fn tokenize(&mut self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>, SideError> {
        let found = self.recording.texts.iter().find(|t| t.text == text && t.special == add_special);
        found.filter(|_| add_special == parse_special).map(|t| t.ids.clone()).ok_or_else(|| self.absent("tokens"))
    }

    fn logits(&mut self, tokens: &[u32], positions: &Positions) -> Result<Logits, SideError> {
        let positions = positions.of(tokens.len());
        let rows = |passage: &Passage| positions.iter().map(|&position| self.row(passage, position)).collect();
        // What comes behind a token changes nothing before it.
        let passages = self.recording.passages.iter().filter(|passage| passage.ids.starts_with(tokens));
        // The vocabulary is not recorded; nobody compares that of a row that is a sample.
        let found: Option<Vec<Row>> = passages.map(rows).find(Option::is_some).flatten();
        found.map(|rows| Logits { positions: positions.clone(), vocab: 0, rows }).ok_or_else(|| self.absent("logits"))
    }

    fn generate(&mut self, prompt: &[u32], max_tokens: usize) -> Result<Continuation, SideError> {
        let found = self.recording.continuations.iter().find(|c| c.prompt == prompt);
        let found = found.ok_or_else(|| self.absent("generation"))?;
        let count = found.tokens.len().min(max_tokens);
        Ok(Continuation { tokens: found.tokens[..count].to_vec(), ended: found.ended && count == found.tokens.len() })
    }

    fn trace(&mut self, _: &[u32]) -> Result<Vec<Traced>, SideError> {
        Err(SideError::absent(&self.name, "trace", "steps are not recorded, ask the live worker"))
    }
}
