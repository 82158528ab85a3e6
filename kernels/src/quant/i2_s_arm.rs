//! I2_S (ggml type 36 of bitnet.cpp), ARM layout of 2026: as [`super::i2_s`], but 64 weights in 16 bytes.
//!
//! ```text
//! 64 weights in 16 bytes, row by row:
//!     byte p (0..16)   bits 7-6     5-4      3-2      1-0
//!                      weight p     p + 16   p + 32   p + 48
//! after the last row (byte rows * cols / 4):
//!     | scale, f32 little-endian | 28 bytes of zero |
//! ```
//!
//! Where the x86 layout wants rows of whole 128s, this one takes multiples of 64.

use super::{ActKind, Format, I2S_TRAILER, i2_s};

/// Weights per block.
pub const LEN: usize = 64;
/// Bytes per block.
pub const BYTES: usize = 16;
const _: () = assert!(BYTES * 4 == LEN && LEN * 2 == i2_s::LEN);

/// The format.
pub static FORMAT: Format = Format {
    name: "i2_s-arm",
    ggml_type: i2_s::FORMAT.ggml_type,
    block_len: LEN,
    block_bytes: BYTES,
    trailer_bytes: I2S_TRAILER,
    act: ActKind::I8,
    validate: |data, rows, cols| i2_s::validate(&FORMAT, data, rows, cols),
    unpack_row: |data, _, cols, row, out| i2_s::unpack_row(&FORMAT, place, data, cols, row, out),
    pack: |weights, rows, cols| i2_s::pack(&FORMAT, place, weights, rows, cols),
    dot: |w, row, x, token| i2_s::dot(place, w, row, x, token),
};

/// Where weight `i` of a row lies: `(byte, shift)`.
pub(super) fn place(i: usize) -> (usize, u32) {
    let (block, j) = (i / LEN, i % LEN);
    (block * BYTES + j % 16, 6 - 2 * (j as u32 / 16))
}
