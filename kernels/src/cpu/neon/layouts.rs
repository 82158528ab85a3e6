//! How the bytes of the ternary formats become codes: 128 weights are eight registers of codes 0, 1, 2, in the order of
//! the weights.

use std::arch::aarch64::*;

use super::lanes::load_u8;
use crate::cpu::ternary::{Arm, Iq1Bn, Iq2Bn, Scales, Tq1, Tq2, X86};
use crate::quant::{i2_s, i2_s_arm, iq2_bn, tq1_0, tq2_0};

/// Registers of a step.
pub(super) const REGISTERS: usize = crate::cpu::ternary::LEN / 16;

/// A ternary layout.
pub(super) trait Layout: Scales {
    /// The codes of step `b` of a row.
    ///
    /// # Safety
    /// The CPU has NEON.
    unsafe fn codes(row: &[u8], b: usize) -> [int8x16_t; REGISTERS];
}

/// The bytes `at..at + N` of a row.
#[inline]
#[target_feature(enable = "neon")]
fn part<const N: usize>(row: &[u8], at: usize) -> &[u8; N] {
    // The range check is one comparison; it is what keeps a damaged caller out of other memory.
    row[at..].first_chunk().expect("a row has whole blocks")
}

#[inline]
#[target_feature(enable = "neon")]
fn signed(v: uint8x16_t) -> int8x16_t {
    vreinterpretq_s8_u8(v)
}

/// Two-bit codes, from the high bits down.
#[inline]
#[target_feature(enable = "neon")]
fn pairs_of_bits(bytes: &[u8; 16]) -> [int8x16_t; 4] {
    let bytes = load_u8(bytes);
    let three = vdupq_n_u8(3);
    [
        signed(vshrq_n_u8::<6>(bytes)),
        signed(vandq_u8(vshrq_n_u8::<4>(bytes), three)),
        signed(vandq_u8(vshrq_n_u8::<2>(bytes), three)),
        signed(vandq_u8(bytes, three)),
    ]
}

impl Layout for X86 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn codes(row: &[u8], b: usize) -> [int8x16_t; REGISTERS] {
        let bytes: &[u8; i2_s::BYTES] = part(row, b * i2_s::BYTES);
        let (low, high) = (pairs_of_bits(part(bytes, 0)), pairs_of_bits(part(bytes, 16)));
        [low[0], high[0], low[1], high[1], low[2], high[2], low[3], high[3]]
    }
}

impl Layout for Arm {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn codes(row: &[u8], b: usize) -> [int8x16_t; REGISTERS] {
        let at = b * 2 * i2_s_arm::BYTES;
        let [a, b, c, d] = pairs_of_bits(part(row, at));
        let [e, f, g, h] = pairs_of_bits(part(row, at + i2_s_arm::BYTES));
        [a, b, c, d, e, f, g, h]
    }
}

impl Layout for Iq2Bn {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn codes(row: &[u8], b: usize) -> [int8x16_t; REGISTERS] {
        let at = Self::HEAD + b * Self::STEP;
        let [d, c, b, a] = pairs_of_bits(part(row, at));
        let [h, g, f, e] = pairs_of_bits(part(row, at + iq2_bn::BYTES));
        [a, b, c, d, e, f, g, h]
    }
}

impl Layout for Iq1Bn {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn codes(row: &[u8], b: usize) -> [int8x16_t; REGISTERS] {
        let codes = Self::step(row, b);
        let mut out = [vdupq_n_s8(0); REGISTERS];
        for (out, codes) in out.iter_mut().zip(codes.as_chunks::<16>().0) {
            *out = signed(load_u8(codes));
        }
        out
    }
}

impl Layout for Tq2 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn codes(row: &[u8], b: usize) -> [int8x16_t; REGISTERS] {
        let bytes: &[u8; 32] = part(row, b / 2 * tq2_0::BYTES + b % 2 * 32);
        let (low, high) = (pairs_of_bits(part(bytes, 0)), pairs_of_bits(part(bytes, 16)));
        [low[3], high[3], low[2], high[2], low[1], high[1], low[0], high[0]]
    }
}

impl Layout for Tq1 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn codes(row: &[u8], b: usize) -> [int8x16_t; REGISTERS] {
        let block: &[u8; tq1_0::BYTES] = part(row, b / 2 * tq1_0::BYTES);
        let (a0, b0) = (load_u8(part(block, 0)), load_u8(part(block, 16)));
        if b.is_multiple_of(2) {
            let (a1, b1) = (times_3(a0), times_3(b0));
            let (a2, b2) = (times_3(a1), times_3(b1));
            return all_trits([a0, b0, a1, b1, a2, b2, times_3(a2), times_3(b2)]);
        }
        let (a4, b4) = (vmulq_u8(a0, vdupq_n_u8(81)), vmulq_u8(b0, vdupq_n_u8(81)));
        let n0 = load_u8(part(block, tq1_0::SECOND));
        let n1 = times_3(n0);
        let n2 = times_3(n1);
        let n3 = times_3(n2);
        // Four bytes four times, with the first, the second, the third and the fourth trit in front.
        let third = u32::from_le_bytes(*part(block, tq1_0::THIRD));
        let powers = load_u8(&[1, 1, 1, 1, 3, 3, 3, 3, 9, 9, 9, 9, 27, 27, 27, 27]);
        let third = vmulq_u8(vreinterpretq_u8_u32(vdupq_n_u32(third)), powers);
        all_trits([a4, b4, n0, n1, n2, n3, times_3(n3), third])
    }
}

/// Bytes times 3, modulo 256: the next trit becomes the first.
#[inline]
#[target_feature(enable = "neon")]
fn times_3(v: uint8x16_t) -> uint8x16_t {
    vaddq_u8(vaddq_u8(v, v), v)
}

/// The first trit of each byte: `(byte * 3) >> 8`, which is how many of 86 and 171 it reaches (3 * 85 < 256 <= 3 * 86
/// and 3 * 170 < 512 <= 3 * 171).
#[inline]
#[target_feature(enable = "neon")]
fn trits(v: uint8x16_t) -> int8x16_t {
    // True is -1.
    let reached = vaddq_u8(vcgeq_u8(v, vdupq_n_u8(86)), vcgeq_u8(v, vdupq_n_u8(171)));
    vnegq_s8(signed(reached))
}

// Loops and no `map`: its closures are not inlined.
#[inline]
#[target_feature(enable = "neon")]
fn all_trits(v: [uint8x16_t; REGISTERS]) -> [int8x16_t; REGISTERS] {
    let mut out = [vdupq_n_s8(0); REGISTERS];
    for k in 0..REGISTERS {
        out[k] = trits(v[k]);
    }
    out
}
