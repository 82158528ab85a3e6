//! The cross-validation itself, on faults that were planted: our engine against our engine on another file, so that it
//! runs everywhere and every answer is known beforehand.
//!
//! ```text
//! cargo test --test references
//! cargo test --test references -- flip
//! ```
//!
//! | trial | what is shown |
//! |---|---|
//! | `same::*` | a file against itself: parity, every step the same to the last bit, replayed or not |
//! | `flip::TENSOR` | one weight flipped for one side: divergence, and the trace names the very layer and step |
//! | `layers::N` | the same weight in each layer |
//! | `chunks` | a trace in chunks is the trace |
//! | `tokens::*` | other tokens: mismatch, both sequences, the first difference, nothing behind it is compared |
//! | `sides::*` | a side that fails, hangs up or knows nothing: no parity |
//! | `receipt::*` | a receipt follows from its data; after an edit of any kind it does not, and the field is named |
//!
//! What needs a C++ worker is in `ci/xtask/tests/crossval.rs` and in the matrix.

#[path = "references/flips.rs"]
mod flips;
#[path = "references/receipts.rs"]
mod receipts;
#[path = "references/sides.rs"]
mod sides;
#[path = "references/stage.rs"]
mod stage;

use bitnet_harness::check::Failure;
use bitnet_harness::env::Env;
use bitnet_harness::roster::{Named, Roster};
use bitnet_harness::verdict::Availability;
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    let argv: Vec<String> = std::env::args().collect();
    let trials = [flips::trials(), sides::trials(), receipts::trials()].concat();
    let roster = Roster { target: "references", require_twin: "REFERENCES_REQUIRE", requirable: Vec::new(), trials };
    roster.main(&argv, &Env::read())
}

/// A trial that runs everywhere.
fn trial(name: impl Into<String>, run: impl Fn() -> Result<(), Failure> + Send + Sync + 'static) -> Named {
    Named { name: name.into(), availability: Availability::Available, run: Arc::new(run) }
}

/// Fails with a message unless `good`.
fn check(good: bool, message: impl std::fmt::Display) -> Result<(), Failure> {
    if good { Ok(()) } else { Err(Failure::new(message)) }
}
