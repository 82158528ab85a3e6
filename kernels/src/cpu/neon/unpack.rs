//! How the blocks of Q8_0, Q4_0, Q4_1, Q4_K and Q6_K become two registers of int8, in the order of the weights.
//!
//! Activations are at most 127 in magnitude, so two products are at most 2 * 128 * 127 = 32,512: what
//! [`super::dots::Dots`] asks for, in every format.

use std::arch::aarch64::*;

use super::lanes::load_u8;
use crate::cpu::blocks::{Places, Q4_0, Q4_1, Q4K, Q6K, Q8_0, SUPER, part};
use crate::quant::{q4_0, q4_1, q4_k, q6_k, q8_0};

/// A format of blocks of 32, or of super-blocks of several.
pub(super) trait Blocks: Places {
    /// Unpacks block `b` of a row.
    ///
    /// # Safety
    /// The CPU has NEON.
    unsafe fn weights(row: &[u8], b: usize) -> [int8x16_t; 2];

    /// What the exact sums of each half of block `b` are multiplied with, if that is not 1.
    #[inline]
    fn factors(_row: &[u8], _b: usize) -> Option<[i32; 2]> {
        None
    }
}

/// 32 bytes.
#[inline]
#[target_feature(enable = "neon")]
fn both(bytes: &[u8; 32]) -> [uint8x16_t; 2] {
    [load_u8(part(bytes, 0)), load_u8(part(bytes, 16))]
}

#[inline]
#[target_feature(enable = "neon")]
fn shifted(v: uint8x16_t, by: usize) -> uint8x16_t {
    // To the left by less than nothing is to the right.
    vshlq_u8(v, vdupq_n_s8(-(by as i8)))
}

/// 16 bytes of nibbles: the low ones are weights 0..16, the high ones 16..32.
#[inline]
#[target_feature(enable = "neon")]
fn nibbles(bytes: &[u8; 16]) -> [int8x16_t; 2] {
    let packed = load_u8(bytes);
    [vreinterpretq_s8_u8(vandq_u8(packed, vdupq_n_u8(15))), vreinterpretq_s8_u8(vshrq_n_u8::<4>(packed))]
}

impl Blocks for Q8_0 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn weights(row: &[u8], b: usize) -> [int8x16_t; 2] {
        let [low, high] = both(part(row, b * q8_0::BYTES + 2));
        [vreinterpretq_s8_u8(low), vreinterpretq_s8_u8(high)]
    }
}

impl Blocks for Q4_0 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn weights(row: &[u8], b: usize) -> [int8x16_t; 2] {
        let [low, high] = nibbles(part(row, b * q4_0::BYTES + 2));
        [vsubq_s8(low, vdupq_n_s8(8)), vsubq_s8(high, vdupq_n_s8(8))]
    }
}

impl Blocks for Q4_1 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn weights(row: &[u8], b: usize) -> [int8x16_t; 2] {
        nibbles(part(row, b * q4_1::BYTES + 4))
    }
}

impl Blocks for Q4K {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn weights(row: &[u8], b: usize) -> [int8x16_t; 2] {
        let bytes = both(part(Self::super_block(row, b), q4_k::CODES + b % SUPER / 2 * 32));
        let mut out = [vdupq_n_s8(0); 2];
        for h in 0..2 {
            out[h] = vreinterpretq_s8_u8(vandq_u8(shifted(bytes[h], b % 2 * 4), vdupq_n_u8(15)));
        }
        out
    }
}

impl Blocks for Q6K {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn weights(row: &[u8], b: usize) -> [int8x16_t; 2] {
        let block: &[u8; q6_k::BYTES] = part(row, b / SUPER * q6_k::BYTES);
        let (half, quarter) = (b % SUPER / 4, b % 4);
        let low = both(part(block, half * 64 + quarter % 2 * 32));
        let high = both(part(block, q6_k::QH + half * 32));
        let mut out = [vdupq_n_s8(0); 2];
        for h in 0..2 {
            let low = vandq_u8(shifted(low[h], quarter / 2 * 4), vdupq_n_u8(15));
            let high = vandq_u8(shifted(high[h], quarter * 2), vdupq_n_u8(3));
            let code = vorrq_u8(low, vshlq_n_u8::<4>(high));
            out[h] = vsubq_s8(vreinterpretq_s8_u8(code), vdupq_n_s8(32));
        }
        out
    }

    #[inline]
    fn factors(row: &[u8], b: usize) -> Option<[i32; 2]> {
        let scales: &[u8; 2] = part(row, b / SUPER * q6_k::BYTES + q6_k::SCALES + b % SUPER * 2);
        Some(scales.map(|s| i32::from(s as i8)))
    }
}
