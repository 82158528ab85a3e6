//! Q5_K (ggml type 13): [`super::q4_k`] with a fifth bit; 176 bytes. `w = d * scale * code - dmin * minimum`.
//!
//! ```text
//! byte  0 ... 15   d, dmin, six-bit scales and minima as in Q4_K
//!      16 ... 47   h[0..32]: bit j of byte l is the fifth bit of weight 32 j + l
//!      48 ... 175  low four bits: 32 bytes for each 64 weights; byte l: weight l in bits 3-0, weight l + 32 in bits 7-4
//! ```
//!
//! Source: `block_q5_K` of ggml.

use super::decode::{Block, Blocks, Shape};
use super::q4_k::{self, SCALES, step_and_minimum};
use super::{Format, Halves, Packed};

const LEN: usize = 256;
const BYTES: usize = 176;
/// Where the high and the low bits start.
const HIGH: usize = q4_k::CODES;
const LOW: usize = HIGH + 32;
const _: () = assert!(LOW + LEN / 2 == BYTES && SCALES == 4);

/// The format.
pub static FORMAT: Format = Format::of::<Codes>();

struct Codes;

impl Blocks for Codes {
    const NAME: &str = "q5_k";
    const GGML_TYPE: u32 = 13;
    const FILE_TYPE: Option<u32> = Some(16);
    const HALVES: Halves = &[(0, "scale"), (2, "minimum")];
    const LEN: usize = LEN;
    const BYTES: usize = BYTES;
    const SHAPE: Shape = Shape::Minimum;

    #[inline(always)]
    fn block(bytes: &[u8], _: f32, out: &mut [Block]) {
        for (j, out) in out.iter_mut().enumerate() {
            let (step, minimum) = step_and_minimum(bytes, j);
            (out.scale, out.minimum) = (step, -minimum);
            let (low, high) = (&bytes[LOW + j / 2 * 32..], &bytes[HIGH..]);
            for ((q, low), high) in out.q.iter_mut().zip(low).zip(high) {
                *q = (low >> (j % 2 * 4) & 15 | (high >> j & 1) << 4) as i8;
            }
        }
    }

    fn pack(weights: &[f32], rows: usize, cols: usize) -> Packed {
        q4_k::pack(&FORMAT, 31.0, weights, rows, cols, |out, i, code| {
            out[LOW + i / 64 * 32 + i % 32] |= (code & 15) << (i % 64 / 32 * 4);
            out[HIGH + i % 32] |= code >> 4 << (i / 32);
        })
    }
}
