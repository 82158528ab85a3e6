//! Which blocks see only the last positions.

use super::keys::MAX_DIM;
use super::{Keys, ModelError};

/// The window of a model, and the blocks that have it.
pub(super) struct Windows {
    window: usize,
    local: Vec<bool>,
}

impl Windows {
    /// By `attention.sliding_window` and `attention.sliding_window_pattern`: a flag for each block, or a number `n` for a pattern of `n - 1`
    /// blocks with the window and one without. `default` is the number if the key is missing, where it may be.
    ///
    /// # Errors
    /// A key of the wrong type or length; a pattern that is missing.
    pub(super) fn read(keys: Keys<'_>, blocks: usize, default: Option<usize>) -> Result<Self, ModelError> {
        let window = keys.count("attention.sliding_window", 0, MAX_DIM)?.unwrap_or(0);
        let key = "attention.sliding_window_pattern";
        let local = match keys.flags(key, blocks)? {
            _ if window == 0 => vec![false; blocks],
            Some(flags) => flags,
            None => {
                let period = match keys.count(key, 1, MAX_DIM) {
                    Ok(Some(period)) => period,
                    Ok(None) => default.ok_or_else(|| keys.missing(key))?,
                    Err(error) => return Err(error),
                };
                (0..blocks).map(|block| block % period < period - 1).collect()
            }
        };
        Ok(Self { window, local })
    }

    /// The window of a block.
    pub(super) fn of(&self, block: usize) -> Option<usize> {
        self.local[block].then_some(self.window)
    }

    /// Whether any block has one.
    pub(super) fn any(&self) -> bool {
        self.local.contains(&true)
    }
}
