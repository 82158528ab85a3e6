//! Which bytes stand side by side in some token. Where two neighbours of a text do in none, no merge ever joins them: the text can be cut
//! there, and nothing changes.

use super::pretokenize::Windows;
use super::spm_tables::SPACE;
use bitnet_kernels::text::{BLOCK, TextSet};

/// Bytes of a text that are looked at at once.
const WINDOW: usize = 4096;

/// A bit for each pair of bytes.
#[derive(Debug, Clone)]
pub(super) struct Joints(Box<[u64; 1024]>);

impl Joints {
    /// Of the tokens that merging may make or start from. With `spaces`, a `▁` in them may be a space or a `▁` in a text.
    pub(super) fn new<'a>(tokens: impl Iterator<Item = &'a [u8]>, spaces: bool) -> Self {
        let mut joints = Self(Box::new([0; 1024]));
        for token in tokens {
            for pair in token.windows(2) {
                joints.add(pair[0], pair[1]);
            }
        }
        if spaces {
            // A space stands for the first and the last byte of `▁`; coarse, and right.
            let (first, last) = (SPACE[0], SPACE[SPACE.len() - 1]);
            for other in 0..=u8::MAX {
                if joints.joined(other, first) {
                    joints.add(other, b' ');
                }
                if joints.joined(last, other) {
                    joints.add(b' ', other);
                }
            }
            if joints.joined(last, first) {
                joints.add(b' ', b' ');
            }
        }
        joints
    }

    fn add(&mut self, left: u8, right: u8) {
        let at = usize::from(left) << 8 | usize::from(right);
        self.0[at / 64] |= 1 << (at % 64);
    }

    /// Whether some token has these two side by side.
    #[inline]
    pub(super) fn joined(&self, left: u8, right: u8) -> bool {
        let at = usize::from(left) << 8 | usize::from(right);
        self.0[at / 64] >> (at % 64) & 1 != 0
    }

    /// The first cut after `start`, or the end. Never inside of a character.
    pub(super) fn next(&self, text: &[u8], start: usize) -> usize {
        let cut = |at: &usize| !is_tail(text[*at]) && !self.joined(text[*at - 1], text[*at]);
        (start + 1..text.len()).find(cut).unwrap_or(text.len())
    }

    /// Calls `batch` with where words start, from `start` on, and the end of each behind that. A word ends where it can be cut, but not
    /// between two small letters: most of these are joined.
    pub(super) fn batches(
        &self,
        set: &TextSet,
        text: &[u8],
        mut start: usize,
        windows: &mut Windows,
        batch: &mut dyn FnMut(usize, &[u32]),
    ) {
        let Windows { masks, ends, .. } = windows;
        ends.clear();
        let (mut from, mut before) = (start, 0);
        while from < text.len() {
            let to = text.len().min(from + WINDOW);
            set.classify(&text[from..to], masks);
            for (at, masks) in (from..to).step_by(BLOCK).zip(&*masks) {
                let mut left = !(masks.lower & (masks.lower << 1 | before >> 63));
                before = masks.lower;
                if to - at < BLOCK {
                    left &= (1 << (to - at)) - 1;
                }
                while left != 0 {
                    let at = at + left.trailing_zeros() as usize;
                    left &= left - 1;
                    if at > start && !is_tail(text[at]) && !self.joined(text[at - 1], text[at]) {
                        ends.push((at - start) as u32);
                    }
                }
            }
            from = to;
            if from == text.len() {
                ends.push((from - start) as u32);
            }
            if let Some(&end) = ends.last() {
                batch(start, ends);
                start += end as usize;
                ends.clear();
            }
        }
    }
}

/// Whether a byte is of a character's but not its first.
#[inline]
fn is_tail(byte: u8) -> bool {
    byte & 0xC0 == 0x80
}
