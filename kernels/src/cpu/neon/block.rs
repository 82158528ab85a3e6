//! Q8_0, Q4_0, Q4_1, Q4_K, Q6_K: blocks of 32 weights with a scale times int8 blocks with a scale.
//!
//! Lane `i` of a register of sums has four products, as the contract groups them: two registers are the eight groups of a
//! block, and go to the lanes of even or of odd blocks by one FMA each. One row at a time; four tokens share its unpacked
//! blocks.

use std::arch::aarch64::*;
use std::ops::Range;

use super::dots::Dots;
use super::lanes::{load_i8, tree8, widen_one};
use super::unpack::Blocks;
use crate::activations::Q8_BLOCK;
use crate::quant::{Block, Shape};
use crate::{Activations, Matrix, OutView, Q8Token};

/// Tokens that a row meets while it is in L1; so many stay in L2 for the next row.
const TOKENS: usize = 64;

/// See [`super::Matmul`].
#[target_feature(enable = "neon")]
pub(super) fn matmul<B: Blocks, D: Dots>(
    dots: D,
    w: &Matrix<'_>,
    x: &Activations,
    rows: Range<usize>,
    y: &mut OutView<'_>,
) {
    for first in (0..x.n_tokens()).step_by(TOKENS) {
        for row in rows.clone() {
            let mut t = first..x.n_tokens().min(first + TOKENS);
            while t.len() >= 4 {
                some::<B, D, 4>(dots, w, x, t.start, row, y);
                t.start += 4;
            }
            for t in t {
                some::<B, D, 1>(dots, w, x, t, row, y);
            }
        }
    }
}

/// The dots of a row with `T` tokens from `token` on.
#[inline]
#[target_feature(enable = "neon")]
fn some<B: Blocks, D: Dots, const T: usize>(
    dots: D,
    w: &Matrix<'_>,
    x: &Activations,
    token: usize,
    row: usize,
    y: &mut OutView<'_>,
) {
    let (bytes, blocks) = (w.row(row), w.cols / Q8_BLOCK);
    let mut x_t = [x.q8(token); T];
    for (t, x_t) in x_t.iter_mut().enumerate() {
        *x_t = x.q8(token + t);
    }
    // Slices of `blocks` entries each: the loop below stays free of range checks.
    let q = x_t.map(|x| &x.q.as_chunks::<Q8_BLOCK>().0[..blocks]);
    let (d, bsum) = (x_t.map(|x| &x.d[..blocks]), x_t.map(|x| &x.bsum[..blocks]));
    let mut acc = [[[vdupq_n_f32(0.0); 2]; T]; 2];
    let mut minimum = [0.0f32; T];
    for b in 0..blocks {
        // SAFETY: this function has the feature.
        let weights = unsafe { B::weights(bytes, b) };
        let factors = B::factors(bytes, b);
        let (scale, factor) = B::scale(bytes, b);
        let scale = widen_one(scale) * factor;
        for t in 0..T {
            let a = q[t][b].as_chunks::<16>().0;
            let scale = vdupq_n_f32(scale * d[t][b]);
            for h in 0..2 {
                let mut groups = dots.fours(vdupq_n_s32(0), weights[h], load_i8(&a[h]));
                if let Some(factors) = factors {
                    groups = vmulq_n_s32(groups, factors[h]);
                }
                acc[0][t][h] = vfmaq_f32(acc[0][t][h], scale, vcvtq_f32_s32(groups));
            }
        }
        if B::MINIMUM {
            let (m, factor) = B::minimum(bytes, b);
            let m = widen_one(m) * factor;
            for t in 0..T {
                minimum[t] = m.mul_add(bsum[t][b], minimum[t]);
            }
        }
        // Even and odd blocks take turns; addition of the two at the end commutes.
        acc.swap(0, 1);
    }
    for t in 0..T {
        let mut value = tree8([vaddq_f32(acc[0][t][0], acc[1][t][0]), vaddq_f32(acc[0][t][1], acc[1][t][1])]);
        if B::MINIMUM {
            value += minimum[t];
        }
        y.set(token + t, row, value);
    }
}

/// See [`super::Matmul`]; weights of any format of blocks, decoded row by row.
#[target_feature(enable = "neon")]
pub(super) fn decoded<D: Dots>(dots: D, w: &Matrix<'_>, x: &Activations, rows: Range<usize>, y: &mut OutView<'_>) {
    let decoder = w.format.decoder().expect("a format of blocks: `check_matmul` has asked");
    let mut blocks = vec![Block::ZERO; w.cols / Q8_BLOCK];
    for first in (0..x.n_tokens()).step_by(TOKENS) {
        for row in rows.clone() {
            decoder.blocks(w, row, 0, &mut blocks);
            for t in first..x.n_tokens().min(first + TOKENS) {
                y.set(t, row, dot(dots, decoder.shape, &blocks, &x.q8(t)));
            }
        }
    }
}

/// The dot of a decoded row with one token.
#[inline]
#[target_feature(enable = "neon")]
fn dot<D: Dots>(dots: D, shape: Shape, row: &[Block], x: &Q8Token<'_>) -> f32 {
    let mut acc = [[vdupq_n_f32(0.0); 2]; 2];
    let mut minimum = 0.0f32;
    for (b, (block, a)) in row.iter().zip(x.q.as_chunks::<Q8_BLOCK>().0).enumerate() {
        let (q, a) = (block.q.as_chunks::<16>().0, a.as_chunks::<16>().0);
        for h in 0..2 {
            let a = load_i8(&a[h]);
            let groups = vmulq_n_s32(dots.fours(vdupq_n_s32(0), load_i8(&q[h]), a), block.factors[h].into());
            let step = vdupq_n_f32(block.scale * x.d[b]);
            acc[0][h] = vfmaq_f32(acc[0][h], step, vcvtq_f32_s32(groups));
            if shape == Shape::HalfMinima {
                let sums = vmulq_n_s32(dots.fours(vdupq_n_s32(0), vdupq_n_s8(1), a), block.minima[h].into());
                let step = vdupq_n_f32(block.minimum * x.d[b]);
                acc[0][h] = vfmaq_f32(acc[0][h], step, vcvtq_f32_s32(sums));
            }
        }
        minimum = block.minimum.mul_add(x.bsum[b], minimum);
        acc.swap(0, 1);
    }
    let value = tree8([vaddq_f32(acc[0][0], acc[1][0]), vaddq_f32(acc[0][1], acc[1][1])]);
    if shape == Shape::Minimum { value + minimum } else { value }
}
