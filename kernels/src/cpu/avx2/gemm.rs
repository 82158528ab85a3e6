//! Ternary weights times many tokens: a lane is a row, as in [`crate::cpu::strips`], here of registers of eight rows.
//!
//! A register of weights holds four columns of eight rows, and meets four activations of a token in every lane. So no sum ends in a
//! reduction of its lanes. Sixteen rows are unpacked piece by piece into that order, in L1, and meet six tokens at a time: twelve
//! accumulators, 24 instructions that compute for eight loads.

use std::arch::x86_64::*;
use std::ops::Range;

use super::layouts::Layout;
use super::ternary::{mixed, widen};
use crate::cpu::ternary::{LEN, scales_up_to, tail};
use crate::{Activations, I8Token, Matrix, OutView};

/// Rows of a register.
const LANES: usize = 8;
/// Registers of rows that are computed together.
const GROUPS: usize = 2;
const ROWS: usize = GROUPS * LANES;
/// Columns of a register.
const STEP: usize = 4;
/// Registers of one group that come of a step of [`LEN`] weights.
const STEPS: usize = LEN / STEP;
/// Steps of a piece: 16 KiB.
const PIECE: usize = 8 * STEPS;
/// Steps whose `maddubs` sums are added in i16. See [`super::ternary`]: each is at most 2 * 3 * 128 in magnitude.
const SPAN: usize = 32;
const _: () = assert!(SPAN * 2 * 3 * 128 <= i16::MAX as usize && PIECE.is_multiple_of(SPAN));
/// Tokens that share an unpacked piece; what they need of their activations stays in L2.
const TOKENS: usize = 128;

/// Four columns of eight rows: codes 0, 1, 2.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
struct Codes([u8; LANES * STEP]);

/// `[columns / 4][GROUPS]`.
type Piece = [[Codes; GROUPS]];

/// See [`super::Matmul`]; more than a few tokens.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn matmul<L: Layout>(w: &Matrix<'_>, x: &Activations, rows: Range<usize>, y: &mut OutView<'_>) {
    let mut piece = [[Codes([0; LANES * STEP]); GROUPS]; PIECE];
    let mut sums = [[0; ROWS]; TOKENS];
    let steps = w.cols / STEP;
    for first in (0..x.n_tokens()).step_by(TOKENS) {
        let tokens = first..x.n_tokens().min(first + TOKENS);
        for row in rows.clone().step_by(ROWS) {
            let rows = row..rows.end.min(row + ROWS);
            let Some(scales) = scales_up_to::<L, ROWS>(w, rows.clone()) else {
                mixed::<L>(w, x, tokens.clone(), rows, y);
                continue;
            };
            let sums = &mut sums[..tokens.len()];
            sums.fill([0; ROWS]);
            for from in (0..steps).step_by(PIECE) {
                let piece = &mut piece[..PIECE.min(steps - from)];
                unpack::<L>(w, &rows, from / STEPS, piece);
                product(piece, x, (tokens.start, from * STEP), sums);
            }
            for (t, sums) in tokens.clone().zip(sums) {
                finish(sums, &x.i8(t), &scales, y.row(t, rows.clone()));
            }
        }
    }
}

/// Writes the codes of `rows` from step `first` of [`LEN`] weights on, as many as the piece has room for. Lanes of rows that are not there
/// repeat the last one; nobody looks at them.
#[target_feature(enable = "avx2,fma,f16c")]
fn unpack<L: Layout>(w: &Matrix<'_>, rows: &Range<usize>, first: usize, piece: &mut Piece) {
    let whole = w.cols / LEN;
    for (b, out) in piece.chunks_mut(STEPS).enumerate().map(|(i, out)| (first + i, out)) {
        for g in 0..GROUPS {
            let mut codes = [[_mm256_setzero_si256(); LANES]; 4];
            for r in 0..LANES {
                let row = w.row((rows.start + g * LANES + r).min(rows.end - 1));
                // SAFETY: the row has `whole` steps, 64 bytes hold its head and another one; this function has the features.
                let of_row = unsafe {
                    if b < whole { L::codes(row.as_ptr(), b) } else { L::codes(tail::<L>(row, whole).as_ptr(), 0) }
                };
                for j in 0..4 {
                    codes[j][r] = of_row[j];
                }
            }
            for j in 0..4 {
                for (d, columns) in transposed(codes[j]).into_iter().enumerate() {
                    let Some(out) = out.get_mut(L::place(j, d)) else { continue };
                    // SAFETY: the array has the 32 bytes, and is aligned to them.
                    unsafe { _mm256_store_si256(out[g].0.as_mut_ptr().cast(), columns) }
                }
            }
        }
    }
}

