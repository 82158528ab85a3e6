//! Eight bytes at a time in plain Rust.

use super::lanes::{Lanes, classify, places};
use super::{BLOCK, TextSet};

pub(super) static SET: TextSet = TextSet { name: "scalar", classify: classify::<Words>, places, wide: false };

#[derive(Clone, Copy)]
struct Words([u64; 8]);

const ONES: u64 = 0x0101_0101_0101_0101;
const TOPS: u64 = 0x8080_8080_8080_8080;

/// The top bits of eight bytes, side by side.
#[inline(always)]
fn gather(word: u64) -> u64 {
    ((word & TOPS) >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

impl Words {
    #[inline(always)]
    fn each(self, tops: impl Fn(u64) -> u64) -> u64 {
        let mut mask = 0;
        for (i, word) in self.0.into_iter().enumerate() {
            mask |= gather(tops(word)) << (8 * i);
        }
        mask
    }
}

impl Lanes for Words {
    #[inline(always)]
    fn load(block: &[u8; BLOCK]) -> Self {
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(block.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Self(words)
    }

    #[inline(always)]
    fn equal(self, byte: u8) -> u64 {
        self.within(byte, byte)
    }

    #[inline(always)]
    fn within(self, first: u8, last: u8) -> u64 {
        // No sum of seven bits and at most 0x80 reaches into the next byte.
        let (from, beyond) = (ONES * u64::from(0x80 - first), ONES * u64::from(0x7F - last));
        self.each(|word| {
            let low = word & !TOPS;
            (low + from) & !(low + beyond) & !word
        })
    }

    #[inline(always)]
    fn beyond(self, first: u8, last: u8) -> u64 {
        let (from, above) = (ONES * u64::from(!first) + ONES, ONES * u64::from(0xFF - last));
        self.each(|word| {
            let low = word & !TOPS;
            (low + from) & !(low + above) & word
        })
    }

    #[inline(always)]
    fn high(self) -> u64 {
        self.each(|word| word)
    }
}
