//! `targets.toml`: speeds and sizes that must be reached.

use crate::{GoldenError, read_toml};
use serde::Deserialize;
use std::path::Path;

/// All floors.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Targets {
    /// Encoding on one thread.
    pub encode: Encode,
    /// Finding a tokenizer.
    pub discovery: Discovery,
    /// Encoding beside other tokenizers.
    pub peers: Vec<Beside>,
}

/// Least speed as a multiple of the fastest other tokenizer that has the same ids, in one process.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beside {
    pub vocabulary: String,
    /// A kind of text.
    pub text: String,
    /// The first time.
    pub cold: f64,
    /// The second time.
    pub warm: f64,
}

/// Most milliseconds of wall time.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Discovery {
    /// What is needed lies in a cache.
    pub cached_ms: f64,
    /// It comes from a hub on this machine.
    pub download_ms: f64,
}

/// Encoding on one thread.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Encode {
    /// Least speed as a multiple of the crate `tokenizers`, measured in pairs in one process. Below it is a failure.
    pub times_tokenizers: f64,
    /// Least speed as a multiple of the seed's figure. Reported: a speed by itself says more of the machine than of us.
    pub times_seed: f64,
    /// What is measured.
    pub vocabulary: Vec<Floor>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floor {
    pub name: String,
    /// The seed documents' figure for a CPU, in tokens a second; none where they have none.
    pub seed_tokens_per_second: Option<f64>,
    /// Most MB of heap that its tokenizer holds after it has encoded.
    pub seed_mb: f64,
}

/// Reads the file.
pub fn read(golden: &Path) -> Result<Targets, GoldenError> {
    read_toml(&golden.join("targets.toml"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_file_is_read() {
        let targets = super::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR"))).expect("targets.toml");
        assert!(targets.encode.times_tokenizers >= 3.0 && targets.encode.times_seed >= 100.0);
        assert!(targets.discovery.cached_ms <= 100.0 && targets.discovery.download_ms <= 5000.0);
        assert!(targets.encode.vocabulary.iter().all(|floor| floor.seed_mb <= 200.0));
        assert!(targets.encode.vocabulary.iter().any(|floor| floor.seed_tokens_per_second.is_some()));
    }
}
