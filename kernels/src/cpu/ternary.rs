//! Ternary weights: what the vector sets share of them. How bytes become codes in registers is each set's own.

use crate::numerics::f16_to_f32;
use crate::quant::{i2_s, i2_s_arm, iq1_bn, iq2_bn, tq, tq1_0, tq2_0};
use crate::{I8Token, Matrix};
use std::ops::Range;

/// Weights of a step, in every layout.
pub(super) const LEN: usize = 128;
const _: () = assert!(i2_s::LEN == LEN && i2_s_arm::LEN * 2 == LEN && tq::LEN == 2 * LEN);
const _: () = assert!(iq1_bn::LEN * 2 == LEN && iq2_bn::LEN * 2 == LEN);

/// Where a ternary format has its scales.
pub(super) trait Scales {
    /// Bytes at the start of a row.
    const HEAD: usize = 0;
    /// Bytes of a step, of a format whose rows may end with half a one.
    const STEP: usize = 32;

    /// The scale of a row, if it has one for all of its blocks.
    fn scale(w: &Matrix<'_>, row: usize) -> Option<f32>;

    /// The scale of the block that holds step `b` of a row, of which `bytes` are all.
    fn scale_of_block(w: &Matrix<'_>, bytes: &[u8], b: usize) -> f32;
}

/// I2_S; byte p: weights p, p + 32, p + 64, p + 96.
pub(super) struct X86;

impl Scales for X86 {
    #[inline]
    fn scale(w: &Matrix<'_>, _row: usize) -> Option<f32> {
        Some(i2_s::scale(w.data))
    }

    fn scale_of_block(w: &Matrix<'_>, _bytes: &[u8], _b: usize) -> f32 {
        i2_s::scale(w.data)
    }
}

/// I2_S; a step is two blocks of 16 bytes; byte p of a block: weights p, p + 16, p + 32, p + 48 of its 64. A row may end with
/// one block, half a step.
pub(super) struct Arm;

impl Scales for Arm {
    #[inline]
    fn scale(w: &Matrix<'_>, _row: usize) -> Option<f32> {
        Some(i2_s::scale(w.data))
    }

    fn scale_of_block(w: &Matrix<'_>, _bytes: &[u8], _b: usize) -> f32 {
        i2_s::scale(w.data)
    }
}

/// IQ2_BN: as [`Arm`], with the codes from the low bits up.
pub(super) struct Iq2Bn;

impl Scales for Iq2Bn {
    const HEAD: usize = iq2_bn::HEAD;
    const STEP: usize = 2 * iq2_bn::BYTES;

    #[inline]
    fn scale(w: &Matrix<'_>, row: usize) -> Option<f32> {
        not_zero(iq2_bn::scale(w.row(row)))
    }

    fn scale_of_block(_w: &Matrix<'_>, bytes: &[u8], _b: usize) -> f32 {
        iq2_bn::scale(bytes)
    }
}

/// IQ1_BN: a step is two blocks. Trits are taken from their bytes in the order of the weights.
pub(super) struct Iq1Bn;

impl Scales for Iq1Bn {
    const HEAD: usize = iq1_bn::HEAD;
    const STEP: usize = 2 * iq1_bn::BYTES;

    #[inline]
    fn scale(w: &Matrix<'_>, row: usize) -> Option<f32> {
        not_zero(iq1_bn::scale(w.row(row)))
    }

    fn scale_of_block(_w: &Matrix<'_>, bytes: &[u8], _b: usize) -> f32 {
        iq1_bn::scale(bytes)
    }
}

impl Iq1Bn {
    /// The codes of step `b` of a row.
    #[inline(always)] // into the caller's instruction set
    pub(super) fn step(row: &[u8], b: usize) -> [u8; LEN] {
        let mut out = [0; LEN];
        let blocks = row[Self::HEAD + b * Self::STEP..].as_chunks().0;
        for (out, block) in out.as_chunks_mut().0.iter_mut().zip(blocks) {
            *out = iq1_bn::trits(block);
        }
        out
    }
}

/// A scale of 0 counts as none: no weight of the row does, and products are +0.
fn not_zero(scale: f32) -> Option<f32> {
    (scale != 0.0).then_some(scale)
}

/// What a row has behind its last whole step, the `steps`th, as the first step of a row of its own: half a step at most, and
/// zeros.
#[inline]
pub(super) fn tail<L: Scales>(row: &[u8], steps: usize) -> [u8; 64] {
    let mut out = [0; 64];
    let bytes = &row[L::HEAD + steps * L::STEP..];
    out[L::HEAD..L::HEAD + bytes.len()].copy_from_slice(bytes);
    out
}

/// TQ2_0: a step is half a block, with the codes of I2_S from the low bits up.
pub(super) struct Tq2;

impl Scales for Tq2 {
    #[inline]
    fn scale(w: &Matrix<'_>, row: usize) -> Option<f32> {
        one_scale::<{ tq2_0::BYTES }, { tq2_0::D }>(w.row(row), &tq2_0::ZERO)
    }

    fn scale_of_block(_w: &Matrix<'_>, bytes: &[u8], b: usize) -> f32 {
        half(bytes, b / 2 * tq2_0::BYTES + tq2_0::D)
    }
}

/// TQ1_0: a step is half a block. Trits are taken from their bytes in the order of the weights.
pub(super) struct Tq1;

impl Scales for Tq1 {
    #[inline]
    fn scale(w: &Matrix<'_>, row: usize) -> Option<f32> {
        one_scale::<{ tq1_0::BYTES }, { tq1_0::D }>(w.row(row), &tq1_0::ZERO)
    }

    fn scale_of_block(_w: &Matrix<'_>, bytes: &[u8], b: usize) -> f32 {
        half(bytes, b / 2 * tq1_0::BYTES + tq1_0::D)
    }
}

fn half(row: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([row[at], row[at + 1]]))
}

/// The scale of all blocks of a row, each `D` bytes of codes and the scale. A block of scale 0 has any scale if its
/// weights are zero; without any other there is none.
#[inline]
fn one_scale<const N: usize, const D: usize>(row: &[u8], zero: &[u8; D]) -> Option<f32> {
    const { assert!(N == D + 2) };
    let blocks = row.as_chunks::<N>().0;
    let bits = |block: &[u8; N]| u16::from_le_bytes([block[D], block[D + 1]]);
    // Nearly every row has one scale in every block: that is seen without a branch for each.
    let (first, last) = (blocks.first().map_or(0, bits), blocks.last().map_or(0, bits));
    let others = || blocks.iter().fold(0, |others, block| others | bits(block) ^ first);
    if first & 0x7fff != 0 && first == last && others() == 0 {
        return Some(f16_to_f32(first));
    }
    let mut found = 0u16;
    for block in blocks {
        let bits = bits(block);
        if bits & 0x7fff == 0 {
            if block[..D] != zero[..] {
                return None;
            }
        } else if found == 0 {
            found = bits;
        } else if found != bits {
            return None;
        }
    }
    (found != 0).then(|| f16_to_f32(found))
}

/// The scales of `R` rows, if each has one.
#[inline]
pub(super) fn scales<L: Scales, const R: usize>(w: &Matrix<'_>, row: usize) -> Option<[f32; R]> {
    let mut out = [0.0; R];
    for (r, scale) in out.iter_mut().enumerate() {
        *scale = L::scale(w, row + r)?;
    }
    Some(out)
}

/// [`scales`] of up to `R` rows. A loop of a number that is not known costs a product of one token 2 to 4 % of its instructions, so
/// that few rows do not go through here.
pub(super) fn scales_up_to<L: Scales, const R: usize>(w: &Matrix<'_>, rows: Range<usize>) -> Option<[f32; R]> {
    let mut out = [0.0; R];
    for (scale, row) in out.iter_mut().zip(rows) {
        *scale = L::scale(w, row)?;
    }
    Some(out)
}

/// `(sum(w q) / s) * scale` from the sum of `code * q`. Wrapping, since only the difference has to fit.
#[inline]
pub(super) fn finish(codes: i32, x: &I8Token<'_>, scale: f32) -> f32 {
    codes.wrapping_sub(x.isum) as f32 / x.scale * scale
}
