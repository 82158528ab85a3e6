//! Numbers without meaning for the benches: speed depends on shapes, not on values.

use crate::generate::Noise;
use bitnet_kernels::Format;
use bitnet_kernels::QuantError;
use bitnet_kernels::quant::f16;

/// A matrix of -s, 0 and s in equal parts, which every format takes, of `(rows, cols)`.
pub fn ternary(format: &Format, (rows, cols): (usize, usize)) -> Result<Vec<u8>, QuantError> {
    let mut noise = Noise(1);
    let scale = 1.0 / 32.0;
    let weights: Vec<f32> = (0..rows * cols).map(|_| scale * (noise.below(3) as f32 - 1.0)).collect();
    (format.pack)(&weights, rows, cols)
}

/// Ids of tokens, spread over the vocabulary: those of `bitnet bench`.
pub fn ids(vocab: usize, count: usize) -> Vec<u32> {
    (0..count).map(|i| ((i * 7919 + 1) % vocab.max(1)) as u32).collect()
}

/// Activations, from -1 to 1.
pub fn values(n: usize) -> Vec<f32> {
    let mut noise = Noise(2);
    (0..n).map(|_| noise.next()).collect()
}

/// An output matrix, f16, of `(rows, cols)`. Packed row by row: that of a real model as f32 would be another 1.3 GB.
pub fn output((rows, cols): (usize, usize)) -> Result<Vec<u8>, QuantError> {
    let mut noise = Noise(3);
    let mut row = vec![0.0; cols];
    let mut bytes = Vec::with_capacity(f16::FORMAT.row_bytes(cols) * rows);
    for _ in 0..rows {
        row.fill_with(|| noise.next() / 50.0);
        bytes.extend((f16::FORMAT.pack)(&row, 1, cols)?);
    }
    Ok(bytes)
}
