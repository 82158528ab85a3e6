//! What happens during a download, as it happens: for progress bars, logs and tests.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// One thing that happened. Paths are the file's path in its repository.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "what is wrong, why, and bytes of the whole file, but where they say otherwise")]
#[non_exhaustive]
pub enum Event {
    /// A cache had the file; nothing is downloaded. `from` says which: "cache", "huggingface cache".
    Hit { path: String, from: &'static str },
    /// The body begins to arrive.
    Started {
        path: String,
        /// Bytes that an earlier attempt or run left us; the transfer starts there.
        resumed: u64,
        total: u64,
    },
    /// More bytes arrived. Sent for every chunk; draw less often.
    Progress { path: String, done: u64, total: u64 },
    /// An attempt failed; the next one follows after `delay`.
    Retry {
        path: String,
        /// Failed attempts so far.
        attempt: u32,
        why: String,
        delay: Duration,
        /// Whether the hub asked for the wait (429).
        rate_limited: bool,
    },
    /// Another process is fetching the same file; we wait for it.
    Waiting { path: String },
    /// What had arrived cannot be used; the transfer starts at byte 0 again.
    Restarted { path: String, why: String },
    /// The network is down; the commit that a branch had when we last saw it is used.
    Stale { repo: String, revision: String, commit: String, why: String },
    /// A cached file was damaged and has been removed.
    Damaged { path: String, why: String },
    /// A file in a cache of other tools is damaged. It is not used and not removed.
    PassedOver { path: String, file: PathBuf, why: String },
    /// The file is verified and in the cache.
    Finished {
        path: String,
        total: u64,
        /// Bytes that came over the network in this run.
        transferred: u64,
        /// Time since the call.
        took: Duration,
    },
}

/// Who wants to know. Called from the downloading tasks: it must be quick.
pub type Observer = Arc<dyn Fn(&Event) + Send + Sync>;
