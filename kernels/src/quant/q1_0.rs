//! Q1_0 (ggml type 41): blocks of 128 signs with one f16 scale, 18 bytes. `w = +d` or `-d`.
//!
//! ```text
//! byte  0 1 | 2 ... 17      weight j: bit j % 8 of byte 2 + j / 8; 1 is +d, 0 is -d
//!       d   | signs
//! ```
//!
//! Source: `block_q1_0` of ggml.

use super::decode::{Block, Blocks};
use super::{Format, Halves, Packed, half_at};

const LEN: usize = 128;
const BYTES: usize = 18;
const _: () = assert!(BYTES == 2 + LEN / 8);

/// The format.
pub static FORMAT: Format = Format::of::<Codes>();

/// The eight weights of a byte.
static SIGNS: [[i8; 8]; 256] = {
    let mut out = [[0; 8]; 256];
    let mut i = 0;
    while i < 256 * 8 {
        out[i / 8][i % 8] = if (i / 8) >> (i % 8) & 1 == 1 { 1 } else { -1 };
        i += 1;
    }
    out
};

struct Codes;

impl Blocks for Codes {
    const NAME: &str = "q1_0";
    const GGML_TYPE: u32 = 41;
    const FILE_TYPE: Option<u32> = Some(40);
    const HALVES: Halves = &[(0, "scale")];
    const LEN: usize = LEN;
    const BYTES: usize = BYTES;

    #[inline(always)]
    fn block(bytes: &[u8], _: f32, out: &mut [Block]) {
        let d = half_at(bytes, 0);
        for (out, bytes) in out.iter_mut().zip(bytes[2..].chunks_exact(4)) {
            out.scale = d;
            for (q, byte) in out.q.as_chunks_mut().0.iter_mut().zip(bytes) {
                *q = SIGNS[usize::from(*byte)];
            }
        }
    }

    /// ggml's reference rounding: `d` is the mean of the magnitudes; zero counts as positive.
    fn pack(weights: &[f32], rows: usize, cols: usize) -> Packed {
        super::pack_blocks(&FORMAT, weights, rows, cols, |w, row, col, out| {
            let d = w.iter().map(|w| w.abs()).sum::<f32>() / LEN as f32;
            out[..2].copy_from_slice(&super::scale_bits(FORMAT.name, d, row, col)?.to_le_bytes());
            for (j, w) in w.iter().enumerate() {
                out[2 + j / 8] |= u8::from(*w >= 0.0) << (j % 8);
            }
            Ok(())
        })
    }
}
