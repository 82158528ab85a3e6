//! What others compute from tiny checkpoints as HuggingFace has them, and what these are made of:
//! `reference/checkpoint/<name>.json` by numpy (`golden/train/checkpoints.py`), `reference/transformers/<name>.json` by HuggingFace's
//! own library, written by `cargo xtask reference record checkpoint` and `... transformers`.

use crate::numpy::Numbers;
use crate::texts::json;
use crate::{GoldenError, check_schema};
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;

pub const SCHEMA: u32 = 1;

/// A checkpoint, and its logits.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    pub schema: u32,
    /// Who computed: `numpy` or `transformers`.
    pub backend: String,
    /// Its version, where that is not this repository's.
    #[serde(default)]
    pub version: Option<String>,
    pub model: String,
    /// config.json.
    pub config: Value,
    /// Files that the tensors lie in.
    pub files: usize,
    /// Name, type and shape of every tensor; the values follow from the name.
    pub tensors: Vec<(String, String, Vec<usize>)>,
    /// SHA-256 over names, types, shapes and bytes, in the order of names.
    pub digest: String,
    /// How activations were rounded: `float` or `int8-token`.
    pub activations: String,
    /// What was fed.
    pub ids: Vec<u32>,
    /// `[ids][vocab]`.
    pub logits: Numbers,
}

/// Folders below `reference/`.
pub const BACKENDS: [&str; 2] = ["checkpoint", "transformers"];

/// Names of the recordings of a folder, sorted.
pub fn names(golden: &Path, backend: &str) -> Result<Vec<String>, GoldenError> {
    let folder = golden.join("reference").join(backend);
    let unreadable = |source| GoldenError::Read { path: folder.clone(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".json").map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// Reads a recording.
///
/// # Errors
/// The file is missing or cannot be understood.
pub fn read(golden: &Path, backend: &str, name: &str) -> Result<Checkpoint, GoldenError> {
    let path = golden.join("reference").join(backend).join(format!("{name}.json"));
    let checkpoint: Checkpoint = json(&path)?;
    check_schema(&path, checkpoint.schema, SCHEMA)?;
    Ok(checkpoint)
}
