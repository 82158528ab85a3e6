//! When to try again: exponential backoff with jitter, or the wait that the server asks for.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::random::{SplitMix64, seed_of};
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// How often and how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts after the first that bring nothing. An attempt that carried at least a twentieth of the file is free, so a bad line
    /// that makes progress gets to the end.
    pub retries: u32,
    /// The first wait; each further one is twice as long.
    pub base: Duration,
    /// The longest wait of our own choice.
    pub cap: Duration,
    /// The longest wait that a server may ask for.
    pub longest_wait: Duration,
    /// Seed of the jitter; `None` takes one from the clock.
    pub seed: Option<u64>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            retries: 5,
            base: Duration::from_secs(1),
            cap: Duration::from_secs(8),
            longest_wait: Duration::from_secs(330), // the hub's windows are 300 s
            seed: None,
        }
    }
}

/// The waits of one operation.
#[derive(Debug)]
pub(crate) struct Backoff {
    base: Duration,
    cap: Duration,
    step: u32,
    random: SplitMix64,
}

impl Backoff {
    /// `salt` keeps two operations with one seed from waiting in step.
    pub(crate) fn new(policy: &RetryPolicy, salt: &str) -> Self {
        let seed = policy.seed.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            now.as_nanos() as u64 ^ u64::from(std::process::id())
        });
        Self { base: policy.base, cap: policy.cap, step: 0, random: SplitMix64(seed ^ seed_of(salt)) }
    }

    /// The next wait: between half and the whole of `base * 2^n`, at most `cap`.
    pub(crate) fn next(&mut self) -> Duration {
        let full = self.base.saturating_mul(1u32.checked_shl(self.step).unwrap_or(u32::MAX)).min(self.cap);
        self.step = (self.step + 1).min(31);
        full.mul_f64(0.5 + self.random.unit() / 2.0)
    }

    pub(crate) fn reset(&mut self) {
        self.step = 0;
    }
}

/// The wait that a 429 or 503 asks for: `Retry-After` in seconds, or the hub's `ratelimit: "api";r=0;t=55` (the window ends in 55 s, so
/// one second more). A `Retry-After` date is not understood and counts as absent.
pub(crate) fn asked_wait(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(seconds) = text(RETRY_AFTER.as_str()).and_then(|value| value.trim().parse::<u64>().ok()) {
        return Some(Duration::from_secs(seconds));
    }
    let seconds =
        text("ratelimit")?.split(';').find_map(|part| part.trim().strip_prefix("t="))?.trim().parse::<u64>().ok()?;
    Some(Duration::from_secs(seconds.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_with_jitter_up_to_the_cap_and_repeat_with_the_seed() {
        let policy = RetryPolicy {
            base: Duration::from_millis(100),
            cap: Duration::from_millis(500),
            seed: Some(1),
            ..Default::default()
        };
        let waits = |salt| {
            let mut backoff = Backoff::new(&policy, salt);
            (0..40).map(|_| backoff.next()).collect::<Vec<_>>()
        };
        for (wait, full) in waits("a").iter().zip([100, 200, 400, 500, 500]) {
            let full = Duration::from_millis(full);
            assert!(*wait >= full / 2 && *wait <= full, "{wait:?} of {full:?}");
        }
        assert!(waits("a").iter().all(|wait| *wait <= policy.cap));
        let mut backoff = Backoff::new(&policy, "a");
        for _ in 0..3 {
            backoff.next();
        }
        backoff.reset();
        assert!(backoff.next() <= policy.base, "the first wait again");
        assert_eq!(waits("a"), waits("a"));
        assert_ne!(waits("a"), waits("b"));
    }

    #[test]
    fn both_headers_of_a_429() {
        let headers = |name: &'static str, value: &'static str| {
            HeaderMap::from_iter([(
                reqwest::header::HeaderName::from_static(name),
                reqwest::header::HeaderValue::from_static(value),
            )])
        };
        assert_eq!(asked_wait(&headers("retry-after", "30")), Some(Duration::from_secs(30)));
        assert_eq!(asked_wait(&headers("ratelimit", "\"api\";r=0;t=55")), Some(Duration::from_secs(56)));
        for (name, value) in
            [("retry-after", "soon"), ("ratelimit", "\"api\";r=0"), ("ratelimit", "t=x"), ("other", "1")]
        {
            assert_eq!(asked_wait(&headers(name, value)), None, "{name}: {value}");
        }
        assert_eq!(asked_wait(&headers("ratelimit", "t=18446744073709551615")), Some(Duration::from_secs(u64::MAX)));
    }
}
