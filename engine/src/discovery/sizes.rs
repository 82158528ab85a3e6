//! How many tokens a model has, as far as it says.

use std::fmt;

/// Where a model can say how many tokens there are, and what it says. The first that is there counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct VocabularySizes {
    /// Length of `tokenizer.ggml.tokens`.
    pub tokens: Option<usize>,
    /// `<architecture>.vocab_size`.
    pub metadata: Option<usize>,
    /// Rows of `token_embd.weight`.
    pub rows: Option<usize>,
}

impl VocabularySizes {
    /// Tokens first, then metadata, then rows.
    pub fn best(&self) -> Option<usize> {
        self.tokens.or(self.metadata).or(self.rows)
    }

    /// Where two of them contradict each other.
    pub(super) fn disagreements(self) -> Vec<Disagreement> {
        const TOKENS: &str = "tokenizer.ggml.tokens";
        const METADATA: &str = "vocab_size in the metadata";
        const ROWS: &str = "the embedding";
        let mut out = Vec::new();
        let mut compare = |a, b, x: Option<usize>, y: Option<usize>, harmful: fn(usize, usize) -> bool| {
            if let (Some(x), Some(y)) = (x, y)
                && x != y
            {
                out.push(Disagreement { between: (a, b), values: (x, y), harmful: harmful(x, y) });
            }
        };
        compare(TOKENS, METADATA, self.tokens, self.metadata, |x, y| x > y);
        compare(TOKENS, ROWS, self.tokens, self.rows, |x, y| x > y);
        compare(METADATA, ROWS, self.metadata, self.rows, |_, _| true);
        out
    }
}

/// Two places of one file that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Disagreement {
    /// The two places.
    pub between: (&'static str, &'static str),
    /// What they say.
    pub values: (usize, usize),
    /// Whether ids could fall outside the embedding, or it is only padding.
    pub harmful: bool,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((a, b), (x, y)) = (self.between, self.values);
        let verdict = if self.harmful { "the file mixes two models or is damaged" } else { "the rest is padding" };
        write!(f, "{a} has {x}, {b} has {y}: {verdict}")
    }
}
