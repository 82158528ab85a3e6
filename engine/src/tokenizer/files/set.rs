//! Named files in memory, and reading them from disk within limits.

use super::super::error::TokenizerError;
use super::recognise::{FileKind, HEAD_BYTES, recognise};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// Most bytes of one file. The largest tokenizer.json in use has some 35 MB.
pub const MAX_FILE_BYTES: u64 = 256 << 20;

/// Names of files that are a tokenizer, best first.
pub(super) const TOKENIZER_NAMES: &[&str] =
    &["tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "encoder.json", "vocab.bpe"];
/// Names of files that say more about one.
pub(super) const COMPANION_NAMES: &[&str] =
    &["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "generation_config.json"];

/// Names of all files that [`FileSet::from_path`] may read beside the one that is named.
pub(crate) fn neighbours() -> impl Iterator<Item = &'static str> {
    TOKENIZER_NAMES.iter().chain(COMPANION_NAMES).copied()
}

/// Named files, as a folder or a download gives them.
#[derive(Debug, Clone, Default)]
pub struct FileSet {
    files: Vec<(String, Arc<[u8]>)>,
    place: String,
}

impl FileSet {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file; one of the same name is replaced. Folders in `name` (`original/tokenizer.model`) do not count.
    pub fn add(&mut self, name: impl Into<String>, bytes: impl Into<Arc<[u8]>>) {
        let name = name.into();
        let name = name.rsplit('/').next().unwrap_or_default().to_owned();
        let bytes = bytes.into();
        match self.files.iter_mut().find(|f| f.0 == name) {
            Some(file) => file.1 = bytes,
            None => self.files.push((name, bytes)),
        }
    }

    /// The bytes of a file.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.files.iter().find(|f| f.0 == name).map(|f| &*f.1)
    }

    /// Every file in the order in which it was added.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(name, bytes)| (name.as_str(), &**bytes))
    }

    /// Whether there are no files.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Where the files come from, for messages.
    pub(super) fn place(&self) -> &str {
        if self.place.is_empty() { "the files given" } else { &self.place }
    }

    pub(super) fn names_or_nothing(&self) -> String {
        if self.files.is_empty() {
            return "nothing".to_owned();
        }
        self.files.iter().map(|f| f.0.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// A file with its companions beside it (and its other half, where it is one of a pair), or all tokenizer files of
    /// a folder.
    ///
    /// # Errors
    /// [`TokenizerError::Io`], [`TokenizerError::FileTooLarge`] (beyond [`MAX_FILE_BYTES`]), and for a folder without
    /// any known name [`TokenizerError::NoTokenizerFile`].
    pub fn from_path(path: &Path) -> Result<Self, TokenizerError> {
        let mut set = Self { files: Vec::new(), place: format!("`{}`", path.display()) };
        let folder = if path.is_dir() {
            set.read_known(path, TOKENIZER_NAMES)?;
            path
        } else {
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let bytes = read(path)?;
            let kind = recognise(&name, &bytes[..bytes.len().min(HEAD_BYTES)]);
            set.add(name, bytes);
            let folder = path.parent().unwrap_or(Path::new(""));
            match kind {
                Some(FileKind::VocabJson) => set.read_first(folder, &["merges.txt", "vocab.bpe"])?,
                Some(FileKind::Merges) => set.read_first(folder, &["vocab.json", "encoder.json"])?,
                _ => {}
            }
            folder
        };
        if set.is_empty() {
            return Err(TokenizerError::NoTokenizerFile { place: set.place, found: listing(folder) });
        }
        set.read_known(folder, COMPANION_NAMES)?;
        Ok(set)
    }

    fn read_known(&mut self, folder: &Path, names: &[&str]) -> Result<(), TokenizerError> {
        for name in names {
            let path = folder.join(name);
            if path.is_file() && self.get(name).is_none() {
                self.add(*name, read(&path)?);
            }
        }
        Ok(())
    }

    fn read_first(&mut self, folder: &Path, names: &[&str]) -> Result<(), TokenizerError> {
        match names.iter().find(|name| folder.join(name).is_file()) {
            Some(name) => self.read_known(folder, &[name]),
            None => Ok(()),
        }
    }
}

/// Some names of a folder, for a message.
fn listing(folder: &Path) -> String {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return "nothing".to_owned();
    };
    let mut names: Vec<String> =
        entries.take(1000).flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let more = names.len().saturating_sub(12);
    names.truncate(12);
    match (names.is_empty(), more) {
        (true, _) => "nothing".to_owned(),
        (_, 0) => names.join(", "),
        _ => format!("{} and {more} more", names.join(", ")),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TokenizerError> {
    let io = |error: std::io::Error| TokenizerError::Io { path: path.display().to_string(), reason: error.to_string() };
    let large = |bytes| TokenizerError::FileTooLarge { file: path.display().to_string(), bytes, limit: MAX_FILE_BYTES };
    let meta = std::fs::metadata(path).map_err(io)?;
    if !meta.is_file() {
        return Err(io(std::io::Error::other("it is not a regular file")));
    }
    if meta.len() > MAX_FILE_BYTES {
        return Err(large(meta.len()));
    }
    let mut bytes = Vec::with_capacity(meta.len() as usize);
    File::open(path).map_err(io)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
    // It may have grown since.
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(large(bytes.len() as u64));
    }
    Ok(bytes)
}
