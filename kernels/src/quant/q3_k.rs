//! Q3_K (ggml type 11): super-blocks of 256 three-bit codes, a six-bit scale for each 16 and one f16 scale, 110 bytes.
//! `w_i = d * (scale[i / 16] - 32) * (code_i - 4)`.
//!
//! ```text
//! byte  0 ... 31   h[0..32]: bit j of byte l is the third bit of the code of weight 32 j + l
//!      32 ... 95   low two bits: two halves of 32 bytes, one for each 128 weights; byte l: weight l in bits 1-0, l + 32 in
//!                  3-2, l + 64 in 5-4, l + 96 in 7-6
//!      96 ... 107  s[0..12]: scale j (0 ... 15)
//!                    its low four bits:  s[j % 8] bits 3-0 for j < 8, bits 7-4 for the others
//!                    its high two bits:  s[8 + j % 4] bits 2 (j / 4) and the next
//!     108 109      d
//! ```
//!
//! Source: `block_q3_K` of ggml.

use super::decode::{Block, Blocks, Shape};
use super::{Format, Halves, Packed, half_at, q6_k};

const LEN: usize = 256;
const BYTES: usize = 110;
const SUB: usize = 16;
/// Where the low bits, the sub-scales and the scale start.
const LOW: usize = 32;
const SCALES: usize = LOW + LEN / 4;
const D: usize = SCALES + 12;
const _: () = assert!(LOW == LEN / 8 && LEN / SUB * 6 / 8 == 12 && D + 2 == BYTES);

/// The format.
pub static FORMAT: Format = Format::of::<Codes>();

/// Scale `j` less 32.
#[inline(always)]
fn sub_scale(block: &[u8], j: usize) -> i16 {
    let s = &block[SCALES..D];
    i16::from(s[j % 8] >> (j / 8 * 4) & 15 | (s[8 + j % 4] >> (j / 4 * 2) & 3) << 4) - 32
}

struct Codes;

impl Blocks for Codes {
    const NAME: &str = "q3_k";
    const GGML_TYPE: u32 = 11;
    const FILE_TYPE: Option<u32> = Some(11);
    const HALVES: Halves = &[(D, "scale")];
    const LEN: usize = LEN;
    const BYTES: usize = BYTES;
    const SHAPE: Shape = Shape::Halves;

    #[inline(always)]
    fn block(bytes: &[u8], _: f32, out: &mut [Block]) {
        let d = half_at(bytes, D);
        for (b, out) in out.iter_mut().enumerate() {
            out.scale = d;
            out.factors = [sub_scale(bytes, 2 * b), sub_scale(bytes, 2 * b + 1)];
            let (low, shift) = (&bytes[LOW + b / 4 * 32..], b % 4 * 2);
            for ((q, low), high) in out.q.iter_mut().zip(low).zip(&bytes[..LOW]) {
                *q = (low >> shift & 3 | (high >> b & 1) << 2) as i8 - 4;
            }
        }
    }

    /// As Q6_K: each 16 weights get a scale, the scales are rounded to steps of d (the largest becomes -32), and the codes
    /// follow from those.
    fn pack(weights: &[f32], rows: usize, cols: usize) -> Packed {
        super::pack_blocks(&FORMAT, weights, rows, cols, |w, row, col, out| {
            let scales: Vec<f32> = w.chunks_exact(SUB).map(|w| q6_k::best_scale(w, 4)).collect();
            let bits = super::scale_bits(FORMAT.name, super::largest(&scales) / -32.0, row, col)?;
            let d = crate::numerics::f16_to_f32(bits);
            out[D..].copy_from_slice(&bits.to_le_bytes());
            for (j, scale) in scales.iter().enumerate() {
                let steps = if d == 0.0 { 0.0 } else { (scale / d).round().clamp(-32.0, 31.0) };
                let scale = (steps + 32.0) as u8;
                out[SCALES + j % 8] |= (scale & 15) << (j / 8 * 4);
                out[SCALES + 8 + j % 4] |= scale >> 4 << (j / 4 * 2);
            }
            for (i, w) in w.iter().enumerate() {
                let step = d * f32::from(sub_scale(out, i / SUB));
                let code = if step == 0.0 { 4 } else { q6_k::code_of(w / step, 4) };
                out[LOW + i / 128 * 32 + i % 32] |= (code & 3) << (i % 128 / 32 * 2);
                out[i % 32] |= code >> 2 << (i / 32);
            }
            Ok(())
        })
    }
}
