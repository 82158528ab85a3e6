//! What comes back: a verified file, and where it was found.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::cache::Cache;
use super::digest::Digest;
use super::error::HubError;
use crate::gguf::{write_file, write_file_by};

/// Where a file was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// It came over the network.
    Network,
    /// Our cache had it.
    Cache,
    /// Our cache had the same contents under another commit, or another process was fetching them.
    Shared,
    /// A cache in HuggingFace's layout had it.
    HuggingFaceCache,
}

/// A verified file.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The repository.
    pub repo: String,
    /// The commit.
    pub commit: String,
    /// The file's path in the repository.
    pub path: String,
    /// Its checksum.
    pub digest: Digest,
    /// Bytes of its contents.
    pub size: u64,
    /// Where it was found.
    pub source: Source,
    /// Where it lies; compressed with zstd if `compressed`.
    pub file: PathBuf,
    /// Whether `file` is zstd.
    pub compressed: bool,
    /// Whether it lies in HuggingFace's cache and not in ours.
    pub(super) foreign: bool,
    pub(super) bytes: Option<Arc<Vec<u8>>>,
    pub(super) cache: Cache,
}

impl Fetched {
    /// The contents, verified.
    pub fn read(&self) -> Result<Arc<Vec<u8>>, HubError> {
        if let Some(bytes) = &self.bytes {
            return Ok(bytes.clone());
        }
        if self.foreign {
            let mut bytes = Vec::new();
            let fail = |cause| HubError::io("read", &self.file, cause);
            let file = std::fs::File::open(&self.file).map_err(fail)?;
            return match self.digest.check(file, self.size, |part| bytes.extend_from_slice(part)).map_err(fail)? {
                None => Ok(Arc::new(bytes)),
                Some(why) => Err(HubError::Corrupt { path: self.file.clone(), why }),
            };
        }
        match self.cache.find(&self.repo, &self.commit, &self.path) {
            Some(entry) => self.cache.read(&entry).map(Arc::new),
            None => Err(HubError::io("read", &self.file, "it has been evicted since; run the command again")),
        }
    }

    /// The file itself, if it can be mapped as it is.
    pub fn plain_file(&self) -> Option<&Path> {
        (!self.compressed).then_some(self.file.as_path())
    }

    /// Writes the contents to `to`, at once or not at all, as [`write_file_by`]; its folder is made. A model is copied piece by piece,
    /// and verified on the way.
    pub fn export(&self, to: &Path) -> Result<(), HubError> {
        let fail = |cause| HubError::io("write", to, cause);
        if let Some(dir) = to.parent() {
            std::fs::create_dir_all(dir).map_err(fail)?;
        }
        if !self.foreign {
            return write_file(to, &self.read()?).map_err(|why| HubError::io("write", to, why));
        }
        let source = std::fs::File::open(&self.file).map_err(|cause| HubError::io("read", &self.file, cause))?;
        let mut bad = None;
        let written = write_file_by(to, |out| {
            let mut written = Ok(());
            let checked = self.digest.check(source, self.size, |part| {
                if written.is_ok() {
                    written = out.write_all(part);
                }
            });
            written?;
            let refused = std::io::Error::other("its contents are not what they should be");
            bad = match checked {
                Ok(None) => return Ok(()),
                Ok(Some(why)) => Some(HubError::Corrupt { path: self.file.clone(), why }),
                Err(cause) => Some(HubError::io("read", &self.file, cause)),
            };
            Err(refused)
        });
        match (written, bad) {
            (_, Some(error)) => Err(error),
            (written, None) => written.map_err(|why| HubError::io("write", to, why)),
        }
    }
}

/// The files of a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// The commit that the revision names.
    pub commit: String,
    /// Paths.
    pub files: Vec<String>,
}
