//! I2_S in the x86 layout: two-bit codes 0, 1, 2 times int8 activations by `vpdpbusd`, exact in i32.
//!
//! `vpdpbusd` adds four products of unsigned and signed bytes to an i32 without saturation. The offset of the codes,
//! `w = code - 1`, is taken off once per row: `sum(w q) = sum(code q) - sum(q)`.
//!
//! * One token: the codes stay where they lie in their byte. Masked, they are the code times 1, 4, 16 or 64; each place has
//!   its own accumulator, whose lanes are multiples of the place's factor and are shifted down at the end. No shift, four
//!   `and` and four `vpdpbusd` for 256 weights. A lane grows by at most 4 * 192 * 128 = 98,304 a step (code 3 included), so
//!   [`SPAN`] steps stay inside an i32.
//! * A few tokens: the codes of 256 weights are put into their order once and meet every token.
//! * Many tokens: six rows are unpacked piece by piece into bytes in L1 and multiplied with four tokens at a time, 24
//!   accumulators: ten loads for 24 products.

use std::arch::x86_64::*;
use std::ops::Range;

use crate::quant::i2_s::{BYTES, LEN, scale};
use crate::{Activations, I8Token, Matrix, OutView};

/// Steps of 256 weights before the accumulators of one token are emptied.
const SPAN: usize = 16_384;
const _: () = assert!(SPAN * 4 * 192 * 128 <= i32::MAX as usize);

/// Up to so many tokens, rows are multiplied straight from the packed bytes.
const DIRECT: usize = 8;

/// `(sum(w q) / s) * scale` from the sum of `code * q`. Wrapping, since only the difference has to fit.
fn finish(codes: i32, x: &I8Token<'_>, scale: f32) -> f32 {
    codes.wrapping_sub(x.isum) as f32 / x.scale * scale
}

/// See [`super::Matmul`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn matmul(w: &Matrix<'_>, x: &Activations, rows: Range<usize>, y: &mut OutView<'_>) {
    let scale = scale(w.data);
    let mut row = rows.start;
    if x.n_tokens() == 1 {
        while row + 4 <= rows.end {
            one::<4>(w, x, row, scale, y);
            row += 4;
        }
        for row in row..rows.end {
            one::<1>(w, x, row, scale, y);
        }
    } else if x.n_tokens() <= DIRECT {
        while row + 2 <= rows.end {
            few::<2>(w, x, row, scale, y);
            row += 2;
        }
        for row in row..rows.end {
            few::<1>(w, x, row, scale, y);
        }
    } else {
        many(w, x, rows, scale, y);
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

/// The codes of 256 weights in their order: 64 in each register.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn in_order(packed: __m512i) -> [__m512i; 4] {
    let three = _mm512_set1_epi8(3);
    let a = _mm512_and_si512(_mm512_srli_epi16::<6>(packed), three);
    let b = _mm512_and_si512(_mm512_srli_epi16::<4>(packed), three);
    let c = _mm512_and_si512(_mm512_srli_epi16::<2>(packed), three);
    let d = _mm512_and_si512(packed, three);
    // The lower halves are the first block's, the upper halves the second's.
    [
        _mm512_shuffle_i64x2::<0b01_00_01_00>(a, b),
        _mm512_shuffle_i64x2::<0b01_00_01_00>(c, d),
        _mm512_shuffle_i64x2::<0b11_10_11_10>(a, b),
        _mm512_shuffle_i64x2::<0b11_10_11_10>(c, d),
    ]
}

/// 64 activations.
///
/// # Safety
/// 64 bytes can be read at `q`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn load_q(q: *const i8) -> __m512i {
    // SAFETY: the caller vouches for 64 bytes.
    unsafe { _mm512_loadu_si512(q.cast()) }
}

