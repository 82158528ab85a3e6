//! Q8_0, Q4_0, Q4_1, Q4_K, Q6_K: blocks of 32 weights with a scale times int8 blocks with a scale.
//!
//! Eight i32 lanes of a register are the eight groups of four products of a block, which is why the contract groups by
//! four: `maddubs` adds neighbours in i16, `madd` adds those in i32, and the register goes to the lanes of even or of odd
//! blocks by one FMA. `maddubs` never saturates here, see `unpack`.
//!
//! A few tokens: up to four rows at a time from the stored bytes. More tokens: the blocks of two rows are unpacked once into a
//! buffer in L1; a tile of two rows and four tokens then sweeps the even blocks and after them the odd ones (the lanes of
//! the two do not meet before the tree), which keeps its eight accumulators in registers.

use std::arch::x86_64::*;
use std::ops::Range;

use super::lanes::{load, load_i8, tree8};
use super::unpack::{Blocks, Shaped, Unpacked};
use crate::activations::Q8_BLOCK;
use crate::cpu::ahead::Ahead;
use crate::cpu::blocks::SUPER;
use crate::quant::Block;
use crate::{Activations, Matrix, OutView, Q8Token};

/// See [`super::Matmul`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn matmul<B: Blocks>(w: &Matrix<'_>, x: &Activations, rows: Range<usize>, y: &mut OutView<'_>) {
    if x.n_tokens() <= DIRECT {
        let mut t = 0..x.n_tokens();
        while !t.is_empty() {
            let rows = rows.clone();
            match t.len() {
                1 => direct::<B, 4, 1>(w, x, t.start, rows, y),
                2 => direct::<B, 2, 2>(w, x, t.start, rows, y),
                3 => direct::<B, 1, 3>(w, x, t.start, rows, y),
                _ => direct::<B, 1, 4>(w, x, t.start, rows, y),
            }
            t.start += t.len().min(4);
        }
        return;
    }
    // SAFETY: this function has the features; there is a first block, since a matrix is never empty.
    let first = unsafe { B::weights(w.row(0), 0) };
    let unpacked = UnpackedRow { weights: [first; PIECE], scales: [0.0; PIECE], minima: [0.0; PIECE] };
    let mut wide = [unpacked; 2];
    for first in (0..x.n_tokens()).step_by(TOKENS) {
        let tokens = first..x.n_tokens().min(first + TOKENS);
        let mut row = rows.start;
        while row + 2 <= rows.end {
            gemm::<B, 2, TOKENS>(w, x, tokens.clone(), row, (&mut wide, stored::<B>), y);
            row += 2;
        }
        for row in row..rows.end {
            let [wide, _] = &mut wide;
            gemm::<B, 1, TOKENS>(w, x, tokens.clone(), row, (std::array::from_mut(wide), stored::<B>), y);
        }
    }
}

/// See [`super::Matmul`]; weights of any format of blocks of one shape, decoded.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn decoded<S: Shaped>(w: &Matrix<'_>, x: &Activations, rows: Range<usize>, y: &mut OutView<'_>) {
    // SAFETY: this function has the features.
    let first = unsafe { S::load(&Block::ZERO) };
    let mut wide = [UnpackedRow { weights: [first; PIECE], scales: [0.0; PIECE], minima: [0.0; PIECE] }; 2];
    for first in (0..x.n_tokens()).step_by(TOKENS) {
        let tokens = first..x.n_tokens().min(first + TOKENS);
        for row in rows.clone().step_by(2) {
            let [one, _] = &mut wide;
            match (row + 1 < rows.end, tokens.len()) {
                (true, 1) => gemm::<S, 2, 1>(w, x, tokens.clone(), row, (&mut wide, shaped::<S>), y),
                (true, _) => gemm::<S, 2, TOKENS>(w, x, tokens.clone(), row, (&mut wide, shaped::<S>), y),
                (false, _) => {
                    gemm::<S, 1, TOKENS>(w, x, tokens.clone(), row, (std::array::from_mut(one), shaped::<S>), y);
                }
            }
        }
    }
}

