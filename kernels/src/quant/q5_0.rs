//! Q5_0 (ggml type 6): blocks of 32 five-bit codes with one f16 scale, 22 bytes. `w = d * (code - 16)`.
//!
//! ```text
//! byte  0 1 | 2 ... 5 | 6                7                ...  21
//!       d   | h       | c16 : c0         c17 : c1         ...  c31 : c15      low four bits, high nibble : low nibble
//! bit j of h (u32, little-endian) is the fifth bit of code j
//! ```
//!
//! Source: `block_q5_0` of ggml.

use super::decode::{Block, Blocks};
use super::{Format, Halves, Packed, half_at, part, q4_0};

const LEN: usize = 32;
const BYTES: usize = 22;
const _: () = assert!(BYTES == 2 + 4 + LEN / 2 && LEN == crate::activations::Q8_BLOCK);

/// The format.
pub static FORMAT: Format = Format::of::<Codes>();

/// The codes of a block less `zero`, of which `bytes` are the last 20. Q5_1 stores the same.
#[inline(always)]
pub(super) fn codes(bytes: &[u8], zero: i8) -> [i8; LEN] {
    let h = part::<4>(bytes, 0);
    let mut out = q4_0::codes(&bytes[4..], zero);
    for (codes, h) in out.as_chunks_mut::<8>().0.iter_mut().zip(h) {
        for (j, code) in codes.iter_mut().enumerate() {
            *code += if h & 1 << j != 0 { 16 } else { 0 };
        }
    }
    out
}

/// Stores the codes of a block where zeros are.
pub(super) fn store(bytes: &mut [u8], codes: &[u8; LEN]) {
    let mut h = 0u32;
    for (j, code) in codes.iter().enumerate() {
        h |= u32::from(code >> 4) << j;
        bytes[4 + j % 16] |= (code & 15) << (j / 16 * 4);
    }
    bytes[..4].copy_from_slice(&h.to_le_bytes());
}

struct Codes;

impl Blocks for Codes {
    const NAME: &str = "q5_0";
    const GGML_TYPE: u32 = 6;
    const FILE_TYPE: Option<u32> = Some(8);
    const HALVES: Halves = &[(0, "scale")];
    const LEN: usize = LEN;
    const BYTES: usize = BYTES;

    #[inline(always)]
    fn block(bytes: &[u8], _: f32, out: &mut [Block]) {
        out[0].scale = half_at(bytes, 0);
        out[0].q = codes(&bytes[2..], 16);
    }

    fn pack(weights: &[f32], rows: usize, cols: usize) -> Packed {
        q4_0::pack(&FORMAT, weights, rows, cols, 16, store)
    }
}
