//! Attention of one query head over the f16 cache, in the orders of [`crate::numerics`].
//!
//! Scores: one 64-lane dot per position. Values: 64 elements of the head at a time (sixteen registers), all positions of a
//! chunk in turn, so that an output element is loaded and stored once per chunk and not once per position.

use std::arch::aarch64::*;

use super::lanes::{dot_f16, exp, larger, load, load_u16, store, sum, widen};
use crate::numerics::{self, PV_CHUNK, f16_to_f32};

/// See [`crate::Kernels::attention`]; `e` has one element per position.
#[target_feature(enable = "neon")]
pub(super) fn attention(q: &[f32], k: &[u16], v: &[u16], stride: usize, scale: f32, e: &mut [f32], out: &mut [f32]) {
    for (t, score) in e.iter_mut().enumerate() {
        *score = dot_f16(q, &k[t * stride..]) * scale;
    }
    let z = softmax_parts(e);
    out.fill(0.0);
    for (c, e) in e.chunks(PV_CHUNK).enumerate() {
        let v = &v[c * PV_CHUNK * stride..];
        let mut d = 0;
        while d + 64 <= out.len() {
            add_values::<8>(e, &v[d..], stride, &mut out[d..]);
            d += 64;
        }
        while d + 8 <= out.len() {
            add_values::<1>(e, &v[d..], stride, &mut out[d..]);
            d += 8;
        }
        for d in d..out.len() {
            let mut acc = 0.0f32;
            for (t, e) in e.iter().enumerate() {
                acc = e.mul_add(f16_to_f32(v[t * stride + d]), acc);
            }
            out[d] += acc;
        }
    }
    for out in out {
        *out /= z;
    }
}

/// Adds `sum_t e_t * v_t[d]` of one chunk to the first `8 * N` elements of `out`.
#[inline]
#[target_feature(enable = "neon")]
fn add_values<const N: usize>(e: &[f32], v: &[u16], stride: usize, out: &mut [f32]) {
    let mut acc = [[vdupq_n_f32(0.0); 2]; N];
    for (t, e) in e.iter().enumerate() {
        let v = &v[t * stride..][..8 * N];
        for (acc, v) in acc.iter_mut().zip(v.as_chunks::<8>().0) {
            let [low, high] = widen(load_u16(v));
            *acc = [vfmaq_n_f32(acc[0], low, *e), vfmaq_n_f32(acc[1], high, *e)];
        }
    }
    for (acc, out) in acc.as_flattened().iter().zip(out.as_chunks_mut::<4>().0) {
        store(out, vaddq_f32(load(out), *acc));
    }
}

/// See [`numerics::softmax_parts`].
#[target_feature(enable = "neon")]
fn softmax_parts(scores: &mut [f32]) -> f32 {
    let (fours, rest) = scores.as_chunks::<4>();
    let mut m = vdupq_n_f32(f32::NEG_INFINITY);
    for s in fours {
        m = larger(load(s), m);
    }
    // No NaN is left in it.
    let m = rest.iter().fold(vmaxvq_f32(m), |m, &s| if s > m { s } else { m });
    let (fours, rest) = scores.as_chunks_mut::<4>();
    for s in fours {
        store(s, exp(vsubq_f32(load(s), vdupq_n_f32(m))));
    }
    for s in rest {
        *s = numerics::exp(*s - m);
    }
    sum(scores)
}
