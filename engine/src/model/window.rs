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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::{GgufFile, GgufWriter, MetaValue};

    fn read(window: Option<u32>, pattern: Option<MetaValue>, default: Option<usize>) -> Result<Windows, ModelError> {
        let mut writer = GgufWriter::new(3, 32).unwrap();
        writer.meta("general.architecture", "a").unwrap();
        if let Some(window) = window {
            writer.meta("a.attention.sliding_window", window).unwrap();
        }
        if let Some(pattern) = pattern {
            writer.meta("a.attention.sliding_window_pattern", pattern).unwrap();
        }
        let file = GgufFile::from_vec(writer.into_vec().unwrap()).unwrap();
        Windows::read(Keys::of(file.metadata())?, 7, default)
    }

    /// A letter for each block: `w` with the window, `-` without.
    fn blocks(windows: &Windows, window: usize) -> String {
        let letter = |block| match windows.of(block) {
            Some(found) => {
                assert_eq!(found, window);
                'w'
            }
            None => '-',
        };
        (0..7).map(letter).collect()
    }

    #[test]
    fn patterns_are_flags_or_numbers() {
        let flags = [true, true, false, true, false, false, false];
        let number = |n: u32| Some(MetaValue::from(n));
        for (window, pattern, default, expected) in [
            (Some(4), Some(MetaValue::from(flags.to_vec())), None, "ww-w---"),
            (Some(4), number(3), None, "ww-ww-w"),
            (Some(4), number(3), Some(2), "ww-ww-w"),
            (Some(4), None, Some(6), "wwwww-w"),
            (Some(4), number(1), None, "-------"),
            (Some(0), number(3), None, "-------"),
            (None, Some(MetaValue::from(flags.to_vec())), None, "-------"),
        ] {
            let windows = read(window, pattern, default).unwrap();
            assert_eq!(blocks(&windows, 4), expected);
            assert_eq!(windows.any(), expected.contains('w'), "{expected}");
        }
        for (pattern, words) in [
            (None, "`a.attention.sliding_window_pattern`"),
            (number(0), "is 0, expected 1 to"),
            (Some(MetaValue::from(vec![true; 6])), "has 6 elements, expected true or false for each of 7 blocks"),
            (Some(MetaValue::from(vec![1u32; 7])), "has 7 elements, expected true or false"),
        ] {
            let error = read(Some(4), pattern, None).map(drop).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
