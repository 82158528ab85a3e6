//! f32, f16 and bf16 weights times f32 activations: the 64-lane dot, exactly widened.
//!
//! Eight accumulators per row and token, straight from the weights' bytes: with one token memory is the limit. Tiles of
//! several rows and tokens were tried, with the weights widened into a buffer and a register of lanes swept at a time;
//! 64 lanes are all the accumulators there are, and the sweeps were slower than taking the tokens one by one.

use std::arch::x86_64::*;
use std::ops::Range;

use super::lanes::{load, tail64, tree64};
use crate::cpu::ahead::Ahead;
use crate::cpu::stored::{Bf16, F16, F32, Stored, bytes};
use crate::{Activations, Matrix, OutView};

/// A stored number that widens to f32 in a register.
pub(super) trait Dense: Stored {
    /// Eight weights.
    ///
    /// # Safety
    /// `8 * BYTES` bytes can be read at `p`, and the CPU has AVX2, FMA and F16C.
    unsafe fn load(p: *const u8) -> __m256;
}

impl Dense for F32 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(p: *const u8) -> __m256 {
        // SAFETY: the caller vouches for 32 bytes.
        unsafe { _mm256_loadu_ps(p.cast()) }
    }
}

impl Dense for F16 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(p: *const u8) -> __m256 {
        // SAFETY: the caller vouches for 16 bytes.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }
}

impl Dense for Bf16 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(p: *const u8) -> __m256 {
        // SAFETY: the caller vouches for 16 bytes.
        let halves = unsafe { _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast())) };
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves))
    }
}

/// Tokens that a row meets while it is in L1; so many stay in L2 for the next row.
const TOKENS: usize = 64;

/// See [`super::Matmul`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn matmul<D: Dense>(w: &Matrix<'_>, x: &Activations, rows: Range<usize>, y: &mut OutView<'_>) {
    for first in (0..x.n_tokens()).step_by(TOKENS) {
        for row in rows.clone() {
            for t in first..x.n_tokens().min(first + TOKENS) {
                let value = match t == first {
                    true => dot::<D, true>(w.row(row), x.f32(t)),
                    false => dot::<D, false>(w.row(row), x.f32(t)),
                };
                y.set(t, row, value);
            }
        }
    }
}

/// See [`super::Matmul`]; weights of any format, which become floats row by row.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn decoded(w: &Matrix<'_>, x: &Activations, rows: Range<usize>, y: &mut OutView<'_>) {
    let mut values = vec![0.0; w.cols];
    for first in (0..x.n_tokens()).step_by(TOKENS) {
        for row in rows.clone() {
            unpack(w, row, &mut values);
            for t in first..x.n_tokens().min(first + TOKENS) {
                y.set(t, row, dot::<F32, false>(bytes(&values), x.f32(t)));
            }
        }
    }
}

/// The exact values of a row without the factor beside the bytes.
#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::cpu) fn unpack(w: &Matrix<'_>, row: usize, out: &mut [f32]) {
    match w.format.decoder() {
        // SAFETY: this function has the features.
        Some(decoder) => unsafe { decoder.values_avx2(w, row, out) },
        None => w.stored_row(row, out),
    }
}

/// `MEMORY`: the row comes from there, and is not in L1 yet.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot<D: Dense, const MEMORY: bool>(w: &[u8], x: &[f32]) -> f32 {
    let (blocks, rest) = x.as_chunks::<64>();
    let mut acc = [_mm256_setzero_ps(); 8];
    let mut ahead = Ahead::of(w, 1);
    for (block, x) in w.chunks_exact(64 * D::BYTES).zip(blocks) {
        let x = x.as_chunks::<8>().0;
        if MEMORY {
            ahead.ask(D::BYTES);
        }
        for j in 0..8 {
            // SAFETY: the block has 64 weights, this reads eight from 8 * j <= 56.
            let w = unsafe { D::load(block.as_ptr().add(8 * j * D::BYTES)) };
            acc[j] = _mm256_fmadd_ps(w, load(&x[j]), acc[j]);
        }
    }
    if rest.is_empty() {
        return tree64(acc);
    }
    tail64(acc, x.len() - rest.len(), x.len(), |i, lane| D::one(w, i).mul_add(x[i], lane))
}
