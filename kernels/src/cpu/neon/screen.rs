//! int8 rows times one int16 input, exact in i32, by `smlal`: four rows at a time, which share the loaded input.

use std::arch::aarch64::*;

use super::lanes::load_i8;

/// Columns of a step.
const STEP: usize = 16;

/// See [`crate::Kernels::dots_i8_i16`].
#[target_feature(enable = "neon")]
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
#[target_feature(enable = "neon")]
fn rows<const R: usize>(w: &[i8], x: &[i16]) -> [i32; R] {
    let cols = x.len();
    let (steps, x_rest) = x.as_chunks::<STEP>();
    let mut rows = [w; R];
    for (row, w) in rows.iter_mut().zip(w.chunks_exact(cols)) {
        *row = w;
    }
    let mut acc = [[vdupq_n_s32(0); 2]; R];
    for (c, x) in steps.iter().enumerate() {
        // SAFETY: the array has the sixteen values.
        let [low, high] = unsafe { [vld1q_s16(x.as_ptr()), vld1q_s16(x[STEP / 2..].as_ptr())] };
        for r in 0..R {
            let w = load_i8(&rows[r].as_chunks::<STEP>().0[c]);
            let (w_low, w_high) = (vmovl_s8(vget_low_s8(w)), vmovl_high_s8(w));
            let [a, b] = acc[r];
            let a = vmlal_s16(a, vget_low_s16(w_low), vget_low_s16(low));
            let b = vmlal_high_s16(b, w_low, low);
            let a = vmlal_s16(a, vget_low_s16(w_high), vget_low_s16(high));
            acc[r] = [a, vmlal_high_s16(b, w_high, high)];
        }
    }
    let mut out = [0; R];
    for r in 0..R {
        let tail = rows[r][cols - x_rest.len()..].iter().zip(x_rest).map(|(w, x)| i32::from(*w) * i32::from(*x));
        out[r] = vaddvq_s32(vaddq_s32(acc[r][0], acc[r][1])) + tail.sum::<i32>();
    }
    out
}
