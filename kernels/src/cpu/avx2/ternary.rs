//! Ternary formats: codes 0, 1, 2 times int8 activations, exact in i32. `layouts` gets the codes.
//!
//! `maddubs` multiplies unsigned codes with signed activations and adds neighbours into i16. It is exact, and its sums can
//! be added in i16 for a while before they are widened: one is at most 2 * (3 * 128) = 768 in magnitude even for the
//! invalid code 3 (512 for valid ones), and [`SPAN`] = 8 blocks add 8 * 4 = 32 of them: 32 * 768 = 24,576 < 32,767. So
//! no i16 wraps on any input. (bitnet.cpp adds up to 128 and does.) The offset of the codes, `w = code - 1`, is
//! taken off once per row: `sum(w q) = sum(code q) - sum(q)`.
//!
//! A few tokens: some rows at a time straight from the packed bytes. Many tokens: [`gemm`].
//!
//! All that is for rows with one scale. A TQ row whose blocks have several is summed block by block, see [`mixed`].

use std::arch::x86_64::*;
use std::ops::Range;

use super::gemm;
use super::lanes::sum_i32;
use super::layouts::Layout;
use crate::cpu::ahead::Ahead;
use crate::cpu::ternary::{LEN, finish, scales, tail};
use crate::quant::decode::Runs;
use crate::{Activations, Matrix, OutView};

/// Steps whose `maddubs` sums are added in i16.
const SPAN: usize = 8;
const _: () = assert!(SPAN * (LEN / 32) * 2 * 3 * 128 <= i16::MAX as usize);

/// Adds i16 pairs to i32.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn widen(sums: __m256i, total: __m256i) -> __m256i {
    _mm256_add_epi32(total, _mm256_madd_epi16(sums, _mm256_set1_epi16(1)))
}

/// See [`super::Matmul`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn matmul<L: Layout>(w: &Matrix<'_>, x: &Activations, rows: Range<usize>, y: &mut OutView<'_>) {
    if x.n_tokens() <= DIRECT {
        let mut row = rows.start;
        while row + 4 <= rows.end && x.n_tokens() == 1 {
            match scales::<L, 4>(w, row) {
                Some(scales) => direct::<L, 4, 1>(w, x, 0, row, &scales, y),
                None => mixed::<L>(w, x, 0..1, row..row + 4, y),
            }
            row += 4;
        }
        while row + 2 <= rows.end {
            tokens_of::<L, 2>(w, x, row, y);
            row += 2;
        }
        for row in row..rows.end {
            tokens_of::<L, 1>(w, x, row, y);
        }
        return;
    }
    gemm::matmul::<L>(w, x, rows, y);
}

/// `sum(code * q)` of what a row has behind its last whole step, in eight lanes. The activations are filled up with zeros,
/// so what the codes are there does not matter.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn rest<L: Layout>(w: &Matrix<'_>, row: usize, q: &[i8]) -> __m256i {
    let whole = q.len() / LEN;
    let rest = &q[whole * LEN..];
    let mut padded = [0; LEN];
    padded[..rest.len()].copy_from_slice(rest);
    let mut sums = _mm256_setzero_si256();
    let tail = tail::<L>(w.row(row), whole);
    // SAFETY: 64 bytes hold the head of a row and a step, zeros in place of what is not there; this function has the features.
    let codes = unsafe { L::codes(tail.as_ptr(), 0) };
    for (j, codes) in codes.into_iter().enumerate() {
        // SAFETY: this function has the features.
        let a = unsafe { L::activations(&padded, j) };
        sums = _mm256_add_epi16(sums, _mm256_maddubs_epi16(codes, a));
    }
    widen(sums, _mm256_setzero_si256())
}

