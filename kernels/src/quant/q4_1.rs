//! Q4_1 (ggml type 3): blocks of 32 four-bit codes with f16 scale and minimum, 20 bytes. `w = d * code + m`.
//!
//! ```text
//! byte  0 1 | 2 3 | 4          5          ...  19
//!       d   | m   | c16 : c0 | c17 : c1 | ... | c31 : c15      high nibble : low nibble
//! ```

use super::q4_0::{code, store};
use super::{ActKind, Activations, Format, Matrix, block_lanes, half_at, row_of};
use crate::QuantError;

/// Weights per block.
pub const LEN: usize = 32;
/// Bytes per block.
pub const BYTES: usize = 20;
const _: () = assert!(BYTES == 4 + LEN / 2 && LEN == crate::activations::Q8_BLOCK);

/// The format.
pub static FORMAT: Format = Format {
    name: "q4_1",
    ggml_type: 3,
    block_len: LEN,
    block_bytes: BYTES,
    trailer_bytes: 0,
    act: ActKind::Q8,
    validate: |data, rows, cols| super::finite_halves(&FORMAT, data, rows, cols, &[(0, "scale"), (2, "minimum")]),
    unpack_row,
    pack,
    dot,
};

fn unpack_row(data: &[u8], _rows: usize, cols: usize, row: usize, out: &mut [f32]) {
    let blocks = row_of(&FORMAT, data, cols, row).chunks_exact(BYTES);
    for (block, out) in blocks.zip(out[..cols].chunks_exact_mut(LEN)) {
        let (d, m) = (half_at(block, 0), half_at(block, 2));
        for (j, out) in out.iter_mut().enumerate() {
            *out = d * f32::from(code(&block[4..], j)) + m;
        }
    }
}

/// ggml's reference rounding: `m = min`, `d = (max - min) / 15`.
fn pack(weights: &[f32], rows: usize, cols: usize) -> Result<Vec<u8>, QuantError> {
    super::pack_blocks(&FORMAT, weights, rows, cols, |w, row, col, out| {
        let min = w.iter().copied().fold(f32::INFINITY, f32::min);
        let max = w.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let d = (max - min) / 15.0;
        let id = if d > 0.0 { 1.0 / d } else { 0.0 };
        out[..2].copy_from_slice(&super::scale_bits(FORMAT.name, d, row, col)?.to_le_bytes());
        out[2..4].copy_from_slice(&super::scale_bits(FORMAT.name, min, row, col)?.to_le_bytes());
        store(&mut out[4..], w, |w| (w - min) * id);
        Ok(())
    })
}

/// The minimum multiplies the block's sum: one more chain of FMAs over rising blocks, added at the end.
fn dot(w: &Matrix<'_>, row: usize, x: &Activations, token: usize) -> f32 {
    let (w, x) = (w.row(row), x.q8(token));
    let lanes = block_lanes(&x, |b| half_at(w, b * BYTES), |i| i32::from(code(&w[i / LEN * BYTES + 4..], i % LEN)));
    let mut minimum = 0.0f32;
    for (b, bsum) in x.bsum.iter().enumerate() {
        minimum = half_at(w, b * BYTES + 2).mul_add(*bsum, minimum);
    }
    lanes + minimum
}
