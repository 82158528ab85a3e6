//! F16 (ggml type 1): IEEE binary16, two little-endian bytes per weight, no blocks.
//!
//! ```text
//! | w0 w0 | w1 w1 | ...        bit 15 sign, 14-10 exponent (bias 15), 9-0 fraction
//! ```

use super::{ActKind, Format, Values, first, half_at};
use crate::QuantError;

const BYTES: usize = 2;
const _: () = assert!(BYTES == size_of::<half::f16>());

/// The format.
pub static FORMAT: Format = Format {
    name: "f16",
    ggml_type: 1,
    also: &[],
    file_type: Some(1),
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

fn validate(data: &[u8], rows: usize, cols: usize) -> Result<(), QuantError> {
    FORMAT.check_size(data.len(), rows, cols)?;
    // All exponent bits set: infinite or NaN.
    match first(data, |w| u16::from_le_bytes(w) & 0x7c00 == 0x7c00) {
        None => Ok(()),
        Some(i) => {
            let value = half_at(data, i * BYTES);
            Err(QuantError::NotFinite { format: FORMAT.name, row: i / cols, col: i % cols, value })
        }
    }
}

fn unpack(row: &[u8], out: &mut [f32]) {
    for (i, out) in out.iter_mut().enumerate() {
        *out = half_at(row, i * BYTES);
    }
}

/// Rounds to nearest even; a weight beyond +-65504 is an error.
fn pack(weights: &[f32], rows: usize, cols: usize) -> Result<Vec<u8>, QuantError> {
    super::pack_blocks(&FORMAT, weights, rows, cols, |w, row, col, out| {
        out.copy_from_slice(&super::scale_bits(FORMAT.name, w[0], row, col)?.to_le_bytes());
        Ok(())
    })
}
