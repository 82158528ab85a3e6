//! int8 rows times one int16 input, exact in i32, by `vpmaddwd`: four rows at a time, memory is the limit.

use std::arch::x86_64::*;

use super::dense::Dense;
use crate::Matrix;
use crate::cpu::ahead::Ahead;
use crate::cpu::stored::{F16, Stored, plain_f16};
use crate::screen::{self, Bound};

/// Values of a register of int16.
const LANES: usize = 16;
/// Columns of a step.
const STEP: usize = 2 * LANES;

/// See [`crate::Kernels::dots_i8_i16`].
#[target_feature(enable = "avx2,fma,f16c")]
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
#[target_feature(enable = "avx2,fma,f16c")]
fn rows<const R: usize>(w: &[i8], x: &[i16]) -> [i32; R] {
    let cols = x.len();
    assert_eq!(w.len(), R * cols);
    let (steps, _) = x.as_chunks::<STEP>();
    let mut w_at = [w.as_ptr(); R];
    for (r, at) in w_at.iter_mut().enumerate() {
        *at = w[r * cols..].as_ptr();
    }
    let mut acc = [[_mm256_setzero_si256(); 2]; R];
    let mut ahead = Ahead::of(&w[..cols], R);
    for (c, x) in steps.iter().enumerate() {
        ahead.ask((R * STEP).div_ceil(64));
        let mut xs = [_mm256_setzero_si256(); 2];
        for (xs, x) in xs.iter_mut().zip(x.as_chunks::<LANES>().0) {
            // SAFETY: the array has the register's values.
            *xs = unsafe { _mm256_loadu_si256(x.as_ptr().cast()) };
        }
        for r in 0..R {
            for j in 0..2 {
                // SAFETY: step c of row r lies inside of w: c * STEP + STEP <= cols.
                let w = unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(w_at[r].add(c * STEP + j * LANES).cast())) };
                acc[r][j] = _mm256_add_epi32(acc[r][j], _mm256_madd_epi16(w, xs[j]));
            }
        }
    }
    let mut out = [0; R];
    for r in 0..R {
        let tail = (steps.len() * STEP..cols).map(|i| i32::from(w[r * cols + i]) * i32::from(x[i]));
        out[r] = super::lanes::sum_i32(_mm256_add_epi32(acc[r][0], acc[r][1])) + tail.sum::<i32>();
    }
    out
}

/// See [`crate::Kernels::narrow`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn narrow(w: &Matrix<'_>, row: usize, values: &mut [f32], q: &mut [i8]) -> Bound {
    if plain_f16(w) {
        let bytes = w.row(row);
        let eights = values.len() / 8;
        for i in 0..eights {
            // SAFETY: the row has two bytes for each value, this reads sixteen from 16 i.
            let eight = unsafe { F16::load(bytes[16 * i..].as_ptr()) };
            // SAFETY: the chunk has eight values.
            unsafe { _mm256_storeu_ps(values[8 * i..8 * i + 8].as_mut_ptr(), eight) }
        }
        for i in 8 * eights..values.len() {
            values[i] = F16::one(bytes, i);
        }
    } else {
        w.unpack_row(row, values);
    }
    screen::narrow(values, q)
}
