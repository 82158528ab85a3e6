//! The texts on which models are checked, and how much of them each model is given.

use crate::{GoldenError, read_toml};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// How much a model is asked. The oracle computes all of it, so large models are asked less.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    #[serde(default)]
    pub prompts: Vec<String>,
    #[serde(default)]
    pub new_tokens: usize,
    /// Tokens of the passage whose logits are digested.
    pub digest_tokens: usize,
    /// Tokens of the passage that slow devices compute: the beginning, or all of `digest_tokens`. The emulation of a card is
    /// one, and the oracle where `oracle_start` says so.
    #[serde(default = "start_tokens")]
    pub start_tokens: usize,
    /// Weight formats of which the oracle computes the beginning alone, unless it blesses; `*` is all of them.
    #[serde(default)]
    pub oracle_start: Vec<String>,
    /// Tokens of a free run on slow devices, after the first prompt; references are asked that prompt alone, too. 0: they run
    /// what the others do.
    #[serde(default)]
    pub start_new_tokens: usize,
    /// Tokens of the passage that are held against the C++ references, position by position.
    pub reference_tokens: usize,
    /// Tokens of a greedy continuation that are held against them.
    pub reference_new_tokens: usize,
    /// Characters of the passage whose perplexity is measured.
    #[serde(default)]
    pub perplexity_characters: usize,
    /// The same for the oracle, unless it blesses. 0: as the others.
    #[serde(default)]
    pub perplexity_start_characters: usize,
}

impl Plan {
    /// Whether the oracle computes the beginning alone in a weight format.
    pub fn starts_only(&self, quant: &str) -> bool {
        self.oracle_start.iter().any(|named| named == "*" || named == quant)
    }
}

/// A chunk of seven and a rest.
fn start_tokens() -> usize {
    12
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plans {
    default: Plan,
    model: BTreeMap<String, Plan>,
}

/// The plan of a model, else the default one, from `texts/plan.toml`.
pub fn plan(golden: &Path, model: &str) -> Result<Plan, GoldenError> {
    let mut plans: Plans = read_toml(&golden.join("texts/plan.toml"))?;
    Ok(plans.model.remove(model).unwrap_or(plans.default))
}

/// A page of prose (`texts/passage.txt`).
pub fn passage(golden: &Path) -> Result<String, GoldenError> {
    read(&golden.join("texts/passage.txt"))
}

/// Strings that strain tokenizers (`texts/strings.json`).
pub fn strings(golden: &Path) -> Result<Vec<String>, GoldenError> {
    json(&golden.join("texts/strings.json"))
}

#[derive(Deserialize)]
struct RecordedIds {
    cases: Vec<RecordedCase>,
}

#[derive(Deserialize)]
struct RecordedCase {
    text: String,
    ids: Vec<u32>,
}

/// Texts with the ids that HuggingFace `tokenizers` gave for a model's tokenizer; none for models without a recording.
pub fn recorded_ids(golden: &Path, model: &str) -> Result<Vec<(String, Vec<u32>)>, GoldenError> {
    if !matches!(model, "tiny-bitnet" | "tiny-bitnet-silu") {
        return Ok(Vec::new());
    }
    let recorded: RecordedIds = json(&golden.join("reference/trainer/tiny-tokenizer.json"))?;
    Ok(recorded.cases.into_iter().map(|case| (case.text, case.ids)).collect())
}

pub(crate) fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, GoldenError> {
    serde_json::from_str(&read(path)?).map_err(|e| GoldenError::Parse { path: path.to_owned(), message: e.to_string() })
}

fn read(path: &Path) -> Result<String, GoldenError> {
    std::fs::read_to_string(path).map_err(|source| GoldenError::Read { path: path.to_owned(), source })
}
