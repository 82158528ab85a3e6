//! IQ2_BN (type 135 of ik_llama.cpp): ternary weights in two bits and one f32 scale for each row.
//! `w = scale * (code - 1)`, codes 0, 1, 2; code 3 means nothing and is refused.
//!
//! ```text
//! row:  byte 0 ... 3   scale, f32 little-endian
//!            4 ...     64 weights in 16 bytes:
//!                          byte p (0..16)   bits 7-6     5-4      3-2      1-0
//!                                           weight p+48  p + 32   p + 16   p       (i2_s-arm has them the other way round)
//! ```
//!
//! The helpers for scales of rows are here. [`super::iq1_bn`] has them too.

use super::decode::{Block, Blocks, two_of_each};
use super::{Checked, Format, Matrix, Packed, part};
use crate::QuantError;

pub(crate) const LEN: usize = 64;
pub(crate) const BYTES: usize = 16;
pub(crate) const HEAD: usize = 4;
const _: () = assert!(BYTES * 4 == LEN && HEAD == size_of::<f32>());

/// The format.
pub static FORMAT: Format = Format::of::<Codes>();

/// The scale of a row.
#[inline(always)]
pub(crate) fn scale(row: &[u8]) -> f32 {
    f32::from_le_bytes([row[0], row[1], row[2], row[3]])
}

struct Codes;

impl Blocks for Codes {
    const NAME: &str = "iq2_bn";
    const GGML_TYPE: u32 = 135;
    const TERNARY: bool = true;
    const LEN: usize = LEN;
    const BYTES: usize = BYTES;
    const HEAD: usize = HEAD;

    #[inline(always)]
    fn row_scale(w: &Matrix<'_>, row: usize) -> f32 {
        scale(w.row(row))
    }

    #[inline(always)]
    fn block(bytes: &[u8], scale: f32, out: &mut [Block]) {
        for (j, out) in out.iter_mut().enumerate() {
            out.scale = scale;
            let code = |byte: u8, shift: usize| (byte >> shift & 3) as i8 - 1;
            out.q = two_of_each(part(bytes, 0), |byte| code(byte, 4 * j), |byte| code(byte, 4 * j + 2));
        }
    }

    fn validate(data: &[u8], rows: usize, cols: usize) -> Checked {
        validate(&FORMAT, data, rows, cols, scale, |blocks| blocks.iter().position(|b| b & b >> 1 & 0x55 != 0))
    }

    fn pack(weights: &[f32], rows: usize, cols: usize) -> Packed {
        let head = |scale: f32, _| Ok(scale.to_le_bytes());
        pack(&FORMAT, weights, rows, cols, head, |out, i, code| {
            out[i / LEN * BYTES + i % 16] |= code << (i % LEN / 16 * 2);
        })
    }
}

/// Scales are finite and not negative; `wrong` finds the first byte of the blocks of a row that no packing produces.
pub(super) fn validate(
    format: &'static Format,
    data: &[u8],
    rows: usize,
    cols: usize,
    scale: fn(&[u8]) -> f32,
    wrong: impl Fn(&[u8]) -> Option<usize>,
) -> Checked {
    format.check_size(data.len(), rows, cols)?;
    let bytes = format.row_bytes(cols);
    for (row, stored) in data.chunks_exact(bytes).enumerate() {
        let value = scale(stored);
        if !value.is_finite() || value.is_sign_negative() {
            return Err(QuantError::Scale { format: format.name, what: "scale", row, block: 0, value });
        }
        if let Some(at) = wrong(&stored[format.row_head..]) {
            let byte = row * bytes + format.row_head + at;
            return Err(QuantError::Code { format: format.name, row, byte });
        }
    }
    Ok(())
}

/// Takes only what is ternary already: -s, 0 and +s with one s for each row (0 if all weights are zero). `head(s, row)` are
/// the bytes of a scale; `store(blocks, i, code)` stores the code of column i where zeros are.
pub(super) fn pack<const N: usize>(
    format: &'static Format,
    weights: &[f32],
    rows: usize,
    cols: usize,
    head: impl Fn(f32, usize) -> Result<[u8; N], QuantError>,
    store: impl Fn(&mut [u8], usize, u8),
) -> Packed {
    let mut out = vec![0; format.check_count(weights.len(), rows, cols)?];
    let name = format.name;
    for (row, (w, out)) in weights.chunks_exact(cols).zip(out.chunks_exact_mut(format.row_bytes(cols))).enumerate() {
        if let Some(col) = w.iter().position(|w| !w.is_finite()) {
            return Err(QuantError::NotFinite { format: name, row, col, value: w[col] });
        }
        let scale = super::ternary_scale(w).unwrap_or(0.0);
        let (bytes, blocks) = out.split_at_mut(N);
        for (col, &value) in w.iter().enumerate() {
            store(blocks, col, super::ternary_code(name, "each row", (row, col), value, scale)?);
        }
        bytes.copy_from_slice(&head(scale, row)?);
    }
    Ok(out)
}
