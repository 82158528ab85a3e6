//! The truth as data, and the small crate that reads it.
//!
//! Everything that decides whether BitNet.rs is right lives in this folder as files that a person can
//! read and a diff can show: which cells exist ([`matrix`], `matrix.toml`), which of them are known to
//! fail and why ([`expect`], `expect.toml`), and what they must answer (`snapshots/`). The crate is a
//! leaf: it knows nothing of the engine or of the harness, so that neither can bend the truth while it
//! reads it. It only reads; the one writer of snapshots is the blessing command of the harness.
//!
//! Every reader of TOML denies unknown fields: a misspelt key in a data file is an error, never a default. What a reader returns beside
//! data is a [`GoldenError`] with the file and the place in it.

#![allow(missing_docs, reason = "a name that says it all has no comment")]

pub mod checkpoint;
pub mod cuda;
pub mod differences;
pub mod expect;
pub mod faults;
pub mod fixtures;
pub mod gates;
pub mod matrix;
pub mod mutants;
pub mod numpy;
pub mod overhead;
pub mod pattern;
pub mod planted;
pub mod reference;
pub mod shape;
pub mod targets;
pub mod texts;
pub mod thresholds;
pub mod trainer;

use std::path::{Path, PathBuf};

/// What can go wrong while the data files are read.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    #[error("cannot read {path}: {source}; it is part of the repository: `git checkout -- {path}` restores it", path = path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {message}", path = path.display())]
    Parse { path: PathBuf, message: String },
    #[error("{path}: schema {found}, but this build reads schema {wanted}; update the file or the checkout", path = path.display())]
    Schema { path: PathBuf, found: u32, wanted: u32 },
}

/// Reads `path` as TOML into `T`, naming the file in every error.
pub(crate) fn read_toml<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, GoldenError> {
    let text = std::fs::read_to_string(path).map_err(|source| GoldenError::Read { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|error| GoldenError::Parse { path: path.to_owned(), message: error.to_string() })
}

/// Refuses a file of another schema version.
pub(crate) fn check_schema(path: &Path, found: u32, wanted: u32) -> Result<(), GoldenError> {
    if found == wanted { Ok(()) } else { Err(GoldenError::Schema { path: path.to_owned(), found, wanted }) }
}
