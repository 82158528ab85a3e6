//! Sixteen lanes at a time: loads from slices, and the canonical tree over four registers.

use std::arch::x86_64::*;

use crate::numerics::tree;

/// Sixteen floats.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,fma")]
pub(super) fn load(x: &[f32; 16]) -> __m512 {
    // SAFETY: the array has the sixteen floats.
    unsafe { _mm512_loadu_ps(x.as_ptr()) }
}

/// Stores sixteen floats.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,fma")]
pub(super) fn store(x: &mut [f32; 16], v: __m512) {
    // SAFETY: the array has room for sixteen floats.
    unsafe { _mm512_storeu_ps(x.as_mut_ptr(), v) }
}

/// Sixteen f16, widened.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,fma")]
pub(super) fn load_f16(x: &[u16; 16]) -> __m512 {
    // SAFETY: the array has the 32 bytes.
    unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) }
}

/// The tree over 64 lanes; register `j` holds the lanes from `16 * j`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,fma")]
pub(super) fn tree64(v: [__m512; 4]) -> f32 {
    let v = _mm512_add_ps(_mm512_add_ps(v[0], v[2]), _mm512_add_ps(v[1], v[3]));
    let s = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
    let s = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps::<1>(s));
    let s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps::<1>(s, s)))
}

/// Folds the elements from `from` on, one by one, and ends with the tree: the tail of a 64-lane reduction.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,fma")]
pub(super) fn tail64(v: [__m512; 4], from: usize, n: usize, step: impl Fn(usize, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; 64];
    for (lanes, v) in lanes.as_chunks_mut::<16>().0.iter_mut().zip(v) {
        store(lanes, v);
    }
    for i in from..n {
        lanes[i % 64] = step(i, lanes[i % 64]);
    }
    tree(lanes)
}
