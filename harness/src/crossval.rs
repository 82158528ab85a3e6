//! Cross-validation: our engine against another one, token by token, position by position, step by step.
//!
//! ```text
//! prompt ── tokens of both ──┬─ free runs ── logits of everything read or made ── steps (trace, replay)
//!               differ: stop ┘                     every part a section of one report ── verdict ── receipt
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`reference`] | the trait of a side, and what sides exchange |
//! | [`ours`] | our engine as a side, for the commands and for the cells of the matrix |
//! | [`answers`] | answers that are kept for a process |
//! | [`live`] | a C++ worker as a side |
//! | [`distance`] | how far two rows are apart |
//! | [`tokens`], [`compare`], [`generation`] | tokens, logits and continuations against limits |
//! | [`replay`], [`bisect`] | which step is the first to go wrong |
//! | [`performance`] | how fast both are |
//! | [`plant`] | one wrong weight, on purpose |
//! | [`run`], [`report`] | all of it for a prompt, the verdict, the document |
//! | [`text`] | the document for people |
//! | [`receipt`] | the document with what it was computed from |

pub mod answers;
pub mod bisect;
pub mod compare;
pub mod distance;
pub mod generation;
pub mod live;
mod number;
pub mod ours;
pub mod performance;
pub mod plant;
pub mod receipt;
pub mod reference;
pub mod replay;
pub mod report;
pub mod run;
pub mod text;
pub mod tokens;

pub use bisect::{Bisection, bisect};
pub use bitnet_golden::thresholds::Thresholds;
pub use compare::{Comparison, Exceeded, PositionReport, compare_logits};
pub use live::Live;
pub use ours::Ours;
pub use receipt::{Receipt, ReceiptError};
pub use reference::{Continuation, Logits, Positions, Reference, Row, SideError, Traced};
pub use replay::replay;
pub use report::{CrossvalReport, Section, Verdict};
