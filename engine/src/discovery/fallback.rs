//! The whole chain as one call.

use super::counters::{ChainCounters, Counters};
use super::discovery::TokenizerDiscovery;
use super::error::TokenizerDiscoveryError;
use super::resolver::Resolved;
use super::settings::DiscoverySettings;
use super::walk::{self, Walked};
use crate::hub::Observer;
use std::sync::Arc;

/// GGUF, beside the model, our cache, HuggingFace's cache, download, and (only if asked for) mock: the first that has
/// a tokenizer which fits the model. Clones share the counters.
#[derive(Clone)]
pub struct TokenizerFallbackChain {
    settings: DiscoverySettings,
    observer: Option<Observer>,
    counters: Arc<Counters>,
}

impl std::fmt::Debug for TokenizerFallbackChain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenizerFallbackChain").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl TokenizerFallbackChain {
    /// A chain under these settings.
    pub fn new(settings: DiscoverySettings) -> Self {
        Self { settings, observer: None, counters: Arc::default() }
    }

    /// Tells `observer` what happens during downloads.
    #[must_use]
    pub fn with_observer(mut self, observer: Observer) -> Self {
        self.observer = Some(observer);
        self
    }

    /// What is allowed.
    pub fn settings(&self) -> &DiscoverySettings {
        &self.settings
    }

    /// Walks the chain, builds and (if allowed) fetches. Where nothing works `resolved` is empty;
    /// [`TokenizerFallbackChain::resolve`] makes an error of that.
    pub fn run(&self, discovery: &TokenizerDiscovery) -> Walked {
        let span = tracing::info_span!("tokenizer_discovery", model = discovery.model_name());
        let walked = span.in_scope(|| walk::build(discovery, &self.settings, self.observer.as_ref()));
        self.counters.record(&walked.chain.steps, walked.resolved.is_some());
        walked
    }

    /// The tokenizer of a model.
    ///
    /// # Errors
    /// [`TokenizerDiscoveryError::NothingUsable`] with every step that was tried and the three ways out; the error of
    /// the tokenizer that was named; [`TokenizerDiscoveryError::Strict`].
    pub fn resolve(&self, discovery: &TokenizerDiscovery) -> Result<Resolved, TokenizerDiscoveryError> {
        let mut walked = self.run(discovery);
        match walked.resolved.take() {
            Some(resolved) => Ok(resolved),
            None => Err(walked.into_error(discovery, &self.settings)),
        }
    }

    /// How often which step had the tokenizer.
    pub fn counters(&self) -> ChainCounters {
        self.counters.snapshot()
    }
}
