//! Q2_0 as PrismML's fork of llama.cpp has it under the number 42, and PQ2_0 (142): as [`super::q2_0`], but blocks of 128
//! weights, 34 bytes.
//!
//! ```text
//! byte  0 1 | 2 ... 33      weight j: bits 2 (j % 4) and the next of byte 2 + j / 4
//!       d   | codes
//! ```
//!
//! The number that we write is 142, which means nothing else.

use super::decode::{Block, Blocks};
use super::{Format, Halves, Packed, q2_0};

const LEN: usize = 128;
const BYTES: usize = 34;
const _: () = assert!(BYTES == 2 + LEN / 4 && LEN == 2 * q2_0::LEN);

/// The format.
pub static FORMAT: Format = Format::of::<Codes>();

struct Codes;

impl Blocks for Codes {
    const NAME: &str = "q2_0-g128";
    const GGML_TYPE: u32 = 142;
    const ALSO: &[u32] = &[q2_0::FORMAT.ggml_type];
    const HALVES: Halves = &[(0, "scale")];
    const LEN: usize = LEN;
    const BYTES: usize = BYTES;

    #[inline(always)]
    fn block(bytes: &[u8], _: f32, out: &mut [Block]) {
        q2_0::block(bytes, out);
    }

    fn pack(weights: &[f32], rows: usize, cols: usize) -> Packed {
        q2_0::pack(&FORMAT, weights, rows, cols)
    }
}
