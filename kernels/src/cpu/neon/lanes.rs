//! Four lanes at a time: loads from arrays, the canonical trees, `exp`, and the order of a 64-lane dot.
//!
use std::arch::aarch64::*;

use crate::numerics::{exp_parts, f16_to_f32, tree};

/// Registers of 64 lanes.
pub(super) const REGISTERS: usize = 16;

/// Four floats.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load(x: &[f32; 4]) -> float32x4_t {
    // SAFETY: the array has the four floats.
    unsafe { vld1q_f32(x.as_ptr()) }
}

/// Stores four floats.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store(x: &mut [f32; 4], v: float32x4_t) {
    // SAFETY: the array has room for four floats.
    unsafe { vst1q_f32(x.as_mut_ptr(), v) }
}

/// 16 int8.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_i8(x: &[i8; 16]) -> int8x16_t {
    // SAFETY: the array has the 16 bytes.
    unsafe { vld1q_s8(x.as_ptr()) }
}

/// 16 bytes.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_u8(x: &[u8; 16]) -> uint8x16_t {
    // SAFETY: the array has the 16 bytes.
    unsafe { vld1q_u8(x.as_ptr()) }
}

/// Stores 16 int8.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store_i8(x: &mut [i8; 16], v: int8x16_t) {
    // SAFETY: the array has room for 16 bytes.
    unsafe { vst1q_s8(x.as_mut_ptr(), v) }
}

/// Eight 16-bit values.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_u16(x: &[u16; 8]) -> uint16x8_t {
    // SAFETY: the array has the 16 bytes.
    unsafe { vld1q_u16(x.as_ptr()) }
}

/// Eight f16, widened.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn widen(halves: uint16x8_t) -> [float32x4_t; 2] {
    let halves = vreinterpretq_f16_u16(halves);
    [vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves)]
}

/// One f16, widened by the processor.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn widen_one(bits: u16) -> f32 {
    vgetq_lane_f32::<0>(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(bits))))
}

/// `x > m ? x : m` in each lane: a NaN in `x` is passed over.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn larger(x: float32x4_t, m: float32x4_t) -> float32x4_t {
    vbslq_f32(vcgtq_f32(x, m), x, m)
}

/// The tree over four lanes: 2, 1.
#[inline]
#[target_feature(enable = "neon")]
fn tree4(v: float32x4_t) -> f32 {
    let s = vadd_f32(vget_low_f32(v), vget_high_f32(v));
    vget_lane_f32::<0>(s) + vget_lane_f32::<1>(s)
}

/// The tree over eight lanes.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn tree8(v: [float32x4_t; 2]) -> f32 {
    tree4(vaddq_f32(v[0], v[1]))
}

/// The tree over 64 lanes; register `j` holds the lanes from `4 * j`.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn tree64(mut v: [float32x4_t; REGISTERS]) -> f32 {
    let mut width = REGISTERS / 2;
    while width > 0 {
        for j in 0..width {
            v[j] = vaddq_f32(v[j], v[j + width]);
        }
        width /= 2;
    }
    tree4(v[0])
}

/// Folds the elements from `from` on, one by one, and ends with the tree: the tail of a 64-lane reduction.
#[target_feature(enable = "neon")]
pub(super) fn tail64(v: [float32x4_t; REGISTERS], from: usize, n: usize, step: impl Fn(usize, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; 64];
    for (lanes, v) in lanes.as_chunks_mut::<4>().0.iter_mut().zip(v) {
        store(lanes, v);
    }
    for i in from..n {
        lanes[i % 64] = step(i, lanes[i % 64]);
    }
    tree(lanes)
}

/// The canonical dot of two f32 slices of one length.
#[target_feature(enable = "neon")]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let b = &b[..a.len()];
    let mut acc = [vdupq_n_f32(0.0); REGISTERS];
    for (a, b) in a.as_chunks::<64>().0.iter().zip(b.as_chunks::<64>().0) {
        let (a, b) = (a.as_chunks::<4>().0, b.as_chunks::<4>().0);
        for j in 0..REGISTERS {
            acc[j] = vfmaq_f32(acc[j], load(&a[j]), load(&b[j]));
        }
    }
    match a.len() % 64 {
        0 => tree64(acc),
        rest => tail64(acc, a.len() - rest, a.len(), |i, lane| a[i].mul_add(b[i], lane)),
    }
}

/// The canonical dot of a f32 slice and as many f16.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn dot_f16(a: &[f32], b: &[u16]) -> f32 {
    let b = &b[..a.len()];
    let mut acc = [vdupq_n_f32(0.0); REGISTERS];
    for (a, b) in a.as_chunks::<64>().0.iter().zip(b.as_chunks::<64>().0) {
        let (a, b) = (a.as_chunks::<4>().0, b.as_chunks::<8>().0);
        for j in 0..REGISTERS / 2 {
            let [low, high] = widen(load_u16(&b[j]));
            acc[2 * j] = vfmaq_f32(acc[2 * j], load(&a[2 * j]), low);
            acc[2 * j + 1] = vfmaq_f32(acc[2 * j + 1], load(&a[2 * j + 1]), high);
        }
    }
    match a.len() % 64 {
        0 => tree64(acc),
        rest => tail64(acc, a.len() - rest, a.len(), |i, lane| a[i].mul_add(f16_to_f32(b[i]), lane)),
    }
}

/// The canonical sum.
#[target_feature(enable = "neon")]
pub(super) fn sum(a: &[f32]) -> f32 {
    let mut acc = [vdupq_n_f32(0.0); REGISTERS];
    let (blocks, rest) = a.as_chunks::<64>();
    for a in blocks {
        let a = a.as_chunks::<4>().0;
        for j in 0..REGISTERS {
            acc[j] = vaddq_f32(acc[j], load(&a[j]));
        }
    }
    if rest.is_empty() {
        return tree64(acc);
    }
    tail64(acc, a.len() - rest.len(), a.len(), |i, lane| lane + a[i])
}

/// [`crate::numerics::exp`] on four lanes, the same steps.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn exp(x: float32x4_t) -> float32x4_t {
    use exp_parts::*;
    // NEON's min and max give NaN if one operand is NaN: NaN passes.
    let x = vmaxq_f32(vminq_f32(x, vdupq_n_f32(HI)), vdupq_n_f32(LO));
    let n = vrndnq_f32(vmulq_f32(x, vdupq_n_f32(LOG2_E)));
    let r = vfmaq_f32(x, n, vdupq_n_f32(-LN2_HI));
    let r = vfmaq_f32(r, n, vdupq_n_f32(-LN2_LO));
    let mut p = vdupq_n_f32(TAYLOR[0]);
    for c in TAYLOR[1..].iter().chain(&[1.0, 1.0]) {
        p = vfmaq_f32(vdupq_n_f32(*c), p, r);
    }
    let n = vcvtq_s32_f32(n);
    let half = vshrq_n_s32::<1>(n);
    vmulq_f32(vmulq_f32(p, pow2(half)), pow2(vsubq_s32(n, half)))
}

/// 2^e for normal results.
#[inline]
#[target_feature(enable = "neon")]
fn pow2(e: int32x4_t) -> float32x4_t {
    vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(e, vdupq_n_s32(127))))
}
