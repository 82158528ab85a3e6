//! Where compiled tokenizers are kept, and when one is used.
//!
//! ```text
//! FOLDER/<key>.tokenizer   a compiled tokenizer; the key is a hash of all that it was made of, of the form and of the rules
//! FOLDER/<place>.known     which key a source has by its mark, and which compiled file was found whole
//! FOLDER/lock              held by whoever writes here
//! ```
//!
//! A start looks for the note of its source. Does the source still have the mark, and the compiled file the identity in the note, then
//! that file is used as it is. Is it another file than was checked, then all of it is checked again. Where anything does not fit, the
//! key is computed from the source's bytes; where there is no sound file of that key, the tokenizer is built and written. All of this can
//! only fail to save time: whatever is wrong with the folder, there is a tokenizer.

use super::form::{Key, checksum};
use super::mark::{self, Mark};
use super::{check, made_of, map, named, tokenizer};
use crate::gguf::{GgufFile, Identity};
use crate::hub::{HubError, try_lock, write_whole};
use crate::tokenizer::files::{self, FileSet, Hints};
use crate::tokenizer::{Diagnostic, Loaded, TokenizerError, from_gguf};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A folder of compiled tokenizers. What is in it can be removed at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompiledCache {
    folder: PathBuf,
}

/// Code of the diagnostic that a compiled tokenizer is used.
pub(crate) const USED: &str = "tokenizer_compiled";
/// Compiled tokenizers that stay; of more the oldest are removed.
const MOST: usize = 16;
/// Notes that stay.
const MOST_NOTES: usize = 256;

/// Nobody writes that long.
const ABANDONED: Duration = Duration::from_secs(3600);

/// What is remembered of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Note {
    state: Key,
    key: Key,
    /// Of the compiled file when it was whole.
    whole: Option<Identity>,
}

impl Note {
    /// Mark, key, identity (zeros for none), checksum; little endian.
    const BYTES: usize = 16 + 16 + 40 + 8;

    fn bytes(&self) -> Vec<u8> {
        let numbers = self.whole.unwrap_or_default().numbers();
        let mut bytes = [self.state, self.key].concat();
        numbers.iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The state, the key, and whether a file of this identity was whole.
    fn read(bytes: &[u8]) -> Option<(Key, Key, [u64; 5])> {
        let (bytes, sum) = bytes.split_last_chunk::<8>()?;
        if bytes.len() + 8 != Self::BYTES || checksum(bytes) != u64::from_le_bytes(*sum) {
            return None;
        }
        let (state, rest) = bytes.split_first_chunk::<16>()?;
        let (key, rest) = rest.split_first_chunk::<16>()?;
        let mut numbers = [0; 5];
        for (number, bytes) in numbers.iter_mut().zip(rest.as_chunks::<8>().0) {
            *number = u64::from_le_bytes(*bytes);
        }
        Some((*state, *key, numbers))
    }
}

impl CompiledCache {
    /// Of this folder, which need not exist.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The tokenizer that a GGUF carries: compiled before, or built now and kept.
    ///
    /// # Errors
    /// As [`from_gguf`].
    pub fn gguf(&self, file: &GgufFile) -> Result<Loaded, TokenizerError> {
        let build = || from_gguf(file.metadata());
        // A file in memory has no place that could be remembered.
        if file.identity().is_none() && file.parts().all(|part| part.path.is_none()) {
            return build();
        }
        let mark = mark::of_gguf(file);
        self.find(mark).map_or_else(|| self.keep(mark, &mark::key_of_gguf(file), build), Ok)
    }

    /// The tokenizer that a GGUF carries, if it was compiled before, as far as is remembered.
    pub(crate) fn known_gguf(&self, file: &GgufFile) -> Option<Loaded> {
        self.find(mark::of_gguf(file))
    }

    /// The tokenizer of the file or folder at `path`; `read` gives the files if they must be read.
    ///
    /// # Errors
    /// Those of `read`, and as `failed` makes them of those of [`files::load`].
    pub fn files<E>(
        &self,
        path: &Path,
        hints: &Hints,
        failed: impl FnOnce(TokenizerError) -> E,
        read: impl FnOnce() -> Result<FileSet, E>,
    ) -> Result<Loaded, E> {
        let mark = mark::of_files(path, hints);
        if let Some(loaded) = self.find(mark) {
            return Ok(loaded);
        }
        let files = read()?;
        self.keep(mark, &mark::key_of_files(&files, hints), || files::load(&files, hints)).map_err(failed)
    }

    /// The tokenizer of files that are in memory.
    ///
    /// # Errors
    /// As [`files::load`].
    pub fn in_memory(&self, files: &FileSet, hints: &Hints) -> Result<Loaded, TokenizerError> {
        self.keep(None, &mark::key_of_files(files, hints), || files::load(files, hints))
    }

    /// Opens a compiled tokenizer that somebody names, wherever it lies.
    ///
    /// # Errors
    /// As [`super::open`].
    pub fn open(&self, path: &Path) -> Result<Loaded, TokenizerError> {
        let opened = map(path).and_then(|form| {
            let identity = form.identity();
            let mark = mark::of_compiled(identity);
            if !is_same(identity, mark.and_then(|mark| Some(self.note(mark)?.2))) {
                check(&form)?;
                self.remember(mark, form.key(), identity);
            }
            tokenizer(&form)
        });
        opened.map_err(|reason| named(path, reason))
    }

