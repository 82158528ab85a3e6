//! What a model computes before and after it was converted.

use std::fmt;

/// How far the logits of a GGUF are from those of its checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Comparison {
    /// Positions.
    pub tokens: usize,
    /// The least cosine of a position.
    pub least_cosine: f64,
    /// What it must be at least.
    pub limit: f64,
    /// The largest difference of a logit.
    pub largest_difference: f64,
    /// The largest magnitude of a logit.
    pub largest_logit: f64,
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tokens, least_cosine, limit, largest_difference, largest_logit } = self;
        write!(
            f,
            "{tokens} positions, least cosine {least_cosine:.7} (at least {limit}), largest difference {largest_difference:.2e} of logits up to {largest_logit:.2e}"
        )
    }
}
