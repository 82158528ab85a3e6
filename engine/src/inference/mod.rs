//! Running a model: executor, KV cache, sampling, generation, perplexity.

mod cpu;
mod cuda;
mod embed;
mod executor;
mod generate;
mod head;
mod observer;
mod perplexity;
mod prefix;
mod sampler;
mod selfcheck;
mod session;
mod speculate;
mod stepwise;

pub use crate::ops::BrokenContract;
pub use embed::{Pooling, embed};
pub use generate::{GenerateOptions, Generation, StopReason, Timings, extend, generate};
pub use head::{Head, Needs, Screening, WARM_STEPS};
pub use observer::{Observer, StepResult};
pub use perplexity::{Perplexity, nll, perplexity};
pub use prefix::{Made, Prefix};
pub use sampler::{Sampler, SamplerError, SamplerOptions, argmax};
pub use selfcheck::{self_check, self_check_card};
pub use session::{Session, SessionOptions, Want};
pub use speculate::{AUTO_DRAFT, MAX_DRAFT, Speculation};
pub use stepwise::Stepwise;

use crate::tokenizer::TokenizerError;

/// Why a sequence cannot be computed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum InferenceError {
    /// Nothing to start from.
    #[error("the prompt has no tokens: give some text (this model adds no beginning-of-sequence token by itself)")]
    EmptyPrompt,
    /// No room for the prompt and one token of answer.
    #[error(
        "the prompt has {prompt} tokens, the context has room for {} and one new token: shorten the prompt or raise \
         --context (the model was trained for the context that `bitnet inspect` shows)",
        room.saturating_sub(1)
    )]
    PromptTooLong { prompt: usize, room: usize },
    /// More tokens than the KV cache holds.
    #[error("{tokens} tokens do not fit into a context of {context}")]
    ContextOverflow { tokens: usize, context: usize },
    /// The KV cache would be larger than memory is.
    #[error(
        "a context of {context} tokens needs more memory than this machine has: choose a shorter one with --context"
    )]
    ContextTooLarge { context: usize },
    /// A token id that the model has no embedding for.
    #[error(
        "token {token} is outside of the model's vocabulary of {vocab}: the tokenizer belongs to another model, see \
         `bitnet inspect`"
    )]
    TokenOutOfRange { token: u32, vocab: usize },
    /// The weights lead to infinities or to NaN.
    #[error(
        "the logits at position {position} are not finite numbers: the weights are damaged or beyond what f32 holds; \
         download or convert the model again"
    )]
    NotFinite { position: usize },
    /// A text with nothing to predict.
    #[error("the text has {tokens} tokens; at least two are needed, so that one can be predicted from another")]
    TextTooShort { tokens: usize },
    /// More guesses at once than are allowed.
    #[error("{tokens} tokens cannot be guessed ahead at once: --speculate is {most} at most")]
    DraftTooLong { tokens: usize, most: usize },
    /// More positions than the model has embeddings for.
    #[error(
        "a context of {context} tokens: the model has embeddings for {longest} positions; choose --context {longest}"
    )]
    NoPosition {
        context: usize,
        /// Rows of `position_embd.weight`.
        longest: usize,
    },
    /// An option without sense.
    #[error("{what}")]
    Option { what: &'static str },
    /// A model that a device cannot compute.
    #[error("{device} cannot run this model: {what}")]
    NotOnDevice { device: String, what: String },
    /// A card whose results are not those of the processor.
    #[error(transparent)]
    Broken(#[from] BrokenContract),
    /// A device that fails.
    #[error(transparent)]
    Device(#[from] bitnet_kernels::cuda::device::CudaError),
    /// A sampling option out of range.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// The text cannot be encoded.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}
