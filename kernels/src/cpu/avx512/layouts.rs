//! How the bytes of the ternary formats become the registers of a strip: 128 weights of sixteen rows are 32 registers of
//! four columns each.
//!
//! Packed bytes are transposed, not unpacked ones, where codes have two bits: a byte holds four columns that lie 16 or 32
//! apart, so four bytes side by side become four registers of four columns each. The trits of TQ1_0 and IQ1_BN are unpacked row by row,
//! as [`Avx2`](super::Avx2) does it, and then transposed, four times as many bytes.

use std::arch::x86_64::*;
use std::ops::Range;

use crate::Matrix;
use crate::cpu::avx2::Layout as Wide;
use crate::cpu::strips::{Codes, GROUPS, LANES, STEPS, Strip};
use crate::cpu::ternary::{Arm, Iq1Bn, Iq2Bn, Scales, Tq1, Tq2, X86, tail};
use crate::quant::{i2_s, tq2_0};

/// Where sixteen rows begin.
type Rows = [*const u8; LANES];

/// A ternary layout.
pub(super) trait Layout: Scales {
    /// Writes the codes of step `b` of the rows.
    ///
    /// # Safety
    /// The CPU has what [`super::Avx512`] proves; the pointers are to rows of a matrix, which have step `b`.
    unsafe fn step(rows: &Rows, b: usize, group: usize, out: &mut [[Codes; GROUPS]; STEPS]);
}

/// See [`crate::cpu::strips::Sides::unpack`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn unpack<L: Layout>(w: &Matrix<'_>, rows: Range<usize>, group: usize, strip: &mut Strip) {
    let row = |r: usize| w.row((rows.start + r).min(rows.end - 1));
    let mut at = [std::ptr::null(); LANES];
    for (r, at) in at.iter_mut().enumerate() {
        *at = row(r).as_ptr();
    }
    let (whole, half) = strip.as_chunks_mut::<STEPS>();
    let steps = whole.len();
    for (b, out) in whole.iter_mut().enumerate() {
        // SAFETY: the rows have `steps` steps, and this function has the features.
        unsafe { L::step(&at, b, group, out) }
    }
    if !half.is_empty() {
        let mut last = [[Codes::ZERO; GROUPS]; STEPS];
        let mut tails = [[0; 64]; LANES];
        for (r, (tails, at)) in tails.iter_mut().zip(&mut at).enumerate() {
            *tails = tail::<L>(row(r), steps);
            *at = tails.as_ptr();
        }
        // SAFETY: 64 bytes hold the head of a row and a step, and this function has the features.
        unsafe { L::step(&at, 0, group, &mut last) }
        for (out, last) in half.iter_mut().zip(last) {
            out[group] = last[group];
        }
    }
}

impl Layout for X86 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn step(rows: &Rows, b: usize, group: usize, out: &mut [[Codes; GROUPS]; STEPS]) {
        // SAFETY: the caller's.
        let codes = unsafe { two_bits(rows, b * i2_s::BYTES) };
        for (j, codes) in codes.into_iter().enumerate() {
            put(codes, |i| 8 * j + i, group, out);
        }
    }
}

/// Two blocks of 16 bytes.
impl Layout for Arm {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn step(rows: &Rows, b: usize, group: usize, out: &mut [[Codes; GROUPS]; STEPS]) {
        // SAFETY: the caller's.
        let codes = unsafe { two_bits(rows, b * i2_s::BYTES) };
        for (j, codes) in codes.into_iter().enumerate() {
            put(codes, |i| i / 4 * 16 + 4 * j + i % 4, group, out);
        }
    }
}

impl Layout for Iq2Bn {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn step(rows: &Rows, b: usize, group: usize, out: &mut [[Codes; GROUPS]; STEPS]) {
        // SAFETY: the caller's.
        let codes = unsafe { two_bits(rows, Self::HEAD + b * Self::STEP) };
        for (j, codes) in codes.into_iter().rev().enumerate() {
            put(codes, |i| i / 4 * 16 + 4 * j + i % 4, group, out);
        }
    }
}

impl Layout for Tq2 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn step(rows: &Rows, b: usize, group: usize, out: &mut [[Codes; GROUPS]; STEPS]) {
        // SAFETY: the caller's; a block has two halves of 32 bytes and then its scale.
        let codes = unsafe { two_bits(rows, b / 2 * tq2_0::BYTES + b % 2 * 32) };
        for (j, codes) in codes.into_iter().rev().enumerate() {
            put(codes, |i| 8 * j + i, group, out);
        }
    }
}

