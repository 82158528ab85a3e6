//! `differences.toml`: where tokenizers that should agree do not, with an example that shows it.

use crate::{GoldenError, read_toml};
use serde::Deserialize;
use std::path::Path;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    pub name: String,
    pub vocabulary: String,
    /// User-defined tokens added to the vocabulary.
    #[serde(default)]
    pub added: Vec<String>,
    /// Merges added behind the vocabulary's own, each with the token it makes.
    #[serde(default)]
    pub merges: Vec<String>,
    pub text: String,
    /// How the other side computes its ids.
    pub rule: Rule,
    /// The splitting expression of [`Rule::Expression`].
    pub expression: Option<String>,
    /// Whose ids ours equal.
    pub we: Side,
    pub other: String,
    pub why: String,
}

/// Ways to come to other ids than HuggingFace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Split in llama.cpp's four passes; our side gets a GGUF without `tokenizer.ggml.pre`.
    DefaultSplit,
    /// Split by another expression.
    Expression,
    /// Special tokens are tried by length, each over the whole text.
    SpecialByLength,
    /// Bytes without a token are left out after merging.
    BytesAfterMerging,
    /// SPM's space is put in front of the text only, not after special tokens.
    PrependFirst,
}

/// One of the two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// The crate `tokenizers`.
    Oracle,
    Other,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Differences {
    difference: Vec<Difference>,
}

/// All of them.
///
/// # Errors
/// The file cannot be read or understood, or an entry has an expression without need or needs one that it lacks.
pub fn read(golden: &Path) -> Result<Vec<Difference>, GoldenError> {
    let path = golden.join("differences.toml");
    let list = read_toml::<Differences>(&path)?.difference;
    match list.iter().find(|d| d.expression.is_some() != (d.rule == Rule::Expression)) {
        Some(odd) => {
            let message = format!("`{}`: `expression` belongs to the rule \"expression\" and to no other", odd.name);
            Err(GoldenError::Parse { path, message })
        }
        None => Ok(list),
    }
}
