//! Q4_0 (ggml type 2): blocks of 32 four-bit codes with one f16 scale, 18 bytes. `w = d * (code - 8)`.
//!
//! ```text
//! byte  0 1 | 2          3          ...  17
//!       d   | c16 : c0 | c17 : c1 | ... | c31 : c15      high nibble : low nibble
//! ```

use super::decode::{Block, Decode, Decoder, Shape, two_of_each};
use super::{ActKind, Format, Values, half_at, part};
use crate::QuantError;

/// Weights per block.
pub const LEN: usize = 32;
/// Bytes per block.
pub const BYTES: usize = 18;
const _: () = assert!(BYTES == 2 + LEN / 2 && LEN == crate::activations::Q8_BLOCK);

/// The format.
pub static FORMAT: Format = Format {
    name: "q4_0",
    ggml_type: 2,
    also: &[],
    file_type: Some(2),
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

/// The codes of a block less `zero`, of which `bytes` are the last 16. Q4_1 stores the same.
#[inline(always)]
pub(super) fn codes(bytes: &[u8], zero: i8) -> [i8; LEN] {
    two_of_each(part(bytes, 0), |byte| (byte & 15) as i8 - zero, |byte| (byte >> 4) as i8 - zero)
}

/// Stores `value(w)`, rounded by adding a half and cutting, as the code of each weight.
pub(super) fn store(codes: &mut [u8], weights: &[f32], value: impl Fn(f32) -> f32) {
    let code = |w: f32| ((value(w) + 0.5) as u8).min(15);
    for (j, byte) in codes.iter_mut().enumerate() {
        *byte = code(weights[j]) | code(weights[j + 16]) << 4;
    }
}

struct Codes;

impl Decode for Codes {
    const LEN: usize = LEN;
    const BYTES: usize = BYTES;
    const SHAPE: Shape = Shape::Scale;

    #[inline(always)]
    fn block(bytes: &[u8], _: f32, out: &mut [Block]) {
        out[0].scale = half_at(bytes, 0);
        out[0].q = codes(&bytes[2..], 8);
    }
}

/// ggml's reference rounding: the weight of the largest magnitude becomes -8, so `d = w_max / -8`.
fn pack(weights: &[f32], rows: usize, cols: usize) -> Result<Vec<u8>, QuantError> {
    super::pack_blocks(&FORMAT, weights, rows, cols, |w, row, col, out| {
        let d = super::largest(w) / -8.0;
        let id = if d != 0.0 { 1.0 / d } else { 0.0 };
        out[..2].copy_from_slice(&super::scale_bits(FORMAT.name, d, row, col)?.to_le_bytes());
        store(&mut out[2..], w, |w| w * id + 8.0);
        Ok(())
    })
}
