//! Two registers of 32 bytes.

use super::lanes::{Lanes, classify, places};
use super::{BLOCK, Masks, TextSet};
use std::arch::x86_64::*;

static SET: TextSet = TextSet {
    name: "avx2",
    // SAFETY: only `detect` gives the set away, where the CPU has the features.
    classify: |text, out| unsafe { run(text, out) },
    places,
    wide: true,
};

/// The set, or the name of what is missing.
pub(super) fn detect() -> Result<&'static TextSet, &'static str> {
    if !is_x86_feature_detected!("avx2") {
        return Err("AVX2");
    }
    if bits() { Ok(&SET) } else { Err("BMI1, BMI2, LZCNT or POPCNT") }
}

/// Whether the CPU has the instructions for bits that all but very few CPUs with AVX2 have.
pub(super) fn bits() -> bool {
    is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt")
}

/// # Safety
/// The CPU has AVX2.
#[target_feature(enable = "avx2")]
unsafe fn run(text: &[u8], out: &mut Vec<Masks>) {
    classify::<Pair>(text, out);
}

/// Lives only inside of [`run`].
#[derive(Clone, Copy)]
struct Pair(__m256i, __m256i);

impl Pair {
    #[inline(always)]
    fn each(self, test: impl Fn(__m256i) -> __m256i) -> u64 {
        // SAFETY: see `Pair`.
        let mask = |bytes| u64::from(unsafe { _mm256_movemask_epi8(test(bytes)) } as u32);
        mask(self.0) | mask(self.1) << 32
    }
}

impl Lanes for Pair {
    #[inline(always)]
    fn load(block: &[u8; BLOCK]) -> Self {
        let at = block.as_ptr();
        // SAFETY: see `Pair`; the block has 64 bytes.
        unsafe { Self(_mm256_loadu_si256(at.cast()), _mm256_loadu_si256(at.add(32).cast())) }
    }

    #[inline(always)]
    fn equal(self, byte: u8) -> u64 {
        // SAFETY: see `Pair`.
        self.each(|bytes| unsafe { _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(byte as i8)) })
    }

    #[inline(always)]
    fn within(self, first: u8, last: u8) -> u64 {
        // SAFETY: see `Pair`. Bytes from 0x80 on are negative, and ASCII is not.
        self.each(|bytes| unsafe {
            let from = _mm256_cmpgt_epi8(bytes, _mm256_set1_epi8(first as i8 - 1));
            _mm256_andnot_si256(_mm256_cmpgt_epi8(bytes, _mm256_set1_epi8(last as i8)), from)
        })
    }

    #[inline(always)]
    fn beyond(self, first: u8, last: u8) -> u64 {
        // SAFETY: see `Pair`. They are negative, and ASCII is more than they.
        !self.each(|bytes| unsafe {
            let below = _mm256_cmpgt_epi8(_mm256_set1_epi8(first as i8), bytes);
            _mm256_or_si256(below, _mm256_cmpgt_epi8(bytes, _mm256_set1_epi8(last as i8)))
        })
    }

    #[inline(always)]
    fn high(self) -> u64 {
        self.each(|bytes| bytes)
    }
}
