//! What [`super::tq1_0`] and [`super::tq2_0`] share: ternary weights in blocks of 256 that each have an f16 scale `d`.
//!
//! ## The product
//! Exact where it can be. The sum of `w q` runs in i32 over a *run*: consecutive blocks with one `d`, blocks with `d = 0`
//! passed over, since their weights are zero. At the end of a run `sum / s * d` is added to the row, runs in rising order.
//! A model that was trained ternary has one scale for a tensor, hence one run a row, and then this is I2_S's product bit
//! for bit.
//!
//! ## The scale
//! I2_S keeps an f32, these keep an f16, and packing never rounds: a scale that is no f16 is an error. A matrix with such
//! a scale is packed as -1, 0, 1 (so `d = 1`) and its factor kept beside it, as [`Matrix::multiplier`]; llama.cpp's files
//! have a tensor `<name>.scale` for it. `sum / s * 1 * factor` has I2_S's bits too.

use super::{Activations, Format, Matrix, QuantError, half_at, row_of};
use crate::numerics::{f16_to_f32, f32_to_f16};

/// Weights per block.
pub const LEN: usize = 256;

/// What differs between the two.
pub(super) struct Codes {
    pub(super) format: &'static Format,
    /// Where the scale lies in a block.
    pub(super) d: usize,
    /// The weight of column `i` of a block: -1, 0 or 1.
    pub(super) weight: fn(&[u8], usize) -> i32,
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

    pub(super) fn unpack_row(&self, data: &[u8], cols: usize, row: usize, out: &mut [f32]) {
        let blocks = row_of(self.format, data, cols, row).chunks_exact(self.format.block_bytes);
        for (block, out) in blocks.zip(out[..cols].chunks_exact_mut(LEN)) {
            let d = half_at(block, self.d);
            for (i, out) in out.iter_mut().enumerate() {
                *out = d * (self.weight)(block, i) as f32;
            }
        }
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

    #[inline(always)] // with the layout of its one caller
    pub(super) fn dot(&self, w: &Matrix<'_>, row: usize, x: &Activations, token: usize) -> f32 {
        let x = x.i8(token);
        let mut runs = Runs::new(x.scale);
        for (block, q) in w.row(row).chunks_exact(self.format.block_bytes).zip(x.q.chunks_exact(LEN)) {
            let products = q.iter().enumerate().map(|(i, q)| (self.weight)(block, i) * i32::from(*q));
            runs.add(half_at(block, self.d), products.sum());
        }
        runs.total()
    }
}

/// The sum of a row, block by block; see the module.
pub(crate) struct Runs {
    scale: f32,
    d: f32,
    sum: i32,
    before: Option<f32>,
}

impl Runs {
    /// `scale` is the token's.
    pub(crate) fn new(scale: f32) -> Self {
        Self { scale, d: 0.0, sum: 0, before: None }
    }

    /// Adds a block with scale `d` and exact sum `sum`.
    pub(crate) fn add(&mut self, d: f32, sum: i32) {
        if d == 0.0 {
            return;
        }
        if d != self.d && self.d != 0.0 {
            self.before = Some(self.total());
            self.sum = 0;
        }
        self.d = d;
        self.sum = self.sum.wrapping_add(sum);
    }

    /// All that was added.
    pub(crate) fn total(&self) -> f32 {
        if self.d == 0.0 {
            return 0.0;
        }
        let run = self.sum as f32 / self.scale * self.d;
        self.before.map_or(run, |before| before + run)
    }
}
