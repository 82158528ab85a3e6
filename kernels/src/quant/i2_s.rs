//! I2_S (ggml type 36 of bitnet.cpp), x86 layout: ternary weights in two bits and one f32 scale for the matrix.
//! `w = scale * (code - 1)`, codes 0, 1, 2; code 3 means nothing and is refused.
//!
//! ```text
//! 128 weights in 32 bytes, row by row:
//!     byte p (0..32)   bits 7-6     5-4      3-2      1-0
//!                      weight p     p + 32   p + 64   p + 96
//! after the last row (byte rows * cols / 4):
//!     | scale, f32 little-endian | 28 bytes of zero |
//! ```
//!
//! Builds for ARM of 2026 write another layout under the same type id: [`super::i2_s_arm`]. The ternary helpers that both
//! share are here.

use super::decode::{Block, Blocks};
use super::{Checked, Format, I2S_TRAILER, Matrix, Packed, first};
use crate::QuantError;

/// Weights per block.
pub const LEN: usize = 128;
pub(crate) const BYTES: usize = 32;
const _: () = assert!(BYTES * 4 == LEN && I2S_TRAILER == 4 + 28);

/// The format.
pub static FORMAT: Format = Format::of::<Codes>();

/// Where weight `i` of a row lies: `(byte, shift)`.
fn place(i: usize) -> (usize, u32) {
    let (block, j) = (i / LEN, i % LEN);
    (block * BYTES + j % 32, 6 - 2 * (j as u32 / 32))
}

/// A layout: from the column to its byte in the row and the shift in the byte.
pub(super) trait Place: Fn(usize) -> (usize, u32) {}
impl<F: Fn(usize) -> (usize, u32)> Place for F {}

/// The scale of the whole matrix.
pub(crate) fn scale(data: &[u8]) -> f32 {
    let at = data.len() - I2S_TRAILER;
    f32::from_le_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]])
}

pub(super) fn validate(format: &'static Format, data: &[u8], rows: usize, cols: usize) -> Checked {
    format.check_size(data.len(), rows, cols)?;
    let scale = scale(data);
    if !(scale.is_finite() && scale > 0.0) {
        return Err(QuantError::Scale { format: format.name, what: "scale", row: 0, block: 0, value: scale });
    }
    let codes = &data[..data.len() - I2S_TRAILER];
    // Code 3: both bits of a pair set.
    match first(codes, |[b]| b & b >> 1 & 0x55 != 0) {
        None => Ok(()),
        Some(byte) => Err(QuantError::Code { format: format.name, row: byte / format.row_bytes(cols), byte }),
    }
}

struct Codes;

impl Blocks for Codes {
    const NAME: &str = "i2_s";
    const GGML_TYPE: u32 = 36;
    const FILE_TYPE: Option<u32> = Some(40);
    const TRAILER: usize = I2S_TRAILER;
    const TERNARY: bool = true;
    const LEN: usize = LEN;
    const BYTES: usize = BYTES;

    #[inline(always)]
    fn row_scale(w: &Matrix<'_>, _row: usize) -> f32 {
        scale(w.data)
    }

    #[inline(always)]
    fn block(bytes: &[u8], scale: f32, out: &mut [Block]) {
        for (j, out) in out.iter_mut().enumerate() {
            out.scale = scale;
            for (q, byte) in out.q.iter_mut().zip(bytes) {
                *q = (byte >> (6 - 2 * j) & 3) as i8 - 1;
            }
        }
    }

    fn validate(data: &[u8], rows: usize, cols: usize) -> Checked {
        validate(&FORMAT, data, rows, cols)
    }

    fn pack(weights: &[f32], rows: usize, cols: usize) -> Packed {
        pack(&FORMAT, place, weights, rows, cols)
    }
}

/// Takes only what is ternary already: -s, 0 and +s, with one s for the matrix (1 if all weights are zero).
pub(super) fn pack(format: &'static Format, place: impl Place, weights: &[f32], rows: usize, cols: usize) -> Packed {
    let mut out = vec![0; format.check_count(weights.len(), rows, cols)?];
    let scale = super::ternary_scale(weights).unwrap_or(1.0);
    let (codes, trailer) = out.split_at_mut(format.row_bytes(cols) * rows);
    for (n, &value) in weights.iter().enumerate() {
        let (row, col) = (n / cols, n % cols);
        if !value.is_finite() {
            return Err(QuantError::NotFinite { format: format.name, row, col, value });
        }
        let code = super::ternary_code(format.name, "the whole matrix", (row, col), value, scale)?;
        let (byte, shift) = place(col);
        codes[row * format.row_bytes(cols) + byte] |= code << shift;
    }
    trailer[..4].copy_from_slice(&scale.to_le_bytes());
    Ok(out)
}
