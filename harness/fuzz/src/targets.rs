//! The targets: one file for what is read by one room, or in one way.
//!
//! A target of several files takes them from one input, separated by lines of [`CUT`].

pub mod chat;
pub mod checkpoint;
pub mod compiled;
pub mod data;
pub mod gguf;
pub mod hub;
pub mod records;
pub mod tokenizers;
pub mod worker;

use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Between the files of one input.
pub const CUT: &[u8] = b"\n--8<--\n";

/// The files of an input.
fn parts(mut input: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let Some(at) = input.windows(CUT.len()).position(|window| window == CUT) {
        parts.push(&input[..at]);
        input = &input[at + CUT.len()..];
    }
    parts.push(input);
    parts
}

/// Files as one input.
fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.join(CUT)
}

/// What somebody said who returns errors.
fn said<T>(result: Result<T, impl std::fmt::Display>) -> String {
    match result {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// A folder of this thread's, for readers that take paths: in memory where the system has such a place.
fn folder() -> PathBuf {
    thread_local! {
        static FOLDER: Option<TempDir> = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).ok();
    }
    FOLDER.with(|folder| folder.as_ref().map_or_else(std::env::temp_dir, |folder| folder.path().to_owned()))
}

/// Writes a file for a reader that takes a path; a machine that cannot do this finds nothing.
fn put(path: &Path, bytes: &[u8]) {
    if std::fs::write(path, bytes).is_err()
        && let Some(folder) = path.parent()
    {
        let _ = std::fs::create_dir_all(folder);
        let _ = std::fs::write(path, bytes);
    }
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden")
}

/// The files of a folder of `golden/` with an extension, smallest first, none above `most` bytes.
fn files(folder: &str, extension: &str, most: usize) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(golden().join(folder)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == extension));
    paths.sort();
    let mut files: Vec<Vec<u8>> = paths.iter().filter_map(|path| std::fs::read(path).ok()).collect();
    files.retain(|bytes| bytes.len() <= most);
    files.sort_by_key(Vec::len);
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back() {
        let all: [&[u8]; 3] = [b"a", b"", b"b\nc"];
        assert_eq!(parts(&joined(&all)), all);
        assert_eq!(parts(b""), [b""]);
    }
}
