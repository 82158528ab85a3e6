//! Q4_0 (ggml type 2): blocks of 32 four-bit codes with one f16 scale, 18 bytes. `w = d * (code - 8)`.
//!
//! ```text
//! byte  0 1 | 2          3          ...  17
//!       d   | c16 : c0 | c17 : c1 | ... | c31 : c15      high nibble : low nibble
//! ```

use super::{ActKind, Activations, Format, Matrix, block_lanes, half_at, row_of};
use crate::QuantError;

/// Weights per block.
pub const LEN: usize = 32;
/// Bytes per block.
pub const BYTES: usize = 18;
const _: () = assert!(BYTES == 2 + LEN / 2 && LEN == crate::activations::Q8_BLOCK);

/// The format.
pub static FORMAT: Format = Format {
    name: "q4_0",
    ggml_type: 2,
    block_len: LEN,
    block_bytes: BYTES,
    trailer_bytes: 0,
    act: ActKind::Q8,
    validate: |data, rows, cols| super::finite_halves(&FORMAT, data, rows, cols, &[(0, "scale")]),
    unpack_row,
    pack,
    dot,
};

/// The code of weight `j` of a block, `codes` being its last 16 bytes. Q4_1 stores the same.
pub(super) fn code(codes: &[u8], j: usize) -> u8 {
    if j < 16 { codes[j] & 15 } else { codes[j - 16] >> 4 }
}

/// Stores `value(w)`, rounded by adding a half and cutting, as the code of each weight.
pub(super) fn store(codes: &mut [u8], weights: &[f32], value: impl Fn(f32) -> f32) {
    let code = |w: f32| ((value(w) + 0.5) as u8).min(15);
    for (j, byte) in codes.iter_mut().enumerate() {
        *byte = code(weights[j]) | code(weights[j + 16]) << 4;
    }
}

fn unpack_row(data: &[u8], _rows: usize, cols: usize, row: usize, out: &mut [f32]) {
    let blocks = row_of(&FORMAT, data, cols, row).chunks_exact(BYTES);
    for (block, out) in blocks.zip(out[..cols].chunks_exact_mut(LEN)) {
        let d = half_at(block, 0);
        for (j, out) in out.iter_mut().enumerate() {
            *out = d * (f32::from(code(&block[2..], j)) - 8.0);
        }
    }
}

/// ggml's reference rounding: the weight of the largest magnitude becomes -8, so `d = w_max / -8`.
fn pack(weights: &[f32], rows: usize, cols: usize) -> Result<Vec<u8>, QuantError> {
    super::pack_blocks(&FORMAT, weights, rows, cols, |w, row, col, out| {
        let largest = w.iter().fold(0.0f32, |m, &w| if w.abs() > m.abs() { w } else { m });
        let d = largest / -8.0;
        let id = if d != 0.0 { 1.0 / d } else { 0.0 };
        out[..2].copy_from_slice(&super::scale_bits(FORMAT.name, d, row, col)?.to_le_bytes());
        store(&mut out[2..], w, |w| w * id + 8.0);
        Ok(())
    })
}

fn dot(w: &Matrix<'_>, row: usize, x: &Activations, token: usize) -> f32 {
    let (w, x) = (w.row(row), x.q8(token));
    block_lanes(&x, |b| half_at(w, b * BYTES), |i| i32::from(code(&w[i / LEN * BYTES + 2..], i % LEN)) - 8)
}
