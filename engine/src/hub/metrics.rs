//! What the network cost and what the cache saved.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A snapshot of a client's counters since it was made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HubMetrics {
    /// HTTP requests that were sent, redirects included.
    pub requests: u64,
    /// Files that were asked for.
    pub files: u64,
    /// Files that came over the network.
    pub downloads: u64,
    /// Files found in our cache under their commit, without asking the hub for their contents.
    pub cache_hits: u64,
    /// Files found in an existing HuggingFace cache.
    pub hf_cache_hits: u64,
    /// Downloads avoided because the same contents were there already: under another commit, or from another process that was fetching
    /// them at the same time.
    pub shared_hits: u64,
    /// Files that no cache had.
    pub misses: u64,
    /// Attempts after a failure.
    pub retries: u64,
    /// Bytes of bodies that came over the network.
    pub bytes: u64,
    /// Bytes that an interrupted attempt or run had left and that were not fetched again.
    pub resumed_bytes: u64,
    /// Bytes that the caches saved.
    pub avoided_bytes: u64,
    /// Files that arrived with a wrong checksum.
    pub checksum_failures: u64,
    /// Damaged files that were found in our cache, and removed.
    pub damaged: u64,
    /// Times that we waited for another process.
    pub lock_waits: u64,
    /// Milliseconds of waiting, by the hub's order or our own backoff.
    pub waited_ms: u64,
    /// Milliseconds of body transfer.
    pub transfer_ms: f64,
    /// `bytes` over `transfer_ms`, bytes a second; 0 without a transfer.
    pub bandwidth: u64,
    /// Share of the files that needed no download, 0 to 1; 0 without files.
    pub hit_rate: f64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) requests: AtomicU64,
    pub(crate) files: AtomicU64,
    pub(crate) downloads: AtomicU64,
    pub(crate) cache_hits: AtomicU64,
    pub(crate) hf_cache_hits: AtomicU64,
    pub(crate) shared_hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) resumed_bytes: AtomicU64,
    pub(crate) avoided_bytes: AtomicU64,
    pub(crate) checksum_failures: AtomicU64,
    pub(crate) damaged: AtomicU64,
    pub(crate) lock_waits: AtomicU64,
    pub(crate) waited_us: AtomicU64,
    pub(crate) transfer_us: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}

pub(crate) fn add_time(counter: &AtomicU64, time: Duration) {
    add(counter, u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
}

impl Counters {
    pub(crate) fn snapshot(&self) -> HubMetrics {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        let ratio = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
        let (bytes, us) = (get(&self.bytes), get(&self.transfer_us));
        let hits = get(&self.cache_hits) + get(&self.hf_cache_hits) + get(&self.shared_hits);
        HubMetrics {
            requests: get(&self.requests),
            files: get(&self.files),
            downloads: get(&self.downloads),
            cache_hits: get(&self.cache_hits),
            hf_cache_hits: get(&self.hf_cache_hits),
            shared_hits: get(&self.shared_hits),
            misses: get(&self.misses),
            retries: get(&self.retries),
            bytes,
            resumed_bytes: get(&self.resumed_bytes),
            avoided_bytes: get(&self.avoided_bytes),
            checksum_failures: get(&self.checksum_failures),
            damaged: get(&self.damaged),
            lock_waits: get(&self.lock_waits),
            waited_ms: get(&self.waited_us) / 1000,
            transfer_ms: us as f64 / 1000.0,
            bandwidth: ratio(bytes as f64, us as f64 / 1e6) as u64,
            hit_rate: ratio(hits as f64, get(&self.files) as f64),
        }
    }
}
