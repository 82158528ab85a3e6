//! Attention over the f16 cache, in the orders of [`crate::numerics`].
//!
//! One head: scores are one 64-lane dot per position, two positions at a time; values 128 elements of the head at a time
//! (eight registers), all positions of a chunk in turn, so that an output element is loaded and stored once per chunk
//! and not once per position.
//!
//! Up to four heads that share their keys and values ([`group`]): widening an f16 costs as much as two FMAs, so a widened
//! key or value meets all heads before the next one is widened. The trees of sixteen dots (four heads, four positions) are
//! added together by transposing, which is the same additions for less than a third of the instructions.

use std::arch::x86_64::*;

use super::super::avx2;
use super::lanes::{load, load_f16, store, tail64, tree64};
use crate::cpu::ahead::{Ahead, lines};
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

/// As [`attention`] for `G` heads, 2 to 4, of a multiple of 64 elements each; `q` and `out` are `[G][dim]`, `e` `[G][n]`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,f16c,fma")]
pub(super) fn group<const G: usize>(
    q: &[f32],
    (k, v): (&[u16], &[u16]),
    stride: usize,
    scale: f32,
    e: &mut [f32],
    out: &mut [f32],
) {
    let (dim, n) = (q.len() / G, e.len() / G);
    let mut ahead = Ahead::of(&k[..dim], 4);
    for t in (0..n).step_by(4) {
        ahead.ask(4 * lines(stride));
        // The last positions may come alone; what stands in their places then is not kept.
        let mut sums = [_mm512_setzero_ps(); 4];
        for p in 0..4.min(n - t) {
            sums[p] = group_dots::<G>(q, dim, &k[(t + p) * stride..][..dim]);
        }
        let mut scores = [[0.0f32; 4]; 4];
        store(
            scores.as_flattened_mut().as_mut_array().expect("sixteen"),
            _mm512_mul_ps(last_levels(sums), _mm512_set1_ps(scale)),
        );
        for g in 0..G {
            let e = &mut e[g * n + t..(g + 1) * n];
            match e.first_chunk_mut() {
                Some(e) => *e = scores[g],
                None => e.copy_from_slice(&scores[g][..e.len()]),
            }
        }
    }
    let mut ahead = Ahead::of_chunks(v, stride, n);
    let mut z = [0.0; G];
    for g in 0..G {
        z[g] = avx2::softmax_parts(&mut e[g * n..(g + 1) * n]);
    }
    out.fill(0.0);
    for from in (0..n).step_by(PV_CHUNK) {
        let positions = from..n.min(from + PV_CHUNK);
        for d in (0..dim).step_by(64) {
            let mut acc = [[_mm512_setzero_ps(); 4]; G];
            for t in positions.clone() {
                ahead.ask(lines(64));
                let v = v[t * stride + d..][..64].as_chunks::<16>().0;
                for j in 0..4 {
                    let v = load_f16(&v[j]);
                    for g in 0..G {
                        acc[g][j] = _mm512_fmadd_ps(_mm512_set1_ps(e[g * n + t]), v, acc[g][j]);
                    }
                }
            }
            for g in 0..G {
                let out = out[g * dim + d..][..64].as_chunks_mut::<16>().0;
                for (out, acc) in out.iter_mut().zip(acc[g]) {
                    store(out, _mm512_add_ps(load(out), acc));
                }
            }
        }
    }
    for (out, z) in out.chunks_exact_mut(dim).zip(z) {
        for out in out {
            *out /= z;
        }
    }
}

/// The dots of `G` heads with one key, but for the last two levels of their trees: lane `4 * g + i` holds what is left of head `g`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,f16c,fma")]
fn group_dots<const G: usize>(q: &[f32], dim: usize, key: &[u16]) -> __m512 {
    let mut acc = [[_mm512_setzero_ps(); 4]; G];
    let mut heads = [&q[..dim]; G];
    for g in 1..G {
        heads[g] = &q[g * dim..(g + 1) * dim];
    }
    for (b, key) in key.as_chunks::<64>().0.iter().enumerate() {
        let key = key.as_chunks::<16>().0;
        for j in 0..4 {
            let key = load_f16(&key[j]);
            for g in 0..G {
                let q = &heads[g].as_chunks::<16>().0[4 * b + j];
                acc[g][j] = _mm512_fmadd_ps(load(q), key, acc[g][j]);
            }
        }
    }
    let mut x = [_mm512_setzero_ps(); 4];
    for g in 0..G {
        let [a, b, c, d] = acc[g];
        x[g] = _mm512_add_ps(_mm512_add_ps(a, c), _mm512_add_ps(b, d));
    }
    // Lanes j and j + 8, of two registers at a time; then j and j + 4.
    let eight =
        |a, b| _mm512_add_ps(_mm512_shuffle_f32x4::<0b01_00_01_00>(a, b), _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b));
    let (a, b) = (eight(x[0], x[1]), eight(x[2], x[3]));
    _mm512_add_ps(_mm512_shuffle_f32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b))
}

/// The last two levels of sixteen trees: the sum of position `p` and head `g` comes out in lane `4 * g + p`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,f16c,fma")]
fn last_levels(x: [__m512; 4]) -> __m512 {
    // Lanes j and j + 2 of two positions; then the last two of all four.
    let two = |a, b| {
        let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
        _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)))
    };
    let (a, b) = (two(x[0], x[1]), two(x[2], x[3]));
    _mm512_add_ps(_mm512_shuffle_ps::<0b10_00_10_00>(a, b), _mm512_shuffle_ps::<0b11_01_11_01>(a, b))
}
