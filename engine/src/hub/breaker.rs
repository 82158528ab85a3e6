//! Circuit breakers, one for each origin. After `threshold` failures in a row nothing is sent to an origin for `cooldown`; then one
//! request goes out as a probe (half-open), and its outcome closes the circuit or opens it again. So a dead hub costs a program that
//! wants twenty files one round of timeouts, not twenty.
//!
//! Only the network's failures count (no connection, silence, 5xx): a 404 or 429 is a sign of life.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::HubError;

/// When an origin is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// Failures in a row that open the circuit. More than one operation's attempts, so that a single file cannot open it for itself.
    pub threshold: u32,
    /// How long it stays open before a probe.
    pub cooldown: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self { threshold: 10, cooldown: Duration::from_secs(30) }
    }
}

/// State of one origin's circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Requests pass.
    Closed,
    /// Requests are refused without a packet.
    Open,
    /// One probe is allowed, or under way.
    HalfOpen,
}

#[derive(Debug, Default)]
struct Circuit {
    failures: u32,
    opened: Option<Instant>,
    probing: bool,
    last: String,
}

/// The breakers of a client; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Breakers {
    policy: BreakerPolicy,
    circuits: Arc<Mutex<HashMap<String, Circuit>>>,
}

/// Leave to send one request. Report its outcome; dropped without a report (a cancelled call) it counts as nothing.
#[derive(Debug)]
pub(crate) struct Permit {
    breakers: Breakers,
    origin: String,
    probe: bool,
}

impl Breakers {
    pub(crate) fn new(policy: BreakerPolicy) -> Self {
        Self { policy, circuits: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Circuit>> {
        self.circuits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leave to send a request to `origin`, or [`HubError::CircuitOpen`].
    pub(crate) fn allow(&self, origin: &str) -> Result<Permit, HubError> {
        let mut circuits = self.lock();
        let circuit = circuits.entry(origin.to_owned()).or_default();
        let permit = |probe| Permit { breakers: self.clone(), origin: origin.to_owned(), probe };
        let Some(opened) = circuit.opened else {
            return Ok(permit(false));
        };
        let retry_in = self.policy.cooldown.saturating_sub(opened.elapsed());
        if retry_in.is_zero() && !circuit.probing {
            circuit.probing = true;
            return Ok(permit(true));
        }
        Err(HubError::CircuitOpen {
            origin: origin.to_owned(),
            failures: circuit.failures,
            retry_in,
            last: circuit.last.clone(),
        })
    }

    pub(crate) fn state(&self, origin: &str) -> BreakerState {
        match self.lock().get(origin) {
            Some(Circuit { opened: Some(opened), probing, .. }) => {
                if *probing || opened.elapsed() >= self.policy.cooldown {
                    BreakerState::HalfOpen
                } else {
                    BreakerState::Open
                }
            }
            _ => BreakerState::Closed,
        }
    }
}

impl Permit {
    /// The origin answered.
    pub(crate) fn success(self) {
        let mut circuits = self.breakers.lock();
        circuits.remove(&self.origin);
    }

    /// The origin failed.
    pub(crate) fn failure(self, why: &str) {
        let mut circuits = self.breakers.lock();
        let circuit = circuits.entry(self.origin.clone()).or_default();
        circuit.failures = circuit.failures.saturating_add(1);
        circuit.last = why.to_owned();
        if self.probe || (circuit.opened.is_none() && circuit.failures >= self.breakers.policy.threshold) {
            circuit.opened = Some(Instant::now());
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.probe
            && let Some(circuit) = self.breakers.lock().get_mut(&self.origin)
        {
            circuit.probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circuit_opens_probes_once_and_closes() {
        let breakers = Breakers::new(BreakerPolicy { threshold: 2, cooldown: Duration::from_millis(30) });
        breakers.allow("a").unwrap().failure("one");
        breakers.allow("a").unwrap().success();
        breakers.allow("a").unwrap().failure("two"); // not in a row: still closed
        assert_eq!(breakers.state("a"), BreakerState::Closed);
        breakers.allow("a").unwrap().failure("three");
        assert_eq!(breakers.state("a"), BreakerState::Open);
        let error = breakers.allow("a").unwrap_err();
        assert!(matches!(&error, HubError::CircuitOpen { failures: 2, last, .. } if last == "three"), "{error}");
        breakers.allow("b").unwrap().success(); // another origin is not concerned

        std::thread::sleep(Duration::from_millis(35));
        let probe = breakers.allow("a").unwrap();
        assert!(breakers.allow("a").is_err(), "only one probe at a time");
        probe.failure("still dead");
        assert_eq!(breakers.state("a"), BreakerState::Open);

        std::thread::sleep(Duration::from_millis(35));
        drop(breakers.allow("a").unwrap()); // a cancelled probe makes room for the next
        breakers.allow("a").unwrap().success();
        assert_eq!(breakers.state("a"), BreakerState::Closed);
    }

    /// What is refused, or comes late, does not put off the probe.
    #[test]
    fn the_cooldown_runs_from_the_failure_that_opened_the_circuit() {
        let cooldown = Duration::from_millis(200);
        let breakers = Breakers::new(BreakerPolicy { threshold: 1, cooldown });
        let late = breakers.allow("a").unwrap();
        breakers.allow("a").unwrap().failure("one");
        let opened = Instant::now();
        let mut refused = 0;
        let waits = std::iter::from_fn(|| match breakers.allow("a") {
            Err(HubError::CircuitOpen { retry_in, .. }) => {
                refused += 1;
                std::thread::sleep(Duration::from_millis(10));
                Some(retry_in)
            }
            _ => None,
        });
        let waits: Vec<Duration> = waits.collect();
        let took = opened.elapsed();
        assert!(refused >= 3 && waits.is_sorted_by(|a, b| a > b), "the wait becomes shorter: {waits:?}");
        assert!(took >= cooldown - Duration::from_millis(20) && took < cooldown * 5, "{took:?}");
        // That was the probe, and it was cancelled; a request from before the opening fails now.
        late.failure("late");
        assert_eq!(breakers.state("a"), BreakerState::HalfOpen, "the circuit is not opened for another while");
        breakers.allow("a").unwrap().success();
    }
}
