#![doc = include_str!("README.md")]

mod chain;
mod colocated;
pub mod compatibility;
mod counters;
#[allow(clippy::module_inception, reason = "it holds `TokenizerDiscovery`, what a model says of itself")]
mod discovery;
mod embedded;
mod error;
mod fallback;
mod mock;
mod pins;
pub mod quantization;
mod remote;
pub mod repair;
mod resolver;
mod settings;
mod sizes;
mod strategy;
mod walk;

pub use chain::{Chain, FamilyReport, Step, StepKind, StepOutcome};
pub use colocated::{Colocated, colocated};
pub use compatibility::{COMPATIBILITY, Compatibility, Role};
pub use counters::{ChainCounters, StepCounters};
pub use discovery::TokenizerDiscovery;
pub use error::{TokenizerDiscoveryError, Ways};
pub use fallback::TokenizerFallbackChain;
pub use mock::MockTokenizer;
pub use resolver::{Resolved, TokenizerStrategyResolver};
pub use settings::DiscoverySettings;
pub use sizes::{Disagreement, VocabularySizes};
pub use strategy::{CachedTokenizer, TokenizerDownloadInfo, TokenizerStrategy};
pub use walk::Walked;
