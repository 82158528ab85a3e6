//! Why a check, a trial or a comparison is wrong.

use crate::metrics::Metrics;
use std::fmt;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_becomes_a_failure() {
        fn fails() -> Result<(), Failure> {
            "x".parse::<u32>()?;
            Ok(())
        }
        assert!(fails().expect_err("not a number").message.contains("invalid digit"));
    }
}
