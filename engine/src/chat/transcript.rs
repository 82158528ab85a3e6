//! A conversation as a file: a JSON list of messages, each with `role` and `content`, as HuggingFace's and OpenAI's tools
//! have it.

use super::Message;
use crate::gguf::write_file;
use std::path::{Path, PathBuf};

/// Longest file that is read.
const MAX_BYTES: u64 = 64 << 20;

/// A file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum TranscriptError {
    #[error("cannot take messages from {}: {why}", path.display())]
    Read { path: PathBuf, why: String },
    #[error("cannot save to {}: {why}", path.display())]
    Write { path: PathBuf, why: String },
}

/// Reads messages.
///
/// # Errors
/// No such file, one that is too long, or not a list of messages.
pub fn read(path: &Path) -> Result<Vec<Message>, TranscriptError> {
    let wrong = |why: String| TranscriptError::Read { path: path.to_owned(), why };
    let about = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?;
    if !about.is_file() {
        return Err(wrong("it is not a regular file".to_owned()));
    }
    if about.len() > MAX_BYTES {
        return Err(wrong(format!("it has {} bytes, more than {MAX_BYTES}", about.len())));
    }
    let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| wrong(format!("it is not a JSON list of messages with `role` and `content`: {error}")))
}

/// Writes messages, so that the file is seen whole or not at all. A link is followed, and no folder is created.
///
/// # Errors
/// Something else than a file is there, or the file cannot be written.
pub fn write(path: &Path, messages: &[Message]) -> Result<(), TranscriptError> {
    let wrong = |why: String| TranscriptError::Write { path: path.to_owned(), why };
    let mut text = serde_json::to_string_pretty(messages).map_err(|error| wrong(error.to_string()))?;
    text.push('\n');
    write_file(path, text.as_bytes()).map_err(wrong)
}
