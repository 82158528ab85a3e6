//! Q8_0 (ggml type 8): blocks of 32 int8 with one f16 scale, 34 bytes. `w = d * q`.
//!
//! ```text
//! byte  0 1 | 2      ...      33
//!       d   | q0 q1 q2 ... q31      all 8 bits are used: -128 is legal
//! ```

use super::decode::{Block, Blocks};
use super::{Format, Halves, Packed, half_at};

const LEN: usize = 32;
pub(crate) const BYTES: usize = 34;
const _: () = assert!(BYTES == 2 + LEN && LEN == crate::activations::Q8_BLOCK);

/// The format.
pub static FORMAT: Format = Format::of::<Codes>();

struct Codes;

impl Blocks for Codes {
    const NAME: &str = "q8_0";
    const GGML_TYPE: u32 = 8;
    const FILE_TYPE: Option<u32> = Some(7);
    const HALVES: Halves = &[(0, "scale")];
    const LEN: usize = LEN;
    const BYTES: usize = BYTES;

    #[inline(always)]
    fn block(bytes: &[u8], _: f32, out: &mut [Block]) {
        out[0].scale = half_at(bytes, 0);
        for (q, byte) in out[0].q.iter_mut().zip(&bytes[2..]) {
            *q = *byte as i8;
        }
    }

    /// ggml's reference rounding: `d = amax / 127`, `q = round(w / d)`, halves away from zero.
    fn pack(weights: &[f32], rows: usize, cols: usize) -> Packed {
        super::pack_blocks(&FORMAT, weights, rows, cols, |w, row, col, out| {
            let d = w.iter().fold(0.0f32, |m, w| m.max(w.abs())) / 127.0;
            let id = if d > 0.0 { 1.0 / d } else { 0.0 };
            out[..2].copy_from_slice(&super::scale_bits(FORMAT.name, d, row, col)?.to_le_bytes());
            for (q, w) in out[2..].iter_mut().zip(w) {
                *q = (w * id).round() as i8 as u8;
            }
            Ok(())
        })
    }
}
