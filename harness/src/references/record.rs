//! Recording a live reference: every question of a model, reduced to what `golden/reference` keeps.
//!
//! One command writes (`cargo xtask reference record bitnet|llama|all`); a recording whose answers did not change is left
//! as it is, date and all, so that a diff shows what did.

use super::live;
use super::questions::{self, Subject};
use crate::atomic;
use crate::axes::Cell;
use crate::context::Context;
use crate::crossval::generation::forced;
use crate::crossval::{Positions, Reference, Row, distance};
use crate::failure::Failure;
use crate::provenance;
use bitnet_golden::reference::{Continuation, Passage, Position, Recording, SCHEMA, TextIds, file};
use std::path::PathBuf;

/// Largest logits that are kept of a position.
const TOP: usize = 8;
/// Logits that are kept of every position, spread over the vocabulary.
const SAMPLE: usize = 16;

/// The outcome of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// There was none, or of another file, or with other answers.
    New,
    /// The same answers from the same reference about the same file.
    Unchanged,
}

/// Asks the live worker of a `recorded` cell everything and writes its recording.
///
/// # Errors
/// The model cannot be made, the worker is not here or fails, or the file cannot be written.
pub fn write(ctx: &Context, cell: &Cell) -> Result<(PathBuf, Written), Failure> {
    let subject = questions::subject(ctx, cell)?;
    let mut live = live::reference(ctx, &cell.backend, &subject)?;
    let recording = record(cell, &subject, &mut live)?;
    let path = file(&ctx.paths.golden, &cell.backend, &cell.model, &cell.quant);
    // One that cannot be read is replaced like one that is stale.
    let before = Recording::read(&ctx.paths.golden, &cell.backend, &cell.model, &cell.quant).unwrap_or(None);
    if let Some(before) = before {
        // Texts are compared, not figures: a reader of JSON may round the last digit of a double.
        let same = Recording { recorded: before.recorded, ..recording.clone() }.to_text()?;
        if std::fs::read_to_string(&path).is_ok_and(|text| text == same) {
            return Ok((path, Written::Unchanged));
        }
    }
    atomic::write(&path, recording.to_text()?.as_bytes())
        .map_err(|e| Failure::new(format_args!("cannot write {}: {e}", path.display())))?;
    Ok((path, Written::New))
}

/// The answers of a reference about a subject.
///
/// # Errors
/// It gives none, or such as cannot be kept.
pub fn record(cell: &Cell, subject: &Subject, reference: &mut dyn Reference) -> Result<Recording, Failure> {
    let mut texts = Vec::new();
    for special in [false, true] {
        for text in &subject.questions.texts {
            let ids = reference.tokenize(text, special, special)?;
            texts.push(TextIds { text: text.clone(), special, ids });
        }
    }
    let mut continuations = Vec::new();
    let mut sequences: Vec<(Vec<u32>, usize)> = subject.questions.passages.iter().map(|ids| (ids.clone(), 0)).collect();
    for prompt in &subject.questions.prompts {
        let made = reference.generate(prompt, subject.questions.new_tokens)?;
        sequences.push(forced(prompt, &made));
        continuations.push(Continuation { prompt: prompt.clone(), tokens: made.tokens, ended: made.ended });
    }
    let mut sample_ids = Vec::new();
    let mut passages = Vec::new();
    for (ids, from) in sequences {
        let logits = reference.logits(&ids, &Positions::List((from..ids.len()).collect()))?;
        sample_ids = sample(logits.vocab)?;
        let mut positions = Vec::new();
        for (position, row) in logits.positions.iter().zip(&logits.rows) {
            let Row::Full(row) = row else {
                return Err(Failure::new(format_args!("position {position} came without all its logits")));
            };
            positions.push(keep(row, &sample_ids)?);
        }
        passages.push(Passage { ids, from, positions });
    }
    Ok(Recording {
        schema: SCHEMA,
        backend: cell.backend.clone(),
        model: cell.model.clone(),
        quant: cell.quant.clone(),
        model_sha256: subject.file.content_hash().to_owned(),
        reference: reference.version(),
        recorded: provenance::now(),
        chunk: live::CHUNK,
        sample_ids,
        texts,
        passages,
        continuations,
    })
}

/// The middle of each of as many equal parts of the vocabulary.
fn sample(vocab: usize) -> Result<Vec<u32>, Failure> {
    let middle = |part: usize| Ok(u32::try_from((2 * part + 1) * vocab / (2 * SAMPLE))?);
    if vocab < SAMPLE {
        return Err(Failure::new(format_args!("a vocabulary of {vocab} tokens is not a model's")));
    }
    (0..SAMPLE).map(middle).collect()
}

fn keep(row: &[f32], sample_ids: &[u32]) -> Result<Position, Failure> {
    if let Some(odd) = row.iter().position(|x| !x.is_finite()) {
        return Err(Failure::new(format_args!("logit {odd} is {}, which cannot be recorded", row[odd])));
    }
    let value = |id: &u32| -> Result<f32, Failure> {
        row.get(*id as usize).copied().ok_or_else(|| Failure::new("rows of different lengths"))
    };
    let top = distance::top(row, TOP);
    Ok(Position {
        top: top.iter().map(|id| Ok((*id, value(id)?))).collect::<Result<_, Failure>>()?,
        sample: sample_ids.iter().map(value).collect::<Result<_, Failure>>()?,
        log_sum_exp: distance::log_sum_exp(row),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_spread_and_fixed() {
        let ids = sample(2048).expect("sample");
        assert_eq!((ids.len(), ids[0], ids[15]), (16, 64, 1984));
        assert!(sample(300).expect("sample").windows(2).all(|w| w[0] < w[1]));
        assert!(sample(3).is_err());
    }

    #[test]
    fn what_is_no_number_is_not_recorded() {
        let failure = keep(&[1.0, f32::NAN], &[0]).expect_err("NaN");
        assert!(failure.message.contains("logit 1 is NaN"), "{failure:?}");
    }
}
