//! What the source of a tokenizer is known by: without reading it (a mark), and by all of its bytes (a key).
//!
//! A start of the program must not hash megabytes to find what it compiled before. So a source has a *mark*: the identity of its files
//! (see [`Identity`]), and for a GGUF the small tokenizer keys and samples of its lists as well. The cache remembers which key a mark
//! stood for. This is sound as far as identities are: who changes a file changes its `ctime`, which the kernel sets. A file that was
//! changed within the last two seconds, or that has no identity (in memory, not on Unix), has no mark, and its key is computed.

use super::form::Key;
use super::{VERSION, rules};
use crate::gguf::{GgufFile, Identity, Value};
use crate::tokenizer::files::{FileSet, Hints, neighbours};
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::Path;

/// Of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// Of which source: what is remembered of it before is replaced.
    pub(super) place: Key,
    /// Of its state.
    pub(super) state: Key,
}

fn digest(kind: &str) -> Sha256 {
    let mut hash = Sha256::new();
    hash.update(VERSION.to_le_bytes());
    hash.update(rules().to_le_bytes());
    text(&mut hash, kind.as_bytes());
    hash
}

fn text(hash: &mut Sha256, text: &[u8]) {
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text);
}

fn finish(hash: Sha256) -> Key {
    hash.finalize().first_chunk().copied().unwrap_or_default()
}

fn numbers(hash: &mut Sha256, numbers: &[u64]) {
    numbers.iter().for_each(|number| hash.update(number.to_le_bytes()));
}

const PREFIX: &str = "tokenizer.ggml.";

/// The keys that a GGUF's tokenizer is made of, as they lie in the file.
fn keys(file: &GgufFile) -> impl Iterator<Item = (&str, &[u8], bool)> {
    let metadata = file.metadata();
    let all = metadata.iter().filter(|(key, _)| key.starts_with(PREFIX));
    all.map(|(key, value)| (key, metadata.raw(key).unwrap_or_default(), matches!(value, Value::Array(_))))
}

/// Of the tokenizer in a GGUF.
pub(super) fn of_gguf(file: &GgufFile) -> Option<Mark> {
    /// Samples of a list, and the bytes of each.
    const SAMPLES: usize = 16;
    const SAMPLE: usize = 64;
    let identity = file.identity().filter(Identity::settled)?;
    let (mut place, mut state) = (digest("gguf place"), digest("gguf state"));
    numbers(&mut place, &identity.place());
    numbers(&mut state, &identity.numbers());
    for (key, raw, list) in keys(file) {
        text(&mut state, key.as_bytes());
        if !list || raw.len() <= SAMPLES * SAMPLE {
            text(&mut state, raw);
            continue;
        }
        state.update((raw.len() as u64).to_le_bytes());
        let step = (raw.len() - SAMPLE) / (SAMPLES - 1);
        (0..SAMPLES).for_each(|i| state.update(raw.get(i * step..i * step + SAMPLE).unwrap_or_default()));
    }
    Some(Mark { place: finish(place), state: finish(state) })
}

/// By all of the vocabulary's bytes.
pub(super) fn key_of_gguf(file: &GgufFile) -> Key {
    let mut hash = digest("gguf");
    for (key, raw, _) in keys(file) {
        text(&mut hash, key.as_bytes());
        text(&mut hash, raw);
    }
    finish(hash)
}

fn hints_of(hash: &mut Sha256, hints: &Hints) {
    text(hash, hints.family.unwrap_or_default().as_bytes());
    text(hash, hints.pre.as_deref().unwrap_or_default().as_bytes());
    numbers(hash, &[u64::from(hints.pre.is_some()), hints.expected_vocab.map_or(u64::MAX, |n| n as u64)]);
}

/// Of a tokenizer file with what lies beside it, or of a folder: all files that [`FileSet::from_path`] could read.
pub(super) fn of_files(path: &Path, hints: &Hints) -> Option<Mark> {
    let (mut place, mut state) = (digest("files place"), digest("files state"));
    hints_of(&mut place, hints);
    let about = std::fs::metadata(path).ok()?;
    numbers(&mut place, &Identity::of(&about)?.place());
    let folder = if about.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    let name = path.file_name().filter(|_| !about.is_dir()).unwrap_or_default();
    text(&mut state, name.as_encoded_bytes());
    // The file itself is one of them, or has a name of its own.
    let mut names: Vec<&OsStr> = neighbours().map(OsStr::new).collect();
    names.extend(Some(name).filter(|name| !name.is_empty()));
    for name in names {
        match std::fs::metadata(folder.join(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => numbers(&mut state, &[0]),
            Err(_) => return None,
            Ok(about) => numbers(&mut state, &Identity::of(&about).filter(Identity::settled)?.numbers()),
        }
    }
    Some(Mark { place: finish(place), state: finish(state) })
}

/// By all bytes of all files.
pub(super) fn key_of_files(files: &FileSet, hints: &Hints) -> Key {
    let mut hash = digest("files");
    hints_of(&mut hash, hints);
    for (name, bytes) in files.iter() {
        text(&mut hash, name.as_bytes());
        text(&mut hash, bytes);
    }
    finish(hash)
}

/// Of a compiled tokenizer that somebody names.
pub(super) fn of_compiled(identity: Option<Identity>) -> Option<Mark> {
    let identity = identity.filter(Identity::settled)?;
    let (mut place, mut state) = (digest("compiled place"), digest("compiled state"));
    numbers(&mut place, &identity.place());
    numbers(&mut state, &identity.numbers());
    Some(Mark { place: finish(place), state: finish(state) })
}
