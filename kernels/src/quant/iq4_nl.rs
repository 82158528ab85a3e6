//! IQ4_NL (ggml type 20): [`super::q4_0`] with a table of values, 18 bytes. `w = d * VALUES[code]`.
//!
//! ```text
//! byte  0 1 | 2          3          ...  17
//!       d   | c16 : c0 | c17 : c1 | ... | c31 : c15      high nibble : low nibble
//! ```
//!
//! Source: `block_iq4_nl` of ggml.

use super::decode::{Block, Blocks};
use super::{Format, Halves, Packed, half_at, part, q4_0};

const LEN: usize = 32;
const BYTES: usize = 18;
const _: () = assert!(LEN == q4_0::LEN && BYTES == q4_0::BYTES);

/// The format.
pub static FORMAT: Format = Format::of::<Codes>();

/// What the codes mean.
pub const VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

struct Codes;

impl Blocks for Codes {
    const NAME: &str = "iq4_nl";
    const GGML_TYPE: u32 = 20;
    const FILE_TYPE: Option<u32> = Some(25);
    const HALVES: Halves = &[(0, "scale")];
    const LEN: usize = LEN;
    const BYTES: usize = BYTES;

    #[inline(always)]
    fn block(bytes: &[u8], _: f32, out: &mut [Block]) {
        out[0].scale = half_at(bytes, 0);
        out[0].q = look_up(&PAIRS, part(bytes, 2));
    }

    /// The weight of the largest magnitude becomes -127 or 113, whichever leaves the smaller error; codes are the nearest.
    fn pack(weights: &[f32], rows: usize, cols: usize) -> Packed {
        super::pack_blocks(&FORMAT, weights, rows, cols, |w, row, col, out| {
            let largest = super::largest(w);
            let code = |w: f32, d: f32| nearest(&VALUES, if d == 0.0 { 0.0 } else { w / d });
            let error = |d: f32| -> f64 {
                w.iter().map(|w| f64::from(d * f32::from(VALUES[usize::from(code(*w, d))]) - w).powi(2)).sum()
            };
            let (low, high) = (largest / -127.0, largest / 113.0);
            let d = if error(high) < error(low) { high } else { low };
            out[..2].copy_from_slice(&super::scale_bits(FORMAT.name, d, row, col)?.to_le_bytes());
            for (j, w) in w.iter().enumerate() {
                out[2 + j % 16] |= code(*w, d) << (j / 16 * 4);
            }
            Ok(())
        })
    }
}

/// What both codes of a byte mean.
pub(super) const fn pairs(values: [i8; 16]) -> [[i8; 2]; 256] {
    let mut out = [[0; 2]; 256];
    let mut i = 0;
    while i < 256 {
        out[i] = [values[i & 15], values[i >> 4]];
        i += 1;
    }
    out
}

static PAIRS: [[i8; 2]; 256] = pairs(VALUES);

/// The values of a block.
#[inline(always)]
pub(super) fn look_up(pairs: &[[i8; 2]; 256], bytes: &[u8; 16]) -> [i8; LEN] {
    let found = bytes.map(|byte| pairs[usize::from(byte)]);
    let mut out = [0; LEN];
    let (low, high) = out.split_at_mut(16);
    for ((low, high), [a, b]) in low.iter_mut().zip(high).zip(found) {
        (*low, *high) = (a, b);
    }
    out
}

/// The code whose value is nearest; the first of two.
pub(super) fn nearest(values: &[i8; 16], steps: f32) -> u8 {
    let distance = |code: &usize| (f32::from(values[*code]) - steps).abs();
    (0..16).min_by(|a, b| distance(a).total_cmp(&distance(b))).map_or(0, |code| code as u8)
}
