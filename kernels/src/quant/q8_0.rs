//! Q8_0 (ggml type 8): blocks of 32 int8 with one f16 scale, 34 bytes. `w = d * q`.
//!
//! ```text
//! byte  0 1 | 2      ...      33
//!       d   | q0 q1 q2 ... q31      all 8 bits are used: -128 is legal
//! ```

use super::{ActKind, Activations, Format, Matrix, block_lanes, half_at, row_of};
use crate::QuantError;

/// Weights per block.
pub const LEN: usize = 32;
/// Bytes per block.
pub const BYTES: usize = 34;
const _: () = assert!(BYTES == 2 + LEN && LEN == crate::activations::Q8_BLOCK);

/// The format.
pub static FORMAT: Format = Format {
    name: "q8_0",
    ggml_type: 8,
    block_len: LEN,
    block_bytes: BYTES,
    trailer_bytes: 0,
    act: ActKind::Q8,
    validate: |data, rows, cols| super::finite_halves(&FORMAT, data, rows, cols, &[(0, "scale")]),
    unpack_row,
    pack,
    dot,
};

fn unpack_row(data: &[u8], _rows: usize, cols: usize, row: usize, out: &mut [f32]) {
    let blocks = row_of(&FORMAT, data, cols, row).chunks_exact(BYTES);
    for (block, out) in blocks.zip(out[..cols].chunks_exact_mut(LEN)) {
        let d = half_at(block, 0);
        for (out, q) in out.iter_mut().zip(&block[2..]) {
            *out = d * f32::from(*q as i8);
        }
    }
}

/// ggml's reference rounding: `d = amax / 127`, `q = round(w / d)`, halves away from zero.
fn pack(weights: &[f32], rows: usize, cols: usize) -> Result<Vec<u8>, QuantError> {
    super::pack_blocks(&FORMAT, weights, rows, cols, |w, row, col, out| {
        let d = w.iter().fold(0.0f32, |m, w| m.max(w.abs())) / 127.0;
        let id = if d > 0.0 { 1.0 / d } else { 0.0 };
        out[..2].copy_from_slice(&super::scale_bits(FORMAT.name, d, row, col)?.to_le_bytes());
        for (q, w) in out[2..].iter_mut().zip(w) {
            *q = (w * id).round() as i8 as u8;
        }
        Ok(())
    })
}

fn dot(w: &Matrix<'_>, row: usize, x: &Activations, token: usize) -> f32 {
    let (w, x) = (w.row(row), x.q8(token));
    block_lanes(&x, |b| half_at(w, b * BYTES), |i| i32::from(w[i / LEN * BYTES + 2 + i % LEN] as i8))
}
