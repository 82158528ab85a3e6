//! The output matrix, whole or screened: see [`bitnet_kernels::screen`].
//!
//! A sampler that looks at the most likely tokens only says which ([`Needs`]); where the matrix is large enough, their
//! logits are found from an int8 copy of it and computed exactly, and every other logit is minus infinity. What the sampler
//! then draws is what it would have drawn from all of them.

use crate::model::{HugePages, Model, SCREENED};
use crate::ops::MatrixId;
use bitnet_kernels::screen::{Screen, Wanted};

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
    /// Screened once it pays: the matrix has at least 32 MiB and some tokens were made with all of it.
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

/// Tokens made with the whole matrix before the copy is worth its making.
const FIRST_TOKENS: usize = 4;
/// Exact rows after which the memory of the cold matrix is given back again: the system maps 16 pages for each, so this is
/// at most 32 MiB.
pub(super) const COLD_ROWS: usize = 512;

impl Head {
    /// Whether to screen now, after `whole` tokens whose needs were few and that had the whole matrix.
    pub(super) fn screens(self, matrix_bytes: usize, whole: usize) -> bool {
        match self {
            Self::Whole => false,
            Self::Screened => true,
            Self::Auto => matrix_bytes >= SCREENED && whole >= FIRST_TOKENS,
        }
    }
}

/// The copy of a model's output matrix, made when it is first asked for; `None` where its format has none. The matrix itself
/// is cold from then on: its memory is given back while it is copied.
pub(super) fn screen<'m>(model: &'m Model, id: MatrixId, pool: &bitnet_kernels::Pool) -> Option<&'m Screen> {
    let build = || {
        let read = |rows| model.weights.release(id, rows);
        Screen::build(&model.weights.matrix(id), pool, model.huge_pages != HugePages::Off, &read)
    };
    model.screen.get_or_init(build).as_ref()
}
