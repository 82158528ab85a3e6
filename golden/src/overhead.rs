//! `overhead.toml`: what may be spent beside the inference itself.

use crate::{GoldenError, check_schema, read_toml};
use serde::Deserialize;
use std::path::Path;

pub const SCHEMA: u32 = 1;

/// How the overhead of discovery is measured, and what it may be.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerDiscovery {
    pub prompt: String,
    pub new_tokens: usize,
    /// Paired runs; the median counts.
    pub runs: usize,
    /// Percent of the inference that we want.
    pub goal_percent: f64,
    /// Percent above which it is an error.
    pub limit_percent: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Overhead {
    schema: u32,
    tokenizer_discovery: TokenizerDiscovery,
}

/// The limits of discovery.
pub fn tokenizer_discovery(golden: &Path) -> Result<TokenizerDiscovery, GoldenError> {
    let path = golden.join("overhead.toml");
    let overhead: Overhead = read_toml(&path)?;
    check_schema(&path, overhead.schema, SCHEMA)?;
    Ok(overhead.tokenizer_discovery)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_file_reads() {
        let limits =
            super::tokenizer_discovery(std::path::Path::new(env!("CARGO_MANIFEST_DIR"))).expect("overhead.toml");
        assert!(limits.runs > 0 && limits.goal_percent < limits.limit_percent);
    }
}
