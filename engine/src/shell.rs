//! Paths as people and programs are shown them: in commands, and in JSON, which has no place for bytes that are not UTF-8; and the
//! folder of a path.

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

/// The folder that a path lies in: `.` for a bare name.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_commands() {
        for (path, written) in
            [("a/b-1_2.gguf", "a/b-1_2.gguf"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("$x", "'$x'")]
        {
            assert_eq!(quoted(Path::new(path)), written);
        }
    }

    #[test]
    fn every_path_lies_in_a_folder() {
        for (path, folder) in [("a", "."), ("./a", "."), ("a/b", "a"), ("/a", "/"), ("../a", "..")] {
            assert_eq!(folder_of(Path::new(path)), Path::new(folder));
        }
    }
}
