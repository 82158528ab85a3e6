//! The oracle: plain loops that say what every other kernel set must compute, bit for bit.
//!
//! Nothing here is tuned, except that each row is decoded once for all tokens, since the tests run
//! for minutes. Where it is slow (the FMA is a call on targets that do not have it enabled) it stays slow: its worth is that it
//! can be believed at sight.

use std::ops::Range;

use super::naive;
use crate::activations::{Q8_BLOCK, quantize_block, quantize_token};
use crate::contract::{check_attention, check_matmul, check_rope, multiply};
use crate::numerics::{self, PV_CHUNK, f16_to_f32, reduce64, silu, softmax_parts};
use crate::{ActKind, Activations, Kernels, Matrix, OutView, Rope};

/// The set itself; it runs everywhere.
#[derive(Debug)]
pub struct Scalar;

impl Kernels for Scalar {
    fn name(&self) -> &'static str {
        "scalar"
    }

    fn prepare(&self, kind: ActKind, x: &[f32], n_tokens: usize, out: &mut Activations) {
        let cols = x.len().checked_div(n_tokens).unwrap_or(0);
        assert_eq!(x.len(), n_tokens * cols, "x must be [n_tokens][K]");
        let out = out.reset(kind, n_tokens, cols);
        match kind {
            ActKind::F32 => out.values.copy_from_slice(x),
            ActKind::I8 => {
                for t in 0..n_tokens {
                    let token = t * cols..(t + 1) * cols;
                    (out.scale[t], out.isum[t]) = quantize_token(&x[token.clone()], &mut out.q[token]);
                }
            }
            ActKind::Q8 => {
                for b in 0..out.scale.len() {
                    let block = b * Q8_BLOCK..(b + 1) * Q8_BLOCK;
                    (out.scale[b], out.bsum[b]) = quantize_block(&x[block.clone()], &mut out.q[block]);
                }
            }
        }
    }

    fn matmul(&self, w: &Matrix<'_>, x: &Activations, rows: Range<usize>, mut y: OutView<'_>) {
        check_matmul(w, x, &rows, &y);
        naive(w, x, rows.clone(), &mut y);
        multiply(w, &rows, &mut y);
    }

    fn rms_norm(&self, x: &[f32], w: &[f32], eps: f32, y: &mut [f32]) {
        assert!(x.len() == w.len() && x.len() == y.len(), "x, w and y must be of one length");
        let r = 1.0 / (numerics::dot(x, x) / x.len() as f32 + eps).sqrt();
        for i in 0..x.len() {
            y[i] = x[i] * r * w[i];
        }
    }

    fn rope(&self, kind: Rope, x: &mut [f32], cos: &[f32], sin: &[f32]) {
        check_rope(x, cos, sin);
        for i in 0..cos.len() {
            let (a, b) = match kind {
                Rope::Neox => (i, i + cos.len()),
                Rope::Norm => (2 * i, 2 * i + 1),
            };
            let (x0, x1) = (x[a], x[b]);
            x[a] = x0 * cos[i] - x1 * sin[i];
            x[b] = x0 * sin[i] + x1 * cos[i];
        }
    }

    fn attention(
        &self,
        q: &[f32],
        k: &[u16],
        v: &[u16],
        stride: usize,
        n: usize,
        scale: f32,
        scratch: &mut [f32],
        out: &mut [f32],
    ) {
        check_attention((q, k, v), stride, n, scratch, out);
        let e = &mut scratch[..n];
        for (t, score) in e.iter_mut().enumerate() {
            let k = &k[t * stride..];
            *score = reduce64(q.len(), |i, lane| q[i].mul_add(f16_to_f32(k[i]), lane)) * scale;
        }
        let z = softmax_parts(e);
        for (d, out) in out.iter_mut().enumerate() {
            let mut total = 0.0f32;
            for (c, chunk) in e.chunks(PV_CHUNK).enumerate() {
                let mut acc = 0.0f32;
                for (i, e) in chunk.iter().enumerate() {
                    let t = c * PV_CHUNK + i;
                    acc = e.mul_add(f16_to_f32(v[t * stride + d]), acc);
                }
                total += acc;
            }
            *out = total / z;
        }
    }

    fn relu2_gate(&self, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len(), "gate and up must be of one length");
        for (g, u) in gate.iter_mut().zip(up) {
            // Not f32::max: a NaN must stay one.
            let r = if *g < 0.0 { 0.0 } else { *g };
            *g = r * r * u;
        }
    }

    fn silu_gate(&self, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len(), "gate and up must be of one length");
        for (g, u) in gate.iter_mut().zip(up) {
            *g = silu(*g) * u;
        }
    }

    fn add(&self, x: &mut [f32], y: &[f32]) {
        assert_eq!(x.len(), y.len(), "x and y must be of one length");
        for (x, y) in x.iter_mut().zip(y) {
            *x += y;
        }
    }

    fn f32_to_f16(&self, x: &[f32], out: &mut [u16]) {
        assert_eq!(x.len(), out.len(), "x and out must be of one length");
        for (x, out) in x.iter().zip(out) {
            *out = numerics::f32_to_f16(*x);
        }
    }
}
