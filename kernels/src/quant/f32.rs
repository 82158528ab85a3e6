//! F32 (ggml type 0): four little-endian bytes per weight, no blocks.
//!
//! ```text
//! | w0 w0 w0 w0 | w1 w1 w1 w1 | ...
//! ```

use super::{ActKind, Format, Values, first};
use crate::QuantError;

const BYTES: usize = 4;
const _: () = assert!(BYTES == size_of::<f32>());

/// The format.
pub static FORMAT: Format = Format {
    name: "f32",
    ggml_type: 0,
    also: &[],
    file_type: Some(0),
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
    f32::from_le_bytes([row[4 * i], row[4 * i + 1], row[4 * i + 2], row[4 * i + 3]])
}

fn validate(data: &[u8], rows: usize, cols: usize) -> Result<(), QuantError> {
    FORMAT.check_size(data.len(), rows, cols)?;
    // All exponent bits set: infinite or NaN.
    match first(data, |w| u32::from_le_bytes(w) & 0x7f80_0000 == 0x7f80_0000) {
        None => Ok(()),
        Some(i) => Err(QuantError::NotFinite { format: FORMAT.name, row: i / cols, col: i % cols, value: at(data, i) }),
    }
}

fn unpack(row: &[u8], out: &mut [f32]) {
    for (i, out) in out.iter_mut().enumerate() {
        *out = at(row, i);
    }
}

fn pack(weights: &[f32], rows: usize, cols: usize) -> Result<Vec<u8>, QuantError> {
    super::pack_blocks(&FORMAT, weights, rows, cols, |w, _, _, out| {
        out.copy_from_slice(&w[0].to_le_bytes());
        Ok(())
    })
}
