//! How the bytes of the ternary formats become codes: 128 weights are four registers of codes 0, 1, 2.

use std::arch::asm;
use std::arch::x86_64::*;

use super::lanes::load_i8;
use crate::cpu::ternary::{Arm, Iq1Bn, Iq2Bn, LEN, Scales, Tq1, Tq2, X86};
use crate::quant::{i2_s, tq1_0, tq2_0};

/// A ternary layout.
pub(in crate::cpu) trait Layout: Scales {
    /// Whether codes cost more than the products of two tokens with them.
    const DEAR: bool = false;

    /// The codes of step `b` of a row, four registers.
    ///
    /// # Safety
    /// The CPU has AVX2, FMA and F16C; `row` points to a row of a matrix, which has step `b`.
    unsafe fn codes(row: *const u8, b: usize) -> [__m256i; 4];

    /// The activations that register `j` of the codes multiplies with.
    ///
    /// # Safety
    /// The CPU has AVX2, FMA and F16C.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn activations(a: &[i8; LEN], j: usize) -> __m256i {
        load_i8(&a.as_chunks::<32>().0[j])
    }

    /// Which four columns of a step, in the order of the weights, are dword `d` of register `j` of the codes.
    fn place(j: usize, d: usize) -> usize {
        8 * j + d
    }
}

/// Two-bit codes, from the high bits down.
///
/// # Safety
/// 32 bytes can be read at `at`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn pairs_of_bits(at: *const u8) -> [__m256i; 4] {
    // SAFETY: the caller's.
    let block = unsafe { _mm256_loadu_si256(at.cast()) };
    let three = _mm256_set1_epi8(3);
    [
        _mm256_and_si256(_mm256_srli_epi16::<6>(block), three),
        _mm256_and_si256(_mm256_srli_epi16::<4>(block), three),
        _mm256_and_si256(_mm256_srli_epi16::<2>(block), three),
        _mm256_and_si256(block, three),
    ]
}

impl Layout for X86 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn codes(row: *const u8, b: usize) -> [__m256i; 4] {
        // SAFETY: the caller's.
        unsafe { pairs_of_bits(row.add(b * i2_s::BYTES)) }
    }
}

/// The activations of a register of groups of 16 codes, one of each half of a step.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn activations_of_16(a: &[i8; LEN], j: usize) -> __m256i {
    let a = a.as_chunks::<16>().0;
    // SAFETY: both arrays have 16 bytes.
    unsafe { _mm256_set_m128i(_mm_loadu_si128(a[4 + j].as_ptr().cast()), _mm_loadu_si128(a[j].as_ptr().cast())) }
}

/// [`Layout::place`] in such a register.
fn place_in_16(j: usize, d: usize) -> usize {
    16 * (d / 4) + 4 * j + d % 4
}

impl Layout for Arm {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn codes(row: *const u8, b: usize) -> [__m256i; 4] {
        // SAFETY: the caller's.
        unsafe { pairs_of_bits(row.add(b * i2_s::BYTES)) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn activations(a: &[i8; LEN], j: usize) -> __m256i {
        activations_of_16(a, j)
    }

    fn place(j: usize, d: usize) -> usize {
        place_in_16(j, d)
    }
}

impl Layout for Iq2Bn {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn codes(row: *const u8, b: usize) -> [__m256i; 4] {
        // SAFETY: the caller's.
        let [c3, c2, c1, c0] = unsafe { pairs_of_bits(row.add(Self::HEAD + b * Self::STEP)) };
        [c0, c1, c2, c3]
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn activations(a: &[i8; LEN], j: usize) -> __m256i {
        activations_of_16(a, j)
    }

