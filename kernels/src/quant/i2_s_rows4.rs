//! I2_S (ggml type 36 of bitnet.cpp), the layout of x86 builds without `ACT_PARALLEL`: four rows to a byte.
//!
//! ```text
//! byte g * cols + c   bits 7-6      5-4           3-2           1-0
//!                     row 4 g       row 4 g + 1   row 4 g + 2   row 4 g + 3,    all of column c
//! after the last four rows (byte rows * cols / 4):
//!     | scale, f32 little-endian | 28 bytes of zero |
//! ```
//!
//! Unpacked at load, see [`super::tiled`]: the kernels sum along rows. Source: `quantize_i2_s` of bitnet.cpp's fork.

use super::tiled::{Rows, Tiled, check_size};
use super::{I2S_TRAILER, Packed, QuantError, i2_s, i2_s_arm};

/// The format.
pub static FORMAT: Tiled = Tiled {
    name: NAME,
    ggml_type: i2_s::FORMAT.ggml_type,
    file_type: i2_s::FORMAT.file_type,
    matrix_bytes,
    preset: |_, _| true,
    pack,
    unpack,
};

const NAME: &str = "i2_s-rows4";

fn matrix_bytes(rows: usize, cols: usize) -> Result<usize, QuantError> {
    if rows.is_multiple_of(4) {
        return i2_s_arm::FORMAT.matrix_bytes(rows, cols).map_err(|error| error.named(NAME));
    }
    Err(QuantError::Rows { format: NAME, rows, multiple: 4 })
}

fn pack(weights: &[f32], rows: usize, cols: usize) -> Packed {
    let bytes = matrix_bytes(rows, cols)?;
    let source = Rows::pack(NAME, weights, rows, cols)?;
    let mut out = Vec::with_capacity(bytes);
    for row in (0..rows).step_by(4) {
        out.extend((0..cols).map(|col| (0..4).fold(0, |byte, r| byte << 2 | source.get(row + r, col))));
    }
    out.extend(source.scale().to_le_bytes());
    out.resize(bytes, 0);
    Ok(out)
}

fn unpack(data: &[u8], rows: usize, cols: usize) -> Packed {
    check_size(&FORMAT, data.len(), rows, cols)?;
    let end = data.len() - I2S_TRAILER;
    let mut out = Rows::new(rows, cols);
    for (at, byte) in data[..end].iter().enumerate() {
        let (row, col) = (at / cols * 4, at % cols);
        for r in 0..4 {
            let code = byte >> (6 - 2 * r) & 3;
            if code == 3 {
                return Err(QuantError::Code { format: NAME, row: row + r, byte: at });
            }
            out.set(row + r, col, code);
        }
    }
    out.finish(NAME, data, end)
}
