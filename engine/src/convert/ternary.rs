//! Where the scale of a ternary matrix goes.
//!
//! I2_S keeps an f32 for the matrix, IQ2_BN for each row. TQ1_0 and TQ2_0 keep an f16 for each block, IQ1_BN for each row, and most
//! trained scales are not an f16.
//! Nothing is rounded: where the scale is an f16 it is written into the blocks; where it is not, the blocks hold the signs
//! (scale 1) and the f32 stands beside them in a tensor `<name>.scale` of one element, which llama.cpp has for the
//! `bitnet` architecture and multiplies with. Every way back gives the same codes and the same scale. The one exception is
//! a matrix of nothing but zeros: it has no scale to keep.

use bitnet_kernels::numerics::{f16_to_f32, f32_to_f16};
use bitnet_kernels::quant::{Storage, iq1_bn, q1_0, tq1_0, tq2_0};
use bitnet_kernels::{Matrix, QuantError};

/// How a matrix is packed.
#[derive(Clone, Copy)]
pub(super) struct Packing<'m> {
    /// What is unpacked.
    pub(super) matrix: Matrix<'m>,
    /// The target.
    pub(super) format: Storage,
    /// Weights of this magnitude become 1.
    pub(super) unit: f32,
    /// What the tensor `.scale` says, if there is to be one.
    pub(super) beside: Option<f32>,
}

/// Whether the format's scales are f16 that packing refuses to round.
pub(crate) fn exact_f16(format: Storage) -> bool {
    [&tq1_0::FORMAT, &tq2_0::FORMAT, &iq1_bn::FORMAT].into_iter().any(|f| format == Storage::Rows(f))
}

/// Packs rows, unless ternary weights would lose their zeros: Q1_0 has none. Other weights are rounded, as everywhere.
pub(crate) fn pack_rows(format: Storage, values: &[f32], rows: usize, cols: usize) -> Result<Vec<u8>, QuantError> {
    if format == Storage::Rows(&q1_0::FORMAT) {
        signs_alone(values, cols)?;
    }
    format.pack(values, rows, cols)
}

/// Refuses blocks with a zero whose other weights have one magnitude. A block of zeros stays one: its scale is zero.
fn signs_alone(values: &[f32], cols: usize) -> Result<(), QuantError> {
    let q1_0 = &q1_0::FORMAT;
    for (i, block) in values.chunks(q1_0.block_len).enumerate() {
        let Some(zero) = block.iter().position(|w| *w == 0.0) else { continue };
        let mut others = block.iter().map(|w| w.abs()).filter(|w| *w != 0.0);
        let Some(scale) = others.next() else { continue };
        if others.all(|w| w == scale) {
            let at = i * q1_0.block_len + zero;
            return Err(QuantError::Zero { format: q1_0.name, row: at / cols, col: at % cols });
        }
    }
    Ok(())
}

/// Decides for one matrix. Reads weights up to the first that is not zero.
pub(super) fn packing<'m>(matrix: Matrix<'m>, format: Storage) -> Packing<'m> {
    let plain = Packing { matrix, format, unit: 1.0, beside: None };
    if !exact_f16(format) {
        return plain;
    }
    if exact_f16(matrix.format.into()) {
        // Blocks may have several scales: they stay as they are, and so does what stands beside them.
        let beside = (matrix.multiplier != 1.0).then_some(matrix.multiplier);
        return Packing { matrix: matrix.times(1.0), beside, ..plain };
    }
    match first_magnitude(&matrix) {
        Some(scale) if f16_to_f32(f32_to_f16(scale)) != scale => Packing { unit: scale, beside: Some(scale), ..plain },
        _ => plain,
    }
}

fn first_magnitude(matrix: &Matrix<'_>) -> Option<f32> {
    let mut values = vec![0.0; matrix.cols];
    (0..matrix.rows).find_map(|row| {
        matrix.unpack_row(row, &mut values);
        values.iter().find(|w| **w != 0.0).map(|w| w.abs())
    })
}

impl Packing<'_> {
    /// Unpacks and packs `rows` rows from `first` on; `values` has room for them.
    pub(super) fn pack(&self, first: usize, rows: usize, values: &mut [f32]) -> Result<Vec<u8>, QuantError> {
        let cols = self.matrix.cols;
        for (row, target) in values.chunks_exact_mut(cols).enumerate() {
            self.matrix.unpack_row(first + row, target);
            if self.unit != 1.0 {
                self.take_signs(first + row, target)?;
            }
        }
        pack_rows(self.format, values, rows, cols).map_err(|error| error.below(first))
    }

    fn take_signs(&self, row: usize, values: &mut [f32]) -> Result<(), QuantError> {
        for (col, value) in values.iter_mut().enumerate().filter(|(_, value)| **value != 0.0) {
            if value.abs() != self.unit {
                let (format, unit) = (self.format.name(), "the whole matrix");
                return Err(QuantError::NotTernary { format, unit, row, col, value: *value, scale: self.unit });
            }
            *value = value.signum();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ternary_weights_keep_their_zeros_or_are_refused() {
        let q1_0 = Storage::Rows(&q1_0::FORMAT);
        let pack = |values: &[f32]| pack_rows(q1_0, values, 2, 128);
        let signs: Vec<f32> = (0..256).map(|i| if i % 3 == 0 { 0.5 } else { -0.5 }).collect();
        assert!(pack(&signs).is_ok());
        let mut zero = signs.clone();
        zero[128 + 7] = 0.0;
        let error = pack(&zero).unwrap_err();
        assert_eq!(error, QuantError::Zero { format: "q1_0", row: 1, col: 7 });
        assert!(error.to_string().contains("row 1, column 7 is zero"), "{error}");
        // Weights that are not ternary are rounded; zeros alone stay zeros.
        zero[130] = 0.25;
        assert!(pack(&zero).is_ok());
        zero[128..].fill(0.0);
        assert!(pack(&zero).is_ok());
        let tq = vec![0.0; 256];
        assert!(pack_rows(Storage::Rows(&tq2_0::FORMAT), &tq, 1, 256).is_ok());
    }
}
