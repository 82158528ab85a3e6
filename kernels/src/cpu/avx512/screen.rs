//! Rows of f16 as int8 with their bounds, in one pass over what L2 holds: see [`crate::screen`].

use std::arch::x86_64::*;

use crate::numerics::f16_to_f32;
use crate::screen::Bound;
use crate::screen::narrow::{LANES, ROUND, scale};

/// Values of a register of floats.
const HALF: usize = LANES / 2;

/// See [`crate::Kernels::narrow`]; `row` is the bytes of `q.len()` f16 values.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,fma")]
pub(super) fn narrow_f16(row: &[u8], q: &mut [i8]) -> Bound {
    let n = q.len();
    assert_eq!(row.len(), 2 * n);
    // A block of 32 values; of the last one what there is, and zeros.
    let block = |i: usize| {
        let there = (n - i).min(LANES);
        // SAFETY: what is masked off is not read, and the others lie inside of the row: i + there <= n.
        unsafe { _mm512_maskz_loadu_epi16(u32::MAX >> (LANES - there), row.as_ptr().add(2 * i).cast()) }
    };
    let magnitude = _mm512_set1_epi16(0x7fff);
    let mut most = _mm512_setzero_si512();
    for i in (0..n).step_by(LANES) {
        most = _mm512_max_epu16(most, _mm512_and_si512(block(i), magnitude));
    }
    let mut halves = [0u16; LANES];
    // SAFETY: the array has the register's bytes.
    unsafe { _mm512_storeu_si512(halves.as_mut_ptr().cast(), most) }
    // As integers magnitudes have the same order, and what is not finite is above all else.
    let most = halves.into_iter().fold(0, u16::max);
    let Some(scale) = scale(f16_to_f32(most)) else { return Bound::NONE };
    let (inverse, round) = (_mm512_set1_ps(1.0 / scale), _mm512_set1_ps(ROUND));
    let mut sums = [[_mm512_setzero_ps(); 2]; 2];
    for i in (0..n).step_by(LANES) {
        let values = block(i);
        let there = u32::MAX >> (LANES - (n - i).min(LANES));
        for (half, [whole, rest]) in sums.iter_mut().enumerate() {
            let w = if half == 0 { _mm512_castsi512_si256(values) } else { _mm512_extracti64x4_epi64::<1>(values) };
            let v = _mm512_mul_ps(_mm512_cvtph_ps(w), inverse);
            let rounded = _mm512_add_ps(v, round);
            let e = _mm512_sub_ps(v, _mm512_sub_ps(rounded, round));
            // No fused ones: every set has the same bits.
            *whole = _mm512_add_ps(*whole, _mm512_mul_ps(v, v));
            *rest = _mm512_add_ps(*rest, _mm512_mul_ps(e, e));
            let there = (there >> (half * HALF)) as u16;
            // SAFETY: what is masked off is not written, and the others lie inside of `q`.
            unsafe {
                _mm512_mask_cvtepi32_storeu_epi8(
                    q.as_mut_ptr().add(i).wrapping_add(half * HALF).cast(),
                    there,
                    _mm512_castps_si512(rounded),
                );
            }
        }
    }
    let lanes = |which: usize| {
        let mut lanes = [0.0; LANES];
        for (sums, lanes) in sums.iter().zip(lanes.chunks_exact_mut(HALF)) {
            // SAFETY: the chunk has the register's values.
            unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), sums[which]) }
        }
        lanes
    };
    Bound::of(n, scale, lanes(0), lanes(1))
}
