//! MXFP4 (ggml type 39): blocks of 32 four-bit floats with a power of two, 17 bytes. `w = 2^(e - 128) * VALUES[code]`.
//! (bitnet.cpp's TL2 has the same number: [`super::tl2`].)
//!
//! ```text
//! byte  0 | 1          2          ...  16
//!       e | c16 : c0 | c17 : c1 | ... | c31 : c15      high nibble : low nibble
//! ```
//!
//! The values are twice those of E2M1, so that they are integers. The largest e are refused: 12 times their power is not an f32,
//! and 255 is the standard's NaN.
//! Sources: `block_mxfp4` of ggml; OCP Microscaling Formats 1.0.

use super::decode::{Block, Blocks};
use super::{Checked, Format, Packed, iq4_nl, part, q4_0};
use crate::QuantError;

const LEN: usize = 32;
const BYTES: usize = 17;
const _: () = assert!(BYTES == 1 + LEN / 2 && LEN == q4_0::LEN);

/// The format.
pub static FORMAT: Format = Format::of::<Codes>();

/// What the codes mean.
pub const VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];
static PAIRS: [[i8; 2]; 256] = iq4_nl::pairs(VALUES);
/// The largest e, that of the largest f32.
const MOST: u8 = 252;
const _: () = assert!(power(MOST) * 12.0 < f32::INFINITY && power(MOST + 1) * 12.0 == f32::INFINITY);

/// `2^(e - 128)`.
#[inline(always)]
const fn power(e: u8) -> f32 {
    let e = e as u32;
    // The first two are not normal numbers.
    f32::from_bits(if e < 2 { 1 << 21 << e } else { (e - 1) << 23 })
}

struct Codes;

impl Blocks for Codes {
    const NAME: &str = "mxfp4";
    const GGML_TYPE: u32 = 39;
    const FILE_TYPE: Option<u32> = Some(38);
    const LEN: usize = LEN;
    const BYTES: usize = BYTES;

    #[inline(always)]
    fn block(bytes: &[u8], _: f32, out: &mut [Block]) {
        out[0].scale = power(bytes[0]);
        out[0].q = iq4_nl::look_up(&PAIRS, part(bytes, 1));
    }

    fn validate(data: &[u8], rows: usize, cols: usize) -> Checked {
        FORMAT.check_size(data.len(), rows, cols)?;
        let per_row = cols / LEN;
        match data.chunks_exact(BYTES).position(|block| block[0] > MOST) {
            None => Ok(()),
            Some(i) => {
                let (row, block, value) = (i / per_row, i % per_row, data[i * BYTES].into());
                Err(QuantError::Scale { format: FORMAT.name, what: "exponent", row, block, value })
            }
        }
    }

    /// `2^(e - 127)` is the power of two of the largest magnitude less 2, so that this is 4 up to 8 of it; codes are the
    /// nearest.
    fn pack(weights: &[f32], rows: usize, cols: usize) -> Packed {
        super::pack_blocks(&FORMAT, weights, rows, cols, |w, _, _, out| {
            let largest = super::largest(w).abs();
            // The exponent's bits: 127 and the power of two. Not normal: as small as can be.
            out[0] = ((largest.to_bits() >> 23) as u8).saturating_sub(2);
            let scale = power(out[0]);
            for (j, w) in w.iter().enumerate() {
                out[1 + j % 16] |= iq4_nl::nearest(&VALUES, w / scale) << (j / 16 * 4);
            }
            Ok(())
        })
    }
}
