//! What a C++ reference answered, as data: `reference/<backend>/<model>__<quant>.json`.
//!
//! The live worker is not everywhere; its answers are. A recording says who answered (version, sources, compiler, flags,
//! instruction sets), about which file (SHA-256), and what: ids of texts, for every position of teacher-forced passages
//! the largest logits, a fixed sample of all of them and the logarithm of the sum of their exponentials (with which both
//! are probabilities), and greedy continuations. Written by
//! `cargo xtask reference record`, read here, compared in the harness.

use crate::{GoldenError, check_schema, texts};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

pub const SCHEMA: u32 = 1;

/// All answers of one reference about one model file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recording {
    pub schema: u32,
    pub backend: String,
    pub model: String,
    pub quant: String,
    /// SHA-256 of the GGUF that was given to the reference.
    pub model_sha256: String,
    /// Who answered: version, sources, edits, compiler, flags, instruction sets in use.
    pub reference: serde_json::Value,
    pub recorded: String,
    /// Tokens that the reference computed at a time.
    pub chunk: usize,
    /// The positions of the vocabulary that are kept of every row of logits, ascending.
    pub sample_ids: Vec<u32>,
    pub texts: Vec<TextIds>,
    pub passages: Vec<Passage>,
    pub continuations: Vec<Continuation>,
}

/// The ids of a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextIds {
    pub text: String,
    /// Whether special tokens were put around it, and those in it were read.
    pub special: bool,
    pub ids: Vec<u32>,
}

/// The logits of a sequence, teacher-forced, from one position on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passage {
    /// What was fed.
    pub ids: Vec<u32>,
    /// The first position that was kept.
    pub from: usize,
    /// One for each id from there on.
    pub positions: Vec<Position>,
}

/// What is kept of one row of logits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The largest logits with their ids, descending; of equal ones the lowest id first.
    pub top: Vec<(u32, f32)>,
    /// The logits of [`Recording::sample_ids`].
    pub sample: Vec<f32>,
    /// Natural logarithm of the sum of the exponentials of all logits.
    pub log_sum_exp: f64,
}

/// A greedy continuation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Continuation {
    /// What was fed.
    pub prompt: Vec<u32>,
    /// What the reference went on with. The logits that it had there are a passage.
    pub tokens: Vec<u32>,
    /// Whether a token that ends a generation came after them.
    pub ended: bool,
}

/// Where the recording of a model lies below the golden folder.
pub fn file(golden: &Path, backend: &str, model: &str, quant: &str) -> PathBuf {
    golden.join("reference").join(backend).join(format!("{model}__{quant}.json"))
}

impl Recording {
    /// Reads the recording of a model. `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read or understood, is of another layout, of another cell than its name says, or has rows of
    /// different lengths.
    pub fn read(golden: &Path, backend: &str, model: &str, quant: &str) -> Result<Option<Self>, GoldenError> {
        let path = file(golden, backend, model, quant);
        if !path.exists() {
            return Ok(None);
        }
        let recording: Self = texts::json(&path)?;
        check_schema(&path, recording.schema, SCHEMA)?;
        match recording.oddity((backend, model, quant)) {
            None => Ok(Some(recording)),
            Some(message) => Err(GoldenError::Parse { path, message }),
        }
    }

    /// What does not fit together, if anything.
    fn oddity(&self, name: (&str, &str, &str)) -> Option<String> {
        let found = (self.backend.as_str(), self.model.as_str(), self.quant.as_str());
        if found != name {
            return Some(format!("it is the recording of {found:?}, the file's name says {name:?}"));
        }
        for (at, passage) in self.passages.iter().enumerate() {
            let (ids, rows) = (passage.ids.len(), passage.positions.len());
            if passage.from.checked_add(rows) != Some(ids) || rows == 0 {
                return Some(format!("passage {at} has {ids} tokens and {rows} rows of logits from {}", passage.from));
            }
            let short = |p: &Position| p.sample.len() != self.sample_ids.len() || p.top.len() < 2;
            if let Some(position) = passage.positions.iter().position(short) {
                return Some(format!("position {position} of passage {at} lacks logits"));
            }
        }
        let empty = self.continuations.iter().position(|c| c.prompt.is_empty() || (c.tokens.is_empty() && !c.ended));
        empty.map(|at| format!("continuation {at} has no tokens"))
    }

