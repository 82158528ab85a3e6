//! How far an answer may be from a reference that sums in another order: data, from `thresholds.toml`.

use crate::{GoldenError, read_toml};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// The limits of one reference.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// The reference's choice counts where its first logit leads by more than this.
    pub clear_gap: f32,
    /// Least cosine between the logits of a position.
    pub least_cosine: f64,
    /// Largest relative difference of the mean loss.
    pub relative_loss: f64,
}

/// The limits for a reference.
///
/// # Errors
/// The file cannot be read or understood, or has no such table.
pub fn read(golden: &Path, reference: &str) -> Result<Thresholds, GoldenError> {
    let path = golden.join("thresholds.toml");
    let mut tables: BTreeMap<String, Thresholds> = read_toml(&path)?;
    tables
        .remove(reference)
        .ok_or_else(|| GoldenError::Parse { path, message: format!("there is no table [{reference}]") })
}
