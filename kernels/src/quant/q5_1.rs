//! Q5_1 (ggml type 7): blocks of 32 five-bit codes with f16 scale and minimum, 24 bytes. `w = d * code + m`.
//!
//! ```text
//! byte  0 1 | 2 3 | 4 ... 7 | 8 ... 23
//!       d   | m   | h       | low four bits      h and low bits as in Q5_0
//! ```
//!
//! Source: `block_q5_1` of ggml.

use super::decode::{Block, Blocks, Shape};
use super::q4_0::pack_from_least;
use super::q5_0::{codes, store};
use super::{Format, Halves, Packed, half_at};

const LEN: usize = 32;
const BYTES: usize = 24;
const _: () = assert!(BYTES == 4 + 4 + LEN / 2 && LEN == crate::activations::Q8_BLOCK);

/// The format.
pub static FORMAT: Format = Format::of::<Codes>();

struct Codes;

impl Blocks for Codes {
    const NAME: &str = "q5_1";
    const GGML_TYPE: u32 = 7;
    const FILE_TYPE: Option<u32> = Some(9);
    const HALVES: Halves = &[(0, "scale"), (2, "minimum")];
    const LEN: usize = LEN;
    const BYTES: usize = BYTES;
    const SHAPE: Shape = Shape::Minimum;

    #[inline(always)]
    fn block(bytes: &[u8], _: f32, out: &mut [Block]) {
        (out[0].scale, out[0].minimum) = (half_at(bytes, 0), half_at(bytes, 2));
        out[0].q = codes(&bytes[4..], 0);
    }

    fn pack(weights: &[f32], rows: usize, cols: usize) -> Packed {
        pack_from_least(&FORMAT, weights, rows, cols, 31, store)
    }
}
