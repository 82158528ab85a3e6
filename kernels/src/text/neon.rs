//! Four registers of 16 bytes.

use super::lanes::{Lanes, classify, places};
use super::{BLOCK, TextSet};
use std::arch::aarch64::*;

/// NEON is part of aarch64.
pub(super) static SET: TextSet = TextSet { name: "neon", classify: classify::<Four>, places, wide: false };

#[derive(Clone, Copy)]
struct Four([uint8x16_t; 4]);

impl Four {
    /// One bit for each byte of the comparisons, whose bytes are 0 or 0xFF.
    #[inline(always)]
    fn each(self, test: impl Fn(uint8x16_t) -> uint8x16_t) -> u64 {
        const BITS: [u8; 16] = [1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128];
        // SAFETY: NEON is part of aarch64, and the constant has 16 bytes. Sums of neighbours bring the bits together.
        unsafe {
            let bits = vld1q_u8(BITS.as_ptr());
            let [a, b, c, d] = self.0.map(|bytes| vandq_u8(test(bytes), bits));
            let sums = vpaddq_u8(vpaddq_u8(a, b), vpaddq_u8(c, d));
            vgetq_lane_u64::<0>(vreinterpretq_u64_u8(vpaddq_u8(sums, sums)))
        }
    }
}

impl Lanes for Four {
    #[inline(always)]
    fn load(block: &[u8; BLOCK]) -> Self {
        // SAFETY: NEON is part of aarch64, and the block has 64 bytes.
        Self([0, 16, 32, 48].map(|from| unsafe { vld1q_u8(block.as_ptr().add(from)) }))
    }

    #[inline(always)]
    fn equal(self, byte: u8) -> u64 {
        // SAFETY: NEON is part of aarch64.
        self.each(|bytes| unsafe { vceqq_u8(bytes, vdupq_n_u8(byte)) })
    }

    #[inline(always)]
    fn within(self, first: u8, last: u8) -> u64 {
        // SAFETY: NEON is part of aarch64. What is below `first` wraps around.
        self.each(|bytes| unsafe { vcleq_u8(vsubq_u8(bytes, vdupq_n_u8(first)), vdupq_n_u8(last - first)) })
    }

    #[inline(always)]
    fn beyond(self, first: u8, last: u8) -> u64 {
        self.within(first, last)
    }

    #[inline(always)]
    fn high(self) -> u64 {
        // SAFETY: NEON is part of aarch64.
        self.each(|bytes| unsafe { vcgeq_u8(bytes, vdupq_n_u8(0x80)) })
    }
}
