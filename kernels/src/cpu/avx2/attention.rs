//! Attention of one query head over the f16 cache, in the orders of [`crate::numerics`].
//!
//! Scores: one 64-lane dot per position. Values: 64 elements of the head at a time (eight registers), all positions of a
//! chunk in turn, so that an output element is loaded and stored once per chunk and not once per position.

use std::arch::x86_64::*;

use super::lanes::{dot_f16, exp, load, load_f16, store, sum};
use crate::numerics::{self, PV_CHUNK, f16_to_f32};

/// See [`crate::Kernels::attention`]; `e` has one element per position.
#[target_feature(enable = "avx2,fma,f16c")]
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
#[target_feature(enable = "avx2,fma,f16c")]
fn add_values<const N: usize>(e: &[f32], v: &[u16], stride: usize, out: &mut [f32]) {
    let mut acc = [_mm256_setzero_ps(); N];
    for (t, e) in e.iter().enumerate() {
        let v = &v[t * stride..][..8 * N];
        for (acc, v) in acc.iter_mut().zip(v.as_chunks::<8>().0) {
            *acc = _mm256_fmadd_ps(_mm256_set1_ps(*e), load_f16(v), *acc);
        }
    }
    for (acc, out) in acc.into_iter().zip(out.as_chunks_mut::<8>().0) {
        store(out, _mm256_add_ps(load(out), acc));
    }
}

/// See [`numerics::softmax_parts`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::cpu) fn softmax_parts(scores: &mut [f32]) -> f32 {
    let (eights, rest) = scores.as_chunks::<8>();
    // max gives its second operand if the first is NaN: NaN is passed over.
    let mut m = _mm256_set1_ps(f32::NEG_INFINITY);
    for s in eights {
        m = _mm256_max_ps(load(s), m);
    }
    let mut lanes = [0.0; 8];
    store(&mut lanes, m);
    let m = numerics::max(&lanes);
    let m = rest.iter().fold(m, |m, &s| if s > m { s } else { m });
    let (eights, rest) = scores.as_chunks_mut::<8>();
    for s in eights {
        store(s, exp(_mm256_sub_ps(load(s), _mm256_set1_ps(m))));
    }
    for s in rest {
        *s = numerics::exp(*s - m);
    }
    sum(scores)
}
