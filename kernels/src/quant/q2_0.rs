//! Q2_0 (ggml type 42), llama.cpp's form: blocks of 64 two-bit codes with one f16 scale, 18 bytes. `w = d * (code - 1)`,
//! so the values are -d, 0, +d and, with code 3, +2d.
//!
//! ```text
//! byte  0 1 | 2 ... 17      weight j: bits 2 (j % 4) and the next of byte 2 + j / 4
//!       d   | codes
//! ```
//!
//! The fork that introduced the number has blocks of 128: [`super::q2_0_g128`]. Only the size of a tensor tells which it is.
//! Source: `block_q2_0` of ggml.

use super::decode::{Block, Blocks};
use super::{Format, Halves, Packed, half_at};

pub(crate) const LEN: usize = 64;
const BYTES: usize = 18;
const _: () = assert!(BYTES == 2 + LEN / 4);

/// The format.
pub static FORMAT: Format = Format::of::<Codes>();

/// The four weights of a byte.
static FOURS: [[i8; 4]; 256] = {
    let mut out = [[0; 4]; 256];
    let mut i = 0;
    while i < 256 * 4 {
        out[i / 4][i % 4] = ((i / 4) >> (2 * (i % 4)) & 3) as i8 - 1;
        i += 1;
    }
    out
};

/// One block of any length.
#[inline(always)]
pub(super) fn block(bytes: &[u8], out: &mut [Block]) {
    let d = half_at(bytes, 0);
    for (out, bytes) in out.iter_mut().zip(bytes[2..].chunks_exact(8)) {
        out.scale = d;
        for (q, byte) in out.q.as_chunks_mut().0.iter_mut().zip(bytes) {
            *q = FOURS[usize::from(*byte)];
        }
    }
}

struct Codes;

impl Blocks for Codes {
    const NAME: &str = "q2_0";
    const GGML_TYPE: u32 = 42;
    const FILE_TYPE: Option<u32> = Some(41);
    const HALVES: Halves = &[(0, "scale")];
    const LEN: usize = LEN;
    const BYTES: usize = BYTES;

    #[inline(always)]
    fn block(bytes: &[u8], _: f32, out: &mut [Block]) {
        block(bytes, out);
    }

    fn pack(weights: &[f32], rows: usize, cols: usize) -> Packed {
        pack(&FORMAT, weights, rows, cols)
    }
}

/// The code of a weight.
fn code(w: f32, d: f32) -> u8 {
    let steps = if d > 0.0 { (w / d).round() } else { 0.0 };
    (steps.clamp(-1.0, 2.0) + 1.0) as u8
}

/// ggml's reference rounding: `d` is the largest magnitude, so that code 3 is not used. Half of it is taken where that is
/// nearer, which gives weights with +2d back exactly.
pub(super) fn pack(format: &'static Format, weights: &[f32], rows: usize, cols: usize) -> Packed {
    super::pack_blocks(format, weights, rows, cols, |w, row, col, out| {
        let largest = w.iter().fold(0.0f32, |m, w| m.max(w.abs()));
        let error =
            |d: f32| -> f64 { w.iter().map(|w| f64::from(d * (f32::from(code(*w, d)) - 1.0) - w).powi(2)).sum() };
        let d = if error(largest / 2.0) < error(largest) { largest / 2.0 } else { largest };
        out[..2].copy_from_slice(&super::scale_bits(format.name, d, row, col)?.to_le_bytes());
        for (j, w) in w.iter().enumerate() {
            out[2 + j / 4] |= code(*w, d) << (2 * (j % 4));
        }
        Ok(())
    })
}