    fn path(&self, key: Key, end: &str) -> PathBuf {
        self.folder.join(format!("{}.{end}", hex::encode(key)))
    }

    /// What the note of a source says, if the source is still as it was.
    fn note(&self, mark: Mark) -> Option<(Key, Key, [u64; 5])> {
        let path = self.path(mark.place, "known");
        // Asked before opening, because to open a named pipe would wait for its writer.
        std::fs::metadata(&path).ok().filter(|about| about.is_file() && about.len() == Note::BYTES as u64)?;
        Note::read(&std::fs::read(path).ok()?).filter(|(state, ..)| *state == mark.state)
    }

    /// Best effort: what is not remembered is found out again.
    fn remember(&self, mark: Option<Mark>, key: Key, whole: Option<Identity>) {
        let Some(mark) = mark else { return };
        let note = Note { state: mark.state, key, whole: whole.filter(Identity::settled) };
        if let Err(error) = write_whole(&self.path(mark.place, "known"), &note.bytes()) {
            tracing::debug!("{} is not written: {error}", self.path(mark.place, "known").display());
        }
    }

    /// What was compiled of this source, without reading it.
    fn find(&self, mark: Option<Mark>) -> Option<Loaded> {
        let (_, key, whole) = self.note(mark?)?;
        self.sound(key, Some(whole), mark)
    }

    /// The compiled tokenizer of a key, checked unless it is the very file that was whole before.
    fn sound(&self, key: Key, whole: Option<[u64; 5]>, mark: Option<Mark>) -> Option<Loaded> {
        let path = self.path(key, "tokenizer");
        let form = map(&path).ok().filter(|form| form.key() == key)?;
        let identity = form.identity();
        if !is_same(identity, whole) {
            check(&form).ok()?;
            // A note without an identity would be written at every start until the file has settled.
            if whole.is_none() || identity.is_some_and(|identity| identity.settled()) {
                self.remember(mark, key, identity);
            }
        }
        let mut loaded = tokenizer(&form).ok()?;
        loaded.diagnostics.push(Diagnostic::info(USED, format!("its compiled form is used: {}", path.display()), ""));
        Some(loaded)
    }

    /// Uses or makes the compiled tokenizer of this key.
    fn keep(
        &self,
        mark: Option<Mark>,
        key: &Key,
        build: impl FnOnce() -> Result<Loaded, TokenizerError>,
    ) -> Result<Loaded, TokenizerError> {
        if let Some(loaded) = self.sound(*key, None, mark) {
            return Ok(loaded);
        }
        let mut loaded = build()?;
        // Kinds that cannot be compiled are built at every start.
        if let Ok(bytes) = made_of(&loaded, key) {
            match self.write(*key, &bytes) {
                Ok(true) => self.remember(mark, *key, None),
                Ok(false) => {}
                Err(reason) => loaded.diagnostics.push(Diagnostic::info(
                    "tokenizer_not_kept",
                    format!("its compiled form is not kept in {}: {reason}", self.folder.display()),
                    "export BITNET_COMPILED_TOKENIZERS=DIR names another folder, and `off` keeps none",
                )),
            }
        }
        Ok(loaded)
    }

    /// `false` where somebody else writes just now.
    fn write(&self, key: Key, bytes: &[u8]) -> Result<bool, String> {
        // The remedy of the hub's error is for its own caches.
        let failed = |error: HubError| match error {
            HubError::Io { doing, path, why } => format!("cannot {doing} {}: {why}", path.display()),
            other => other.to_string(),
        };
        let Some(_lock) = try_lock(&self.folder.join("lock")).map_err(failed)? else {
            return Ok(false);
        };
        write_whole(&self.path(key, "tokenizer"), bytes).map_err(|error| error.to_string())?;
        self.thin();
        Ok(true)
    }

    /// Removes the oldest files beyond what may stay, and what a process left that was killed while it wrote.
    fn thin(&self) {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut files: Vec<(SystemTime, PathBuf)> =
            entries.filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()))).collect();
        files.sort();
        let of = |end: &str, most: usize| {
            let of: Vec<&PathBuf> = files.iter().map(|(_, path)| path).filter(|path| has_end(path, end)).collect();
            of.iter().take(of.len().saturating_sub(most)).map(|path| path.to_path_buf()).collect::<Vec<_>>()
        };
        let is_left = |(changed, path): &&(SystemTime, PathBuf)| {
            let old = changed.elapsed().is_ok_and(|age| age > ABANDONED);
            old && path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".tmp-"))
        };
        let left = files.iter().filter(is_left).map(|(_, path)| path.clone());
        for path in of("tokenizer", MOST).into_iter().chain(of("known", MOST_NOTES)).chain(left) {
            // Whoever has it mapped keeps it.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Whether a file is the one that was whole.
fn is_same(identity: Option<Identity>, whole: Option<[u64; 5]>) -> bool {
    identity.is_some_and(|identity| Some(identity.numbers()) == whole)
}

fn has_end(path: &Path, end: &str) -> bool {
    path.extension().is_some_and(|own| own == end)
}
