//! Q4_0 (ggml type 2): blocks of 32 four-bit codes with one f16 scale, 18 bytes. `w = d * (code - 8)`.
//!
//! ```text
//! byte  0 1 | 2          3          ...  17
//!       d   | c16 : c0 | c17 : c1 | ... | c31 : c15      high nibble : low nibble
//! ```

use super::decode::{Block, Blocks, two_of_each};
use super::{Format, Halves, Packed, half_at, part};

pub(crate) const LEN: usize = 32;
pub(crate) const BYTES: usize = 18;
const _: () = assert!(BYTES == 2 + LEN / 2 && LEN == crate::activations::Q8_BLOCK);

/// The format.
pub static FORMAT: Format = Format::of::<Codes>();

/// The codes of a block less `zero`, of which `bytes` are the last 16. Q4_1 stores the same.
#[inline(always)]
pub(super) fn codes(bytes: &[u8], zero: i8) -> [i8; LEN] {
    two_of_each(part(bytes, 0), |byte| (byte & 15) as i8 - zero, |byte| (byte >> 4) as i8 - zero)
}

/// `value(w)` of each weight, rounded by adding a half and cutting, up to `most`.
fn rounded(weights: &[f32], most: u8, value: impl Fn(f32) -> f32) -> [u8; LEN] {
    std::array::from_fn(|j| ((value(weights[j]) + 0.5) as u8).min(most))
}

/// Stores the codes of a block where zeros are.
pub(super) fn store(bytes: &mut [u8], codes: &[u8; LEN]) {
    for (j, byte) in bytes.iter_mut().enumerate() {
        *byte = codes[j] | codes[j + 16] << 4;
    }
}

/// ggml's reference rounding around zero: the weight of the largest magnitude becomes `-half`, so `d = w_max / -half`.
pub(super) fn pack(
    format: &Format,
    weights: &[f32],
    rows: usize,
    cols: usize,
    half: u8,
    store: fn(&mut [u8], &[u8; LEN]),
) -> Packed {
    let zero = f32::from(half);
    super::pack_blocks(format, weights, rows, cols, |w, row, col, out| {
        let d = super::largest(w) / -zero;
        let id = if d != 0.0 { 1.0 / d } else { 0.0 };
        out[..2].copy_from_slice(&super::scale_bits(format.name, d, row, col)?.to_le_bytes());
        store(&mut out[2..], &rounded(w, 2 * half - 1, |w| w * id + zero));
        Ok(())
    })
}

/// ggml's reference rounding from the least weight on, which is the minimum: `d = (max - min) / most`.
pub(super) fn pack_from_least(
    format: &Format,
    weights: &[f32],
    rows: usize,
    cols: usize,
    most: u8,
    store: fn(&mut [u8], &[u8; LEN]),
) -> Packed {
    super::pack_blocks(format, weights, rows, cols, |w, row, col, out| {
        let min = w.iter().copied().fold(f32::INFINITY, f32::min);
        let max = w.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let d = (max - min) / f32::from(most);
        let id = if d > 0.0 { 1.0 / d } else { 0.0 };
        for (out, value) in out.chunks_exact_mut(2).zip([d, min]) {
            out.copy_from_slice(&super::scale_bits(format.name, value, row, col)?.to_le_bytes());
        }
        store(&mut out[4..], &rounded(w, most, |w| (w - min) * id));
        Ok(())
    })
}

struct Codes;

impl Blocks for Codes {
    const NAME: &str = "q4_0";
    const GGML_TYPE: u32 = 2;
    const FILE_TYPE: Option<u32> = Some(2);
    const HALVES: Halves = &[(0, "scale")];
    const LEN: usize = LEN;
    const BYTES: usize = BYTES;

    #[inline(always)]
    fn block(bytes: &[u8], _: f32, out: &mut [Block]) {
        out[0].scale = half_at(bytes, 0);
        out[0].q = codes(&bytes[2..], 8);
    }

    fn pack(weights: &[f32], rows: usize, cols: usize) -> Packed {
        pack(&FORMAT, weights, rows, cols, 8, store)
    }
}