/// Eight rows of eight dwords, transposed.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn transposed(r: [__m256i; 8]) -> [__m256i; 8] {
    let mut pairs = [_mm256_setzero_si256(); 8];
    for i in 0..4 {
        pairs[2 * i] = _mm256_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        pairs[2 * i + 1] = _mm256_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    // Columns 0 to 3 (and 4 to 7 in the high halves) of four rows each.
    let mut fours = [[_mm256_setzero_si256(); 2]; 4];
    for half in 0..2 {
        let [a, b, c, d] = [pairs[4 * half], pairs[4 * half + 1], pairs[4 * half + 2], pairs[4 * half + 3]];
        fours[0][half] = _mm256_unpacklo_epi64(a, c);
        fours[1][half] = _mm256_unpackhi_epi64(a, c);
        fours[2][half] = _mm256_unpacklo_epi64(b, d);
        fours[3][half] = _mm256_unpackhi_epi64(b, d);
    }
    let mut out = [_mm256_setzero_si256(); 8];
    for i in 0..4 {
        out[i] = _mm256_permute2x128_si256::<0x20>(fours[i][0], fours[i][1]);
        out[4 + i] = _mm256_permute2x128_si256::<0x31>(fours[i][0], fours[i][1]);
    }
    out
}

/// Adds a piece that begins at column `from` times the tokens from `token` on, as many as there are sums.
#[target_feature(enable = "avx2,fma,f16c")]
fn product(piece: &Piece, x: &Activations, (token, from): (usize, usize), sums: &mut [[i32; ROWS]]) {
    let mut t = 0;
    while t + 6 <= sums.len() {
        tile::<6>(piece, x, (token + t, from), &mut sums[t..]);
        t += 6;
    }
    while t + 2 <= sums.len() {
        tile::<2>(piece, x, (token + t, from), &mut sums[t..]);
        t += 2;
    }
    if t < sums.len() {
        tile::<1>(piece, x, (token + t, from), &mut sums[t..]);
    }
}

/// [`product`] of `T` tokens.
#[target_feature(enable = "avx2,fma,f16c")]
fn tile<const T: usize>(piece: &Piece, x: &Activations, (token, from): (usize, usize), sums: &mut [[i32; ROWS]]) {
    let mut q_at = [std::ptr::null::<i8>(); T];
    for t in 0..T {
        q_at[t] = x.i8(token + t).q[from..from + piece.len() * STEP].as_ptr();
    }
    for (span, codes) in piece.chunks(SPAN).enumerate() {
        let mut acc = [[_mm256_setzero_si256(); GROUPS]; T];
        for (s, codes) in codes.iter().enumerate() {
            let mut w = [_mm256_setzero_si256(); GROUPS];
            for g in 0..GROUPS {
                // SAFETY: the array has the 32 bytes, and is aligned to them.
                w[g] = unsafe { _mm256_load_si256(codes[g].0.as_ptr().cast()) };
            }
            for t in 0..T {
                // SAFETY: each token has four activations for each step of the piece.
                let four = unsafe { q_at[t].add(STEP * (span * SPAN + s)).cast::<i32>().read_unaligned() };
                let q = _mm256_set1_epi32(four);
                for g in 0..GROUPS {
                    acc[t][g] = _mm256_add_epi16(acc[t][g], _mm256_maddubs_epi16(w[g], q));
                }
            }
        }
        for t in 0..T {
            for (acc, sums) in acc[t].into_iter().zip(sums[t].as_chunks_mut::<LANES>().0) {
                // SAFETY: the array has the register's bytes.
                unsafe {
                    let at = sums.as_mut_ptr().cast::<__m256i>();
                    _mm256_storeu_si256(at, widen(acc, _mm256_loadu_si256(at)));
                }
            }
        }
    }
}

/// As [`crate::cpu::ternary::finish`], up to sixteen rows.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn finish(sums: &[i32; ROWS], x: &I8Token<'_>, scales: &[f32; ROWS], out: &mut [f32]) {
    let (isum, scale) = (_mm256_set1_epi32(x.isum), _mm256_set1_ps(x.scale));
    let groups = sums.as_chunks::<LANES>().0.iter().zip(scales.as_chunks::<LANES>().0);
    for ((sums, scales), out) in groups.zip(out.chunks_mut(LANES)) {
        let mut values = [0.0f32; LANES];
        // SAFETY: the arrays have the register's bytes.
        unsafe {
            let sums = _mm256_sub_epi32(_mm256_loadu_si256(sums.as_ptr().cast()), isum);
            let quotient = _mm256_div_ps(_mm256_cvtepi32_ps(sums), scale);
            _mm256_storeu_ps(values.as_mut_ptr(), _mm256_mul_ps(quotient, _mm256_loadu_ps(scales.as_ptr())));
        }
        out.copy_from_slice(&values[..out.len()]);
    }
}