/// Rows some of which have blocks of several scales: one block of 256 (two steps) after the other. Of formats with a scale for
/// each row, those of which some have none.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn mixed<L: Layout>(
    w: &Matrix<'_>,
    x: &Activations,
    tokens: Range<usize>,
    rows: Range<usize>,
    y: &mut OutView<'_>,
) {
    let ones = _mm256_set1_epi8(1);
    for row in rows {
        if L::HEAD > 0
            && let Some(scale) = L::scale(w, row)
        {
            tokens.clone().for_each(|t| direct::<L, 1, 1>(w, x, t, row, &[scale], y));
            continue;
        }
        let bytes = w.row(row);
        for t in tokens.clone() {
            let token = x.i8(t);
            let mut runs = Runs::new(token.scale);
            for (block, q) in token.q.as_chunks::<{ 2 * LEN }>().0.iter().enumerate() {
                let mut total = _mm256_setzero_si256();
                for (half, q) in q.as_chunks::<LEN>().0.iter().enumerate() {
                    // SAFETY: the row has two steps for each 256 activations; this function has the features.
                    let codes = unsafe { L::codes(bytes.as_ptr(), 2 * block + half) };
                    for (j, codes) in codes.into_iter().enumerate() {
                        // SAFETY: this function has the features.
                        let a = unsafe { L::activations(q, j) };
                        // code * q - q, each at most 2 * 3 * 128 in magnitude: no i16 wraps.
                        let sums = _mm256_sub_epi16(_mm256_maddubs_epi16(codes, a), _mm256_maddubs_epi16(ones, a));
                        total = widen(sums, total);
                    }
                }
                runs.add(L::scale_of_block(w, bytes, 2 * block), sum_i32(total));
            }
            y.set(t, row, runs.total());
        }
    }
}

/// Up to so many tokens, rows are multiplied straight from the packed bytes.
const DIRECT: usize = 12;

/// `R` rows from `row` on, all tokens.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn tokens_of<L: Layout, const R: usize>(w: &Matrix<'_>, x: &Activations, row: usize, y: &mut OutView<'_>) {
    let Some(scales) = scales::<L, R>(w, row) else {
        return mixed::<L>(w, x, 0..x.n_tokens(), row..row + R, y);
    };
    let mut t = 0;
    // Four leave no registers for the codes of two rows: that pays only where it is the codes that cost.
    while L::DEAR && t + 4 <= x.n_tokens() {
        direct::<L, R, 4>(w, x, t, row, &scales, y);
        t += 4;
    }
    while t + 2 <= x.n_tokens() {
        direct::<L, R, 2>(w, x, t, row, &scales, y);
        t += 2;
    }
    if t < x.n_tokens() {
        direct::<L, R, 1>(w, x, t, row, &scales, y);
    }
}

/// `R` rows from `row` on, `T` tokens from `token` on, straight from the packed bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn direct<L: Layout, const R: usize, const T: usize>(
    w: &Matrix<'_>,
    x: &Activations,
    token: usize,
    row: usize,
    scales: &[f32; R],
    y: &mut OutView<'_>,
) {
    let blocks = w.cols / LEN;
    let mut rows = [w.row(row); R];
    for (r, bytes) in rows.iter_mut().enumerate() {
        *bytes = w.row(row + r);
    }
    let (mut ahead, step) = (Ahead::of(rows[0], R), (R * rows[0].len()).div_ceil(blocks.max(1)));
    // Pointers to `blocks` blocks each: the loops below stay free of range checks.
    let mut q = [std::ptr::null::<[i8; LEN]>(); T];
    for t in 0..T {
        q[t] = x.i8(token + t).q.as_chunks().0[..blocks].as_ptr();
    }
    let mut total = [[_mm256_setzero_si256(); T]; R];
    let mut from = 0;
    while from < blocks {
        let to = blocks.min(from + SPAN);
        let mut sums = [[_mm256_setzero_si256(); T]; R];
        for b in from..to {
            ahead.reach(step * (b + 1));
            for r in 0..R {
                // SAFETY: b < blocks, and this function has the features.
                let c = unsafe { L::codes(rows[r].as_ptr(), b) };
                for t in 0..T {
                    let mut products = [_mm256_setzero_si256(); 4];
                    for j in 0..4 {
                        // SAFETY: b < blocks, and this function has the features.
                        let a = unsafe { L::activations(&*q[t].add(b), j) };
                        products[j] = _mm256_maddubs_epi16(c[j], a);
                    }
                    let high = _mm256_add_epi16(products[0], products[1]);
                    let low = _mm256_add_epi16(products[2], products[3]);
                    sums[r][t] = _mm256_add_epi16(sums[r][t], _mm256_add_epi16(high, low));
                }
            }
        }
        for r in 0..R {
            for t in 0..T {
                total[r][t] = widen(sums[r][t], total[r][t]);
            }
        }
        from = to;
    }
    for t in 0..T {
        let x = x.i8(token + t);
        for r in 0..R {
            if !w.cols.is_multiple_of(LEN) {
                total[r][t] = _mm256_add_epi32(total[r][t], rest::<L>(w, row + r, x.q));
            }
            y.set(token + t, row + r, finish(sum_i32(total[r][t]), &x, scales[r]));
        }
    }
}
