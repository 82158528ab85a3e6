//! Paths as people and programs are shown them: in commands, and in JSON, which has no place for bytes that are not UTF-8.

use serde::Serializer;
use std::path::{Path, PathBuf};

/// A path in JSON; what is not UTF-8 becomes U+FFFD, where serde's own way would be an error.
pub(crate) fn text<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&path.display())
}

/// As [`text`] where there may be none.
pub(crate) fn text_if_any<S: Serializer>(path: &Option<PathBuf>, to: S) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => text(path, to),
        None => to.serialize_none(),
    }
}

/// As [`text`] for several.
pub(crate) fn texts<S: Serializer>(paths: &[PathBuf], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(paths.iter().map(|path| path.to_string_lossy()))
}

/// A path as a shell takes it.
pub(crate) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
