//! Cross-validation: our engine against another one, token by token, position by position, step by step.
//!
//! | module | what |
//! |---|---|
//! | [`reference`] | the trait of a side, and what sides exchange |
//! | [`distance`] | how far two rows are apart |
//! | [`compare`] | positions against limits |

pub mod compare;
pub mod distance;
mod number;
pub mod reference;

pub use bitnet_golden::thresholds::Thresholds;
pub use compare::{Comparison, Exceeded, PositionReport, compare_logits};
pub use reference::{Logits, Positions, Reference, Row, SideError, Traced};
