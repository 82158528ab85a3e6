//! The cross-validation itself, on faults that were planted: our engine against our engine on another file, so that it
//! runs everywhere and every answer is known beforehand.
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

mod flips;
mod receipts;
mod sides;
mod stage;

use bitnet_harness::roster::Named;

pub(crate) fn trials() -> Vec<Named> {
    [flips::trials(), sides::trials(), receipts::trials()].concat()
}
