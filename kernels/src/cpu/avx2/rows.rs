//! Everything that runs over one row of activations: quantising, norm, rope, gates, conversion.
//!
//! Elementwise steps need no order, so tails are simply done one by one with the scalar definitions.

use std::arch::x86_64::*;

use super::lanes::{dot, exp, load, store, sum, tanh};
use crate::Rope;
use crate::activations::{ActivationsMut, Q8_BLOCK};
use crate::numerics::{self, silu};

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn abs(x: __m256) -> __m256 {
    _mm256_andnot_ps(_mm256_set1_ps(-0.0), x)
}

/// The largest magnitude and `floor`; NaN passed over (`max` gives its second operand if one is NaN).
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn absmax(x: &[f32], floor: f32) -> f32 {
    let mut acc = [_mm256_set1_ps(floor); 4];
    let (blocks, rest) = x.as_chunks::<32>();
    for x in blocks {
        for (acc, x) in acc.iter_mut().zip(x.as_chunks::<8>().0) {
            *acc = _mm256_max_ps(abs(load(x)), *acc);
        }
    }
    let m = _mm256_max_ps(_mm256_max_ps(acc[0], acc[1]), _mm256_max_ps(acc[2], acc[3]));
    let mut lanes = [0.0; 8];
    store(&mut lanes, m);
    lanes.iter().chain(rest).fold(floor, |m, v| if v.abs() > m { v.abs() } else { m })
}

/// `round_ties_even(x * scale)`, between `low` and 127, NaN to 0.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn quantize8(x: &[f32; 8], scale: __m256, low: __m256) -> __m256i {
    let v = _mm256_mul_ps(load(x), scale);
    let v = _mm256_and_ps(v, _mm256_cmp_ps::<_CMP_ORD_Q>(v, v));
    // Clamping before rounding is the same: the limits are integers.
    let v = _mm256_max_ps(_mm256_min_ps(v, _mm256_set1_ps(127.0)), low);
    _mm256_cvtps_epi32(v)
}

/// 32 values to int8 in order; returns them too.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn quantize32(x: &[f32; 32], q: &mut [i8; 32], scale: __m256, low: __m256) -> __m256i {
    let x = x.as_chunks::<8>().0;
    let a = _mm256_packs_epi32(quantize8(&x[0], scale, low), quantize8(&x[1], scale, low));
    let b = _mm256_packs_epi32(quantize8(&x[2], scale, low), quantize8(&x[3], scale, low));
    // The packs work within halves: groups of four come out as 0 2 4 6 1 3 5 7.
    let packed = _mm256_packs_epi16(a, b);
    let packed = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    // SAFETY: 32 bytes of room.
    unsafe { _mm256_storeu_si256(q.as_mut_ptr().cast(), packed) };
    packed
}

/// Eight i32 sums of four int8 each. Ones times int8 add to at most 256: no saturation.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn fours(q: __m256i) -> __m256i {
    _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), q), _mm256_set1_epi16(1))
}

/// [`crate::ActKind::I8`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn prepare_i8(x: &[f32], cols: usize, out: ActivationsMut<'_>) {
    for t in 0..out.scale.len() {
        let token = t * cols..(t + 1) * cols;
        let (x, q) = (&x[token.clone()], &mut out.q[token]);
        let scale = 127.0 / absmax(x, 1e-5);
        let (blocks, rest) = x.as_chunks::<32>();
        let (q, q_rest) = q.as_chunks_mut::<32>();
        let mut sum = _mm256_setzero_si256();
        for (x, q) in blocks.iter().zip(q) {
            let q = quantize32(x, q, _mm256_set1_ps(scale), _mm256_set1_ps(-128.0));
            sum = _mm256_add_epi32(sum, fours(q));
        }
        let mut isum = super::lanes::sum_i32(sum);
        for (x, q) in rest.iter().zip(q_rest) {
            *q = (x * scale).round_ties_even().clamp(-128.0, 127.0) as i8;
            isum += i32::from(*q);
        }
        (out.scale[t], out.isum[t]) = (scale, isum);
    }
}

/// [`crate::ActKind::Q8`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn prepare_q8(x: &[f32], out: ActivationsMut<'_>) {
    let x = x.as_chunks::<Q8_BLOCK>().0;
    let q = out.q.as_chunks_mut::<Q8_BLOCK>().0;
    for (b, (x, q)) in x.iter().zip(q).enumerate() {
        let d = absmax(x, 0.0) / 127.0;
        let id = if d > 0.0 { 1.0 / d } else { 0.0 };
        let q = quantize32(x, q, _mm256_set1_ps(id), _mm256_set1_ps(-127.0));
        out.scale[b] = d;
        out.bsum[b] = d * super::lanes::sum_i32(fours(q)) as f32;
    }
}

/// See [`crate::Kernels::rms_norm`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn rms_norm(x: &[f32], w: &[f32], eps: f32, y: &mut [f32]) {
    let r = 1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt();
    let (x, x_rest) = x.as_chunks::<8>();
    let (w, w_rest) = w.as_chunks::<8>();
    let (y, y_rest) = y.as_chunks_mut::<8>();
    for ((x, w), y) in x.iter().zip(w).zip(y) {
        store(y, _mm256_mul_ps(_mm256_mul_ps(load(x), _mm256_set1_ps(r)), load(w)));
    }
    for ((x, w), y) in x_rest.iter().zip(w_rest).zip(y_rest) {
        *y = x * r * w;
    }
}

