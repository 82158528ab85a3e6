//! What runs over one row of activations: quantising, norm, the gate with `exp`, conversion.
//!
//! Elementwise steps need no order, so tails are simply done one by one with the scalar definitions.

use std::arch::aarch64::*;

use super::lanes::{dot, exp, larger, load, store, store_i8};
use crate::activations::{ActivationsMut, Q8_BLOCK};
use crate::numerics::{self, silu};

/// The largest magnitude and `floor`; NaN passed over.
#[inline]
#[target_feature(enable = "neon")]
fn absmax(x: &[f32], floor: f32) -> f32 {
    let mut acc = [vdupq_n_f32(floor); 4];
    let (blocks, rest) = x.as_chunks::<16>();
    for x in blocks {
        for (acc, x) in acc.iter_mut().zip(x.as_chunks::<4>().0) {
            *acc = larger(vabsq_f32(load(x)), *acc);
        }
    }
    // No NaN is left in them.
    let m = vmaxvq_f32(vmaxq_f32(vmaxq_f32(acc[0], acc[1]), vmaxq_f32(acc[2], acc[3])));
    rest.iter().fold(m, |m, v| if v.abs() > m { v.abs() } else { m })
}

/// 16 values `round_ties_even(x * scale)` as int8, saturated, NaN to 0: that is how the conversions work.
#[inline]
#[target_feature(enable = "neon")]
fn quantize16(x: &[f32; 16], scale: float32x4_t) -> int8x16_t {
    let x = x.as_chunks::<4>().0;
    let eight = |a, b| {
        let (a, b) = (vcvtnq_s32_f32(vmulq_f32(load(a), scale)), vcvtnq_s32_f32(vmulq_f32(load(b), scale)));
        vqmovn_s16(vqmovn_high_s32(vqmovn_s32(a), b))
    };
    vcombine_s8(eight(&x[0], &x[1]), eight(&x[2], &x[3]))
}

/// Adds 16 int8 to four i32.
#[inline]
#[target_feature(enable = "neon")]
fn add_all(acc: int32x4_t, q: int8x16_t) -> int32x4_t {
    vpadalq_s16(acc, vpaddlq_s8(q))
}

/// [`crate::ActKind::I8`].
#[target_feature(enable = "neon")]
pub(super) fn prepare_i8(x: &[f32], cols: usize, out: ActivationsMut<'_>) {
    for t in 0..out.scale.len() {
        let token = t * cols..(t + 1) * cols;
        let (x, q) = (&x[token.clone()], &mut out.q[token]);
        let scale = 127.0 / absmax(x, 1e-5);
        let (blocks, rest) = x.as_chunks::<16>();
        let (q, q_rest) = q.as_chunks_mut::<16>();
        let mut sum = vdupq_n_s32(0);
        for (x, out) in blocks.iter().zip(q) {
            let q = quantize16(x, vdupq_n_f32(scale));
            store_i8(out, q);
            sum = add_all(sum, q);
        }
        let mut isum = vaddvq_s32(sum);
        for (x, q) in rest.iter().zip(q_rest) {
            *q = (x * scale).round_ties_even().clamp(-128.0, 127.0) as i8;
            isum += i32::from(*q);
        }
        (out.scale[t], out.isum[t]) = (scale, isum);
    }
}

/// [`crate::ActKind::Q8`].
#[target_feature(enable = "neon")]
pub(super) fn prepare_q8(x: &[f32], out: ActivationsMut<'_>) {
    let x = x.as_chunks::<Q8_BLOCK>().0;
    let q = out.q.as_chunks_mut::<Q8_BLOCK>().0;
    for (b, (x, q)) in x.iter().zip(q).enumerate() {
        let d = absmax(x, 0.0) / 127.0;
        let id = if d > 0.0 { 1.0 / d } else { 0.0 };
        let mut sum = vdupq_n_s32(0);
        for (x, out) in x.as_chunks::<16>().0.iter().zip(q.as_chunks_mut::<16>().0) {
            let q = vmaxq_s8(quantize16(x, vdupq_n_f32(id)), vdupq_n_s8(-127));
            store_i8(out, q);
            sum = add_all(sum, q);
        }
        out.scale[b] = d;
        out.bsum[b] = d * vaddvq_s32(sum) as f32;
    }
}

/// See [`crate::Kernels::rms_norm`].
#[target_feature(enable = "neon")]
pub(super) fn rms_norm(x: &[f32], w: &[f32], eps: f32, y: &mut [f32]) {
    let r = 1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt();
    // The compiler makes this the four-lane loop.
    for ((x, w), y) in x.iter().zip(w).zip(y) {
        *y = x * r * w;
    }
}

/// See [`crate::Kernels::silu_gate`].
#[target_feature(enable = "neon")]
pub(super) fn silu_gate(gate: &mut [f32], up: &[f32]) {
    let (g, g_rest) = gate.as_chunks_mut::<4>();
    let (u, u_rest) = up.as_chunks::<4>();
    for (g, u) in g.iter_mut().zip(u) {
        let v = load(g);
        let silu = vdivq_f32(v, vaddq_f32(vdupq_n_f32(1.0), exp(vnegq_f32(v))));
        store(g, vmulq_f32(silu, load(u)));
    }
    for (g, u) in g_rest.iter_mut().zip(u_rest) {
        *g = silu(*g) * u;
    }
}

/// See [`crate::Kernels::f32_to_f16`].
#[target_feature(enable = "neon")]
pub(super) fn f32_to_f16(x: &[f32], out: &mut [u16]) {
    let (x, x_rest) = x.as_chunks::<4>();
    let (out, out_rest) = out.as_chunks_mut::<4>();
    for (x, out) in x.iter().zip(out) {
        let halves = vreinterpret_u16_f16(vcvt_f16_f32(load(x)));
        // SAFETY: the array has room for the eight bytes.
        unsafe { vst1_u16(out.as_mut_ptr(), halves) };
    }
    for (x, out) in x_rest.iter().zip(out_rest) {
        *out = numerics::f32_to_f16(*x);
    }
}
