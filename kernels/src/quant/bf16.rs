//! BF16 (ggml type 30): the upper half of an f32, two little-endian bytes per weight, no blocks.
//!
//! ```text
//! | w0 w0 | w1 w1 | ...        bit 15 sign, 14-7 exponent (bias 127), 6-0 fraction
//! ```

use super::{ActKind, Format, Values, first};
use crate::QuantError;

const BYTES: usize = 2;
const _: () = assert!(BYTES == size_of::<half::bf16>());

/// The format.
pub static FORMAT: Format = Format {
    name: "bf16",
    ggml_type: 30,
    also: &[],
    file_type: Some(32),
    row_head: 0,
    block_len: 1,
    block_bytes: BYTES,
    trailer_bytes: 0,
    halves: &[],
    act: ActKind::F32,
    validate,
    pack,
    values: Values::Floats(unpack),
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

fn unpack(row: &[u8], out: &mut [f32]) {
    for (i, out) in out.iter_mut().enumerate() {
        *out = at(row, i);
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
