//! Ternary formats: codes 0, 1, 2 times int8 activations, exact in i32. `layouts` gets the codes.
//!
//! Codes are at most 3 (and 3 is refused at load), so two products are at most 768 in magnitude, which is what
//! [`Dots`] asks for. The offset of the codes, `w = code - 1`, is taken off once per row:
//! `sum(w q) = sum(code q) - sum(q)`.
//!
//! One token: four rows at a time straight from the packed bytes, which share the loaded activations. More: four rows are
//! unpacked piece by piece into bytes in L1 and multiplied with four tokens at a time, sixteen accumulators.
//!
//! All that is for rows with one scale. A TQ row whose blocks have several is summed block by block, see [`mixed`].

use std::arch::aarch64::*;
use std::ops::Range;

use super::dots::Dots;
use super::lanes::{load_i8, store_i8};
use super::layouts::{Layout, REGISTERS};
use crate::cpu::ternary::{LEN, finish, scales, tail};
use crate::quant::decode::Runs;
use crate::{Activations, Matrix, OutView};

/// See [`super::Matmul`].
#[target_feature(enable = "neon")]
pub(super) fn matmul<L: Layout, D: Dots>(
    dots: D,
    w: &Matrix<'_>,
    x: &Activations,
    rows: Range<usize>,
    y: &mut OutView<'_>,
) {
    for first in (0..x.n_tokens()).step_by(TOKENS) {
        let tokens = first..x.n_tokens().min(first + TOKENS);
        let mut row = rows.start;
        while row + 4 <= rows.end {
            some::<L, D, 4>(dots, w, x, tokens.clone(), row, y);
            row += 4;
        }
        for row in row..rows.end {
            some::<L, D, 1>(dots, w, x, tokens.clone(), row, y);
        }
    }
}

/// `R` rows from `row` on.
#[inline]
#[target_feature(enable = "neon")]
fn some<L: Layout, D: Dots, const R: usize>(
    dots: D,
    w: &Matrix<'_>,
    x: &Activations,
    tokens: Range<usize>,
    row: usize,
    y: &mut OutView<'_>,
) {
    match scales::<L, R>(w, row) {
        None => mixed::<L, D>(dots, w, x, tokens, row..row + R, y),
        Some(scales) if x.n_tokens() == 1 => direct::<L, D, R>(dots, w, x, row, &scales, y),
        Some(scales) => gemm::<L, D, R>(dots, w, x, tokens, row, &scales, y),
    }
}

/// `sum(code * q)` of step `b` of a row, added to the two accumulators in turn.
#[inline]
#[target_feature(enable = "neon")]
fn step<D: Dots>(
    dots: D,
    codes: [int8x16_t; REGISTERS],
    a: [int8x16_t; REGISTERS],
    mut acc: [int32x4_t; 2],
) -> [int32x4_t; 2] {
    for k in 0..REGISTERS {
        acc[k % 2] = dots.any(acc[k % 2], codes[k], a[k]);
    }
    acc
}

#[inline]
#[target_feature(enable = "neon")]
fn activations(q: &[i8; LEN]) -> [int8x16_t; REGISTERS] {
    let mut out = [vdupq_n_s8(0); REGISTERS];
    for (out, q) in out.iter_mut().zip(q.as_chunks::<16>().0) {
        *out = load_i8(q);
    }
    out
}

/// `sum(code * q)` of what a row has behind its last whole step. The activations are filled up with zeros, so what the codes
/// are there does not matter.
#[target_feature(enable = "neon")]
fn rest<L: Layout, D: Dots>(dots: D, row: &[u8], q: &[i8]) -> i32 {
    let whole = q.len() / LEN;
    let rest = &q[whole * LEN..];
    if rest.is_empty() {
        return 0;
    }
    let mut padded = [0; LEN];
    padded[..rest.len()].copy_from_slice(rest);
    // SAFETY: this function has the feature.
    let codes = unsafe { L::codes(&tail::<L>(row, whole), 0) };
    let [a, b] = step(dots, codes, activations(&padded), [vdupq_n_s32(0); 2]);
    vaddvq_s32(vaddq_s32(a, b))
}

/// Rows some of which have blocks of several scales: one block of 256 (two steps) after the other. Of formats with a scale for
/// each row, those of which some have none.
#[target_feature(enable = "neon")]
fn mixed<L: Layout, D: Dots>(
    dots: D,
    w: &Matrix<'_>,
    x: &Activations,
    tokens: Range<usize>,
    rows: Range<usize>,
    y: &mut OutView<'_>,
) {
    let one = vdupq_n_s8(1);
    for row in rows {
        if L::HEAD > 0 && L::scale(w, row).is_some() {
            some::<L, D, 1>(dots, w, x, tokens.clone(), row, y);
            continue;
        }
        for t in tokens.clone() {
            let token = x.i8(t);
            let mut runs = Runs::new(token.scale);
            for (block, q) in token.q.as_chunks::<{ 2 * LEN }>().0.iter().enumerate() {
                let mut acc = [vdupq_n_s32(0); 2];
                for (half, q) in q.as_chunks::<LEN>().0.iter().enumerate() {
                    // SAFETY: this function has the feature.
                    let mut weights = unsafe { L::codes(w.row(row), 2 * block + half) };
                    for weights in &mut weights {
                        *weights = vsubq_s8(*weights, one);
                    }
                    acc = step(dots, weights, activations(q), acc);
                }
                runs.add(L::scale_of_block(w, w.row(row), 2 * block), vaddvq_s32(vaddq_s32(acc[0], acc[1])));
            }
            y.set(t, row, runs.total());
        }
    }
}

