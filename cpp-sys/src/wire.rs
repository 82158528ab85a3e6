//! What the frames say: requests and answers, as `cpp-sys/PROTOCOL.md` describes them.
//!
//! Headers are JSON, bodies are little-endian values without framing of their own; what a body holds is said at each
//! request. Token ids are `u32`, logits and traced values `f32`, texts UTF-8.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::build::BuildInfo;

/// The version of the protocol. Another number is another protocol.
pub const PROTOCOL: u32 = 1;

/// A request's header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the client, echoed by the answer.
    pub id: u64,
    /// What is asked.
    #[serde(flatten)]
    pub ask: Ask,
}

/// What a request asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Ask {
    /// Who are you? Answer: [`Hello`].
    Hello {
        /// The client's [`PROTOCOL`].
        protocol: u32,
    },
    /// Load a model in place of the one before. Answer: [`LoadInfo`].
    Load {
        /// The GGUF file.
        path: PathBuf,
        /// How.
        #[serde(flatten)]
        options: LoadOptions,
        /// Threads of the computation; 0 is the worker's choice.
        threads: usize,
    },
    /// Body: the text. Answer's body: token ids.
    Tokenize {
        /// Add what the model wants around a text (BOS and the like).
        add_special: bool,
        /// Read special tokens in the text.
        parse_special: bool,
    },
    /// Body: token ids. Answer's body: bytes, not always UTF-8.
    Detokenize {
        /// Print special tokens too.
        special: bool,
    },
    /// Body: token ids, run from an empty KV cache. Answer: [`Rows`], body: `f32[positions][vocabulary]`.
    Logits {
        /// Of which positions.
        positions: Positions,
        /// Tokens a batch; the worker takes fewer where its kernels cannot do so many.
        chunk: usize,
    },
    /// Body: the prompt's token ids, run from an empty KV cache. Answer: [`GeneratedHeader`], body: the new ids.
    Generate {
        /// At most.
        max_tokens: usize,
    },
    /// Body: token ids, run from an empty KV cache. Answer: [`TraceHeader`], body: the steps' values one after another.
    Trace {
        /// Names of our steps; empty: all that have one.
        steps: Vec<String>,
    },
    /// Misbehave, for tests. Answer: nothing, if there is one at all.
    Provoke {
        /// How.
        fault: Fault,
    },
}

/// A way to misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Fail a `GGML_ASSERT`.
    Assert,
    /// Never answer.
    Hang,
    /// Print to stdout on the C++ side, then answer.
    Chatter,
}

impl Ask {
    /// The name in messages and timings.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "hello",
            Self::Load { .. } => "load",
            Self::Tokenize { .. } => "tokenize",
            Self::Detokenize { .. } => "detokenize",
            Self::Logits { .. } => "logits",
            Self::Generate { .. } => "generate",
            Self::Trace { .. } => "trace",
            Self::Provoke { .. } => "provoke",
        }
    }
}

/// An answer's header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The request's.
    pub id: u64,
    /// Seconds that the worker spent on it, without the transfer.
    pub seconds: f64,
    /// What came out.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The header's part of the answer.
    Ok(serde_json::Value),
    /// Refused; the worker goes on.
    Error(Refusal),
}

/// Why a worker refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// In a sentence.
    pub message: String,
    /// What the C++ side logged during the request.
    #[serde(default)]
    pub log: Vec<String>,
}

impl Refusal {
    /// A refusal without log lines.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), log: Vec::new() }
    }
}

/// Who a worker is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Its [`PROTOCOL`].
    pub protocol: u32,
    /// `bitnet` or `llama`.
    pub backend: String,
    /// How it was built: source, edits, compiler, flags.
    pub build: BuildInfo,
    /// What the reference says about the instruction sets that it uses (`llama_print_system_info`).
    pub system: String,
    /// The requests that it answers.
    pub requests: Vec<String>,
    /// Architectures (`general.architecture`) that it was built to run.
    pub architectures: Vec<String>,
}