/// See [`crate::Kernels::layer_norm`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn layer_norm(x: &[f32], (w, b): (&[f32], &[f32]), eps: f32, y: &mut [f32]) {
    // The compiler makes both loops eight-lane ones.
    let mean = sum(x) / x.len() as f32;
    for (y, x) in y.iter_mut().zip(x) {
        *y = x - mean;
    }
    let r = 1.0 / (dot(y, y) / x.len() as f32 + eps).sqrt();
    for ((y, w), b) in y.iter_mut().zip(w).zip(b) {
        *y = *y * r * w + b;
    }
}

/// See [`crate::Kernels::gelu`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn gelu(x: &mut [f32]) {
    let (eights, rest) = x.as_chunks_mut::<8>();
    let (one, half) = (_mm256_set1_ps(1.0), _mm256_set1_ps(0.5));
    let [first, cube] = numerics::GELU.map(|c| _mm256_set1_ps(c));
    for x in eights {
        let v = load(x);
        let u = _mm256_mul_ps(_mm256_mul_ps(first, v), _mm256_fmadd_ps(_mm256_mul_ps(cube, v), v, one));
        store(x, _mm256_mul_ps(_mm256_mul_ps(half, v), _mm256_add_ps(one, tanh(u))));
    }
    for x in rest {
        *x = numerics::gelu(*x);
    }
}

/// See [`crate::Kernels::rope`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn rope(kind: Rope, x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let half = cos.len();
    match kind {
        Rope::Neox => {
            let (x0, x1) = x[..2 * half].split_at_mut(half);
            let (a, a_rest) = x0.as_chunks_mut::<8>();
            let (b, b_rest) = x1.as_chunks_mut::<8>();
            let (c, c_rest) = cos.as_chunks::<8>();
            let (s, s_rest) = sin.as_chunks::<8>();
            for ((a, b), (c, s)) in a.iter_mut().zip(b).zip(c.iter().zip(s)) {
                let (x0, x1, c, s) = (load(a), load(b), load(c), load(s));
                store(a, _mm256_sub_ps(_mm256_mul_ps(x0, c), _mm256_mul_ps(x1, s)));
                store(b, _mm256_add_ps(_mm256_mul_ps(x0, s), _mm256_mul_ps(x1, c)));
            }
            for ((a, b), (c, s)) in a_rest.iter_mut().zip(b_rest).zip(c_rest.iter().zip(s_rest)) {
                rotate(a, b, *c, *s);
            }
        }
        Rope::Norm => {
            let (eights, rest) = x[..2 * half].as_chunks_mut::<8>();
            let (c, c_rest) = cos.as_chunks::<4>();
            let (s, s_rest) = sin.as_chunks::<4>();
            for (x, (c, s)) in eights.iter_mut().zip(c.iter().zip(s)) {
                let (v, c, s) = (load(x), twice(c), twice(s));
                let swapped = _mm256_permute_ps::<0b10_11_00_01>(v);
                // Even lanes x0*c - x1*s, odd lanes x1*c + x0*s: the same sum, addition commutes.
                store(x, _mm256_addsub_ps(_mm256_mul_ps(v, c), _mm256_mul_ps(swapped, s)));
            }
            for (x, (c, s)) in rest.as_chunks_mut::<2>().0.iter_mut().zip(c_rest.iter().zip(s_rest)) {
                let [a, b] = x;
                rotate(a, b, *c, *s);
            }
        }
    }
}

fn rotate(a: &mut f32, b: &mut f32, c: f32, s: f32) {
    (*a, *b) = (*a * c - *b * s, *a * s + *b * c);
}

/// a b c d -> a a b b c c d d.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn twice(x: &[f32; 4]) -> __m256 {
    // SAFETY: the array has four floats.
    let v = _mm256_castps128_ps256(unsafe { _mm_loadu_ps(x.as_ptr()) });
    _mm256_permutevar8x32_ps(v, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3))
}

/// See [`crate::Kernels::relu2_gate`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn relu2_gate(gate: &mut [f32], up: &[f32]) {
    let (g, g_rest) = gate.as_chunks_mut::<8>();
    let (u, u_rest) = up.as_chunks::<8>();
    for (g, u) in g.iter_mut().zip(u) {
        // max gives its second operand if that is NaN.
        let r = _mm256_max_ps(_mm256_setzero_ps(), load(g));
        store(g, _mm256_mul_ps(_mm256_mul_ps(r, r), load(u)));
    }
    for (g, u) in g_rest.iter_mut().zip(u_rest) {
        let r = if *g < 0.0 { 0.0 } else { *g };
        *g = r * r * u;
    }
}

/// See [`crate::Kernels::silu_gate`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn silu_gate(gate: &mut [f32], up: &[f32]) {
    let (g, g_rest) = gate.as_chunks_mut::<8>();
    let (u, u_rest) = up.as_chunks::<8>();
    for (g, u) in g.iter_mut().zip(u) {
        let v = load(g);
        let e = exp(_mm256_xor_ps(v, _mm256_set1_ps(-0.0)));
        let silu = _mm256_div_ps(v, _mm256_add_ps(_mm256_set1_ps(1.0), e));
        store(g, _mm256_mul_ps(silu, load(u)));
    }
    for (g, u) in g_rest.iter_mut().zip(u_rest) {
        *g = silu(*g) * u;
    }
}

/// See [`crate::Kernels::add`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn add(x: &mut [f32], y: &[f32]) {
    // The compiler makes this the eight-lane loop.
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// See [`crate::Kernels::f32_to_f16`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn f32_to_f16(x: &[f32], out: &mut [u16]) {
    let (x, x_rest) = x.as_chunks::<8>();
    let (out, out_rest) = out.as_chunks_mut::<8>();
    for (x, out) in x.iter().zip(out) {
        let halves = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(load(x));
        // SAFETY: 16 bytes of room.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), halves) };
    }
    for (x, out) in x_rest.iter().zip(out_rest) {
        *out = numerics::f32_to_f16(*x);
    }
}
