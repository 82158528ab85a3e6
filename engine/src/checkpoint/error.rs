//! Why a checkpoint cannot be used.

use crate::convert::ConvertError;
use crate::tokenizer::TokenizerError;
use std::path::PathBuf;

/// What is wrong, and in which file, key or tensor.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum CheckpointError {
    /// A file that is missing, cannot be read or does not hold what its name says.
    #[error("{}: {why}", path.display())]
    File { path: PathBuf, why: String },
    /// A key of config.json without which the model cannot be described, or with a value that cannot be.
    #[error("config.json: `{key}` {why}")]
    Config { key: String, why: String },
    /// Something that no family of this engine computes.
    #[error("the checkpoint has {what}, which cannot be converted")]
    Unsupported { what: String },
    /// A tensor that the family needs.
    #[error("the checkpoint of architecture {architecture} has no tensor `{name}`")]
    MissingTensor { name: String, architecture: &'static str },
    /// A tensor that would be left out.
    #[error("tensor `{name}` is not one that a model of architecture {architecture} has; nothing is left out silently")]
    UnknownTensor { name: String, architecture: &'static str },
    /// A tensor whose shape or type is not what config.json says.
    #[error("tensor `{name}` {why}")]
    Tensor { name: String, why: String },
    /// The tokenizer has ids that the model does not.
    #[error("the tokenizer has {tokens} tokens and the embedding {rows} rows: they do not belong together")]
    Vocabulary { tokens: usize, rows: usize },
    /// A file of the tokenizer cannot be read.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The GGUF cannot be written, or what was written is not right.
    #[error(transparent)]
    Convert(#[from] ConvertError),
}

impl From<crate::gguf::GgufError> for CheckpointError {
    fn from(error: crate::gguf::GgufError) -> Self {
        Self::Convert(error.into())
    }
}

/// An error about a key of config.json.
pub(super) fn config(key: &str, why: impl Into<String>) -> CheckpointError {
    CheckpointError::Config { key: key.to_owned(), why: why.into() }
}

/// An error about something that is not computed.
pub(super) fn unsupported(what: impl Into<String>) -> CheckpointError {
    CheckpointError::Unsupported { what: what.into() }
}

/// An error about a tensor.
pub(super) fn tensor(name: &str, why: impl Into<String>) -> CheckpointError {
    CheckpointError::Tensor { name: name.to_owned(), why: why.into() }
}
