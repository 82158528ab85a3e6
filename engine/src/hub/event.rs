//! What happens during a download, as it happens: for progress bars, logs and tests.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// One thing that happened. Paths are the file's path in its repository.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A cache had the file; nothing is downloaded. `from` says which: "cache", "huggingface cache".
    Hit {
        /// The file.
        path: String,
        /// The cache.
        from: &'static str,
    },
    /// The body begins to arrive.
    Started {
        /// The file.
        path: String,
        /// Bytes that an earlier attempt or run left us; the transfer starts there.
        resumed: u64,
        /// Bytes of the whole file.
        total: u64,
    },
    /// More bytes arrived. Sent for every chunk; draw less often.
    Progress {
        /// The file.
        path: String,
        /// Bytes that we have.
        done: u64,
        /// Bytes of the whole file.
        total: u64,
    },
    /// An attempt failed; the next one follows after `delay`.
    Retry {
        /// The file.
        path: String,
        /// Failed attempts so far.
        attempt: u32,
        /// What went wrong.
        why: String,
        /// The wait before the next one.
        delay: Duration,
        /// Whether the hub asked for the wait (429).
        rate_limited: bool,
    },
    /// Another process is fetching the same file; we wait for it.
    Waiting {
        /// The file.
        path: String,
    },
    /// What had arrived cannot be used; the transfer starts at byte 0 again.
    Restarted {
        /// The file.
        path: String,
        /// Why.
        why: String,
    },
    /// The network is down; the commit that a branch had when we last saw it is used.
    Stale {
        /// The repository.
        repo: String,
        /// The branch or tag.
        revision: String,
        /// The commit.
        commit: String,
        /// What is wrong with the network.
        why: String,
    },
    /// A cached file was damaged and has been removed.
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// A file in a cache of other tools is damaged. It is not used and not removed.
    PassedOver {
        /// The file.
        path: String,
        /// Where it lies.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The file is verified and in the cache.
    Finished {
        /// The file.
        path: String,
        /// Bytes of the whole file.
        total: u64,
        /// Bytes that came over the network in this run.
        transferred: u64,
        /// Time since the call.
        took: Duration,
    },
}

/// Who wants to know. Called from the downloading tasks: it must be quick.
pub type Observer = Arc<dyn Fn(&Event) + Send + Sync>;
