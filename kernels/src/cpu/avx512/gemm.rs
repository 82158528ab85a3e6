//! I2_S in the x86 layout times several tokens: a lane is a row.
//!
//! Where the lanes of a register are columns, every sum ends in a reduction of its lanes, which for rows of a few thousand
//! weights is a fifth of the work. Here the sixteen i32 lanes of an accumulator are sixteen rows: a register of weights
//! holds four columns of each, and four activations of a token are broadcast to all lanes by the load port. Nothing is left
//! to reduce, and results are scaled and stored sixteen at a time.
//!
//! A strip of 32 rows is brought into that order once ([`unpack`]) and meets all tokens, twelve at a time: 24 accumulators,
//! 24 products for 14 loads. Packed bytes are transposed, not unpacked ones: a byte holds four columns that lie 32 apart, so
//! four bytes side by side become four registers of four columns each.

use std::arch::x86_64::*;
use std::cell::RefCell;
use std::ops::Range;

use crate::quant::i2_s::{BYTES, LEN, scale};
use crate::{Activations, Matrix, OutView};

/// Rows of a register.
const LANES: usize = 16;
/// Registers of rows that are computed together.
const GROUPS: usize = 2;
/// Columns of a register.
const STEP: usize = 4;
/// Registers of one group that come of a block.
const STEPS: usize = LEN / STEP;
/// Tokens that share an unpacked strip; their activations stay in L2.
const TOKENS: usize = 128;

/// Four columns of sixteen rows: codes 0, 1, 2.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Codes([u8; LANES * STEP]);

thread_local! {
    /// `[cols / 4][GROUPS]`: 80 KiB for 2,560 columns.
    static STRIP: RefCell<Vec<[Codes; GROUPS]>> = const { RefCell::new(Vec::new()) };
}

/// See [`super::Matmul`]; any number of tokens.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn matmul(w: &Matrix<'_>, x: &Activations, rows: Range<usize>, y: &mut OutView<'_>) {
    // Taken out, since a closure for `with` would have to inherit the features.
    let mut strip = STRIP.take();
    strip.resize(w.cols / STEP, [Codes([0; LANES * STEP]); GROUPS]);
    for first in (0..x.n_tokens()).step_by(TOKENS) {
        let tokens = first..x.n_tokens().min(first + TOKENS);
        for row in rows.clone().step_by(GROUPS * LANES) {
            let rows = row..rows.end.min(row + GROUPS * LANES);
            for group in 0..rows.len().div_ceil(LANES) {
                unpack(w, row + group * LANES..rows.end, group, &mut strip);
            }
            let mut t = tokens.clone();
            while t.len() >= 12 {
                tile::<12>(&strip, w, x, t.start, rows.clone(), y);
                t.start += 12;
            }
            if t.len() >= 8 {
                tile::<8>(&strip, w, x, t.start, rows.clone(), y);
                t.start += 8;
            }
            if t.len() >= 4 {
                tile::<4>(&strip, w, x, t.start, rows.clone(), y);
                t.start += 4;
            }
            if t.len() >= 2 {
                tile::<2>(&strip, w, x, t.start, rows.clone(), y);
                t.start += 2;
            }
            if !t.is_empty() {
                tile::<1>(&strip, w, x, t.start, rows.clone(), y);
            }
        }
    }
    STRIP.set(strip);
}

/// The codes of up to sixteen rows. Lanes of rows that are not there repeat the last one; nobody looks at them.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn unpack(w: &Matrix<'_>, rows: Range<usize>, group: usize, strip: &mut [[Codes; GROUPS]]) {
    let mut at = [std::ptr::null::<[u8; BYTES]>(); LANES];
    for (r, at) in at.iter_mut().enumerate() {
        *at = w.row((rows.start + r).min(rows.end - 1))[..strip.len() / STEPS * BYTES].as_ptr().cast();
    }
    let three = _mm512_set1_epi8(3);
    for (b, out) in strip.as_chunks_mut::<STEPS>().0.iter_mut().enumerate() {
        let mut pairs = [_mm512_setzero_si512(); 8];
        for r in 0..8 {
            // SAFETY: the rows have `strip.len() / STEPS` blocks of 32 bytes.
            let (low, high) =
                unsafe { (_mm256_loadu_si256(at[r].add(b).cast()), _mm256_loadu_si256(at[r + 8].add(b).cast())) };
            pairs[r] = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
        }
        for (i, packed) in transpose(pairs).into_iter().enumerate() {
            let codes = [
                _mm512_and_si512(_mm512_srli_epi16::<6>(packed), three),
                _mm512_and_si512(_mm512_srli_epi16::<4>(packed), three),
                _mm512_and_si512(_mm512_srli_epi16::<2>(packed), three),
                _mm512_and_si512(packed, three),
            ];
            for (j, codes) in codes.into_iter().enumerate() {
                // SAFETY: the array has the 64 bytes.
                unsafe { _mm512_store_si512(out[8 * j + i][group].0.as_mut_ptr().cast(), codes) }
            }
        }
    }
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

/// The strip of `rows` times `T` tokens.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn tile<const T: usize>(
    strip: &[[Codes; GROUPS]],
    w: &Matrix<'_>,
    x: &Activations,
    token: usize,
    rows: Range<usize>,
    y: &mut OutView<'_>,
) {
    let cols = strip.len() * STEP;
    let mut q_at = [std::ptr::null::<i8>(); T];
    for t in 0..T {
        q_at[t] = x.i8(token + t).q[..cols].as_ptr();
    }
    let mut acc = [[_mm512_setzero_si512(); GROUPS]; T];
    for (s, codes) in strip.iter().enumerate() {
        let mut w = [_mm512_setzero_si512(); GROUPS];
        for g in 0..GROUPS {
            // SAFETY: the array has the 64 bytes.
            w[g] = unsafe { _mm512_load_si512(codes[g].0.as_ptr().cast()) };
        }
        for t in 0..T {
            // SAFETY: 4 * s + 4 <= cols.
            let four = unsafe { q_at[t].add(STEP * s).cast::<i32>().read_unaligned() };
            let q = _mm512_set1_epi32(four);
            for g in 0..GROUPS {
                acc[t][g] = _mm512_dpbusd_epi32(acc[t][g], w[g], q);
            }
        }
    }
    let scale = _mm512_set1_ps(scale(w.data));
    for t in 0..T {
        let x = x.i8(token + t);
        let out = y.row(token + t, rows.clone());
        for (g, out) in out.chunks_mut(LANES).enumerate() {
            // As `crate::cpu::ternary::finish`.
            let sums = _mm512_cvtepi32_ps(_mm512_sub_epi32(acc[t][g], _mm512_set1_epi32(x.isum)));
            let values = _mm512_mul_ps(_mm512_div_ps(sums, _mm512_set1_ps(x.scale)), scale);
            let there = u16::MAX >> (LANES - out.len());
            // SAFETY: the mask lets through as many lanes as `out` has.
            unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), there, values) }
        }
    }
}
