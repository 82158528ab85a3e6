//! The output matrix, whole or screened: see [`bitnet_kernels::screen`].
//!
//! A sampler that looks at the most likely tokens only says which ([`Needs`]); where the matrix is large enough, their
//! logits are found from an int8 copy of it and computed exactly, and every other logit is exact or minus infinity. What the
//! sampler then draws is what it would have drawn from all of them.

use crate::model::SCREENED;
use bitnet_kernels::screen::Wanted;

/// Which logits a sampler will look at.
#[derive(Debug, Clone, PartialEq)]
pub struct Needs {
    /// So many of the highest.
    pub count: usize,
    /// And those less than this below the last of them.
    pub within: f32,
    /// And those of these tokens.
    pub also: Vec<u32>,
}

impl Needs {
    pub(super) fn wanted(&self) -> Wanted<'_> {
        Wanted { count: self.count, within: self.within, also: &self.also }
    }
}

/// How the output matrix is multiplied when not all logits are needed. The results are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Head {
    /// Screened where it pays: the matrix has at least 32 MiB, and 16 tokens or more may still come. Each token copies a part of it, so
    /// that an answer that ends early loses little.
    #[default]
    Auto,
    /// Always all of it.
    Whole,
    /// Screened from the first token on.
    Screened,
}

impl std::str::FromStr for Head {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "whole" => Ok(Self::Whole),
            "screened" => Ok(Self::Screened),
            other => Err(format!("`{other}` is none of: auto, whole, screened")),
        }
    }
}

/// What screening came to in a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Screening {
    /// Tokens whose logits were screened.
    pub tokens: usize,
    /// Rows that were multiplied exactly for them.
    pub rows: usize,
}

impl Screening {
    /// What came after `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self { tokens: self.tokens - earlier.tokens, rows: self.rows - earlier.rows }
    }
}

/// Tokens over which the copy is made. The gain of each part begins with the next token.
const TOKENS: usize = 8;
/// With fewer tokens to come a copy is not begun.
pub(super) const LEAST_TOKENS: usize = 2 * TOKENS;
/// Steps of one token after which a session that expects many has made all copies: the part that each takes, and the first two, which
/// are timed.
pub const WARM_STEPS: usize = TOKENS + 4;
/// Exact rows after which the memory of the cold matrix is given back again: the system maps 16 pages for each, so this is
/// at most 32 MiB.
pub(super) const COLD_ROWS: usize = 512;

impl Head {
    /// The rows that a token copies, of a matrix of so many rows and bytes; `None` where it is not to be screened.
    pub(super) fn copies(self, rows: usize, matrix_bytes: usize) -> Option<usize> {
        match self {
            Self::Whole => None,
            Self::Screened => Some(rows),
            Self::Auto => (matrix_bytes >= SCREENED).then(|| rows.div_ceil(TOKENS)),
        }
    }
}
