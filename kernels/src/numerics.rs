//! The numerics contract: the one order in which every float operation of the project happens.
//!
//! Floating-point addition is not associative, so a sum has as many values as it has orders. Peers take whatever order
//! their vector width gives and compare with tolerances. Here the order is fixed once, wide enough for every instruction
//! set (64 lanes are eight AVX2 or four AVX-512 registers, enough to hide the latency of an FMA), and everything
//! else follows: bit-identical logits across devices, thread counts and batch shapes.
//!
//! * [`reduce64`]: element `i` goes to lane `i mod 64`, in order, from `+0.0`; then [`tree`] adds the upper half of the
//!   lanes to the lower half until one is left. Dot products step by `fma(a_i, b_i, lane)`, sums by `lane + a_i`.
//! * Block dots (int8 activations with a scale for each 32): 16 lanes, see [`crate::quant::decode`].
//! * Softmax: `e_i = exp(s_i - max)`, `z = reduce64 sum(e)`; the division by `z` happens once, on the output.
//! * Attention: `s_t = dot(q, k_t) * scale`. The values are added in chunks of [`PV_CHUNK`] positions (`t / 128`): inside
//!   a chunk `acc_d = fma(e_t, v_t[d], acc_d)` for rising `t` from `+0.0`, then `total_d = total_d + acc_d` for rising
//!   chunks from `+0.0`; `out_d = total_d / z`.
//! * `mul_add` is written where an FMA is meant. Nothing else is fused: Rust does not contract.
//!
//! NaN is kept as NaN, its sign and payload are not part of the contract.

use half::f16;

/// Positions of one partial sum of attention values.
pub const PV_CHUNK: usize = 128;