    fn place(j: usize, d: usize) -> usize {
        place_in_16(j, d)
    }
}

impl Layout for Iq1Bn {
    const DEAR: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn codes(row: *const u8, b: usize) -> [__m256i; 4] {
        // SAFETY: the caller's: the row has the bytes of this step.
        let row = unsafe { std::slice::from_raw_parts(row, Self::HEAD + (b + 1) * Self::STEP) };
        let codes = Self::step(row, b);
        let mut out = [_mm256_setzero_si256(); 4];
        for (out, codes) in out.iter_mut().zip(codes.as_chunks::<32>().0) {
            // SAFETY: the array has 32 bytes.
            *out = unsafe { _mm256_loadu_si256(codes.as_ptr().cast()) };
        }
        out
    }
}

impl Layout for Tq2 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn codes(row: *const u8, b: usize) -> [__m256i; 4] {
        // SAFETY: the caller's; a block has two halves of 32 bytes and then its scale.
        let [c3, c2, c1, c0] = unsafe { pairs_of_bits(row.add(b / 2 * tq2_0::BYTES + b % 2 * 32)) };
        [c0, c1, c2, c3]
    }
}

impl Layout for Tq1 {
    const DEAR: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn codes(row: *const u8, b: usize) -> [__m256i; 4] {
        // SAFETY: the caller's; all reads below are inside of the block's 54 bytes.
        let block = unsafe { row.add(b / 2 * tq1_0::BYTES) };
        // SAFETY: 32 bytes from 0.
        let first = unsafe { _mm256_loadu_si256(block.cast()) };
        if b.is_multiple_of(2) {
            let by_3 = times_3(first);
            let by_9 = times_3(by_3);
            return [trits(first), trits(by_3), trits(by_9), trits(times_3(by_9))];
        }
        let by_81 = times_9(times_9(first));
        // SAFETY: 16 bytes from 32; four bytes from 48, followed by the scale.
        let (second, third) = unsafe {
            (_mm_loadu_si128(block.add(tq1_0::SECOND).cast()), block.add(tq1_0::THIRD).cast::<i32>().read_unaligned())
        };
        // The second part with its first trits in the low half and its second trits in the high half, then two further on.
        let wide = _mm256_castsi128_si256(second);
        let n01 = _mm256_permute2x128_si256::<0x20>(wide, times_3(wide));
        let n23 = times_9(n01);
        let n4 = _mm256_castsi256_si128(times_9(n23));
        let last = _mm256_set_m128i(fours(third), n4);
        [trits(by_81), trits(n01), trits(n23), trits(last)]
    }
}

/// Hides from the compiler what a register holds, by no instruction. It would make products of the additions of bytes below,
/// which it has no instruction for.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn hidden(mut v: __m256i) -> __m256i {
    // SAFETY: no instruction, and the register stays as it is.
    unsafe { asm!("/* {0} */", inlateout(ymm_reg) v, options(pure, nomem, nostack, preserves_flags)) }
    v
}

/// Bytes times 3, modulo 256: the next trit becomes the first.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn times_3(v: __m256i) -> __m256i {
    _mm256_add_epi8(hidden(_mm256_add_epi8(v, v)), v)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn times_9(v: __m256i) -> __m256i {
    let by_8 = _mm256_and_si256(_mm256_slli_epi16::<3>(v), _mm256_set1_epi8(0xf8_u8 as i8));
    _mm256_add_epi8(hidden(by_8), v)
}

/// The first trit of each byte v, the floor of `3 v / 256`. The mean of `vpavgb` rounds up; with y the complement of v,
/// `mean(y, mean(y, 255))` is the complement of `(v + v / 2) / 2`, rounded down twice, which has the trit in its two highest bits.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn trits(v: __m256i) -> __m256i {
    let all = _mm256_set1_epi8(-1);
    let y = _mm256_xor_si256(v, all);
    let mean = mean(y, mean(y, all));
    _mm256_andnot_si256(_mm256_srli_epi16::<6>(mean), _mm256_set1_epi8(3))
}

/// `(a + b + 1) / 2` of bytes. The compiler takes the intrinsic apart where it knows an operand, and does not find the instruction
/// again.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn mean(a: __m256i, b: __m256i) -> __m256i {
    let out;
    // SAFETY: the instruction reads and writes these registers alone; it is AVX2's.
    unsafe {
        asm!("vpavgb {0}, {1}, {2}", lateout(ymm_reg) out, in(ymm_reg) a, in(ymm_reg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    out
}

/// Four bytes, then the same times 3, times 9, times 27.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn fours(bytes: i32) -> __m128i {
    let powers = _mm256_set_epi16(27, 27, 27, 27, 9, 9, 9, 9, 3, 3, 3, 3, 1, 1, 1, 1);
    let wide = _mm256_mullo_epi16(_mm256_cvtepu8_epi16(_mm_set1_epi32(bytes)), powers);
    let low = _mm256_and_si256(wide, _mm256_set1_epi16(0xff));
    _mm_packus_epi16(_mm256_castsi256_si128(low), _mm256_extracti128_si256::<1>(low))
}
