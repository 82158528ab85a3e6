//! BF16 (ggml type 30): the upper half of an f32, two little-endian bytes per weight, no blocks.
//!
//! ```text
//! | w0 w0 | w1 w1 | ...        bit 15 sign, 14-7 exponent (bias 127), 6-0 fraction
//! ```

use super::{ActKind, Activations, Format, Matrix, first, row_of};
use crate::QuantError;
use crate::numerics::reduce64;

const BYTES: usize = 2;
const _: () = assert!(BYTES == size_of::<half::bf16>());

/// The format.
pub static FORMAT: Format = Format {
    name: "bf16",
    ggml_type: 30,
    block_len: 1,
    block_bytes: BYTES,
    trailer_bytes: 0,
    act: ActKind::F32,
    validate,
    unpack_row,
    pack,
    dot,
};

fn at(row: &[u8], i: usize) -> f32 {
    f32::from_le_bytes([0, 0, row[2 * i], row[2 * i + 1]])
}

fn validate(data: &[u8], rows: usize, cols: usize) -> Result<(), QuantError> {
    FORMAT.check_size(data.len(), rows, cols)?;
    // All exponent bits set: infinite or NaN.
    match first(data, |w| u16::from_le_bytes(w) & 0x7f80 == 0x7f80) {
        None => Ok(()),
        Some(i) => Err(QuantError::NotFinite { format: FORMAT.name, row: i / cols, col: i % cols, value: at(data, i) }),
    }
}

fn unpack_row(data: &[u8], _rows: usize, cols: usize, row: usize, out: &mut [f32]) {
    let bytes = row_of(&FORMAT, data, cols, row);
    for (i, out) in out[..cols].iter_mut().enumerate() {
        *out = at(bytes, i);
    }
}

/// Rounds to nearest even; a weight that would round to infinity is an error.
fn pack(weights: &[f32], rows: usize, cols: usize) -> Result<Vec<u8>, QuantError> {
    super::pack_blocks(&FORMAT, weights, rows, cols, |w, row, col, out| {
        let rounded = half::bf16::from_f32(w[0]);
        if !rounded.is_finite() {
            return Err(QuantError::Overflow { format: FORMAT.name, row, col, value: w[0] });
        }
        out.copy_from_slice(&rounded.to_le_bytes());
        Ok(())
    })
}

fn dot(w: &Matrix<'_>, row: usize, x: &Activations, token: usize) -> f32 {
    let (w, x) = (w.row(row), x.f32(token));
    reduce64(x.len(), |i, lane| at(w, i).mul_add(x[i], lane))
}
