//! Eight lanes at a time: loads from slices, the canonical trees, `exp`, and the order of a 64-lane dot.

use std::arch::x86_64::*;

use crate::numerics::{exp_parts, tanh_parts, tree};

/// Eight floats.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn load(x: &[f32; 8]) -> __m256 {
    // SAFETY: the array has the eight floats.
    unsafe { _mm256_loadu_ps(x.as_ptr()) }
}

/// Stores eight floats.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn store(x: &mut [f32; 8], v: __m256) {
    // SAFETY: the array has room for eight floats.
    unsafe { _mm256_storeu_ps(x.as_mut_ptr(), v) }
}

/// Eight f16, widened.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn load_f16(x: &[u16; 8]) -> __m256 {
    // SAFETY: the array has the sixteen bytes.
    unsafe { _mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().cast())) }
}

/// 32 int8.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn load_i8(x: &[i8; 32]) -> __m256i {
    // SAFETY: the array has the 32 bytes.
    unsafe { _mm256_loadu_si256(x.as_ptr().cast()) }
}

/// The tree over eight lanes: 4, 2, 1.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn tree8(v: __m256) -> f32 {
    let s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps::<1>(s, s)))
}

/// The tree over 64 lanes; register `j` holds the lanes from `8 * j`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn tree64(v: [__m256; 8]) -> f32 {
    let (a, b) = (_mm256_add_ps(v[0], v[4]), _mm256_add_ps(v[1], v[5]));
    let (c, d) = (_mm256_add_ps(v[2], v[6]), _mm256_add_ps(v[3], v[7]));
    tree8(_mm256_add_ps(_mm256_add_ps(a, c), _mm256_add_ps(b, d)))
}

/// The sum of eight i32.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn sum_i32(v: __m256i) -> i32 {
    let s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
    let s = _mm_add_epi32(s, _mm_shuffle_epi32::<0b01_00_11_10>(s));
    _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32::<0b10_11_00_01>(s)))
}

/// Folds the elements from `from` on, one by one, and ends with the tree: the tail of a 64-lane reduction.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn tail64(v: [__m256; 8], from: usize, n: usize, step: impl Fn(usize, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; 64];
    for (lanes, v) in lanes.as_chunks_mut::<8>().0.iter_mut().zip(v) {
        store(lanes, v);
    }
    for i in from..n {
        lanes[i % 64] = step(i, lanes[i % 64]);
    }
    tree(lanes)
}

/// The canonical dot of two f32 slices of one length.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let b = &b[..a.len()];
    let mut acc = [_mm256_setzero_ps(); 8];
    for (a, b) in a.as_chunks::<64>().0.iter().zip(b.as_chunks::<64>().0) {
        let (a, b) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
        for j in 0..8 {
            acc[j] = _mm256_fmadd_ps(load(&a[j]), load(&b[j]), acc[j]);
        }
    }
    match a.len() % 64 {
        0 => tree64(acc),
        rest => tail64(acc, a.len() - rest, a.len(), |i, lane| a[i].mul_add(b[i], lane)),
    }
}

/// The canonical dot of a f32 slice and as many f16.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot_f16(a: &[f32], b: &[u16]) -> f32 {
    let b = &b[..a.len()];
    let mut acc = [_mm256_setzero_ps(); 8];
    for (a, b) in a.as_chunks::<64>().0.iter().zip(b.as_chunks::<64>().0) {
        let (a, b) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
        for j in 0..8 {
            acc[j] = _mm256_fmadd_ps(load(&a[j]), load_f16(&b[j]), acc[j]);
        }
    }
    let rest = a.len() % 64;
    if rest == 0 {
        return tree64(acc);
    }
    // Heads of 80 or 96: a converted number costs as much here as a register of them.
    let (eights, of_eights) = (a[a.len() - rest..].as_chunks::<8>().0, b[a.len() - rest..].as_chunks::<8>().0);
    for j in 0..7 {
        if let (Some(a), Some(b)) = (eights.get(j), of_eights.get(j)) {
            acc[j] = _mm256_fmadd_ps(load(a), load_f16(b), acc[j]);
        }
    }
    match rest % 8 {
        0 => tree64(acc),
        one => tail64(acc, a.len() - one, a.len(), |i, lane| a[i].mul_add(crate::numerics::f16_to_f32(b[i]), lane)),
    }
}

/// The canonical sum.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn sum(a: &[f32]) -> f32 {
    let mut acc = [_mm256_setzero_ps(); 8];
    let (blocks, rest) = a.as_chunks::<64>();
    for a in blocks {
        let a = a.as_chunks::<8>().0;
        for j in 0..8 {
            acc[j] = _mm256_add_ps(acc[j], load(&a[j]));
        }
    }
    if rest.is_empty() {
        return tree64(acc);
    }
    tail64(acc, a.len() - rest.len(), a.len(), |i, lane| lane + a[i])
}

/// [`crate::numerics::exp`] on eight lanes, the same steps.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn exp(x: __m256) -> __m256 {
    use exp_parts::*;
    // min and max give their second operand if one is NaN: NaN passes.
    let x = _mm256_min_ps(_mm256_set1_ps(HI), x);
    let x = _mm256_max_ps(_mm256_set1_ps(LO), x);
    let n =
        _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(_mm256_mul_ps(x, _mm256_set1_ps(LOG2_E)));
    let r = _mm256_fmadd_ps(n, _mm256_set1_ps(-LN2_HI), x);
    let r = _mm256_fmadd_ps(n, _mm256_set1_ps(-LN2_LO), r);
    let mut p = _mm256_set1_ps(TAYLOR[0]);
    for c in &TAYLOR[1..] {
        p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(*c));
    }
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0));
    let n = _mm256_cvtps_epi32(n);
    let half = _mm256_srai_epi32::<1>(n);
    let (a, b) = (pow2(half), pow2(_mm256_sub_epi32(n, half)));
    _mm256_mul_ps(_mm256_mul_ps(p, a), b)
}

/// [`crate::numerics::tanh`] on eight lanes, the same steps.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn tanh(u: __m256) -> __m256 {
    use tanh_parts::*;
    let (one, sign) = (_mm256_set1_ps(1.0), _mm256_set1_ps(-0.0));
    let abs = _mm256_andnot_ps(sign, u);
    let square = _mm256_mul_ps(abs, abs);
    let mut p = _mm256_set1_ps(TAYLOR[0]);
    for c in &TAYLOR[1..] {
        p = _mm256_fmadd_ps(p, square, _mm256_set1_ps(*c));
    }
    let near = _mm256_fmadd_ps(_mm256_mul_ps(p, square), abs, abs);
    let t = exp(_mm256_mul_ps(_mm256_set1_ps(-2.0), abs));
    let far = _mm256_div_ps(_mm256_sub_ps(one, t), _mm256_add_ps(one, t));
    // False for NaN: `far` has it.
    let value = _mm256_blendv_ps(far, near, _mm256_cmp_ps::<_CMP_LT_OQ>(abs, _mm256_set1_ps(NEAR)));
    _mm256_or_ps(_mm256_andnot_ps(sign, value), _mm256_and_ps(sign, u))
}

/// 2^e for normal results.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn pow2(e: __m256i) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(e, _mm256_set1_epi32(127))))
}
