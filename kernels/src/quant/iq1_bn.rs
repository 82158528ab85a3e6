//! IQ1_BN (type 134 of ik_llama.cpp): ternary weights, 64 in 13 bytes (1.63 bits a weight), and one f16 scale for each row.
//! `w = scale * (trit - 1)`, trits 0, 1, 2.
//!
//! ```text
//! row:  byte 0 1    scale, f16
//!            2 ...  64 weights in 13 bytes: group g (0 ... 3) of 16 weights
//!                       byte 3 g + k (k = 0, 1, 2)   trits t = 0 ... 4: weights 5 k + t of the group
//!                       byte 12                      trit t = g: weight 15 of the group
//! ```
//!
//! A byte is a fraction as in [`super::tq1_0`], `ceil(256 v / 243)`, but with the *first* trit least significant:
//! v is the sum of trit t times 3^t. Trit t is `((byte * 3^(4 - t) mod 256) * 3) >> 8`. Bytes that no v gives are refused.

use super::decode::{Block, Blocks};
use super::{Checked, Format, Matrix, Packed, half_at, iq2_bn};

pub(crate) const LEN: usize = 64;
pub(crate) const BYTES: usize = 13;
pub(crate) const HEAD: usize = 2;
const LAST: usize = BYTES - 1;
const _: () = assert!(LAST * 5 + 4 == LEN);

/// The format.
pub static FORMAT: Format = Format::of::<Codes>();

/// Where weight `i` of a block lies: the byte, and which of its trits.
fn place(i: usize) -> (usize, u32) {
    let (group, j) = (i / 16, i % 16);
    if j == 15 { (LAST, group as u32) } else { (3 * group + j / 5, (j % 5) as u32) }
}

/// `ceil(256 v / 243)`.
const fn fraction(v: u8) -> u8 {
    (v as u16 * 256).div_ceil(243) as u8
}

/// The v of a byte; 255 where there is none.
static NUMBERS: [u8; 256] = {
    let mut out = [255; 256];
    let mut v = 0;
    while v < 243 {
        out[fraction(v) as usize] = v;
        v += 1;
    }
    out
};

/// The trits of a byte, and less 1, as they lie in memory; three bytes of zero more, so that a look-up is one load.
static TRITS: [u64; 256] = table(0);
static WEIGHTS: [u64; 256] = table(1);

const fn table(zero: u8) -> [u64; 256] {
    let mut out = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut moved, mut trits, mut t) = (byte, [0; 8], 5);
        while t > 0 {
            t -= 1;
            trits[t] = (((moved * 3) >> 8) as u8).wrapping_sub(zero);
            moved = (moved * 3) & 0xff;
        }
        out[byte] = u64::from_le_bytes(trits);
        byte += 1;
    }
    out
}

/// The scale of a row.
#[inline(always)]
pub(crate) fn scale(row: &[u8]) -> f32 {
    half_at(row, 0)
}

/// The trits of a block, in the order of the weights.
#[inline(always)]
pub(crate) fn trits(bytes: &[u8; BYTES]) -> [u8; LEN] {
    spread(&TRITS, bytes)
}

#[inline(always)]
fn spread(table: &[u64; 256], bytes: &[u8; BYTES]) -> [u8; LEN] {
    let mut out = [0; LEN];
    let last = table[usize::from(bytes[LAST])];
    for (g, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        // Five trits are forty bits.
        let [a, b, c] = [0, 1, 2].map(|k| table[usize::from(bytes[3 * g + k])]);
        let (low, high) = out.split_at_mut(8);
        low.copy_from_slice(&(a | b << 40).to_le_bytes());
        high.copy_from_slice(&(b >> 24 | c << 16 | (last >> (8 * g)) << 56).to_le_bytes());
    }
    out
}

struct Codes;

impl Blocks for Codes {
    const NAME: &str = "iq1_bn";
    const GGML_TYPE: u32 = 134;
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
        let Some(bytes) = bytes.first_chunk() else { return };
        for (out, weights) in out.iter_mut().zip(spread(&WEIGHTS, bytes).as_chunks::<32>().0) {
            out.scale = scale;
            for (q, weight) in out.q.iter_mut().zip(weights) {
                *q = weight.cast_signed();
            }
        }
    }

    fn validate(data: &[u8], rows: usize, cols: usize) -> Checked {
        iq2_bn::validate(&FORMAT, data, rows, cols, scale, |blocks| {
            blocks.iter().enumerate().position(|(i, byte)| {
                let (v, trits) = (NUMBERS[usize::from(*byte)], if i % BYTES == LAST { 81 } else { 243 });
                v >= trits
            })
        })
    }

    fn pack(weights: &[f32], rows: usize, cols: usize) -> Packed {
        let head = |scale, row| super::exact_half(FORMAT.name, scale, row, 0);
        let mut out = iq2_bn::pack(&FORMAT, weights, rows, cols, head, |out, i, code| {
            let (byte, trit) = place(i % LEN);
            out[i / LEN * BYTES + byte] += code * 3u8.pow(trit);
        })?;
        for row in out.chunks_exact_mut(FORMAT.row_bytes(cols)) {
            row[HEAD..].iter_mut().for_each(|byte| *byte = fraction(*byte));
        }
        Ok(out)
    }
}
