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

#[cfg(test)]
mod tests {
    use super::*;

    const TOKENS: [&str; 6] = ["ab", "b-", "\u{2581}x", "c\u{2581}", "\u{2581}\u{2581}", "\u{e9}."];

    /// Whether a token joins these two, a space being a `▁` where `spaces`: by the texts alone.
    fn joined(left: u8, right: u8, spaces: bool) -> bool {
        let ways = |byte: u8, mark: u8| if spaces && byte == b' ' { vec![byte, mark] } else { vec![byte] };
        let pairs = |pair: [u8; 2]| TOKENS.iter().any(|token| token.as_bytes().windows(2).any(|two| two == pair));
        ways(left, 0x81).iter().any(|left| ways(right, 0xE2).iter().any(|right| pairs([*left, *right])))
    }

    #[test]
    fn bytes_that_a_token_has_side_by_side_are_joined() {
        for spaces in [false, true] {
            let joints = Joints::new(TOKENS.iter().map(|token| token.as_bytes()), spaces);
            for (left, right) in (0..=u8::MAX).flat_map(|left| (0..=u8::MAX).map(move |right| (left, right))) {
                assert_eq!(joints.joined(left, right), joined(left, right, spaces), "{left} {right} {spaces}");
            }
            let none = Joints::new([&b"x"[..]].into_iter(), spaces);
            assert!((0..=u8::MAX).all(|other| !none.joined(b' ', other) && !none.joined(other, b' ')));
        }
    }

    #[test]
    fn words_end_where_nothing_joins_them() {
        let joints = Joints::new(TOKENS.iter().map(|token| token.as_bytes()), true);
        let parts = ["a", "b", "-", "x", "c", " ", "\u{2581}", "\u{e9}", ".", "A", "\u{65e5}", "\n"];
        let mut state = 7u32;
        let mut any = |n: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as usize % n
        };
        let random: String = (0..9000).map(|_| parts[any(parts.len())]).collect();
        // A word longer than what is looked at at once, and one that ends with it.
        let long = ["-", &"a".repeat(2 * WINDOW + 10), "-A", &random].concat();
        let even = ["a".repeat(WINDOW - 1).as_str(), "AAA"].concat();
        for text in [&random[..], &long, &even, "a", "aA"].map(str::as_bytes) {
            let cut = |at: &usize| text[*at] & 0xC0 != 0x80 && !joined(text[*at - 1], text[*at], true);
            let small = |at: usize| text[at].is_ascii_lowercase();
            for start in [0, 1, 63, 64, 65, 100].into_iter().filter(|start| *start < text.len()) {
                let mut ends = vec![start];
                joints.batches(
                    bitnet_kernels::text::best(),
                    text,
                    start,
                    &mut Windows::default(),
                    &mut |from, part| {
                        assert_eq!(Some(&from), ends.last());
                        assert!(!part.is_empty());
                        ends.extend(part.iter().map(|end| from + *end as usize));
                    },
                );
                let wanted = (start + 1..text.len()).filter(cut).filter(|at| !(small(*at) && small(*at - 1)));
                let wanted: Vec<usize> = [start].into_iter().chain(wanted).chain([text.len()]).collect();
                assert_eq!(ends, wanted, "{start}");
            }
            for start in (0..text.len()).step_by(97) {
                assert_eq!(joints.next(text, start), (start + 1..text.len()).find(cut).unwrap_or(text.len()));
            }
        }
    }
}
