//! One register of 64 bytes; a comparison is a mask.

use super::lanes::{Lanes, classify};
use super::{BLOCK, Masks, TextSet};
use std::arch::x86_64::*;

static SET: TextSet = TextSet {
    name: "avx512",
    // SAFETY: only `detect` gives the set away, where the CPU has the features.
    classify: |text, out| unsafe { run(text, out) },
    // SAFETY: as above.
    places: |words, out| unsafe { places(words, out) },
    wide: true,
};

/// The set, or the name of what is missing.
pub(super) fn detect() -> Result<&'static TextSet, &'static str> {
    super::avx2::detect()?;
    match (is_x86_feature_detected!("avx512f"), is_x86_feature_detected!("avx512bw")) {
        (true, true) => Ok(&SET),
        (false, _) => Err("AVX512F"),
        (true, false) => Err("AVX512BW"),
    }
}

/// # Safety
/// The CPU has AVX512F and AVX512BW.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn run(text: &[u8], out: &mut Vec<Masks>) {
    classify::<Whole>(text, out);
}

/// As [`TextSet::places`]: sixteen places side by side, those whose bit is set moved together.
///
/// # Safety
/// The CPU has AVX512F and POPCNT.
#[target_feature(enable = "avx512f,popcnt")]
unsafe fn places(words: &[u64], out: &mut Vec<u32>) {
    const WIDTH: usize = 16;
    out.clear();
    out.reserve(words.len() * BLOCK + WIDTH);
    let (to, mut len) = (out.as_mut_ptr(), 0);
    let mut at = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for &word in words {
        for part in 0..BLOCK / WIDTH {
            let mask = (word >> (part * WIDTH)) as u16;
            // SAFETY: a register was reserved behind as many places as there are bits.
            unsafe { _mm512_storeu_si512(to.add(len).cast(), _mm512_maskz_compress_epi32(mask, at)) };
            len += mask.count_ones() as usize;
            at = _mm512_add_epi32(at, _mm512_set1_epi32(WIDTH as i32));
        }
    }
    // SAFETY: so many were written, and reserved.
    unsafe { out.set_len(len) };
}

/// Lives only inside of [`run`].
#[derive(Clone, Copy)]
struct Whole(__m512i);

impl Lanes for Whole {
    #[inline(always)]
    fn load(block: &[u8; BLOCK]) -> Self {
        // SAFETY: see `Whole`; the block has 64 bytes.
        Self(unsafe { _mm512_loadu_si512(block.as_ptr().cast()) })
    }

    #[inline(always)]
    fn equal(self, byte: u8) -> u64 {
        // SAFETY: see `Whole`.
        unsafe { _mm512_cmpeq_epi8_mask(self.0, _mm512_set1_epi8(byte as i8)) }
    }

    #[inline(always)]
    fn within(self, first: u8, last: u8) -> u64 {
        // SAFETY: see `Whole`. What is below `first` wraps around.
        unsafe {
            let from = _mm512_sub_epi8(self.0, _mm512_set1_epi8(first as i8));
            _mm512_cmple_epu8_mask(from, _mm512_set1_epi8((last - first) as i8))
        }
    }

    #[inline(always)]
    fn beyond(self, first: u8, last: u8) -> u64 {
        self.within(first, last)
    }

    #[inline(always)]
    fn high(self) -> u64 {
        // SAFETY: see `Whole`.
        unsafe { _mm512_movepi8_mask(self.0) }
    }
}
