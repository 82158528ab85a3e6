//! What the caller allows. The engine reads no environment here: `settings::discovery_from_env` fills this for the
//! command line, tests fill it by hand.

use crate::hub::HubSettings;
use crate::tokenizer::compiled::CompiledCache;
use std::path::PathBuf;

/// What discovery may do, and where it may look. The default looks into the model and beside it, nothing else.
#[derive(Debug, Clone, Default)]
pub struct DiscoverySettings {
    /// Caches and hub; without it the steps `cache`, `huggingface-cache` and `download` say that they cannot run.
    pub hub: Option<HubSettings>,
    /// Why there is no `hub`, for the chain.
    pub no_hub: Option<String>,
    /// No packet leaves.
    pub offline: bool,
    /// Neither a mock nor a guess nor a silent replacement: what would be a warning about ids is an error.
    pub strict: bool,
    /// Files may be fetched from the hub.
    pub auto_download: bool,
    /// If nothing else works, bytes are taken for ids. Text comes out, sense does not: for tests of plumbing only.
    pub allow_mock: bool,
    /// Where compiled tokenizers are kept and used; without it every tokenizer is built.
    pub compiled: Option<CompiledCache>,
    /// This file (or folder) and no other.
    pub exact: Option<PathBuf>,
}

impl DiscoverySettings {
    /// Whether no packet may leave, whoever said so.
    pub fn is_offline(&self) -> bool {
        self.offline || self.hub.as_ref().is_some_and(|hub| hub.offline)
    }
}
