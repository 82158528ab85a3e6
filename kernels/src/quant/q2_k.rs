//! Q2_K (ggml type 10): super-blocks of 256 two-bit codes; each 16 have a four-bit scale and a four-bit minimum, the
//! super-block an f16 unit for either; 84 bytes. `w = d * scale * code - dmin * minimum`.
//!
//! ```text
//! byte  0 ... 15   of weights 16 j ... 16 j + 15: scale in bits 3-0, minimum in bits 7-4
//!      16 ... 79   codes: two halves of 32 bytes, one for each 128 weights; byte l: weight l in bits 1-0, l + 32 in 3-2,
//!                  l + 64 in 5-4, l + 96 in 7-6
//!      80 81       d
//!      82 83       dmin
//! ```
//!
//! Source: `block_q2_K` of ggml.

use super::decode::{Block, Blocks, Shape};
use super::{Format, Halves, Packed, half_at, q4_k};
use crate::numerics::f16_to_f32;

const LEN: usize = 256;
const BYTES: usize = 84;
const SUB: usize = 16;
/// Where the codes, the unit of scales and that of minima start.
const CODES: usize = LEN / SUB;
const D: usize = CODES + LEN / 4;
const MIN: usize = D + 2;
const _: () = assert!(MIN + 2 == BYTES);

/// The format.
pub static FORMAT: Format = Format::of::<Codes>();

struct Codes;

impl Blocks for Codes {
    const NAME: &str = "q2_k";
    const GGML_TYPE: u32 = 10;
    const FILE_TYPE: Option<u32> = Some(10);
    const HALVES: Halves = &[(D, "scale"), (MIN, "minimum")];
    const LEN: usize = LEN;
    const BYTES: usize = BYTES;
    const SHAPE: Shape = Shape::HalfMinima;

    #[inline(always)]
    fn block(bytes: &[u8], _: f32, out: &mut [Block]) {
        let (d, minimum) = (half_at(bytes, D), -half_at(bytes, MIN));
        for (b, out) in out.iter_mut().enumerate() {
            (out.scale, out.minimum) = (d, minimum);
            let parts = [bytes[2 * b], bytes[2 * b + 1]];
            out.factors = parts.map(|part| i16::from(part & 15));
            out.minima = parts.map(|part| i16::from(part >> 4));
            let (codes, shift) = (&bytes[CODES + b / 4 * 32..], b % 4 * 2);
            for (q, byte) in out.q.iter_mut().zip(codes) {
                *q = (byte >> shift & 3) as i8;
            }
        }
    }

    /// Each 16 weights get the scale and the minimum of [`q4_k::best_fit`]; both are then rounded to four bits of a unit (the
    /// largest becomes 15), and the codes follow from those.
    fn pack(weights: &[f32], rows: usize, cols: usize) -> Packed {
        super::pack_blocks(&FORMAT, weights, rows, cols, |w, row, col, out| {
            let fits: Vec<_> = w.chunks_exact(SUB).map(|w| q4_k::best_fit(w, 3.0)).collect();
            let largest = fits.iter().fold((0.0f32, 0.0f32), |m, fit| (m.0.max(fit.0), m.1.max(fit.1)));
            let mut units = [0.0; 2];
            for ((unit, value), at) in units.iter_mut().zip([largest.0, largest.1]).zip([D, MIN]) {
                let bits = super::scale_bits(FORMAT.name, value / 15.0, row, col)?;
                *unit = f16_to_f32(bits);
                out[at..at + 2].copy_from_slice(&bits.to_le_bytes());
            }
            let four = |value: f32, unit: f32| if unit > 0.0 { (value / unit).round().min(15.0) as u8 } else { 0 };
            for (out, (scale, minimum)) in out.iter_mut().zip(fits) {
                *out = four(scale, units[0]) | four(minimum, units[1]) << 4;
            }
            for (i, w) in w.iter().enumerate() {
                let part = out[i / SUB];
                let (step, minimum) = (units[0] * f32::from(part & 15), units[1] * f32::from(part >> 4));
                let code = if step > 0.0 { ((w + minimum) / step).round_ties_even().clamp(0.0, 3.0) as u8 } else { 0 };
                out[CODES + i / 128 * 32 + i % 32] |= code << (i % 128 / 32 * 2);
            }
            Ok(())
        })
    }
}
