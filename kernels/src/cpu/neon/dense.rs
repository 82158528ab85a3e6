//! f32, f16 and bf16 weights times f32 activations: the 64-lane dot, exactly widened, in sixteen registers of lanes.
//!
//! Sixteen accumulators of the 32 registers: one row and one token at a time, straight from the weights' bytes.

use std::arch::aarch64::*;
use std::ops::Range;

use super::dots::Dots;
use super::lanes::{REGISTERS, load, tail64, tree64, widen};
use crate::cpu::stored::{Bf16, F16, F32, Stored, bytes};
use crate::{Activations, Matrix, OutView};

/// A stored number that widens to f32 in a register.
pub(super) trait Dense: Stored {
    /// Eight weights.
    ///
    /// # Safety
    /// `8 * BYTES` bytes can be read at `p`, and the CPU has NEON.
    unsafe fn load(p: *const u8) -> [float32x4_t; 2];
}

impl Dense for F32 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load(p: *const u8) -> [float32x4_t; 2] {
        // SAFETY: the caller vouches for 32 bytes; the bytes need no alignment.
        unsafe { [vreinterpretq_f32_u8(vld1q_u8(p)), vreinterpretq_f32_u8(vld1q_u8(p.add(16)))] }
    }
}

impl Dense for F16 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load(p: *const u8) -> [float32x4_t; 2] {
        // SAFETY: the caller vouches for 16 bytes.
        widen(vreinterpretq_u16_u8(unsafe { vld1q_u8(p) }))
    }
}

impl Dense for Bf16 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load(p: *const u8) -> [float32x4_t; 2] {
        // SAFETY: the caller vouches for 16 bytes.
        let halves = vreinterpretq_u16_u8(unsafe { vld1q_u8(p) });
        let (low, high) = (vshll_n_u16::<16>(vget_low_u16(halves)), vshll_high_n_u16::<16>(halves));
        [vreinterpretq_f32_u32(low), vreinterpretq_f32_u32(high)]
    }
}

/// Tokens that a row meets while it is in L1; so many stay in L2 for the next row.
const TOKENS: usize = 64;

/// See [`super::Matmul`].
#[target_feature(enable = "neon")]
pub(super) fn matmul<W: Dense, D: Dots>(
    _: D,
    w: &Matrix<'_>,
    x: &Activations,
    rows: Range<usize>,
    y: &mut OutView<'_>,
) {
    for first in (0..x.n_tokens()).step_by(TOKENS) {
        for row in rows.clone() {
            for t in first..x.n_tokens().min(first + TOKENS) {
                y.set(t, row, dot::<W>(w.row(row), x.f32(t)));
            }
        }
    }
}

/// See [`super::Matmul`]; weights of any format, which become floats row by row.
#[target_feature(enable = "neon")]
pub(super) fn decoded<D: Dots>(_: D, w: &Matrix<'_>, x: &Activations, rows: Range<usize>, y: &mut OutView<'_>) {
    let mut values = vec![0.0; w.cols];
    for first in (0..x.n_tokens()).step_by(TOKENS) {
        for row in rows.clone() {
            w.stored_row(row, &mut values);
            for t in first..x.n_tokens().min(first + TOKENS) {
                y.set(t, row, dot::<F32>(bytes(&values), x.f32(t)));
            }
        }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn dot<W: Dense>(w: &[u8], x: &[f32]) -> f32 {
    let (blocks, rest) = x.as_chunks::<64>();
    let mut acc = [vdupq_n_f32(0.0); REGISTERS];
    for (block, x) in w.chunks_exact(64 * W::BYTES).zip(blocks) {
        let x = x.as_chunks::<4>().0;
        for j in 0..REGISTERS / 2 {
            // SAFETY: the block has 64 weights, this reads eight from 8 * j <= 56.
            let [low, high] = unsafe { W::load(block.as_ptr().add(8 * j * W::BYTES)) };
            acc[2 * j] = vfmaq_f32(acc[2 * j], low, load(&x[2 * j]));
            acc[2 * j + 1] = vfmaq_f32(acc[2 * j + 1], high, load(&x[2 * j + 1]));
        }
    }
    if rest.is_empty() {
        return tree64(acc);
    }
    tail64(acc, x.len() - rest.len(), x.len(), |i, lane| W::one(w, i).mul_add(x[i], lane))
}
