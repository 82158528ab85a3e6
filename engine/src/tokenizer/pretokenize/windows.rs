//! A text, window by window, into pieces: the masks, the starts, and the ends of pieces in batches.
//!
//! A window ends where nothing behind it could change its pieces, or is made again, twice as long: a piece may be as long as
//! the text.

use super::super::unicode::{LETTER, MARK};
use super::blocks::{Block, read};
use super::starts::{Digits, Numbers, Stretch};
use super::words;
use bitnet_kernels::text::{BLOCK, Masks, TextSet};

/// The rules whose starts are worked out with masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scan {
    Gpt2,
    Smollm,
    Llama3,
    Qwen2,
    Qwen35,
    Tekken,
    Gpt4o,
    Default,
    Falcon,
    FalconE,
}

impl Scan {
    /// Properties of what words are made of.
    fn words(self) -> u8 {
        match self {
            Self::Qwen35 | Self::Tekken | Self::Gpt4o => LETTER | MARK,
            _ => LETTER,
        }
    }

    /// Whether it asks for cases.
    fn cases(self) -> bool {
        matches!(self, Self::Tekken | Self::Gpt4o)
    }

    #[inline(always)]
    fn starts(self, stretch: &Stretch<'_>, starts: &mut [u64]) {
        match self {
            Self::Gpt2 => stretch.gpt2::<false>(starts),
            Self::Smollm => stretch.gpt2::<true>(starts),
            Self::Llama3 => stretch.llama(Numbers::Threes, starts),
            Self::Qwen2 | Self::Qwen35 => stretch.llama(Numbers::Single, starts),
            Self::Tekken => stretch.cased(Numbers::Single, false, words::tekken, starts),
            Self::Gpt4o => stretch.cased(Numbers::Threes, true, words::gpt4o, starts),
            Self::Default => stretch.punctuation(Digits::ApartInThrees, starts),
            Self::Falcon => stretch.punctuation(Digits::Threes, starts),
            Self::FalconE => stretch.punctuation(Digits::Single, starts),
        }
    }
}

/// Bytes of a window, unless a piece is longer.
const WINDOW: usize = 4096;
/// Starts so near to the end of a window may depend on what is behind.
const MARGIN: usize = 8;

/// Reusable memory of [`split`].
#[derive(Debug, Default)]
pub(crate) struct Windows {
    pub(crate) masks: Vec<Masks>,
    blocks: Vec<Block>,
    starts: Vec<u64>,
    pub(crate) ends: Vec<u32>,
}

/// Calls `batch` with where pieces start and the end of each behind that; the pieces cover the text.
#[inline]
pub(super) fn split(
    scan: Scan,
    set: &TextSet,
    text: &[u8],
    windows: &mut Windows,
    batch: &mut dyn FnMut(usize, &[u32]),
) {
    #[cfg(target_arch = "x86_64")]
    if set.wide() {
        // SAFETY: the CPU has the features.
        return unsafe { split_wide(scan, set, text, windows, batch) };
    }
    split_any(scan, set, text, windows, batch);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
fn split_wide(scan: Scan, set: &TextSet, text: &[u8], windows: &mut Windows, batch: &mut dyn FnMut(usize, &[u32])) {
    split_any(scan, set, text, windows, batch);
}

#[inline(always)]
fn split_any(scan: Scan, set: &TextSet, text: &[u8], windows: &mut Windows, batch: &mut dyn FnMut(usize, &[u32])) {
    let Windows { masks, blocks, starts, ends } = windows;
    let (mut from, mut size) = (0, WINDOW);
    while from < text.len() {
        let to = text.len().min(from + size);
        let len = to - from;
        let wide_numbers = read(set, (text, from, to), (scan.words(), scan.cases()), masks, blocks);
        starts.clear();
        starts.resize(blocks.len() - 1, 0);
        scan.starts(&Stretch { text, from, len, blocks, wide_numbers }, starts);
        let last = to == text.len();
        let limit = if last { len } else { settled(blocks, len) };
        collect(set, starts, limit, ends);
        if last {
            ends.push(len as u32);
        }
        match ends.last() {
            Some(&end) => {
                batch(from, ends);
                from += end as usize;
                size = WINDOW;
            }
            None => size *= 2,
        }
    }
}

/// No start in front of this place depends on what is behind the window: not at its end, nor among spaces that reach it.
fn settled(blocks: &[Block], len: usize) -> usize {
    let mut at = len - MARGIN;
    while at > 0 && blocks[(at - 1) / BLOCK].space >> ((at - 1) % BLOCK) & 1 != 0 {
        at -= 1;
    }
    at
}

/// The starts up to `limit`, but for the first byte.
#[inline]
fn collect(set: &TextSet, starts: &mut Vec<u64>, limit: usize, ends: &mut Vec<u32>) {
    starts.truncate(limit / BLOCK + 1);
    if let Some(last) = starts.get_mut(limit / BLOCK) {
        *last &= (1 << (limit % BLOCK)) - 1;
    }
    if let Some(first) = starts.first_mut() {
        *first &= !1;
    }
    set.places(starts, ends);
}