/// Adds the upper half of the lanes to the lower half until one lane is left. `N` is a power of two.
pub fn tree<const N: usize>(mut lanes: [f32; N]) -> f32 {
    const { assert!(N.is_power_of_two()) };
    let mut width = N / 2;
    while width > 0 {
        for j in 0..width {
            lanes[j] += lanes[j + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Folds `n` elements into 64 lanes with `step(i, lane) -> lane` and sums the lanes by [`tree`].
pub fn reduce64(n: usize, step: impl Fn(usize, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; 64];
    for i in 0..n {
        lanes[i % 64] = step(i, lanes[i % 64]);
    }
    tree(lanes)
}

/// The canonical dot product of two slices of one length.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    reduce64(a.len(), |i, lane| a[i].mul_add(b[i], lane))
}

/// The canonical sum.
pub fn sum(a: &[f32]) -> f32 {
    reduce64(a.len(), |i, lane| lane + a[i])
}

/// The largest element, NaN passed over; minus infinity for an empty slice.
pub fn max(a: &[f32]) -> f32 {
    a.iter().fold(f32::NEG_INFINITY, |m, &x| if x > m { x } else { m })
}

/// The exact value of f16 bits. Always in software, so that the oracle owes nothing to the instruction under test.
pub fn f16_to_f32(bits: u16) -> f32 {
    f16::from_bits(bits).to_f32_const()
}

/// f16 bits, rounded to nearest even, in software.
pub fn f32_to_f16(x: f32) -> u16 {
    f16::from_f32_const(x).to_bits()
}

/// Constants of [`exp`], shared with the vector versions.
pub(crate) mod exp_parts {
    /// Above, `exp` is infinite anyway; the clamp keeps 2^n within two factors.
    pub(crate) const HI: f32 = 100.0;
    /// Below, `exp` is zero anyway.
    pub(crate) const LO: f32 = -110.0;
    pub(crate) const LOG2_E: f32 = std::f32::consts::LOG2_E;
    /// ln 2 with 9 trailing zero bits: `n * LN2_HI` is exact for every |n| below 2^9.
    pub(crate) const LN2_HI: f32 = 0.693_145_75;
    /// ln 2 - LN2_HI.
    pub(crate) const LN2_LO: f32 = 1.428_606_8e-6;
    /// 1/7! .. 1/2!, the Taylor series; its first term left out is below 6e-9 on |r| <= ln2/2.
    pub(crate) const TAYLOR: [f32; 6] = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5];
}

/// e^x within 2 ulp: 0 below the denormals, infinite above, NaN stays. Every kernel set takes these very steps.
pub fn exp(x: f32) -> f32 {
    use exp_parts::*;
    // Written so that NaN passes through both clamps.
    let x = if HI < x { HI } else { x };
    let x = if LO > x { LO } else { x };
    let n = (x * LOG2_E).round_ties_even();
    let r = n.mul_add(-LN2_HI, x);
    let r = n.mul_add(-LN2_LO, r);
    let mut p = TAYLOR[0];
    for c in &TAYLOR[1..] {
        p = p.mul_add(r, *c);
    }
    p = p.mul_add(r, 1.0);
    p = p.mul_add(r, 1.0);
    // 2^n in two factors, so that neither overflows and a denormal result is rounded once.
    let n = n as i32;
    let half = n >> 1;
    let pow2 = |e: i32| f32::from_bits(((e + 127) as u32) << 23);
    p * pow2(half) * pow2(n - half)
}

/// `g / (1 + exp(-g))`.
pub fn silu(g: f32) -> f32 {
    g / (1.0 + exp(-g))
}

/// Constants of [`tanh`], shared with the vector versions.
pub(crate) mod tanh_parts {
    /// Below this magnitude the Taylor series is taken, above it the definition by `exp`, which cancels near 0.
    pub(crate) const NEAR: f32 = 0.3;
    /// 62/2835, -17/315, 2/15, -1/3: of u^9 down to u^3. The first term left out is below 6e-8 of the value.
    pub(crate) const TAYLOR: [f32; 4] = [62.0 / 2835.0, -17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0];
}

/// tanh within 4 ulp: +-1 far out, odd, NaN stays. With `t = exp(-2 |u|)` it is `(1 - t) / (1 + t)`, near 0 a polynomial.
/// Every kernel set takes these very steps.
pub fn tanh(u: f32) -> f32 {
    use tanh_parts::*;
    let abs = u.abs();
    let value = if abs < NEAR {
        let square = abs * abs;
        let mut p = TAYLOR[0];
        for c in &TAYLOR[1..] {
            p = p.mul_add(square, *c);
        }
        (p * square).mul_add(abs, abs)
    } else {
        let t = exp(-2.0 * abs);
        (1.0 - t) / (1.0 + t)
    };
    value.copysign(u)
}

/// Constants of [`gelu`], shared with the vector versions: sqrt(2 / pi), and the factor of the cube.
pub(crate) const GELU: [f32; 2] = [0.797_884_6, 0.044_715];

/// `0.5 x (1 + tanh(u))` with `u = sqrt(2 / pi) x (1 + 0.044715 x^2)`: the GELU of GPT-2 and Gemma (Hendrycks and Gimpel,
/// 2016, the approximation by tanh). NaN for minus infinity.
pub fn gelu(x: f32) -> f32 {
    let u = GELU[0] * x * (GELU[1] * x).mul_add(x, 1.0);
    0.5 * x * (1.0 + tanh(u))
}

/// Turns scores into softmax numerators in place and returns the denominator.
pub fn softmax_parts(scores: &mut [f32]) -> f32 {
    let m = max(scores);
    for s in scores.iter_mut() {
        *s = exp(*s - m);
    }
    sum(scores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ln2_constants() {
        assert_eq!(exp_parts::LN2_HI.to_bits() & 0x1ff, 0);
        let sum = f64::from(exp_parts::LN2_HI) + f64::from(exp_parts::LN2_LO);
        assert!((sum - std::f64::consts::LN_2).abs() < 1e-13);
    }

    #[test]
    fn reduce64_is_lane_by_lane() {
        // 2^24 swallows +1: the order shows. Lane 0 gets 2^24 and 1 (lost), lane 1 gets 1 and 1 (kept).
        let mut a = [0.0f32; 128];
        (a[0], a[64], a[1], a[65]) = (16_777_216.0, 1.0, 1.0, 1.0);
        assert_eq!(sum(&a), 16_777_218.0);
        assert_eq!(a.iter().sum::<f32>(), 16_777_216.0);
    }

    #[test]
    fn tree_adds_halves() {
        // Neighbours first would be (2^24 + 1) + (-2^24 + 1) = 0 or 1; halves first cancel exactly.
        assert_eq!(tree([16_777_216.0, 1.0, -16_777_216.0, 1.0]), 2.0);
    }
}
