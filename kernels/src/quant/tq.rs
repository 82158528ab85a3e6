//! What [`super::tq1_0`] and [`super::tq2_0`] share: ternary weights in blocks of 256 that each have an f16 scale `d`.
//!
//! Where all blocks of a row have one scale, the product is I2_S's bit for bit: see [`super::decode`].
//!
//! ## The scale
//! I2_S keeps an f32, these keep an f16, and packing never rounds: a scale that is not an f16 is an error. A matrix with such
//! a scale is packed as -1, 0, 1 (so `d = 1`) and its factor kept beside it, as [`Matrix::multiplier`]; llama.cpp's files
//! have a tensor `<name>.scale` for it. `sum / s * 1 * factor` has I2_S's bits too.

use super::{Format, QuantError, half_at};
use crate::numerics::{f16_to_f32, f32_to_f16};

/// Weights per block.
pub const LEN: usize = 256;

/// What differs between the two.
pub(super) struct Codes {
    pub(super) format: &'static Format,
    /// Where the scale lies in a block.
    pub(super) d: usize,
    /// Stores the codes (weight + 1) of a block.
    pub(super) store: fn(&mut [u8], &[u8; LEN]),
    /// The first byte of a block that no packing produces.
    pub(super) wrong: fn(&[u8]) -> Option<usize>,
}

impl Codes {
    pub(super) fn validate(&self, data: &[u8], rows: usize, cols: usize) -> Result<(), QuantError> {
        let format = self.format;
        format.check_size(data.len(), rows, cols)?;
        let per_row = cols / LEN;
        for (i, block) in data.chunks_exact(format.block_bytes).enumerate() {
            let (row, value) = (i / per_row, half_at(block, self.d));
            // The quantiser takes a maximum of magnitudes.
            if !value.is_finite() || value.is_sign_negative() {
                return Err(QuantError::Scale { format: format.name, what: "scale", row, block: i % per_row, value });
            }
            if let Some(at) = (self.wrong)(block) {
                return Err(QuantError::Code { format: format.name, row, byte: i * format.block_bytes + at });
            }
        }
        Ok(())
    }

    /// Takes only what is ternary already: -d, 0 and +d with one d, an f16, for each block (0 if all weights are zero).
    pub(super) fn pack(&self, weights: &[f32], rows: usize, cols: usize) -> Result<Vec<u8>, QuantError> {
        let format = self.format.name;
        super::pack_blocks(self.format, weights, rows, cols, |w, row, col, out| {
            let scale = w.iter().find(|w| **w != 0.0).map_or(0.0, |w| w.abs());
            let mut codes = [1u8; LEN];
            for (i, (code, &value)) in codes.iter_mut().zip(w).enumerate() {
                if value != 0.0 && value.abs() != scale {
                    let unit = "each block of 256";
                    return Err(QuantError::NotTernary { format, unit, row, col: col + i, value, scale });
                }
                *code = if value == 0.0 { 1 } else { 2 * u8::from(value > 0.0) };
            }
            let bits = f32_to_f16(scale);
            let rounded = f16_to_f32(bits);
            if !rounded.is_finite() {
                return Err(QuantError::Overflow { format, row, col, value: scale });
            }
            if rounded != scale {
                return Err(QuantError::InexactScale { format, row, col, value: scale, rounded });
            }
            (self.store)(out, &codes);
            out[self.d..self.d + 2].copy_from_slice(&bits.to_le_bytes());
            Ok(())
        })
    }
}
