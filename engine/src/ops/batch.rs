//! The rows of one step: tokens of one sequence, or of several that are computed together.

/// Consecutive tokens of one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Which sequence; each has a cache of its own.
    pub sequence: usize,
    /// Position of the first token.
    pub position: usize,
    /// How many tokens.
    pub tokens: usize,
    /// Of so many of them, the last ones, logits are wanted.
    pub wanted: usize,
}

/// What is computed in one pass over the weights.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// The tokens of all spans, one after the other.
    pub tokens: &'a [u32],
    /// Whose they are.
    pub spans: &'a [Span],
}

impl Batch<'_> {
    /// Rows of which logits are wanted.
    pub fn wanted(&self) -> usize {
        self.spans.iter().map(|span| span.wanted).sum()
    }
}

/// The sequence and the position of a row.
pub(super) fn place(spans: &[Span], mut row: usize) -> (usize, usize) {
    for span in spans {
        if row < span.tokens {
            return (span.sequence, span.position + row);
        }
        row -= span.tokens;
    }
    unreachable!("a row beyond the batch")
}
