//! The ways to a tokenizer.

use super::compatibility::Compatibility;
use crate::hub::Source;
use serde::Serialize;
use std::path::PathBuf;

/// What is to be fetched from the hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenizerDownloadInfo {
    /// The repository, `org/name`.
    pub repo: String,
    /// Other repositories with the same tokenizer, asked in this order where `repo` does not give it.
    pub mirrors: Vec<String>,
    /// Branch, tag or commit.
    pub revision: String,
    /// Files without which there is no tokenizer.
    pub files: Vec<String>,
    /// Files that are taken along where they exist.
    pub companions: Vec<String>,
    /// Stable name of these contents, for logs and metrics.
    pub cache_key: String,
    /// Tokens that it must have.
    pub expected_vocab: usize,
}

impl TokenizerDownloadInfo {
    pub(super) fn of(line: &Compatibility) -> Self {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let (repo, mirrors) = line.repos.split_first().map_or(("", &[][..]), |(first, rest)| (*first, rest));
        Self {
            repo: repo.to_owned(),
            mirrors: texts(mirrors),
            revision: line.revision.to_owned(),
            files: texts(line.files),
            companions: texts(line.companions),
            cache_key: format!("{}-{}", line.family, line.vocab_size),
            expected_vocab: line.vocab_size,
        }
    }

    /// All repositories, in the order in which they are asked.
    pub fn repos(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.repo).chain(&self.mirrors).map(String::as_str)
    }
}

/// A tokenizer in a cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CachedTokenizer {
    /// What it is.
    pub info: TokenizerDownloadInfo,
    /// The repository that it came from.
    pub repo: String,
    /// The commit.
    pub commit: String,
    /// Our cache or HuggingFace's.
    pub source: Source,
    /// Where its (first) file lies.
    #[serde(serialize_with = "crate::shell::text")]
    pub path: PathBuf,
}

/// The way to a tokenizer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "details")]
pub enum TokenizerStrategy {
    /// The file (or folder) that the caller named.
    Exact(#[serde(serialize_with = "crate::shell::text")] PathBuf),
    /// The model carries it.
    EmbeddedGguf,
    /// A file beside the model.
    Discovered(#[serde(serialize_with = "crate::shell::text")] PathBuf),
    /// A cache has it.
    Cached(CachedTokenizer),
    /// The hub has it.
    NeedsDownload(TokenizerDownloadInfo),
    /// Bytes as ids: only where somebody asked for it.
    Mock,
}

impl TokenizerStrategy {
    /// In words.
    pub fn description(&self) -> String {
        match self {
            Self::Exact(path) => format!("the named file {}", path.display()),
            Self::EmbeddedGguf => "embedded in the GGUF".to_owned(),
            Self::Discovered(path) => format!("found beside the model: {}", path.display()),
            Self::Cached(cached) => format!("cached: {} at {}", cached.repo, cached.commit),
            Self::NeedsDownload(info) => {
                format!("to be fetched: {} of {} ({})", info.files.join(", "), info.repo, info.revision)
            }
            Self::Mock => "MOCK: bytes as ids, the text will be nonsense".to_owned(),
        }
    }

    /// Whether packets leave when it is resolved.
    pub fn requires_network(&self) -> bool {
        matches!(self, Self::NeedsDownload(_))
    }

    /// Whether the cache of downloads is read or written when it is resolved.
    pub fn uses_cache(&self) -> bool {
        matches!(self, Self::Cached(_) | Self::NeedsDownload(_))
    }
}