/// How some blocks of a row, from number `from` on, become unpacked ones.
type Unpack<W> = unsafe fn(&Matrix<'_>, usize, Range<usize>, &mut UnpackedRow<W>);

/// From the stored bytes.
#[target_feature(enable = "avx2,fma,f16c")]
fn stored<B: Blocks>(w: &Matrix<'_>, row: usize, blocks: Range<usize>, out: &mut UnpackedRow<B::W>) {
    let row = w.row(row);
    for (i, b) in blocks.enumerate() {
        // SAFETY: this function has the features.
        unsafe {
            out.weights[i] = B::weights(row, b);
            out.scales[i] = B::step(row, b);
            if <B as Unpacked>::MINIMUM {
                out.minima[i] = B::offset(row, b);
            }
        }
    }
}

/// By the format's decoder.
#[target_feature(enable = "avx2,fma,f16c")]
fn shaped<S: Shaped>(w: &Matrix<'_>, row: usize, blocks: Range<usize>, out: &mut UnpackedRow<S::W>) {
    let mut decoded = [Block::ZERO; PIECE];
    let decoded = &mut decoded[..blocks.len()];
    let decoder = w.format.decoder().expect("a format of blocks: who chose this kernel has asked");
    // SAFETY: this function has the features.
    unsafe { decoder.blocks_avx2(w, row, blocks.start, decoded) }
    for (i, block) in decoded.iter().enumerate() {
        // SAFETY: this function has the features.
        out.weights[i] = unsafe { S::load(block) };
        (out.scales[i], out.minima[i]) = (block.scale, block.minimum);
    }
}

/// Up to so many tokens, rows are multiplied straight from the stored bytes.
const DIRECT: usize = 12;

/// `T` tokens from `token` on, `R` rows at a time.
#[target_feature(enable = "avx2,fma,f16c")]
fn direct<B: Blocks, const R: usize, const T: usize>(
    w: &Matrix<'_>,
    x: &Activations,
    token: usize,
    rows: Range<usize>,
    y: &mut OutView<'_>,
) {
    let mut x_t = [x.q8(token); T];
    for (t, x_t) in x_t.iter_mut().enumerate() {
        *x_t = x.q8(token + t);
    }
    let mut row = rows.start;
    while row + R <= rows.end {
        dots::<B, R, T>(w, &x_t, token, row, y);
        row += R;
    }
    for row in row..rows.end {
        dots::<B, 1, T>(w, &x_t, token, row, y);
    }
}

/// The dots of `R` rows with `T` tokens, from the stored bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dots<B: Blocks, const R: usize, const T: usize>(
    w: &Matrix<'_>,
    x: &[Q8Token<'_>; T],
    token: usize,
    row: usize,
    y: &mut OutView<'_>,
) {
    let mut rows = [w.row(row); R];
    for (r, bytes) in rows.iter_mut().enumerate() {
        *bytes = w.row(row + r);
    }
    let blocks = w.cols / Q8_BLOCK;
    // Pointers to `blocks` entries each: the loop below stays free of range checks.
    let mut q = [std::ptr::null::<[i8; Q8_BLOCK]>(); T];
    let (mut d, mut bsum) = ([std::ptr::null::<f32>(); T], [std::ptr::null::<f32>(); T]);
    for t in 0..T {
        q[t] = x[t].q.as_chunks().0[..blocks].as_ptr();
        (d[t], bsum[t]) = (x[t].d[..blocks].as_ptr(), x[t].bsum[..blocks].as_ptr());
    }
    let (mut ahead, step) = (Ahead::of(rows[0], R), (R * rows[0].len()).div_ceil(blocks));
    let mut acc = [[[_mm256_setzero_ps(); T]; R]; 2];
    let mut minimum = [[0.0f32; T]; R];
    for b in 0..blocks {
        ahead.reach((b + 1) * step);
        for r in 0..R {
            // SAFETY: this function has the features.
            let weights = unsafe { B::weights(rows[r], b) };
            // SAFETY: this function has the features.
            let scale = unsafe { B::step(rows[r], b) };
            for t in 0..T {
                // SAFETY: this function has the features; b < blocks.
                let (groups, d) = unsafe { (B::groups(weights, load_i8(&*q[t].add(b))), *d[t].add(b)) };
                let scale = _mm256_set1_ps(scale * d);
                acc[0][r][t] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(groups), acc[0][r][t]);
            }
            if <B as Unpacked>::MINIMUM {
                // SAFETY: this function has the features.
                let m = unsafe { B::offset(rows[r], b) };
                for t in 0..T {
                    // SAFETY: b < blocks.
                    minimum[r][t] = m.mul_add(unsafe { *bsum[t].add(b) }, minimum[r][t]);
                }
            }
        }
        // Even and odd blocks take turns; addition of the two at the end commutes.
        acc.swap(0, 1);
    }
    for r in 0..R {
        for t in 0..T {
            let mut value = tree8(_mm256_add_ps(acc[0][r][t], acc[1][r][t]));
            if <B as Unpacked>::MINIMUM {
                value += minimum[r][t];
            }
            y.set(token + t, row + r, value);
        }
    }
}

/// Blocks unpacked at a time, and tokens that share them.
const PIECE: usize = 64;
const TOKENS: usize = 64;
const _: () = assert!(PIECE.is_multiple_of(2) && PIECE.is_multiple_of(SUPER));

/// Some blocks of a row, unpacked.
#[derive(Clone, Copy)]
struct UnpackedRow<W> {
    weights: [W; PIECE],
    scales: [f32; PIECE],
    minima: [f32; PIECE],
}

/// Lanes and the sum of minima of one output.
#[derive(Clone, Copy)]
struct Sums {
    lanes: [__m256; 2],
    minimum: f32,
}

