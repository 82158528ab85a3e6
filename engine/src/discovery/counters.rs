//! How often which step had the tokenizer: atomics while running, a plain struct to look at.

use super::chain::{Step, StepKind, StepOutcome};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Debug, Default)]
struct Counter {
    tried: AtomicU64,
    won: AtomicU64,
    rejected: AtomicU64,
    micros: AtomicU64,
}

/// Shared by all clones of a chain.
#[derive(Debug, Default)]
pub(super) struct Counters {
    resolutions: AtomicU64,
    succeeded: AtomicU64,
    steps: [Counter; StepKind::ALL.len()],
}

impl Counters {
    pub(super) fn record(&self, steps: &[Step], succeeded: bool) {
        self.resolutions.fetch_add(1, Relaxed);
        self.succeeded.fetch_add(u64::from(succeeded), Relaxed);
        for step in steps {
            if matches!(step.outcome, StepOutcome::NotNeeded | StepOutcome::NotAllowed) {
                continue;
            }
            let counter = &self.steps[step.step as usize];
            counter.tried.fetch_add(1, Relaxed);
            counter.won.fetch_add(u64::from(step.outcome == StepOutcome::Won), Relaxed);
            counter.rejected.fetch_add(u64::from(step.outcome == StepOutcome::Rejected), Relaxed);
            counter.micros.fetch_add(step.micros, Relaxed);
        }
    }

    pub(super) fn snapshot(&self) -> ChainCounters {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        let (resolutions, succeeded) = (get(&self.resolutions), get(&self.succeeded));
        let steps = StepKind::ALL.iter().zip(&self.steps).filter(|(_, c)| get(&c.tried) > 0).map(|(kind, c)| {
            let (tried, won) = (get(&c.tried), get(&c.won));
            let counters = StepCounters {
                tried,
                won,
                rejected: get(&c.rejected),
                micros: get(&c.micros),
                success_rate: rate(won, tried),
            };
            (*kind, counters)
        });
        ChainCounters { resolutions, succeeded, success_rate: rate(succeeded, resolutions), steps: steps.collect() }
    }
}

fn rate(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// A snapshot of the counters of a [`TokenizerFallbackChain`](super::TokenizerFallbackChain).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ChainCounters {
    /// Models for which a tokenizer was looked for.
    pub resolutions: u64,
    /// Those that got one.
    pub succeeded: u64,
    /// `succeeded / resolutions`, 0 to 1; 0 without any.
    pub success_rate: f64,
    /// By step, those that were tried at least once.
    pub steps: BTreeMap<StepKind, StepCounters>,
}

/// The counters of one step.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct StepCounters {
    /// Times that it looked.
    pub tried: u64,
    /// Times that its tokenizer was taken.
    pub won: u64,
    /// Times that it had one that could not be used.
    pub rejected: u64,
    /// Microseconds together.
    pub micros: u64,
    /// `won / tried`.
    pub success_rate: f64,
}
