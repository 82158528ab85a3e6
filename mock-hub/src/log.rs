//! What the mock hub was asked, so that a test can count packets instead of trusting a client's word.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::faults::Fault;
use crate::server::Side;

/// One request.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    pub side: Side,
    pub method: String,
    /// The path as it came (percent-encoded), without the query.
    pub path: String,
    pub range: Option<String>,
    pub if_range: Option<String>,
    pub accept_encoding: Option<String>,
    /// Whether an `Authorization` header came along (its value is not kept).
    pub authorization: bool,
    pub status: u16,
    /// Bytes of the body that were handed to the socket.
    pub sent: u64,
    #[serde(serialize_with = "as_debug")]
    pub faults: Vec<Fault>,
}

fn as_debug<S: serde::Serializer>(faults: &[Fault], out: S) -> Result<S::Ok, S::Error> {
    out.collect_seq(faults.iter().map(|fault| format!("{fault:?}")))
}

/// All requests so far; clones share one log.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<Vec<Entry>>>);

impl Log {
    fn with<T>(&self, f: impl FnOnce(&mut Vec<Entry>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn push(&self, entry: Entry) -> usize {
        self.with(|log| {
            log.push(entry);
            log.len() - 1
        })
    }

    pub(crate) fn update(&self, index: usize, f: impl FnOnce(&mut Entry)) {
        self.with(|log| {
            if let Some(entry) = log.get_mut(index) {
                f(entry);
            }
        });
    }

    pub(crate) fn get(&self, index: usize) -> Option<Entry> {
        self.with(|log| log.get(index).cloned())
    }

    pub fn entries(&self) -> Vec<Entry> {
        self.with(|log| log.clone())
    }

    pub fn len(&self) -> usize {
        self.with(|log| log.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn clear(&self) {
        self.with(Vec::clear);
    }

    /// Number of requests that `wanted` accepts.
    pub fn count(&self, wanted: impl Fn(&Entry) -> bool) -> usize {
        self.with(|log| log.iter().filter(|entry| wanted(entry)).count())
    }

    /// Number of requests with this method, on any side, whose path ends so.
    pub fn requests(&self, method: &str, suffix: &str) -> usize {
        self.count(|entry| entry.method == method && entry.path.ends_with(suffix))
    }

    /// Bytes of bodies that one side sent.
    pub fn bytes(&self, side: Side) -> u64 {
        self.with(|log| log.iter().filter(|entry| entry.side == side).map(|entry| entry.sent).sum())
    }

    /// Whether an `Authorization` header reached this side.
    pub fn token_seen(&self, side: Side) -> bool {
        self.count(|entry| entry.side == side && entry.authorization) > 0
    }
}
