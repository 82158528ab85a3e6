//! What the attempts of one call share, and when the next one follows.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::error::{HubError, Tried};
use super::event::{Event, Observer};
use super::failure::{Again, Failure};
use super::metrics::{Counters, add, add_time};
use super::retry::{Backoff, RetryPolicy};

/// What the attempts of one call share.
pub(crate) struct Job {
    pub(crate) path: String,
    pub(crate) deadline: Instant,
    pub(crate) policy: RetryPolicy,
    pub(crate) observer: Option<Observer>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) tried: Arc<Mutex<Vec<String>>>,
}

impl Job {
    pub(crate) fn tell(&self, event: Event) {
        if let Some(observer) = &self.observer {
            observer(&event);
        }
    }

    /// A damaged file of a cache that is not ours: it stays, and people are told once.
    pub(crate) fn passed_over(&self, file: &Path, why: &str) {
        let line = format!("{} is damaged: {why}; remove it", file.display());
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        if tried.contains(&line) {
            return;
        }
        tried.push(line);
        drop(tried);
        self.tell(Event::PassedOver { path: self.path.clone(), file: file.to_owned(), why: why.to_owned() });
    }

    pub(crate) fn tried(&self) -> Vec<String> {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn attempts(&self) -> Attempts<'_> {
        Attempts { job: self, backoff: Backoff::new(&self.policy, &self.path), failed: 0, total: 0 }
    }
}

/// Counts attempts and waits between them.
pub(crate) struct Attempts<'a> {
    job: &'a Job,
    backoff: Backoff,
    failed: u32,
    total: u32,
}

impl Attempts<'_> {
    /// Waits until the next attempt, or says why there is none. `progress`: the attempt brought the file forward, so it is free.
    pub(crate) async fn again(&mut self, failure: Failure, progress: bool) -> Result<(), HubError> {
        let Failure { error, cause, again } = failure;
        let tried = self.job.tried();
        let give_up = |error: Box<HubError>| Err(error.with_tried(tried.clone()));
        self.total += 1;
        if progress {
            self.failed = 0;
            self.backoff.reset();
        } else {
            self.failed += 1;
        }
        let left = self.job.deadline.saturating_duration_since(Instant::now());
        let delay = match again {
            Again::No => return give_up(error),
            _ if self.failed > self.job.policy.retries => return give_up(error),
            Again::Backoff => self.backoff.next(),
            Again::After(wait) => {
                let limit = left.min(self.job.policy.longest_wait);
                if wait >= limit {
                    return match *error {
                        HubError::Status { url, .. } => {
                            Err(HubError::RateLimited { url, wait, limit, tried: Tried(tried) })
                        }
                        other => Err(other),
                    };
                }
                wait
            }
        };
        if delay >= left {
            return give_up(error); // sleeping into the deadline would only hide the cause
        }
        self.job.tried.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{}: {cause}", self.total));
        tracing::debug!(path = %self.job.path, attempt = self.total, %cause, ?delay, "retry");
        self.job.tell(Event::Retry {
            path: self.job.path.clone(),
            attempt: self.total,
            why: cause,
            delay,
            rate_limited: matches!(again, Again::After(_)),
        });
        add(&self.job.counters.retries, 1);
        add_time(&self.job.counters.waited_us, delay);
        tokio::time::sleep(delay).await;
        Ok(())
    }
}
