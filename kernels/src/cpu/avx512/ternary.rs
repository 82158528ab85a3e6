//! I2_S in the x86 layout: two-bit codes 0, 1, 2 times int8 activations by `vpdpbusd`, exact in i32.
//!
//! `vpdpbusd` adds four products of unsigned and signed bytes to an i32 without saturation. The offset of the codes,
//! `w = code - 1`, is taken off once per row: `sum(w q) = sum(code q) - sum(q)`.
//!
//! * One token: the codes stay where they lie in their byte. Masked, they are the code times 1, 4, 16 or 64; each place has
//!   its own accumulator, whose lanes are multiples of the place's factor and are shifted down at the end. No shift, four
//!   `and` and four `vpdpbusd` for 256 weights. A lane grows by at most 4 * 192 * 128 = 98,304 a step (code 3 included), so
//!   [`SPAN`] steps stay inside an i32.
//! * More tokens: [`super::gemm`], two and three AVX2.

use std::arch::x86_64::*;
use std::ops::Range;

use crate::cpu::ternary::finish;
use crate::quant::i2_s::{BYTES, LEN, scale};
use crate::{Activations, Matrix, OutView};

/// Steps of 256 weights before the accumulators of one token are emptied.
const SPAN: usize = 16_384;
const _: () = assert!(SPAN * 4 * 192 * 128 <= i32::MAX as usize);

/// See [`super::Matmul`]; one token.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn matmul(w: &Matrix<'_>, x: &Activations, rows: Range<usize>, y: &mut OutView<'_>) {
    let scale = scale(w.data);
    let mut row = rows.start;
    while row + 4 <= rows.end {
        one::<4>(w, x, row, scale, y);
        row += 4;
    }
    for row in row..rows.end {
        one::<1>(w, x, row, scale, y);
    }
}

/// A block's 32 bytes and the next one's.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn pair(bytes: &[u8; 2 * BYTES]) -> __m512i {
    // SAFETY: the array has 64 bytes.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// One block alone; the upper half is zero, which are codes that add nothing.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn single(bytes: &[u8; BYTES]) -> __m512i {
    // SAFETY: the array has 32 bytes.
    _mm512_zextsi256_si512(unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) })
}

/// Asks for the cache line `ahead` bytes beyond `at`: see [`super::dense`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn prefetch(at: *const u8, ahead: usize) {
    _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(ahead).cast());
}

/// Where the codes of shift 6, 4, 2, 0 lie in a byte.
const PLACES: [i8; 4] = [0xC0u8 as i8, 0x30, 0x0C, 0x03];

/// Activations of 256 weights for the codes at each place: 32 of the first block, 32 of the second.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn split(q: &[i8; 2 * LEN]) -> [__m512i; 4] {
    let q = q.as_chunks::<32>().0;
    let mut out = [_mm512_setzero_si512(); 4];
    for j in 0..4 {
        // SAFETY: both arrays have 32 bytes.
        let (low, high) =
            unsafe { (_mm256_loadu_si256(q[j].as_ptr().cast()), _mm256_loadu_si256(q[4 + j].as_ptr().cast())) };
        out[j] = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
    }
    out
}

/// The same of the last 128 weights.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn split_single(q: &[i8; LEN]) -> [__m512i; 4] {
    let q = q.as_chunks::<32>().0;
    let mut out = [_mm512_setzero_si512(); 4];
    for j in 0..4 {
        // SAFETY: the array has 32 bytes.
        out[j] = _mm512_zextsi256_si512(unsafe { _mm256_loadu_si256(q[j].as_ptr().cast()) });
    }
    out
}

/// Adds the products of packed codes, in place, to the accumulators of their places.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn in_place(packed: __m512i, q: [__m512i; 4], acc: &mut [__m512i; 4]) {
    for j in 0..4 {
        let codes = _mm512_and_si512(packed, _mm512_set1_epi8(PLACES[j]));
        acc[j] = _mm512_dpbusd_epi32(acc[j], codes, q[j]);
    }
}

/// The sum of the accumulators, every place divided by its factor.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn level(acc: [__m512i; 4]) -> __m512i {
    let [a, b, c, d] = acc;
    let high = _mm512_add_epi32(_mm512_srai_epi32::<6>(a), _mm512_srai_epi32::<4>(b));
    _mm512_add_epi32(high, _mm512_add_epi32(_mm512_srai_epi32::<2>(c), d))
}

/// `R` rows from `row` on, one token.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn one<const R: usize>(w: &Matrix<'_>, x: &Activations, row: usize, scale: f32, y: &mut OutView<'_>) {
    let x = x.i8(0);
    let (q, q_last) = x.q.as_chunks::<{ 2 * LEN }>();
    let pairs = q.len();
    // Pointers to `pairs` steps each: the loop below stays free of range checks.
    let mut at = [std::ptr::null::<[u8; 2 * BYTES]>(); R];
    for r in 0..R {
        at[r] = w.row(row + r).as_chunks().0[..pairs].as_ptr();
    }
    let ahead = R * w.row(row).len();
    let mut total = [_mm512_setzero_si512(); R];
    for from in (0..pairs).step_by(SPAN) {
        let mut acc = [[_mm512_setzero_si512(); 4]; R];
        for (b, q) in q.iter().enumerate().take(from + SPAN).skip(from) {
            let q = split(q);
            for r in 0..R {
                // SAFETY: b < pairs.
                let packed = unsafe { &*at[r].add(b) };
                prefetch(packed.as_ptr(), ahead);
                in_place(pair(packed), q, &mut acc[r]);
            }
        }
        for r in 0..R {
            total[r] = _mm512_add_epi32(total[r], level(acc[r]));
        }
    }
    if let Some(q) = q_last.as_array::<LEN>() {
        let q = split_single(q);
        for r in 0..R {
            let mut acc = [_mm512_setzero_si512(); 4];
            let last = w.row(row + r).as_chunks::<BYTES>().0[2 * pairs];
            in_place(single(&last), q, &mut acc);
            total[r] = _mm512_add_epi32(total[r], level(acc));
        }
    }
    for r in 0..R {
        y.set(0, row + r, finish(_mm512_reduce_add_epi32(total[r]), &x, scale));
    }
}
