//! TQ2_0 (ggml type 35): blocks of 256 ternary weights in two bits each with one f16 scale, 66 bytes.
//! `w = d * (code - 1)`, codes 0, 1, 2; code 3 means nothing and is refused.
//!
//! ```text
//! byte  0 ... 31   weights   0 ... 127
//!      32 ... 63   weights 128 ... 255
//!      64 65       d
//!
//! in a half of 32 bytes:
//!     byte m (0..32)   bits 7-6     5-4      3-2      1-0
//!                      weight m+96  m + 64   m + 32   m         (I2_S has them the other way round)
//! ```
//!
//! Source: `block_tq2_0` of ggml. Product, scale and packing: [`super::tq`].

use super::decode::{Block, Blocks};
use super::tq::{self, LEN, Trits};
use super::{Checked, Format, Halves, Packed, half_at};

pub(crate) const BYTES: usize = 66;
/// Where the scale starts.
pub(crate) const D: usize = 64;
/// Bytes of a block whose weights are all zero, but for the scale.
pub(crate) const ZERO: [u8; D] = [0b0101_0101; D];
const _: () = assert!(D * 4 == LEN && BYTES == D + 2);

/// The format.
pub static FORMAT: Format = Format::of::<Weights>();

struct Weights;

impl Blocks for Weights {
    const NAME: &str = "tq2_0";
    const GGML_TYPE: u32 = 35;
    const FILE_TYPE: Option<u32> = Some(37);
    const HALVES: Halves = &[(D, "scale")];
    const TERNARY: bool = true;
    const LEN: usize = LEN;
    const BYTES: usize = BYTES;

    #[inline(always)]
    fn block(bytes: &[u8], _: f32, out: &mut [Block]) {
        let d = half_at(bytes, D);
        for (half, out) in bytes[..D].chunks_exact(32).zip(out.chunks_exact_mut(4)) {
            for (j, out) in out.iter_mut().enumerate() {
                out.scale = d;
                for (q, byte) in out.q.iter_mut().zip(half) {
                    *q = (byte >> (2 * j) & 3) as i8 - 1;
                }
            }
        }
    }

    fn validate(data: &[u8], rows: usize, cols: usize) -> Checked {
        tq::validate::<Self>(data, rows, cols)
    }

    fn pack(weights: &[f32], rows: usize, cols: usize) -> Packed {
        tq::pack::<Self>(weights, rows, cols)
    }
}

impl Trits for Weights {
    const D: usize = D;

    fn store(block: &mut [u8], codes: &[u8; LEN]) {
        for (i, code) in codes.iter().enumerate() {
            let (byte, shift) = place(i);
            block[byte] |= code << shift;
        }
    }

    fn wrong(block: &[u8]) -> Option<usize> {
        block[..D].iter().position(|b| b & b >> 1 & 0x55 != 0)
    }
}

/// Where weight `i` of a block lies: `(byte, shift)`.
fn place(i: usize) -> (usize, u32) {
    (i / 128 * 32 + i % 32, 2 * (i as u32 % 128 / 32))
}