/// `R` rows from `row` on, the only token, straight from the packed bytes.
#[target_feature(enable = "neon")]
fn direct<L: Layout, D: Dots, const R: usize>(
    dots: D,
    w: &Matrix<'_>,
    x: &Activations,
    row: usize,
    scales: &[f32; R],
    y: &mut OutView<'_>,
) {
    let x = x.i8(0);
    let mut rows = [w.row(row); R];
    for (r, bytes) in rows.iter_mut().enumerate() {
        *bytes = w.row(row + r);
    }
    let mut acc = [[vdupq_n_s32(0); 2]; R];
    for (b, q) in x.q.as_chunks().0.iter().enumerate() {
        let a = activations(q);
        for r in 0..R {
            // SAFETY: this function has the feature.
            let codes = unsafe { L::codes(rows[r], b) };
            acc[r] = step(dots, codes, a, acc[r]);
        }
    }
    for r in 0..R {
        let sum = vaddvq_s32(vaddq_s32(acc[r][0], acc[r][1]));
        let sum = sum.wrapping_add(rest::<L, D>(dots, rows[r], x.q));
        y.set(0, row + r, finish(sum, &x, scales[r]));
    }
}

/// Steps unpacked at a time (4,096 weights of four rows are 16 KiB), and tokens that share them.
const PIECE: usize = 32;
const TOKENS: usize = 64;

/// `R` rows from `row` on, up to [`TOKENS`] tokens.
#[target_feature(enable = "neon")]
fn gemm<L: Layout, D: Dots, const R: usize>(
    dots: D,
    w: &Matrix<'_>,
    x: &Activations,
    tokens: Range<usize>,
    row: usize,
    scales: &[f32; R],
    y: &mut OutView<'_>,
) {
    let steps = x.cols() / LEN;
    let mut sums = [[0i32; R]; TOKENS];
    let mut wide = [[[0i8; LEN]; PIECE]; R];
    for from in (0..steps).step_by(PIECE) {
        let piece = from..steps.min(from + PIECE);
        for r in 0..R {
            for (b, wide) in piece.clone().zip(&mut wide[r]) {
                // SAFETY: this function has the feature.
                let codes = unsafe { L::codes(w.row(row + r), b) };
                for (codes, out) in codes.into_iter().zip(wide.as_chunks_mut::<16>().0) {
                    store_i8(out, codes);
                }
            }
        }
        let q = |t: usize| &x.i8(t).q.as_chunks().0[piece.clone()];
        let mut t = tokens.clone();
        while t.len() >= 4 {
            let of = [q(t.start), q(t.start + 1), q(t.start + 2), q(t.start + 3)];
            tile(dots, &wide, of, &mut sums[t.start - tokens.start..]);
            t.start += 4;
        }
        for t in t {
            tile(dots, &wide, [q(t)], &mut sums[t - tokens.start..]);
        }
    }
    for (t, sums) in tokens.zip(sums) {
        let x = x.i8(t);
        for (r, sum) in sums.into_iter().enumerate() {
            let sum = sum.wrapping_add(rest::<L, D>(dots, w.row(row + r), x.q));
            y.set(t, row + r, finish(sum, &x, scales[r]));
        }
    }
}

/// Adds `sum(code * q)` of the unpacked steps of `R` rows and of `T` tokens, as many as `q` has.
#[inline]
#[target_feature(enable = "neon")]
fn tile<D: Dots, const R: usize, const T: usize>(
    dots: D,
    w: &[[[i8; LEN]; PIECE]; R],
    q: [&[[i8; LEN]]; T],
    out: &mut [[i32; R]],
) {
    let steps = q[0].len().min(PIECE);
    // Slices of one length: the loop below stays free of range checks.
    let q = q.map(|q| &q.as_flattened().as_chunks::<16>().0[..steps * REGISTERS]);
    let mut rows = [&[[0i8; 16]; 0][..]; R];
    for r in 0..R {
        rows[r] = &w[r].as_flattened().as_chunks::<16>().0[..steps * REGISTERS];
    }
    let mut acc = [[vdupq_n_s32(0); T]; R];
    for k in 0..steps * REGISTERS {
        let mut a = [vdupq_n_s8(0); T];
        for t in 0..T {
            a[t] = load_i8(&q[t][k]);
        }
        for r in 0..R {
            let codes = load_i8(&rows[r][k]);
            for t in 0..T {
                acc[r][t] = dots.any(acc[r][t], codes, a[t]);
            }
        }
    }
    for r in 0..R {
        for t in 0..T {
            out[t][r] = out[t][r].wrapping_add(vaddvq_s32(acc[r][t]));
        }
    }
}
