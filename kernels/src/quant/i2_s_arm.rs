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

use super::decode::{Block, Blocks, two_of_each};
use super::{Checked, Format, I2S_TRAILER, Matrix, Packed, i2_s, part};

pub(crate) const LEN: usize = 64;
pub(crate) const BYTES: usize = 16;
const _: () = assert!(BYTES * 4 == LEN && LEN * 2 == i2_s::LEN);

/// The format.
pub static FORMAT: Format = Format::of::<Codes>();

/// Where weight `i` of a row lies: `(byte, shift)`.
pub(super) fn place(i: usize) -> (usize, u32) {
    let (block, j) = (i / LEN, i % LEN);
    (block * BYTES + j % 16, 6 - 2 * (j as u32 / 16))
}

struct Codes;

impl Blocks for Codes {
    const NAME: &str = "i2_s-arm";
    const GGML_TYPE: u32 = i2_s::FORMAT.ggml_type;
    const FILE_TYPE: Option<u32> = Some(40);
    const TRAILER: usize = I2S_TRAILER;
    const TERNARY: bool = true;
    const LEN: usize = LEN;
    const BYTES: usize = BYTES;

    #[inline(always)]
    fn row_scale(w: &Matrix<'_>, _row: usize) -> f32 {
        i2_s::scale(w.data)
    }

    #[inline(always)]
    fn block(bytes: &[u8], scale: f32, out: &mut [Block]) {
        for (j, out) in out.iter_mut().enumerate() {
            out.scale = scale;
            let code = |byte: u8, shift: usize| (byte >> shift & 3) as i8 - 1;
            out.q = two_of_each(part(bytes, 0), |byte| code(byte, 6 - 4 * j), |byte| code(byte, 4 - 4 * j));
        }
    }

    fn validate(data: &[u8], rows: usize, cols: usize) -> Checked {
        i2_s::validate(&FORMAT, data, rows, cols)
    }

    fn pack(weights: &[f32], rows: usize, cols: usize) -> Packed {
        i2_s::pack(&FORMAT, place, weights, rows, cols)
    }
}
