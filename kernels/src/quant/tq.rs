//! What [`super::tq1_0`] and [`super::tq2_0`] share: ternary weights in blocks of 256 that each have an f16 scale `d`.
//!
//! Where all blocks of a row have one scale, the product is I2_S's bit for bit: see [`super::decode`].
//!
//! ## The scale
//! I2_S keeps an f32, these keep an f16, and packing never rounds: a scale that is not an f16 is an error. A matrix with such
//! a scale is packed as -1, 0, 1 (so `d = 1`) and its factor kept beside it, as [`Matrix::multiplier`]; llama.cpp's files
//! have a tensor `<name>.scale` for it. `sum / s * 1 * factor` has I2_S's bits too.

use super::decode::Blocks;
use super::{Checked, Packed, QuantError, half_at};

pub(crate) const LEN: usize = 256;

/// What differs between the two.
pub(super) trait Trits: Blocks {
    /// Where the scale lies in a block.
    const D: usize;

    /// Stores the codes (weight + 1) of a block.
    fn store(block: &mut [u8], codes: &[u8; LEN]);

    /// The first byte of a block that no packing produces.
    fn wrong(block: &[u8]) -> Option<usize>;
}

pub(super) fn validate<T: Trits>(data: &[u8], rows: usize, cols: usize) -> Checked {
    let format = T::NAME;
    T::FORMAT.check_size(data.len(), rows, cols)?;
    let per_row = cols / LEN;
    for (i, block) in data.chunks_exact(T::BYTES).enumerate() {
        let (row, value) = (i / per_row, half_at(block, T::D));
        // The quantiser takes a maximum of magnitudes.
        if !value.is_finite() || value.is_sign_negative() {
            return Err(QuantError::Scale { format, what: "scale", row, block: i % per_row, value });
        }
        if let Some(at) = T::wrong(block) {
            return Err(QuantError::Code { format, row, byte: i * T::BYTES + at });
        }
    }
    Ok(())
}

/// Takes only what is ternary already: -d, 0 and +d with one d, an f16, for each block (0 if all weights are zero).
pub(super) fn pack<T: Trits>(weights: &[f32], rows: usize, cols: usize) -> Packed {
    super::pack_blocks(T::FORMAT, weights, rows, cols, |w, row, col, out| {
        let scale = super::ternary_scale(w).unwrap_or(0.0);
        let mut codes = [1u8; LEN];
        for (i, (code, &value)) in codes.iter_mut().zip(w).enumerate() {
            *code = super::ternary_code(T::NAME, "each block of 256", (row, col + i), value, scale)?;
        }
        T::store(out, &codes);
        out[T::D..T::D + 2].copy_from_slice(&super::exact_half(T::NAME, scale, row, col)?);
        Ok(())
    })
}
