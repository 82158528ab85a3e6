//! How long the requests of a session took.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// Key: the request's name (`load`, `logits`, ...).
    pub requests: BTreeMap<String, Tally>,
}

/// Sums of one kind of request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Requests that were answered.
    pub calls: u64,
    /// Seconds from sending to having the answer.
    pub seconds: f64,
    /// Of these, seconds that the worker itself spent.
    pub worker_seconds: f64,
    /// Tokens computed, read or made.
    pub tokens: u64,
}

impl Timings {
    pub(crate) fn add(&mut self, request: &str, seconds: f64, worker_seconds: f64, tokens: usize) {
        let tally = self.requests.entry(request.to_owned()).or_default();
        tally.calls += 1;
        tally.seconds += seconds;
        tally.worker_seconds += worker_seconds;
        tally.tokens += tokens as u64;
    }

    pub fn of(&self, request: &str) -> Tally {
        self.requests.get(request).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_a_kind_add_up() {
        let mut timings = Timings::default();
        timings.add("logits", 0.5, 0.25, 3);
        timings.add("logits", 1.0, 0.5, 4);
        timings.add("trace", 8.0, 8.0, 8);
        let sum = timings.of("logits");
        assert_eq!((sum.calls, sum.seconds, sum.worker_seconds, sum.tokens), (2, 1.5, 0.75, 7));
        assert_eq!(timings.of("generate"), Tally::default());
    }
}
