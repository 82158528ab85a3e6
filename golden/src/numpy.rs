//! What the numpy implementation of all families (`golden/train/families.py`) answered about a model file:
//! `reference/numpy/<model>__<quant>.json`, written by `cargo xtask reference record numpy`.

use crate::texts::json;
use crate::{GoldenError, check_schema};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use std::path::Path;

pub const SCHEMA: u32 = 1;

/// All answers about one model file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answers {
    pub schema: u32,
    /// Always `numpy`.
    pub backend: String,
    pub model: String,
    pub quant: String,
    /// SHA-256 of the GGUF that was read.
    pub model_sha256: String,
    pub architecture: String,
    /// How activations were rounded: `float`, `int8-token` or `int8-block32`.
    pub activations: String,
    /// Positions that an engine would allocate.
    pub context: usize,
    /// How token vectors became one, for embedding models.
    pub pooling: Option<String>,
    pub passages: Vec<Passage>,
}

/// One sequence: its logits, or its vector.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passage {
    /// What was fed.
    pub ids: Vec<u32>,
    /// The likeliest token after each.
    #[serde(default)]
    pub top1: Vec<u32>,
    /// `[ids][vocab]`.
    #[serde(default)]
    pub logits: Option<Numbers>,
    /// `[embedding_length]`, of length 1.
    #[serde(default)]
    pub embedding: Option<Numbers>,
}

/// Little-endian f32 in base64.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Encoded")]
pub struct Numbers {
    /// Extents, the outer first.
    pub shape: Vec<usize>,
    /// In that order.
    pub values: Vec<f32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Encoded {
    shape: Vec<usize>,
    dtype: String,
    base64: String,
}

impl TryFrom<Encoded> for Numbers {
    type Error = String;

    fn try_from(encoded: Encoded) -> Result<Self, String> {
        let Encoded { shape, dtype, base64 } = encoded;
        let bytes = BASE64_STANDARD.decode(base64).map_err(|error| error.to_string())?;
        let (chunks, rest) = bytes.as_chunks::<4>();
        let values: Vec<f32> = chunks.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        if dtype != "float32" || !rest.is_empty() || shape.iter().product::<usize>() != values.len() {
            return Err(format!("{} bytes of {dtype} are not numbers of the shape {shape:?}", bytes.len()));
        }
        Ok(Self { shape, values })
    }
}

/// Reads the answers about a model in a format.
///
/// # Errors
/// The file is missing, cannot be understood, or is about something else.
pub fn read(golden: &Path, model: &str, quant: &str) -> Result<Answers, GoldenError> {
    let path = golden.join("reference/numpy").join(format!("{model}__{quant}.json"));
    let answers: Answers = json(&path)?;
    check_schema(&path, answers.schema, SCHEMA)?;
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(shape: &str, base64: &str) -> Result<Numbers, serde_json::Error> {
        serde_json::from_str(&format!(r#"{{"shape":{shape},"dtype":"float32","base64":"{base64}"}}"#))
    }

    #[test]
    fn numbers_are_little_endian_and_counted() {
        assert_eq!(numbers("[2]", "AACAPwAAAMA=").expect("two").values, [1.0, -2.0]);
        for (shape, base64) in [("[3]", "AACAPwAAAMA="), ("[1]", "AACA"), ("[1]", "%")] {
            assert!(numbers(shape, base64).is_err(), "{shape} {base64}");
        }
    }
}
