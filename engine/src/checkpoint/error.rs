//! Why a checkpoint cannot be used.

use crate::convert::ConvertError;
use crate::tokenizer::TokenizerError;
use std::path::PathBuf;

/// What is wrong, and in which file, key or tensor.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum CheckpointError {
    #[error("{}: {why}", path.display())]
    File { path: PathBuf, why: String },
    #[error("config.json: `{key}` {why}")]
    Config { key: String, why: String },
    #[error("the checkpoint has {what}, which cannot be converted")]
    Unsupported { what: String },
    #[error("the checkpoint of architecture {architecture} has no tensor `{name}`")]
    MissingTensor { name: String, architecture: &'static str },
    #[error("tensor `{name}` is not one that a model of architecture {architecture} has; nothing is left out silently")]
    UnknownTensor { name: String, architecture: &'static str },
    #[error("tensor `{name}` {why}")]
    Tensor { name: String, why: String },
    #[error("the tokenizer has {tokens} tokens and the embedding {rows} rows: they do not belong together")]
    Vocabulary { tokens: usize, rows: usize },
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
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
