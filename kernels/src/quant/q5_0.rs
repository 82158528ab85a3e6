//! Q5_0 (ggml type 6): blocks of 32 five-bit codes with one f16 scale, 22 bytes. `w = d * (code - 16)`.
//!
//! ```text
//! byte  0 1 | 2 ... 5 | 6                7                ...  21
//!       d   | h       | c16 : c0         c17 : c1         ...  c31 : c15      low four bits, high nibble : low nibble
//! bit j of h (u32, little-endian) is the fifth bit of code j
//! ```
//!
//! Source: `block_q5_0` of ggml.

use super::decode::{Block, Decode, Decoder, Shape};
use super::{ActKind, Format, Values, half_at, part};
use crate::QuantError;

/// Weights per block.
pub const LEN: usize = 32;
/// Bytes per block.
pub const BYTES: usize = 22;
const _: () = assert!(BYTES == 2 + 4 + LEN / 2 && LEN == crate::activations::Q8_BLOCK);

/// The format.
pub static FORMAT: Format = Format {
    name: "q5_0",
    ggml_type: 6,
    also: &[],
    file_type: Some(8),
    row_head: 0,
    block_len: LEN,
    block_bytes: BYTES,
    trailer_bytes: 0,
    halves: &[(0, "scale")],
    act: ActKind::Q8,
    validate: |data, rows, cols| super::finite_halves(&FORMAT, data, rows, cols),
    pack,
    values: Values::Blocks(Decoder::of::<Codes>()),
};

/// The codes of a block less `zero`, of which `bytes` are the last 20. Q5_1 stores the same.
#[inline(always)]
pub(super) fn codes(bytes: &[u8], zero: i8) -> [i8; LEN] {
    let h = part::<4>(bytes, 0);
    let mut out = super::q4_0::codes(&bytes[4..], zero);
    for (codes, h) in out.as_chunks_mut::<8>().0.iter_mut().zip(h) {
        for (j, code) in codes.iter_mut().enumerate() {
            *code += if h & 1 << j != 0 { 16 } else { 0 };
        }
    }
    out
}

/// Stores `value(w)`, rounded by adding a half and cutting, as the code of each weight.
pub(super) fn store(bytes: &mut [u8], weights: &[f32], value: impl Fn(f32) -> f32) {
    let mut h = 0u32;
    for (j, w) in weights.iter().enumerate() {
        let code = ((value(*w) + 0.5) as u8).min(31);
        h |= u32::from(code >> 4) << j;
        bytes[4 + j % 16] |= (code & 15) << (j / 16 * 4);
    }
    bytes[..4].copy_from_slice(&h.to_le_bytes());
}

struct Codes;

impl Decode for Codes {
    const LEN: usize = LEN;
    const BYTES: usize = BYTES;
    const SHAPE: Shape = Shape::Scale;

    #[inline(always)]
    fn block(bytes: &[u8], _: f32, out: &mut [Block]) {
        out[0].scale = half_at(bytes, 0);
        out[0].q = codes(&bytes[2..], 16);
    }
}

/// ggml's reference rounding: the weight of the largest magnitude becomes -16, so `d = w_max / -16`.
fn pack(weights: &[f32], rows: usize, cols: usize) -> Result<Vec<u8>, QuantError> {
    super::pack_blocks(&FORMAT, weights, rows, cols, |w, row, col, out| {
        let d = super::largest(w) / -16.0;
        let id = if d != 0.0 { 1.0 / d } else { 0.0 };
        out[..2].copy_from_slice(&super::scale_bits(FORMAT.name, d, row, col)?.to_le_bytes());
        store(&mut out[2..], w, |w| w * id + 16.0);
        Ok(())
    })
}
