//! What a check is, what it is given, and the table of all checks.
//!
//! A check is one file `harness/src/check/<name>.rs` with a type that implements [`Check`], and one line
//! in [`checks`]. Which cells it runs on is data: its `[[check]]` table in `golden/matrix.toml`. A check
//! without a table, or a table without a check, is an error before anything runs.

pub mod continuation;
pub mod digest;
pub mod discover;
pub mod download;
pub mod greedy;
pub mod kernel;
pub mod load;
pub mod logits;
pub mod lossless;
pub mod numpy;
pub mod ops;
pub mod perplexity;
pub mod place;
pub mod recorded;
pub mod token_parity;
pub mod tokenize;
pub mod trace;
pub mod trainer;

use std::fmt;
use std::sync::Arc;

use bitnet_golden::matrix::{Matrix, Model};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::axes::Cell;
use crate::golden::Golden;
use crate::metrics::Metrics;
use crate::paths::Paths;
use crate::verdict::Availability;

pub fn checks() -> Vec<Arc<dyn Check>> {
    vec![
        Arc::new(kernel::Kernel),
        Arc::new(ops::Ops),
        Arc::new(load::Load),
        Arc::new(lossless::Lossless),
        Arc::new(tokenize::Tokenize),
        Arc::new(greedy::Greedy),
        Arc::new(digest::Digest),
        Arc::new(perplexity::Perplexity),
        Arc::new(trainer::Trainer),
        Arc::new(numpy::Numpy),
        Arc::new(discover::Discover),
        Arc::new(download::Download),
        Arc::new(token_parity::TokenParity),
        Arc::new(logits::Logits),
        Arc::new(continuation::Continuation),
        Arc::new(trace::Trace),
        Arc::new(recorded::RecordedAnswers),
    ]
}

/// One kind of question to ask of a cell.
///
/// Cells of a check run concurrently on several threads, and under nextest each in a process of its own:
/// what is expensive to make may be kept behind a lock, but no cell may need another to have run.
pub trait Check: Send + Sync {
    /// The name as it stands in cells.
    fn name(&self) -> &'static str;

    /// Whether this host can run the cell, beyond what the host's table says of its model, device and
    /// backend. Asked when the cells are listed, so it must be cheap.
    fn availability(&self, _cell: &Cell, _ctx: &Context) -> Availability {
        Availability::Available
    }

    /// Whether its cells need their backend to be here. What compares with recorded answers does not.
    fn asks_backend(&self) -> bool {
        true
    }

    /// Asks the question.
    ///
    /// # Errors
    /// A [`Failure`] whose message says what was expected, what was found, and where they first differ.
    fn run(&self, cell: &Cell, ctx: &Context) -> Result<Metrics, Failure>;
}

/// Why a cell is wrong. Anything that can be displayed becomes one with `?`.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// For people, and for the `reason` of an expected failure to be found in.
    pub message: String,
    /// What was measured up to then.
    pub metrics: Metrics,
}

impl Failure {
    /// A failure without figures.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), metrics: Metrics::default() }
    }

    /// The same failure with figures for the record.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }
}

/// `Failure` itself is not `Display`, so that this can cover every error type and `?` just works.
impl<E: fmt::Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

/// What a check is given besides its cell.
#[derive(Debug, Clone)]
pub struct Context {
    /// The declaration, for models and their sources.
    pub matrix: Arc<Matrix>,
    pub paths: Paths,
    pub golden: Golden,
}

impl Context {
    /// The declaration of the cell's model.
    ///
    /// # Errors
    /// If the cell names a model that is not declared, which a listed cell never does.
    pub fn model(&self, cell: &Cell) -> Result<&Model, Failure> {
        self.matrix
            .model(&cell.model)
            .ok_or_else(|| Failure::new(format_args!("the model `{}` is not declared", cell.model)))
    }

    /// Whether the check of a cell is also declared for its model and quant on another device.
    pub fn is_declared(&self, cell: &Cell, device: &str) -> bool {
        let check = self.matrix.checks.iter().find(|check| check.name == cell.check);
        check.is_some_and(|check| check.cells.iter().any(|r| r.names(&cell.model, &cell.quant, device)))
    }

    /// The seed for everything random in the cell: the same on every device, backend and host.
    pub fn seed(&self, cell: &Cell) -> u64 {
        seed(cell)
    }

    /// Compares a text with the golden snapshot of the cell. `part` names one of several snapshots of a
    /// cell and may be empty. Trailing white space of the whole text does not count.
    ///
    /// # Errors
    /// If the snapshot is missing or differs: the message has the difference and how to bless.
    pub fn assert_golden(&self, cell: &Cell, part: &str, actual: &str) -> Result<(), Failure> {
        Ok(self.golden.assert(cell, part, actual)?)
    }

    /// The same for anything that serialises, as pretty JSON.
    ///
    /// # Errors
    /// As [`Context::assert_golden`], and if the value cannot be written as JSON.
    pub fn assert_golden_json(&self, cell: &Cell, part: &str, actual: &impl Serialize) -> Result<(), Failure> {
        self.assert_golden(cell, part, &serde_json::to_string_pretty(actual)?)
    }
}

/// First eight bytes of SHA-256 of the golden key, little endian.
pub fn seed(cell: &Cell) -> u64 {
    let digest = Sha256::digest(cell.golden_key().as_bytes());
    digest.iter().take(8).rev().fold(0, |seed, byte| seed << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(name: &str) -> Cell {
        name.parse().expect("cell")
    }

    #[test]
    fn the_seed_leaves_out_device_and_backend() {
        let seed_of = |name| seed(&cell(name));
        assert_eq!(seed_of("m::q::d1::b1::c"), seed_of("m::q::d2::b2::c"));
        assert_ne!(seed_of("m::q::d1::b1::c"), seed_of("m::q2::d1::b1::c"));
    }

    #[test]
    fn every_error_becomes_a_failure() {
        fn fails() -> Result<(), Failure> {
            "x".parse::<u32>()?;
            Ok(())
        }
        assert!(fails().expect_err("not a number").message.contains("invalid digit"));
    }
}
