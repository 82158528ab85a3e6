//! Files from the HuggingFace hub: fetched once, verified, kept.
//!
//! A model without a tokenizer needs two or three small files from the hub, and a model that is only named needs all of its own.
//! This module gets them under the worst network we could think of (crate `bitnet-mock-hub` *is* that network) and promises:
//!
//! - **Nothing unverified is ever kept.** Every file is checked against the hub's own checksum (SHA-256 of LFS and Xet files, git's blob
//!   SHA-1 of the others) before it gets its name, and again when it is read.
//! - **A crash at any moment leaves the old state or the new one**, and the next run resumes at the byte where the last one ended.
//! - **Each file comes once**, however many processes ask: advisory locks, which the kernel drops with their owner.
//! - **It ends.** Connecting, silence, retries, waiting for a rate limit and the whole call are bounded; what is waited for is told to
//!   the observer ([`Event`]).
//! - **The token stays home**: it is sent to the endpoint's origin only, never follows a redirect, and is never printed.
//! - **Offline means offline**: no packet leaves.
//!
//! ```text
//!  fetch(repo, revision, path)
//!    │ 1 commit      a full hash as it is · a ref younger than `ref_ttl` · HEAD · (network down: the last ref we saw)
//!    │ 2 our cache   by (repo, commit, path)                     cache.rs
//!    │ 3 HF cache    $HF_HUB_CACHE/models--org--name/...         hf_cache.rs
//!    │ 4 HEAD        checksum and size; same blob under another commit? then nothing to fetch
//!    │ 5 lock        one fetcher per checksum, others wait and find it    lock.rs
//!    │ 6 GET         Range + If-Range from the partial file, retries, circuit breaker   fetch.rs, retry.rs, breaker.rs
//!    └ 7 keep        verify, compress, fsync, rename, evict the least recently used
//! ```
//!
//! Tokenizers are kept in our own cache. Models are named by a [`ModelRef`] (reference.rs), chosen in the order of
//! [`choose::ORDER`] and kept as they are in HuggingFace's cache (hf_store.rs), with the files beside them: the same picture, but for
//! its end (snapshot.rs, models.rs). A repository without a GGUF may have a checkpoint (checkpoints.rs).
//!
//! [`SmartTokenizerDownload`] is the async client, [`blocking::BlockingDownload`] the same for programs without a runtime.
//! [`HubSettings`] holds every setting; [`HubSettings::from_lookup`] reads them from an environment that the caller hands in.

mod attempts;
pub mod blocking;
mod breaker;
mod cache;
mod cache_admin;
pub mod checkpoints;
pub mod choose;
mod digest;
mod download;
mod error;
mod event;
mod failure;
mod fetch;
mod fetched;
pub mod glob;
mod hf_cache;
mod hf_store;
mod http;
mod listing;
mod lock;
mod metrics;
pub mod models;
mod names;
mod partial;
mod proxy;
mod reference;
mod retry;
mod settings;
mod snapshot;
mod space;
mod steps;

pub use breaker::{BreakerPolicy, BreakerState};
pub(crate) use cache::write_whole;
pub use cache::{Cache, CacheEntry};
pub use cache_admin::{CacheStats, Eviction, Verification};
pub use digest::{Algorithm, Digest};
pub use download::SmartTokenizerDownload;
pub use error::{HubError, Tried};
pub use event::{Event, Observer};
pub use fetched::{Fetched, Listing, Source};
pub(crate) use hf_cache::present as hf_present;
pub use http::Metadata;
pub(crate) use lock::try_lock;
pub use metrics::HubMetrics;
pub(crate) use names::check_repo as check_repo_name;
pub use proxy::Proxies;
pub use reference::{MAIN, ModelRef, Pick};
pub use retry::RetryPolicy;
pub use settings::{HubSettings, Timeouts, Token, TokenSource};
pub use snapshot::{Snapshot, SnapshotPlan};
