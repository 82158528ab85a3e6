//! Q2_0 as PrismML's fork of llama.cpp has it under the number 42, and PQ2_0 (142): as [`super::q2_0`], but blocks of 128
//! weights, 34 bytes.
//!
//! ```text
//! byte  0 1 | 2 ... 33      weight j: bits 2 (j % 4) and the next of byte 2 + j / 4
//!       d   | codes
//! ```
//!
//! The number that we write is 142, which means nothing else.

use super::decode::{Block, Decode, Decoder, Shape};
use super::{ActKind, Format, Values, q2_0};

/// Weights per block.
pub const LEN: usize = 128;
/// Bytes per block.
pub const BYTES: usize = 34;
const _: () = assert!(BYTES == 2 + LEN / 4 && LEN == 2 * q2_0::LEN);

/// The format.
pub static FORMAT: Format = Format {
    name: "q2_0-g128",
    ggml_type: 142,
    also: &[q2_0::FORMAT.ggml_type],
    file_type: None,
    row_head: 0,
    block_len: LEN,
    block_bytes: BYTES,
    trailer_bytes: 0,
    halves: &[(0, "scale")],
    act: ActKind::Q8,
    validate: |data, rows, cols| super::finite_halves(&FORMAT, data, rows, cols),
    pack: |weights, rows, cols| q2_0::pack(&FORMAT, weights, rows, cols),
    values: Values::Blocks(Decoder::of::<Codes>()),
};

struct Codes;

impl Decode for Codes {
    const LEN: usize = LEN;
    const BYTES: usize = BYTES;
    const SHAPE: Shape = Shape::Scale;

    #[inline(always)]
    fn block(bytes: &[u8], _: f32, out: &mut [Block]) {
        q2_0::block(bytes, out);
    }
}
