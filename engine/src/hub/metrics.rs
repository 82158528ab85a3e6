//! What the network cost and what the cache saved.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The counters of a client, the same plain numbers for who looks at them, and what follows from them.
macro_rules! counters {
    ({ $($(#[$doc:meta])* $name:ident,)* } { $($(#[$more_doc:meta])* $more:ident: $type:ty = $value:expr,)* }) => {
        /// A snapshot of a client's counters since it was made.
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        pub struct HubMetrics {
            $($(#[$doc])* pub $name: u64,)*
            $($(#[$more_doc])* pub $more: $type,)*
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
            pub(crate) waited_us: AtomicU64,
            pub(crate) transfer_us: AtomicU64,
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> HubMetrics {
                HubMetrics { $($name: self.$name.load(Relaxed),)* $($more: $value(self),)* }
            }
        }
    };
}

counters! {
    {
        /// HTTP requests that were sent, redirects included.
        requests,
        /// Files that were asked for.
        files,
        /// Files that came over the network.
        downloads,
        /// Files found in our cache under their commit, without asking the hub for their contents.
        cache_hits,
        /// Files found in an existing HuggingFace cache.
        hf_cache_hits,
        /// Downloads avoided because the same contents were there already: under another commit, or from another process that was
        /// fetching them at the same time.
        shared_hits,
        /// Files that no cache had.
        misses,
        /// Attempts after a failure.
        retries,
        /// Bytes of bodies that came over the network.
        bytes,
        /// Bytes that an interrupted attempt or run had left and that were not fetched again.
        resumed_bytes,
        /// Bytes that the caches saved.
        avoided_bytes,
        /// Files that arrived with a wrong checksum.
        checksum_failures,
        /// Damaged files that were found in our cache, and removed.
        damaged,
        /// Times that we waited for another process.
        lock_waits,
    }
    {
        /// Milliseconds of waiting, by the hub's order or our own backoff.
        waited_ms: u64 = |c: &Counters| c.waited_us.load(Relaxed) / 1000,
        /// Milliseconds of body transfer.
        transfer_ms: f64 = |c: &Counters| c.transfer_us.load(Relaxed) as f64 / 1000.0,
        /// `bytes` over `transfer_ms`, bytes a second; 0 without a transfer.
        bandwidth: u64 = |c: &Counters| ratio(c.bytes.load(Relaxed) as f64, c.transfer_us.load(Relaxed) as f64 / 1e6) as u64,
        /// Share of the files that needed no download, 0 to 1; 0 without files.
        hit_rate: f64 = |c: &Counters| {
            let hits = [&c.cache_hits, &c.hf_cache_hits, &c.shared_hits].map(|hits| hits.load(Relaxed)).iter().sum::<u64>();
            ratio(hits as f64, c.files.load(Relaxed) as f64)
        },
    }
}

fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}

pub(crate) fn add_time(counter: &AtomicU64, time: Duration) {
    add(counter, u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_counts() {
        let counters = Counters::default();
        let none = counters.snapshot();
        assert_eq!((none.bandwidth, none.hit_rate, none.waited_ms, none.transfer_ms), (0, 0.0, 0, 0.0));
        add(&counters.bytes, 3_000);
        add_time(&counters.transfer_us, Duration::from_millis(1500));
        add_time(&counters.waited_us, Duration::from_micros(7_900));
        add(&counters.files, 8);
        for (hits, count) in [(&counters.cache_hits, 1), (&counters.hf_cache_hits, 2), (&counters.shared_hits, 3)] {
            add(hits, count);
        }
        let some = counters.snapshot();
        assert_eq!((some.bandwidth, some.hit_rate, some.waited_ms, some.transfer_ms), (2_000, 0.75, 7, 1500.0));
    }
}