/// `R` rows from `row` on, up to `N` tokens.
#[target_feature(enable = "avx2,fma,f16c")]
fn gemm<B: Unpacked, const R: usize, const N: usize>(
    w: &Matrix<'_>,
    x: &Activations,
    tokens: Range<usize>,
    row: usize,
    (wide, unpack): (&mut [UnpackedRow<B::W>; R], Unpack<B::W>),
    y: &mut OutView<'_>,
) {
    let blocks = x.cols() / Q8_BLOCK;
    let zero = Sums { lanes: [_mm256_setzero_ps(); 2], minimum: 0.0 };
    let mut sums = [[zero; R]; N];
    for from in (0..blocks).step_by(PIECE) {
        let n = (blocks - from).min(PIECE);
        for r in 0..R {
            // SAFETY: this function has the features.
            unsafe { unpack(w, row + r, from..from + n, &mut wide[r]) }
        }
        let mut t = tokens.clone();
        while t.len() >= 4 {
            let x = [x.q8(t.start), x.q8(t.start + 1), x.q8(t.start + 2), x.q8(t.start + 3)];
            tile::<B, R, 4>(wide, n, x, from, &mut sums[t.start - tokens.start..]);
            t.start += 4;
        }
        for t in t {
            tile::<B, R, 1>(wide, n, [x.q8(t)], from, &mut sums[t - tokens.start..]);
        }
    }
    for (t, sums) in tokens.zip(sums) {
        for (r, sums) in sums.into_iter().enumerate() {
            let mut value = tree8(_mm256_add_ps(sums.lanes[0], sums.lanes[1]));
            if B::MINIMUM {
                value += sums.minimum;
            }
            y.set(t, row + r, value);
        }
    }
}

/// Adds `n` unpacked blocks of `R` rows, times `T` tokens, to their sums. `from` is the first block's number, even.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn tile<B: Unpacked, const R: usize, const T: usize>(
    w: &[UnpackedRow<B::W>; R],
    n: usize,
    x: [Q8Token<'_>; T],
    from: usize,
    sums: &mut [[Sums; R]],
) {
    let sums = &mut sums[..T];
    // Pointers to `n` entries each: the loops below stay free of range checks.
    assert!(n <= PIECE);
    let mut q = [std::ptr::null::<[i8; Q8_BLOCK]>(); T];
    let (mut d, mut bsum) = ([&x[0].d[..0]; T], [std::ptr::null::<f32>(); T]);
    for t in 0..T {
        q[t] = x[t].q.as_chunks().0[from..from + n].as_ptr();
        d[t] = &x[t].d[from..from + n];
        bsum[t] = x[t].bsum[from..from + n].as_ptr();
    }
    // d_w * d_a for every block, eight at a time.
    let mut scales = [[[0.0f32; PIECE]; T]; R];
    for r in 0..R {
        for t in 0..T {
            let (eights, rest) = d[t].as_chunks::<8>();
            for (i, d) in eights.iter().enumerate() {
                let product = _mm256_mul_ps(load(&w[r].scales.as_chunks::<8>().0[i]), load(d));
                super::lanes::store(&mut scales[r][t].as_chunks_mut::<8>().0[i], product);
            }
            for (i, d) in rest.iter().enumerate() {
                let b = eights.len() * 8 + i;
                scales[r][t][b] = w[r].scales[b] * d;
            }
        }
    }
    for parity in 0..2 {
        let mut acc = [[_mm256_setzero_ps(); T]; R];
        for r in 0..R {
            for t in 0..T {
                acc[r][t] = sums[t][r].lanes[parity];
            }
        }
        let mut b = parity;
        while b < n {
            for t in 0..T {
                // SAFETY: b < n.
                let a = load_i8(unsafe { &*q[t].add(b) });
                for r in 0..R {
                    // SAFETY: this function has the features.
                    let groups = unsafe { B::groups(w[r].weights[b], a) };
                    let scale = _mm256_set1_ps(scales[r][t][b]);
                    acc[r][t] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(groups), acc[r][t]);
                    if B::HALF_MINIMA {
                        // SAFETY: this function has the features; b < n.
                        let (groups, d) = unsafe { (B::minima(w[r].weights[b], a), *d[t].get_unchecked(b)) };
                        let step = _mm256_set1_ps(w[r].minima[b] * d);
                        acc[r][t] = _mm256_fmadd_ps(step, _mm256_cvtepi32_ps(groups), acc[r][t]);
                    }
                }
            }
            b += 2;
        }
        for r in 0..R {
            for t in 0..T {
                sums[t][r].lanes[parity] = acc[r][t];
            }
        }
    }
    if B::MINIMUM {
        let mut minimum = [[0.0f32; T]; R];
        for r in 0..R {
            for t in 0..T {
                minimum[r][t] = sums[t][r].minimum;
            }
        }
        for b in 0..n {
            for r in 0..R {
                for t in 0..T {
                    // SAFETY: b < n.
                    minimum[r][t] = w[r].minima[b].mul_add(unsafe { *bsum[t].add(b) }, minimum[r][t]);
                }
            }
        }
        for r in 0..R {
            for t in 0..T {
                sums[t][r].minimum = minimum[r][t];
            }
        }
    }
}
