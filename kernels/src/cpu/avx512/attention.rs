//! Attention over the f16 cache, in the orders of [`crate::numerics`].
//!
//! Two to four heads that share their keys and values go together: widening an f16 costs as much as two FMAs, so a widened
//! key or value meets all heads before the next one is widened. The trees of sixteen dots (four heads, four positions) are
//! added together by transposing, which is the same additions for less than a third of the instructions. Values: 64 elements of the
//! heads at a time, all positions of a chunk in turn, so that an output element is loaded and stored once per chunk and not once per
//! position. One head alone, or of another length than multiples of 64, is AVX2's: on a Zen 4 one head took half of
//! the time there (192 positions of 128 elements). No Intel processor was measured.

use std::arch::x86_64::*;

use super::super::avx2;
use super::lanes::{load, load_f16, store};
use crate::cpu::ahead::{Ahead, lines};
use crate::numerics::PV_CHUNK;

/// See [`crate::Kernels::attention_group`]; of `G` heads, 2 to 4, of a multiple of 64 elements each. `q` and `out` are `[G][dim]`,
/// `e` `[G][n]`.
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
