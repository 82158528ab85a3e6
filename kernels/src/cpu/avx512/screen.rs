//! int8 rows times one int16 input, exact in i32, by `vpdpwssd`: four rows at a time, memory is the limit.

use std::arch::x86_64::*;

/// Values of a register of int16.
const LANES: usize = 32;
/// Columns of a step.
const STEP: usize = 2 * LANES;

/// See [`crate::Kernels::dots_i8_i16`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn dots(w: &[i8], x: &[i16], out: &mut [i32]) {
    let cols = x.len();
    let (fours, rest) = out.as_chunks_mut::<4>();
    let (w_fours, w_rest) = w.split_at(fours.len() * 4 * cols);
    for (w, out) in w_fours.chunks_exact(4 * cols).zip(fours) {
        *out = rows(w, x);
    }
    for (w, out) in w_rest.chunks_exact(cols).zip(rest) {
        [*out] = rows(w, x);
    }
}

/// `R` rows, which are all of `w`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn rows<const R: usize>(w: &[i8], x: &[i16]) -> [i32; R] {
    let cols = x.len();
    assert_eq!(w.len(), R * cols);
    let (steps, _) = x.as_chunks::<STEP>();
    let mut w_at = [w.as_ptr(); R];
    for (r, at) in w_at.iter_mut().enumerate() {
        *at = w[r * cols..].as_ptr();
    }
    let mut acc = [[_mm512_setzero_si512(); 2]; R];
    for (c, x) in steps.iter().enumerate() {
        let mut xs = [_mm512_setzero_si512(); 2];
        for (xs, x) in xs.iter_mut().zip(x.as_chunks::<LANES>().0) {
            // SAFETY: the array has the register's values.
            *xs = unsafe { _mm512_loadu_si512(x.as_ptr().cast()) };
        }
        for r in 0..R {
            // The same place in the rows whose turn is next; to the program a prefetch is no access.
            _mm_prefetch::<_MM_HINT_T0>(w_at[r].wrapping_add(R * cols + c * STEP));
            for j in 0..2 {
                // SAFETY: step c of row r lies inside of w: c * STEP + STEP <= cols.
                let w = unsafe { _mm512_cvtepi8_epi16(_mm256_loadu_si256(w_at[r].add(c * STEP + j * LANES).cast())) };
                acc[r][j] = _mm512_dpwssd_epi32(acc[r][j], w, xs[j]);
            }
        }
    }
    let mut out = [0; R];
    for r in 0..R {
        let tail = (steps.len() * STEP..cols).map(|i| i32::from(w[r * cols + i]) * i32::from(x[i]));
        out[r] = _mm512_reduce_add_epi32(_mm512_add_epi32(acc[r][0], acc[r][1])) + tail.sum::<i32>();
    }
    out
}
