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
#[allow(missing_docs, reason = "the messages say it")]
pub enum InferenceError {
    #[error("the prompt has no tokens: give some text (this model adds no beginning-of-sequence token by itself)")]
    EmptyPrompt,
    #[error(
        "the prompt has {prompt} tokens, the context has room for {} and one new token: shorten the prompt or raise \
         --context (the model was trained for the context that `bitnet inspect` shows)",
        room.saturating_sub(1)
    )]
    PromptTooLong { prompt: usize, room: usize },
    #[error("{tokens} tokens do not fit into a context of {context}")]
    ContextOverflow { tokens: usize, context: usize },
    #[error(
        "a context of {context} tokens needs more memory than this machine has: choose a shorter one with --context"
    )]
    ContextTooLarge { context: usize },
    #[error(
        "token {token} is outside of the model's vocabulary of {vocab}: the tokenizer belongs to another model, see \
         `bitnet inspect`"
    )]
    TokenOutOfRange { token: u32, vocab: usize },
    #[error(
        "the logits at position {position} are not finite numbers: the weights are damaged or beyond what f32 holds; \
         download or convert the model again"
    )]
    NotFinite { position: usize },
    #[error("the text has {tokens} tokens; at least two are needed, so that one can be predicted from another")]
    TextTooShort { tokens: usize },
    #[error("{tokens} tokens cannot be guessed ahead at once: --speculate is {most} at most")]
    DraftTooLong { tokens: usize, most: usize },
    #[error(
        "a context of {context} tokens: the model has embeddings for {longest} positions; choose --context {longest}"
    )]
    NoPosition { context: usize, longest: usize },
    #[error("{what}")]
    Option { what: &'static str },
    #[error("{device} cannot run this model: {what}")]
    NotOnDevice { device: String, what: String },
    #[error(transparent)]
    Broken(#[from] BrokenContract),
    #[error(transparent)]
    Device(#[from] bitnet_kernels::cuda::device::CudaError),
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}