/// How to load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadOptions {
    /// Length of the context in tokens. 0: the model's own, at most 4096.
    pub context: usize,
    /// Only the vocabulary: tokenize and detokenize work, the rest is refused.
    pub vocab_only: bool,
    /// How keys and values are kept.
    #[serde(default)]
    pub cache: CacheType,
}

/// How a KV cache keeps its values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheType {
    /// As both references do by default.
    #[default]
    F16,
    /// Exactly: what attention then adds to the distance from us is the order of its sums. bitnet.cpp's fork refuses it
    /// (its V cache is f16 unless flash attention is on, which would hide the step `attn`).
    F32,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { context: 512, vocab_only: false, cache: CacheType::F16 }
    }
}

/// A loaded model as the reference sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadInfo {
    /// Tokens in the vocabulary: the width of a row of logits.
    pub vocab_size: usize,
    /// Length of the context in tokens; 0 with `vocab_only`.
    pub context: usize,
    /// Blocks.
    pub layers: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// The reference's one-line description of the model.
    pub description: String,
    /// Size of the tensors in bytes.
    pub bytes: u64,
    /// Parameters.
    pub parameters: u64,
    /// Beginning of a sequence.
    pub bos: Option<u32>,
    /// End of a sequence.
    pub eos: Option<u32>,
    /// Whether the tokenizer adds BOS.
    pub add_bos: bool,
    /// Largest batch that this reference's kernels compute right for this file; `None`: no such limit.
    pub largest_batch: Option<usize>,
    /// Threads of the computation.
    pub threads: usize,
    /// Warnings that the reference logged while loading.
    pub warnings: Vec<String>,
}

/// Which positions of a sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// Every one.
    All,
    /// These, ascending, counted from 0.
    List(Vec<usize>),
}

impl Positions {
    /// The positions in a sequence of `len` tokens.
    #[must_use]
    pub fn of(&self, len: usize) -> Vec<usize> {
        match self {
            Self::All => (0..len).collect(),
            Self::List(list) => list.clone(),
        }
    }
}

/// Header of the answer to `logits`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// Positions of the rows.
    pub positions: Vec<usize>,
    /// Values in a row.
    pub vocab: usize,
}

/// Logits of some positions.
#[derive(Debug, Clone, PartialEq)]
pub struct Logits {
    /// Position of each row.
    pub positions: Vec<usize>,
    /// Values in a row.
    pub vocab: usize,
    /// `[positions][vocab]`.
    pub values: Vec<f32>,
}

impl Logits {
    /// The rows, in the order of `positions`.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks(self.vocab.max(1))
    }
}

/// Header of the answer to `generate`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GeneratedHeader {
    /// Whether an end-of-generation token came; it is not among the tokens.
    pub ended: bool,
    /// Seconds of the prompt.
    pub prompt_seconds: f64,
    /// Seconds of the new tokens.
    pub decode_seconds: f64,
}

/// A greedy continuation.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// The new tokens.
    pub tokens: Vec<u32>,
    /// Whether an end-of-generation token came; it is not among the tokens.
    pub ended: bool,
    /// Seconds of the prompt.
    pub prompt_seconds: f64,
    /// Seconds of the new tokens.
    pub decode_seconds: f64,
}

/// Header of the answer to `trace`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceHeader {
    /// The steps in the order in which the reference computed them.
    pub steps: Vec<StepHeader>,
}

/// One step of a trace, without its values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepHeader {
    /// Our name.
    pub step: Option<String>,
    /// ggml's name.
    pub tensor: String,
    /// ggml's operation.
    pub op: String,
    /// Tokens.
    pub rows: usize,
    /// Values a token.
    pub width: usize,
}

/// One step of a trace.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceStep {
    /// Our name, as in the engine's plan (`blk.0.attn_norm`).
    pub step: Option<String>,
    /// ggml's name (`attn_norm-0`).
    pub tensor: String,
    /// ggml's operation (`MUL_MAT`).
    pub op: String,
    /// Tokens.
    pub rows: usize,
    /// Values a token.
    pub width: usize,
    /// `[rows][width]`.
    pub values: Vec<f32>,
}
