//! f32, f16 and bf16 weights times f32 activations: the 64-lane dot, exactly widened.
//!
//! One token: eight accumulators per row, straight from the weights' bytes; memory is the limit. Several tokens: a piece
//! of a row is widened once into a buffer in L1, then two of the eight registers of lanes at a time are swept over it for
//! four tokens, so that the eight accumulators and their operands stay in registers. Lanes are independent of each other,
//! so sweeping them in turn changes no order.

use std::arch::x86_64::*;
use std::ops::Range;

use super::lanes::{load, store, tail64, tree64};
use crate::numerics::f16_to_f32;
use crate::{Activations, Matrix, OutView};

/// A stored number that widens to f32.
pub(super) trait Dense {
    /// Bytes per weight.
    const BYTES: usize;

    /// Eight weights.
    ///
    /// # Safety
    /// `8 * BYTES` bytes can be read at `p`, and the CPU has AVX2, FMA and F16C.
    unsafe fn load(p: *const u8) -> __m256;

    /// Weight `i` of a row.
    fn one(row: &[u8], i: usize) -> f32;
}

/// f32 weights.
pub(super) struct F32;

impl Dense for F32 {
    const BYTES: usize = 4;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(p: *const u8) -> __m256 {
        // SAFETY: the caller vouches for 32 bytes.
        unsafe { _mm256_loadu_ps(p.cast()) }
    }

    fn one(row: &[u8], i: usize) -> f32 {
        f32::from_le_bytes([row[4 * i], row[4 * i + 1], row[4 * i + 2], row[4 * i + 3]])
    }
}

/// f16 weights.
pub(super) struct F16;

impl Dense for F16 {
    const BYTES: usize = 2;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(p: *const u8) -> __m256 {
        // SAFETY: the caller vouches for 16 bytes.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }

    fn one(row: &[u8], i: usize) -> f32 {
        f16_to_f32(u16::from_le_bytes([row[2 * i], row[2 * i + 1]]))
    }
}

/// bf16 weights.
pub(super) struct Bf16;

impl Dense for Bf16 {
    const BYTES: usize = 2;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(p: *const u8) -> __m256 {
        // SAFETY: the caller vouches for 16 bytes.
        let halves = unsafe { _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast())) };
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves))
    }

    fn one(row: &[u8], i: usize) -> f32 {
        f32::from_le_bytes([0, 0, row[2 * i], row[2 * i + 1]])
    }
}

/// Weights widened at a time, and tokens that share them.
const PIECE: usize = 1024;
const TOKENS: usize = 16;

/// See [`super::Matmul`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn matmul<D: Dense>(
    w: &Matrix<'_>,
    x: &Activations,
    rows: Range<usize>,
    y: &mut OutView<'_>,
) {
    if x.n_tokens() == 1 {
        for row in rows {
            y.set(0, row, dot::<D>(w.row(row), x.f32(0)));
        }
        return;
    }
    for first in (0..x.n_tokens()).step_by(TOKENS) {
        let tokens = first..x.n_tokens().min(first + TOKENS);
        for row in rows.clone() {
            many::<D>(w.row(row), x, tokens.clone(), row, y);
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot<D: Dense>(w: &[u8], x: &[f32]) -> f32 {
    let (blocks, rest) = x.as_chunks::<64>();
    let mut acc = [_mm256_setzero_ps(); 8];
    for (w, x) in w.chunks_exact(64 * D::BYTES).zip(blocks) {
        let x = x.as_chunks::<8>().0;
        for j in 0..8 {
            // SAFETY: w has 64 weights, this reads eight from 8 * j <= 56.
            let w = unsafe { D::load(w.as_ptr().add(8 * j * D::BYTES)) };
            acc[j] = _mm256_fmadd_ps(w, load(&x[j]), acc[j]);
        }
    }
    if rest.is_empty() {
        return tree64(acc);
    }
    tail64(acc, x.len() - rest.len(), x.len(), |i, lane| {
        D::one(w, i).mul_add(x[i], lane)
    })
}

/// One row and up to [`TOKENS`] tokens.
#[target_feature(enable = "avx2,fma,f16c")]
fn many<D: Dense>(
    w: &[u8],
    x: &Activations,
    tokens: Range<usize>,
    row: usize,
    y: &mut OutView<'_>,
) {
    let n = x.cols();
    let whole = n / 64 * 64;
    let mut lanes = [[_mm256_setzero_ps(); 8]; TOKENS];
    let mut wide = [[0.0f32; 8]; PIECE / 8];
    for from in (0..whole).step_by(PIECE) {
        let piece = from..whole.min(from + PIECE);
        let wide = &mut wide[..piece.len() / 8];
        for (w, wide) in w[from * D::BYTES..]
            .chunks_exact(8 * D::BYTES)
            .zip(wide.iter_mut())
        {
            // SAFETY: w has eight weights.
            store(wide, unsafe { D::load(w.as_ptr()) });
        }
        let mut t = tokens.start;
        while t + 4 <= tokens.end {
            let x = [0, 1, 2, 3].map(|i| x.f32(t + i)[piece.clone()].as_chunks::<8>().0);
            sweep(wide, x, &mut lanes[t - tokens.start..][..4]);
            t += 4;
        }
        for t in t..tokens.end {
            sweep(
                wide,
                [x.f32(t)[piece.clone()].as_chunks::<8>().0],
                &mut lanes[t - tokens.start..][..1],
            );
        }
    }
    for (t, lanes) in tokens.zip(lanes) {
        let value = if whole == n {
            tree64(lanes)
        } else {
            let x = x.f32(t);
            tail64(lanes, whole, n, |i, lane| D::one(w, i).mul_add(x[i], lane))
        };
        y.set(t, row, value);
    }
}

/// Adds a piece of a row, times `T` tokens, to their lanes; two registers of lanes at a time.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sweep<const T: usize>(w: &[[f32; 8]], x: [&[[f32; 8]]; T], lanes: &mut [[__m256; 8]]) {
    let w = w.as_chunks::<8>().0;
    let x = x.map(|x| &x.as_chunks::<8>().0[..w.len()]);
    for j in [0, 2, 4, 6] {
        let mut acc = [[_mm256_setzero_ps(); 2]; T];
        for t in 0..T {
            acc[t] = [lanes[t][j], lanes[t][j + 1]];
        }
        for i in 0..w.len() {
            let (w0, w1) = (load(&w[i][j]), load(&w[i][j + 1]));
            for t in 0..T {
                acc[t][0] = _mm256_fmadd_ps(w0, load(&x[t][i][j]), acc[t][0]);
                acc[t][1] = _mm256_fmadd_ps(w1, load(&x[t][i][j + 1]), acc[t][1]);
            }
        }
        for t in 0..T {
            [lanes[t][j], lanes[t][j + 1]] = acc[t];
        }
    }
}
