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

use crate::axes::Cell;
use crate::context::{Context, seed};
use crate::failure::Failure;
use crate::metrics::Metrics;
use crate::verdict::Availability;
use std::sync::Arc;

pub fn checks() -> Vec<Arc<dyn Check>> {
    vec![
        Arc::new(kernel::Kernel),
        Arc::new(ops::Ops),
        Arc::new(load::Load),
        Arc::new(lossless::Lossless),
        Arc::new(tokenize::Tokenize),
        Arc::new(greedy::Greedy),
        Arc::new(digest::Digest),
        Arc::new(perplexity::PerplexityCheck),
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