    /// The file's text: a line for every text, position and continuation, so that a diff shows which of them changed.
    ///
    /// # Errors
    /// A number that JSON does not know.
    pub fn to_text(&self) -> Result<String, serde_json::Error> {
        let list = |items: Vec<String>, indent: &str| match items.is_empty() {
            true => "[]".to_owned(),
            false => format!("[\n{indent}  {}\n{indent}]", items.join(&format!(",\n{indent}  "))),
        };
        let mut passages = Vec::new();
        for passage in &self.passages {
            let ids = serde_json::to_string(&passage.ids)?;
            let positions = passage.positions.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
            let (from, positions) = (passage.from, list(positions, "    "));
            passages.push(format!("{{ \"ids\": {ids}, \"from\": {from}, \"positions\": {positions} }}"));
        }
        let texts = self.texts.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        let continuations = self.continuations.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        let fields = [
            ("schema", serde_json::to_string(&self.schema)?),
            ("backend", serde_json::to_string(&self.backend)?),
            ("model", serde_json::to_string(&self.model)?),
            ("quant", serde_json::to_string(&self.quant)?),
            ("model_sha256", serde_json::to_string(&self.model_sha256)?),
            ("reference", serde_json::to_string_pretty(&self.reference)?.replace('\n', "\n  ")),
            ("recorded", serde_json::to_string(&self.recorded)?),
            ("chunk", serde_json::to_string(&self.chunk)?),
            ("sample_ids", serde_json::to_string(&self.sample_ids)?),
            ("texts", list(texts, "  ")),
            ("passages", list(passages, "  ")),
            ("continuations", list(continuations, "  ")),
        ];
        let fields: Vec<String> = fields.into_iter().map(|(key, value)| format!("  \"{key}\": {value}")).collect();
        Ok(format!("{{\n{}\n}}\n", fields.join(",\n")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Recording {
        Recording {
            schema: SCHEMA,
            backend: "b".into(),
            model: "m".into(),
            quant: "q".into(),
            model_sha256: "00".into(),
            reference: serde_json::json!({ "version": "1", "flags": ["-O3"] }),
            recorded: "2026-11-22T00:00:00Z".into(),
            chunk: 16,
            sample_ids: vec![1, 5],
            texts: vec![TextIds { text: "a\n".into(), special: false, ids: vec![7, 8] }],
            passages: vec![Passage {
                ids: vec![2, 3],
                from: 1,
                positions: vec![Position {
                    top: vec![(5, 0.1), (1, -0.25)],
                    sample: vec![-0.25, 0.1],
                    log_sum_exp: 1.5,
                }],
            }],
            continuations: vec![Continuation { prompt: vec![3], tokens: vec![5], ended: false }],
        }
    }

    fn written(recording: &Recording) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = file(dir.path(), "b", "m", "q");
        std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        std::fs::write(path, recording.to_text().expect("text")).expect("write");
        dir
    }

    #[test]
    fn a_recording_survives_its_file() {
        let dir = written(&sample());
        assert_eq!(Recording::read(dir.path(), "b", "m", "q").expect("readable"), Some(sample()));
        assert_eq!(Recording::read(dir.path(), "b", "m", "q2").expect("readable"), None);
        let text = sample().to_text().expect("text");
        assert!(text.lines().any(|line| line.trim() == r#"{"text":"a\n","special":false,"ids":[7,8]}"#), "{text}");
        assert!(text.contains("[[5,0.1],[1,-0.25]]"), "an f32 as short as it is: {text}");
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let refused = |change: &dyn Fn(&mut Recording), words: &str| {
            let mut recording = sample();
            change(&mut recording);
            let dir = written(&recording);
            let error = Recording::read(dir.path(), "b", "m", "q").expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        };
        refused(&|r| r.model = "other".into(), "the file's name says");
        refused(&|r| r.schema = 9, "schema 9");
        refused(&|r| r.passages[0].positions.clear(), "2 tokens and 0 rows");
        refused(&|r| r.passages[0].from = 0, "2 tokens and 1 rows of logits from 0");
        refused(&|r| r.passages[0].positions[0].sample.clear(), "lacks logits");
        refused(&|r| r.continuations[0].tokens.clear(), "continuation 0 has no tokens");
    }
}
