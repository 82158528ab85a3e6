//! Attention of one query head over the f16 cache, in the orders of [`crate::numerics`].
//!
//! Scores: one 64-lane dot per position, two positions at a time. Values: 128 elements of the head at a time (eight
//! registers), all positions of a chunk in turn, so that an output element is loaded and stored once per chunk and not
//! once per position.

use std::arch::x86_64::*;

use super::super::avx2;
use super::lanes::{load, load_f16, store, tail64, tree64};
use crate::numerics::{PV_CHUNK, f16_to_f32};

/// See [`crate::Kernels::attention`]; `e` has one element per position.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,f16c,fma")]
pub(super) fn attention(q: &[f32], k: &[u16], v: &[u16], stride: usize, scale: f32, e: &mut [f32], out: &mut [f32]) {
    let (pairs, last) = e.as_chunks_mut::<2>();
    for (t, scores) in pairs.iter_mut().enumerate() {
        let [a, b] = dots(q, [&k[2 * t * stride..], &k[(2 * t + 1) * stride..]]);
        *scores = [a * scale, b * scale];
    }
    if let [score] = last {
        let [dot] = dots(q, [&k[2 * pairs.len() * stride..]]);
        *score = dot * scale;
    }
    let z = avx2::softmax_parts(e);
    out.fill(0.0);
    for (c, e) in e.chunks(PV_CHUNK).enumerate() {
        let v = &v[c * PV_CHUNK * stride..];
        let mut d = 0;
        while d + 128 <= out.len() {
            add_values::<8>(e, &v[d..], stride, &mut out[d..]);
            d += 128;
        }
        while d + 64 <= out.len() {
            add_values::<4>(e, &v[d..], stride, &mut out[d..]);
            d += 64;
        }
        while d + 16 <= out.len() {
            add_values::<1>(e, &v[d..], stride, &mut out[d..]);
            d += 16;
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

/// The canonical dots of `q` with the first `q.len()` f16 of each of `P` keys.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,f16c,fma")]
fn dots<const P: usize>(q: &[f32], keys: [&[u16]; P]) -> [f32; P] {
    let (blocks, rest) = q.as_chunks::<64>();
    let keys = keys.map(|k| &k[..q.len()]);
    let mut acc = [[_mm512_setzero_ps(); 4]; P];
    for (b, q) in blocks.iter().enumerate() {
        let q = q.as_chunks::<16>().0;
        for j in 0..4 {
            let q = load(&q[j]);
            for p in 0..P {
                let k = load_f16(&keys[p].as_chunks::<16>().0[4 * b + j]);
                acc[p][j] = _mm512_fmadd_ps(q, k, acc[p][j]);
            }
        }
    }
    let mut out = [0.0; P];
    for p in 0..P {
        out[p] = match rest.len() {
            0 => tree64(acc[p]),
            rest => tail64(acc[p], q.len() - rest, q.len(), |i, lane| q[i].mul_add(f16_to_f32(keys[p][i]), lane)),
        };
    }
    out
}

/// Adds `sum_t e_t * v_t[d]` of one chunk to the first `16 * N` elements of `out`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,f16c,fma")]
fn add_values<const N: usize>(e: &[f32], v: &[u16], stride: usize, out: &mut [f32]) {
    let mut acc = [_mm512_setzero_ps(); N];
    for (t, e) in e.iter().enumerate() {
        let v = &v[t * stride..][..16 * N];
        for (acc, v) in acc.iter_mut().zip(v.as_chunks::<16>().0) {
            *acc = _mm512_fmadd_ps(_mm512_set1_ps(*e), load_f16(v), *acc);
        }
    }
    for (acc, out) in acc.into_iter().zip(out.as_chunks_mut::<16>().0) {
        store(out, _mm512_add_ps(load(out), acc));
    }
}
