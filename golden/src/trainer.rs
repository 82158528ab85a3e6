//! What the training program recorded of its own forward pass: an independent reference for the whole engine.
//!
//! `reference/trainer/<model>.json` describes passages; `<model>.logits.f16` holds the logits of all their positions,
//! little-endian f16, `[rows][vocab]`. Both are written by `golden/train/reference.py`, in numpy, from the packed file.

use crate::GoldenError;
use crate::texts::json;
use half::f16;
use serde::Deserialize;
use std::path::Path;

/// The recording of one model.
#[derive(Debug)]
pub struct TrainerReference {
    /// SHA-256 of the GGUF that was run.
    pub model_sha256: String,
    pub passages: Vec<Passage>,
    vocab: usize,
    logits: Vec<f16>,
}

/// One teacher-forced passage.
#[derive(Debug, Clone, Deserialize)]
pub struct Passage {
    /// The text, without the beginning-of-sequence token.
    pub text: String,
    /// Its ids, with it.
    pub ids: Vec<u32>,
    /// Mean negative log-likelihood of `ids[1..]`, in nats.
    pub mean_nll_nats: f64,
    /// First row of the logits.
    first_row: usize,
}

#[derive(Deserialize)]
struct File {
    model_sha256: String,
    logits: Logits,
    passages: Vec<Passage>,
}

#[derive(Deserialize)]
struct Logits {
    file: String,
    shape: [usize; 2],
}

impl TrainerReference {
    /// Reads the recording of a model below the golden folder.
    ///
    /// # Errors
    /// A file is missing, cannot be understood, or has not the size that it is said to have.
    pub fn read(golden: &Path, model: &str) -> Result<Self, GoldenError> {
        let folder = golden.join("reference/trainer");
        let path = folder.join(format!("{model}.json"));
        let file: File = json(&path)?;
        let bin = folder.join(&file.logits.file);
        let bytes = std::fs::read(&bin).map_err(|source| GoldenError::Read { path: bin.clone(), source })?;
        let [rows, vocab] = file.logits.shape;
        let wrong = |message: String| Err(GoldenError::Parse { path: bin.clone(), message });
        if rows.checked_mul(vocab).and_then(|n| n.checked_mul(2)) != Some(bytes.len()) {
            return wrong(format!("{} bytes are not {rows} x {vocab} f16 numbers", bytes.len()));
        }
        if let Some(p) = file.passages.iter().find(|p| p.first_row + p.ids.len() > rows) {
            return wrong(format!("{rows} rows do not hold the passage that begins at row {}", p.first_row));
        }
        let logits = bytes.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b)).collect();
        Ok(Self { model_sha256: file.model_sha256, passages: file.passages, vocab, logits })
    }

    /// The logits after token `position` of a passage, `[vocab]`.
    pub fn logits(&self, passage: &Passage, position: usize) -> Vec<f32> {
        let start = (passage.first_row + position) * self.vocab;
        self.logits[start..start + self.vocab].iter().map(|x| x.to_f32()).collect()
    }
}
