//! f32, f16 and bf16 weights times f32 activations: the 64-lane dot, exactly widened, in four registers of lanes.
//!
//! Four accumulators do not fill two FMA units of four cycles' latency, so rows go in pairs, and with several tokens pairs of
//! rows meet pairs of tokens: a widened weight is used twice.

use std::arch::x86_64::*;
use std::ops::Range;

use super::lanes::{load, tail64, tree64};
use crate::cpu::ahead::Ahead;
use crate::cpu::avx2::unpack;
use crate::cpu::stored::{Bf16, F16, F32, Stored, bytes};
use crate::{Activations, Matrix, OutView};

/// A stored number that widens to f32 in a register.
pub(super) trait Dense: Stored {
    /// Sixteen weights.
    ///
    /// # Safety
    /// `16 * BYTES` bytes can be read at `p`, and the CPU has the features of [`super::Avx512`].
    unsafe fn load(p: *const u8) -> __m512;
}

impl Dense for F32 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,fma")]
    unsafe fn load(p: *const u8) -> __m512 {
        // SAFETY: the caller vouches for 64 bytes.
        unsafe { _mm512_loadu_ps(p.cast()) }
    }
}

impl Dense for F16 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,fma")]
    unsafe fn load(p: *const u8) -> __m512 {
        // SAFETY: the caller vouches for 32 bytes.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
}

impl Dense for Bf16 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,fma")]
    unsafe fn load(p: *const u8) -> __m512 {
        // SAFETY: the caller vouches for 32 bytes.
        let halves = unsafe { _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast())) };
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
    }
}

/// Tokens that a pair of rows meets while it is in L1; so many stay in L2 for the next pair.
const TOKENS: usize = 64;

/// See [`super::Matmul`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,fma")]
pub(super) fn matmul<D: Dense>(w: &Matrix<'_>, x: &Activations, rows: Range<usize>, y: &mut OutView<'_>) {
    for first in (0..x.n_tokens()).step_by(TOKENS) {
        let tokens = first..x.n_tokens().min(first + TOKENS);
        let mut row = rows.start;
        while row + 2 <= rows.end {
            tokens_of::<D, 2, true>([w.row(row), w.row(row + 1)], x, row, tokens.clone(), y);
            row += 2;
        }
        for row in row..rows.end {
            tokens_of::<D, 1, true>([w.row(row)], x, row, tokens.clone(), y);
        }
    }
}

/// See [`super::Matmul`]; weights of any format, which become floats two rows at a time.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,fma")]
pub(super) fn decoded(w: &Matrix<'_>, x: &Activations, rows: Range<usize>, y: &mut OutView<'_>) {
    let mut values = [vec![0.0; w.cols], vec![0.0; w.cols]];
    for first in (0..x.n_tokens()).step_by(TOKENS) {
        let tokens = first..x.n_tokens().min(first + TOKENS);
        for row in rows.clone().step_by(2) {
            let two = row + 1 < rows.end;
            for (r, values) in values.iter_mut().enumerate().take(1 + usize::from(two)) {
                unpack(w, row + r, values);
            }
            let [a, b] = &values;
            match two {
                true => tokens_of::<F32, 2, false>([bytes(a), bytes(b)], x, row, tokens.clone(), y),
                false => tokens_of::<F32, 1, false>([bytes(a)], x, row, tokens.clone(), y),
            }
        }
    }
}

/// `MEMORY`: the rows come from there, and are not in L1 yet.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,fma")]
fn tokens_of<D: Dense, const R: usize, const MEMORY: bool>(
    w: [&[u8]; R],
    x: &Activations,
    row: usize,
    tokens: Range<usize>,
    y: &mut OutView<'_>,
) {
    let mut t = tokens.start;
    while t + 2 <= tokens.end {
        match t == tokens.start {
            true => dots::<D, R, 2, MEMORY>(w, x, row, t, y),
            false => dots::<D, R, 2, false>(w, x, row, t, y),
        }
        t += 2;
    }
    if t < tokens.end {
        dots::<D, R, 1, MEMORY>(w, x, row, t, y);
    }
}

/// `R` rows, the first of which is number `row`, times `T` tokens.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,fma")]
fn dots<D: Dense, const R: usize, const T: usize, const MEMORY: bool>(
    w: [&[u8]; R],
    x: &Activations,
    row: usize,
    token: usize,
    y: &mut OutView<'_>,
) {
    let blocks = x.cols() / 64;
    let mut w_at = [std::ptr::null::<u8>(); R];
    for r in 0..R {
        w_at[r] = w[r][..blocks * 64 * D::BYTES].as_ptr();
    }
    let mut x_at = [std::ptr::null::<[f32; 16]>(); T];
    for t in 0..T {
        x_at[t] = x.f32(token + t).as_chunks().0[..blocks * 4].as_ptr();
    }
    let mut ahead = Ahead::of(w[0], R);
    let mut acc = [[[_mm512_setzero_ps(); 4]; T]; R];
    for b in 0..blocks {
        if MEMORY {
            ahead.ask(R * D::BYTES);
        }
        for j in 0..4 {
            let mut xs = [_mm512_setzero_ps(); T];
            for t in 0..T {
                // SAFETY: 4 * b + j < 4 * blocks.
                xs[t] = load(unsafe { &*x_at[t].add(4 * b + j) });
            }
            for r in 0..R {
                // SAFETY: block b of the row has 64 weights, this reads sixteen from 16 * j <= 48.
                let weights = unsafe { D::load(w_at[r].add((64 * b + 16 * j) * D::BYTES)) };
                for t in 0..T {
                    acc[r][t][j] = _mm512_fmadd_ps(weights, xs[t], acc[r][t][j]);
                }
            }
        }
    }
    for t in 0..T {
        let x = x.f32(token + t);
        for r in 0..R {
            let value = if blocks * 64 == x.len() {
                tree64(acc[r][t])
            } else {
                tail64(acc[r][t], blocks * 64, x.len(), |i, lane| D::one(w[r], i).mul_add(x[i], lane))
            };
            y.set(token + t, row + r, value);
        }
    }
}