/// `R` rows from `row` on, all of a few tokens, four at a time.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn few<const R: usize>(w: &Matrix<'_>, x: &Activations, row: usize, scale: f32, y: &mut OutView<'_>) {
    let mut t = 0;
    while t + 4 <= x.n_tokens() {
        few_of::<R, 4>(w, x, row, t, scale, y);
        t += 4;
    }
    while t < x.n_tokens() {
        few_of::<R, 1>(w, x, row, t, scale, y);
        t += 1;
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn few_of<const R: usize, const T: usize>(
    w: &Matrix<'_>,
    x: &Activations,
    row: usize,
    token: usize,
    scale: f32,
    y: &mut OutView<'_>,
) {
    let blocks = x.cols() / LEN;
    let mut q_at = [std::ptr::null::<i8>(); T];
    for t in 0..T {
        q_at[t] = x.i8(token + t).q[..blocks * LEN].as_ptr();
    }
    let ahead = R * w.row(row).len();
    let mut acc = [[_mm512_setzero_si512(); T]; R];
    for r in 0..R {
        let (pairs, last) = w.row(row + r)[..blocks * BYTES].as_chunks::<{ 2 * BYTES }>();
        for (b, packed) in pairs.iter().enumerate() {
            prefetch(packed.as_ptr(), ahead);
            let codes = in_order(pair(packed));
            for t in 0..T {
                for j in 0..4 {
                    // SAFETY: the 256 activations from 256 * b on are those of a whole pair of blocks.
                    let q = unsafe { load_q(q_at[t].add(2 * LEN * b + 64 * j)) };
                    acc[r][t] = _mm512_dpbusd_epi32(acc[r][t], codes[j], q);
                }
            }
        }
        if let Some(last) = last.as_array::<BYTES>() {
            // The second block is not there: only the first two registers hold codes.
            let [a, b, ..] = in_order(single(last));
            for t in 0..T {
                for (j, codes) in [a, b].into_iter().enumerate() {
                    // SAFETY: the last block has 128 activations.
                    let q = unsafe { load_q(q_at[t].add(2 * LEN * pairs.len() + 64 * j)) };
                    acc[r][t] = _mm512_dpbusd_epi32(acc[r][t], codes, q);
                }
            }
        }
    }
    for t in 0..T {
        let x = x.i8(token + t);
        for r in 0..R {
            y.set(token + t, row + r, finish(_mm512_reduce_add_epi32(acc[r][t]), &x, scale));
        }
    }
}

/// Rows unpacked together.
const ROWS: usize = 6;
/// Registers of 64 weights unpacked at a time: six rows of 4,096 weights are 24 KiB, half of L1.
const PIECE: usize = 64;
/// Tokens that share the unpacked rows; their activations stay in L2.
const TOKENS: usize = 128;

/// 64 codes, one to a byte.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Wide([u8; 64]);

/// Some rows, unpacked.
type Rows = [[Wide; PIECE]; ROWS];

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn many(w: &Matrix<'_>, x: &Activations, rows: Range<usize>, scale: f32, y: &mut OutView<'_>) {
    let mut wide: Rows = [[Wide([0; 64]); PIECE]; ROWS];
    for first in (0..x.n_tokens()).step_by(TOKENS) {
        let tokens = first..x.n_tokens().min(first + TOKENS);
        let mut row = rows.start;
        while row + ROWS <= rows.end {
            gemm::<ROWS>(w, x, tokens.clone(), row, scale, &mut wide, y);
            row += ROWS;
        }
        while row + 2 <= rows.end {
            gemm::<2>(w, x, tokens.clone(), row, scale, &mut wide, y);
            row += 2;
        }
        for row in row..rows.end {
            gemm::<1>(w, x, tokens.clone(), row, scale, &mut wide, y);
        }
    }
}

/// `R` rows from `row` on, up to [`TOKENS`] tokens.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn gemm<const R: usize>(
    w: &Matrix<'_>,
    x: &Activations,
    tokens: Range<usize>,
    row: usize,
    scale: f32,
    wide: &mut Rows,
    y: &mut OutView<'_>,
) {
    // Registers of 64 weights in a row: a block has two.
    let all = x.cols() / 64;
    let mut sums = [[0i32; R]; TOKENS];
    for from in (0..all).step_by(PIECE) {
        let n = PIECE.min(all - from);
        for r in 0..R {
            unpack(&w.row(row + r)[from * 16..(from + n) * 16], &mut wide[r]);
        }
        let mut t = tokens.clone();
        while t.len() >= 4 {
            tile::<R, 4>(wide, x, t.start, from, n, &mut sums[t.start - tokens.start..]);
            t.start += 4;
        }
        for t in t {
            tile::<R, 1>(wide, x, t, from, n, &mut sums[t - tokens.start..]);
        }
    }
    for (t, sums) in tokens.zip(sums) {
        let x = x.i8(t);
        for (r, sum) in sums.into_iter().enumerate() {
            y.set(t, row + r, finish(sum, &x, scale));
        }
    }
}

/// The codes of some blocks, one to a byte.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn unpack(packed: &[u8], wide: &mut [Wide; PIECE]) {
    let (pairs, last) = packed.as_chunks::<{ 2 * BYTES }>();
    let (fours, rest) = wide.as_chunks_mut::<4>();
    for (packed, wide) in pairs.iter().zip(fours.iter_mut()) {
        for (codes, wide) in in_order(pair(packed)).into_iter().zip(wide) {
            keep(codes, wide);
        }
    }
    debug_assert!(rest.is_empty());
    if let (Some(last), Some([a, b, ..])) = (last.as_array::<BYTES>(), fours.get_mut(pairs.len())) {
        let codes = in_order(single(last));
        keep(codes[0], a);
        keep(codes[1], b);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn keep(codes: __m512i, wide: &mut Wide) {
    // SAFETY: the array has room for 64 bytes.
    unsafe { _mm512_storeu_si512(wide.0.as_mut_ptr().cast(), codes) }
}

/// Adds `sum(code * q)` of `n` unpacked registers of `R` rows and of `T` tokens, whose activations begin with register
/// `from`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn tile<const R: usize, const T: usize>(
    wide: &Rows,
    x: &Activations,
    token: usize,
    from: usize,
    n: usize,
    out: &mut [[i32; R]],
) {
    // Pointers to `n` registers each: the loop below stays free of range checks.
    let mut w_at = [std::ptr::null::<Wide>(); R];
    for r in 0..R {
        w_at[r] = wide[r][..n].as_ptr();
    }
    let mut q_at = [std::ptr::null::<i8>(); T];
    for t in 0..T {
        q_at[t] = x.i8(token + t).q[from * 64..(from + n) * 64].as_ptr();
    }
    let mut acc = [[_mm512_setzero_si512(); T]; R];
    for b in 0..n {
        let mut q = [_mm512_setzero_si512(); T];
        for t in 0..T {
            // SAFETY: b < n.
            q[t] = unsafe { load_q(q_at[t].add(64 * b)) };
        }
        for r in 0..R {
            // SAFETY: b < n.
            let w = unsafe { _mm512_loadu_si512(w_at[r].add(b).cast()) };
            for t in 0..T {
                acc[r][t] = _mm512_dpbusd_epi32(acc[r][t], w, q[t]);
            }
        }
    }
    for t in 0..T {
        for r in 0..R {
            out[t][r] = out[t][r].wrapping_add(_mm512_reduce_add_epi32(acc[r][t]));
        }
    }
}
