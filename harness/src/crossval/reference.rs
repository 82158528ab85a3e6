//! What answers are compared with: a live C++ worker, a recording of one, or our own engine on another file. One trait,
//! so that a comparison does not know which.

use serde::{Deserialize, Serialize};

/// Of which positions logits are wanted. Position i is after token i.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Positions {
    /// Of every token.
    All,
    /// Of these, ascending.
    List(Vec<usize>),
}

impl Positions {
    /// The positions of a sequence of `len` tokens.
    pub fn of(&self, len: usize) -> Vec<usize> {
        match self {
            Self::All => (0..len).collect(),
            Self::List(list) => list.iter().copied().filter(|&p| p < len).collect(),
        }
    }
}

/// The logits of one position.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    /// `[vocab]`.
    Full(Vec<f32>),
    /// Some of them, as a recording keeps them.
    Sampled {
        /// The tokens: the most likely ones first, in their order (at least two), then a sample of the others.
        ids: Vec<u32>,
        /// Their logits.
        values: Vec<f32>,
        /// How many of `ids` are the most likely tokens of all.
        top: usize,
        /// Logarithm of the sum of the exponentials of the whole row.
        log_sum: f64,
    },
}

/// Logits of some positions.
#[derive(Debug, Clone, PartialEq)]
pub struct Logits {
    /// Ascending.
    pub positions: Vec<usize>,
    pub vocab: usize,
    pub rows: Vec<Row>,
}

impl Logits {
    /// The row of a position.
    pub fn row(&self, position: usize) -> Option<&Row> {
        self.rows.get(self.positions.binary_search(&position).ok()?)
    }
}

/// What a side made of a prompt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Continuation {
    /// The new tokens, without the one that ended it.
    pub tokens: Vec<u32>,
    /// Whether a token came that ends a generation.
    pub ended: bool,
}

/// The result of one step of a forward pass, for all tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Traced {
    /// Our plan's name of the step.
    pub step: String,
    /// Tokens.
    pub rows: usize,
    /// Values a token.
    pub width: usize,
    /// `[rows][width]`.
    pub values: Vec<f32>,
}

/// Why a side gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SideError {
    /// It failed: it died, hung, refused, or could not compute.
    #[error("{side} gave no {what}: {message}")]
    Failed {
        /// Which side: `ours`, `bitnet.cpp`, ...
        side: String,
        /// What was asked: `tokens`, `logits`, `generation`, `trace`.
        what: &'static str,
        message: String,
    },
    /// It cannot know: a recording has only what was recorded.
    #[error("{side} has no {what}: {message}")]
    Absent { side: String, what: &'static str, message: String },
}

impl SideError {
    pub fn failed(side: &str, what: &'static str, why: impl std::fmt::Display) -> Self {
        Self::Failed { side: side.to_owned(), what, message: why.to_string() }
    }

    /// Something that was not recorded.
    pub fn absent(side: &str, what: &'static str, why: impl std::fmt::Display) -> Self {
        Self::Absent { side: side.to_owned(), what, message: why.to_string() }
    }
}

/// A side of a comparison.
pub trait Reference {
    /// `bitnet`, `llama`, `ours`, ...
    fn name(&self) -> &str;

    /// Version, source, build, instruction sets: whatever says what it was.
    fn version(&self) -> serde_json::Value;

    /// The tokens of a text.
    fn tokenize(&mut self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>, SideError>;

    /// The logits of a sequence, teacher-forced from an empty cache.
    fn logits(&mut self, tokens: &[u32], positions: &Positions) -> Result<Logits, SideError>;

    /// The most likely continuation, token by token, until a token ends it or `max_tokens` were made.
    fn generate(&mut self, prompt: &[u32], max_tokens: usize) -> Result<Continuation, SideError>;

    /// The results of all steps, in the order in which they were computed; steps that it does not show are absent.
    fn trace(&mut self, tokens: &[u32]) -> Result<Vec<Traced>, SideError>;
}
