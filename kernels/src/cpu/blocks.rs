//! Formats of blocks of 32 weights with a scale, and of super-blocks of them: what the vector sets share. How the weights
//! become registers is each set's own.

use crate::activations::Q8_BLOCK;
use crate::quant::{q4_0, q4_1, q4_k, q6_k, q8_0};

/// Blocks of 32 in a super-block.
pub(super) const SUPER: usize = q6_k::LEN / Q8_BLOCK;
const _: () = assert!(q4_k::LEN == q6_k::LEN);

/// Where a format of blocks has its scales and minima.
pub(super) trait Places {
    /// Whether blocks have a minimum.
    const MINIMUM: bool = false;

    /// The scale of block `b` of a row: f16 bits, and what their value is multiplied with.
    fn scale(row: &[u8], b: usize) -> (u16, f32);

    /// What the sum of block `b`'s activations is multiplied with, likewise.
    fn minimum(_row: &[u8], _b: usize) -> (u16, f32) {
        (0, 1.0)
    }
}

#[inline]
fn bits(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// The bytes `at..at + N` of a row.
#[inline]
pub(super) fn part<const N: usize>(row: &[u8], at: usize) -> &[u8; N] {
    // The range check is one comparison; it is what keeps a damaged caller out of other memory.
    row[at..].first_chunk().expect("a row has whole blocks")
}

/// See [`q8_0`].
pub(super) struct Q8_0;

impl Places for Q8_0 {
    #[inline]
    fn scale(row: &[u8], b: usize) -> (u16, f32) {
        (bits(row, b * q8_0::BYTES), 1.0)
    }
}

/// See [`q4_0`].
pub(super) struct Q4_0;

impl Places for Q4_0 {
    #[inline]
    fn scale(row: &[u8], b: usize) -> (u16, f32) {
        (bits(row, b * q4_0::BYTES), 1.0)
    }
}

/// See [`q4_1`].
pub(super) struct Q4_1;

impl Places for Q4_1 {
    const MINIMUM: bool = true;

    #[inline]
    fn scale(row: &[u8], b: usize) -> (u16, f32) {
        (bits(row, b * q4_1::BYTES), 1.0)
    }

    #[inline]
    fn minimum(row: &[u8], b: usize) -> (u16, f32) {
        (bits(row, b * q4_1::BYTES + 2), 1.0)
    }
}

/// See [`q4_k`].
pub(super) struct Q4K;

impl Q4K {
    /// The super-block of block `b`.
    #[inline]
    pub(super) fn super_block(row: &[u8], b: usize) -> &[u8; q4_k::BYTES] {
        part(row, b / SUPER * q4_k::BYTES)
    }
}

impl Places for Q4K {
    const MINIMUM: bool = true;

    #[inline]
    fn scale(row: &[u8], b: usize) -> (u16, f32) {
        let block = Self::super_block(row, b);
        let (scale, _) = q4_k::six_bits(&block[q4_k::SCALES..], b % SUPER);
        (bits(block, 0), f32::from(scale))
    }

    #[inline]
    fn minimum(row: &[u8], b: usize) -> (u16, f32) {
        let block = Self::super_block(row, b);
        let (_, minimum) = q4_k::six_bits(&block[q4_k::SCALES..], b % SUPER);
        // Negating a factor negates the product, exactly.
        (bits(block, 2), -f32::from(minimum))
    }
}

/// See [`q6_k`]. The two sub-scales of a block are part of its integer sums.
pub(super) struct Q6K;

impl Places for Q6K {
    #[inline]
    fn scale(row: &[u8], b: usize) -> (u16, f32) {
        (bits(row, b / SUPER * q6_k::BYTES + q6_k::D), 1.0)
    }
}
