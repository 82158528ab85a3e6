//! Weights that are numbers themselves: what the vector sets share of them.

use crate::numerics::f16_to_f32;
#[cfg(target_arch = "x86_64")]
use crate::{Matrix, quant::f16};

/// A stored number that widens to f32.
pub(super) trait Stored {
    /// Bytes per weight.
    const BYTES: usize;

    /// Weight `i` of a row.
    fn one(row: &[u8], i: usize) -> f32;
}

/// Floats as [`F32`] wants them, of a little-endian machine.
#[cfg(target_endian = "little")]
pub(super) fn bytes(values: &[f32]) -> &[u8] {
    // SAFETY: floats are four bytes each of any value, and bytes need no alignment.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// f32 weights.
pub(super) struct F32;

impl Stored for F32 {
    const BYTES: usize = 4;

    fn one(row: &[u8], i: usize) -> f32 {
        f32::from_le_bytes([row[4 * i], row[4 * i + 1], row[4 * i + 2], row[4 * i + 3]])
    }
}

/// f16 weights.
pub(super) struct F16;

impl Stored for F16 {
    const BYTES: usize = 2;

    fn one(row: &[u8], i: usize) -> f32 {
        f16_to_f32(u16::from_le_bytes([row[2 * i], row[2 * i + 1]]))
    }
}

/// Whether the bytes of a matrix are its values, as f16.
#[cfg(target_arch = "x86_64")]
pub(super) fn plain_f16(w: &Matrix<'_>) -> bool {
    std::ptr::eq(w.format, &raw const f16::FORMAT) && w.multiplier == 1.0
}

/// bf16 weights.
pub(super) struct Bf16;

impl Stored for Bf16 {
    const BYTES: usize = 2;

    fn one(row: &[u8], i: usize) -> f32 {
        f32::from_le_bytes([0, 0, row[2 * i], row[2 * i + 1]])
    }
}
