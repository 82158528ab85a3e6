//! Q4_1 (ggml type 3): blocks of 32 four-bit codes with f16 scale and minimum, 20 bytes. `w = d * code + m`.
//!
//! ```text
//! byte  0 1 | 2 3 | 4          5          ...  19
//!       d   | m   | c16 : c0 | c17 : c1 | ... | c31 : c15      high nibble : low nibble
//! ```

use super::decode::{Block, Decode, Decoder, Shape};
use super::q4_0::{codes, store};
use super::{ActKind, Format, Values, half_at};
use crate::QuantError;

/// Weights per block.
pub const LEN: usize = 32;
/// Bytes per block.
pub const BYTES: usize = 20;
const _: () = assert!(BYTES == 4 + LEN / 2 && LEN == crate::activations::Q8_BLOCK);

/// The format.
pub static FORMAT: Format = Format {
    name: "q4_1",
    ggml_type: 3,
    also: &[],
    file_type: Some(3),
    row_head: 0,
    block_len: LEN,
    block_bytes: BYTES,
    trailer_bytes: 0,
    halves: &[(0, "scale"), (2, "minimum")],
    act: ActKind::Q8,
    validate: |data, rows, cols| super::finite_halves(&FORMAT, data, rows, cols),
    pack,
    values: Values::Blocks(Decoder::of::<Codes>()),
};

struct Codes;

impl Decode for Codes {
    const LEN: usize = LEN;
    const BYTES: usize = BYTES;
    const SHAPE: Shape = Shape::Minimum;

    #[inline(always)]
    fn block(bytes: &[u8], _: f32, out: &mut [Block]) {
        (out[0].scale, out[0].minimum) = (half_at(bytes, 0), half_at(bytes, 2));
        out[0].q = codes(&bytes[4..], 0);
    }
}

/// ggml's reference rounding: `m = min`, `d = (max - min) / 15`.
fn pack(weights: &[f32], rows: usize, cols: usize) -> Result<Vec<u8>, QuantError> {
    super::pack_blocks(&FORMAT, weights, rows, cols, |w, row, col, out| {
        let min = w.iter().copied().fold(f32::INFINITY, f32::min);
        let max = w.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let d = (max - min) / 15.0;
        let id = if d > 0.0 { 1.0 / d } else { 0.0 };
        out[..2].copy_from_slice(&super::scale_bits(FORMAT.name, d, row, col)?.to_le_bytes());
        out[2..4].copy_from_slice(&super::scale_bits(FORMAT.name, min, row, col)?.to_le_bytes());
        store(&mut out[4..], w, |w| (w - min) * id);
        Ok(())
    })
}