impl Layout for Tq1 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn step(rows: &Rows, b: usize, group: usize, out: &mut [[Codes; GROUPS]; STEPS]) {
        // SAFETY: the caller's.
        unsafe { wide::<Self>(rows, b, group, out) }
    }
}

impl Layout for Iq1Bn {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn step(rows: &Rows, b: usize, group: usize, out: &mut [[Codes; GROUPS]; STEPS]) {
        // SAFETY: the caller's.
        unsafe { wide::<Self>(rows, b, group, out) }
    }
}

/// [`Layout::step`] of codes that AVX2 unpacks row by row in the order of the weights.
///
/// # Safety
/// As [`Layout::step`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn wide<L: Wide>(rows: &Rows, b: usize, group: usize, out: &mut [[Codes; GROUPS]; STEPS]) {
    let mut wide = [[_mm256_setzero_si256(); 4]; LANES];
    for (wide, row) in wide.iter_mut().zip(rows) {
        // SAFETY: the caller's.
        *wide = unsafe { L::codes(*row, b) };
    }
    for j in 0..4 {
        let mut pairs = [_mm512_setzero_si512(); 8];
        for r in 0..8 {
            pairs[r] = pair(wide[r][j], wide[r + 8][j]);
        }
        put(transpose(pairs), |i| 8 * j + i, group, out);
    }
}

/// The codes of 32 bytes of each row from `at` on: those of the highest bits first, eight registers each.
///
/// # Safety
/// The bytes can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn two_bits(rows: &Rows, at: usize) -> [[__m512i; 8]; 4] {
    let three = _mm512_set1_epi8(3);
    let mut pairs = [_mm512_setzero_si512(); 8];
    for r in 0..8 {
        // SAFETY: the caller's.
        pairs[r] =
            unsafe { pair(_mm256_loadu_si256(rows[r].add(at).cast()), _mm256_loadu_si256(rows[r + 8].add(at).cast())) };
    }
    let mut out = [[_mm512_setzero_si512(); 8]; 4];
    for (i, packed) in transpose(pairs).into_iter().enumerate() {
        out[0][i] = _mm512_and_si512(_mm512_srli_epi16::<6>(packed), three);
        out[1][i] = _mm512_and_si512(_mm512_srli_epi16::<4>(packed), three);
        out[2][i] = _mm512_and_si512(_mm512_srli_epi16::<2>(packed), three);
        out[3][i] = _mm512_and_si512(packed, three);
    }
    out
}

/// Stores register `i` in step `place(i)` of four columns.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn put(codes: [__m512i; 8], place: impl Fn(usize) -> usize, group: usize, out: &mut [[Codes; GROUPS]; STEPS]) {
    for (i, codes) in codes.into_iter().enumerate() {
        // SAFETY: the array has the 64 bytes.
        unsafe { _mm512_store_si512(out[place(i)][group].0.as_mut_ptr().cast(), codes) }
    }
}

/// One register of two halves.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn pair(low: __m256i, high: __m256i) -> __m512i {
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

/// `x[r]` holds eight dwords of row r and eight of row r + 8; the result's register `i` has dword i of all sixteen rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn transpose(x: [__m512i; 8]) -> [__m512i; 8] {
    // Each step works on quarters of 128 bits: dwords of two rows, then of four.
    let mut two = [_mm512_setzero_si512(); 8];
    let mut four = [_mm512_setzero_si512(); 8];
    let mut out = [_mm512_setzero_si512(); 8];
    for r in 0..4 {
        two[2 * r] = _mm512_unpacklo_epi32(x[2 * r], x[2 * r + 1]);
        two[2 * r + 1] = _mm512_unpackhi_epi32(x[2 * r], x[2 * r + 1]);
    }
    for r in 0..2 {
        for j in 0..2 {
            let (a, b) = (two[4 * r + j], two[4 * r + 2 + j]);
            four[4 * r + 2 * j] = _mm512_unpacklo_epi64(a, b);
            four[4 * r + 2 * j + 1] = _mm512_unpackhi_epi64(a, b);
        }
    }
    // four[i] has dwords i and i + 4 of rows 0..4 (and 8..12), four[4 + i] of rows 4..8 (and 12..16).
    let low = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
    let high = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    for i in 0..4 {
        out[i] = _mm512_permutex2var_epi64(four[i], low, four[4 + i]);
        out[4 + i] = _mm512_permutex2var_epi64(four[i], high, four[4 + i]);
    }
    out
}
