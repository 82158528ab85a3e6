//! TQ1_0 (ggml type 34): blocks of 256 ternary weights, five to a byte, with one f16 scale, 54 bytes (1.69 bits a weight).
//! `w = d * (trit - 1)`, trits 0, 1, 2.
//!
//! ```text
//! byte  0 ... 31   byte m: weights       m + 32 n, n = 0..5
//!      32 ... 47   byte 32 + m: weights 160 + m + 16 n, n = 0..5
//!      48 ... 51   byte 48 + m: weights 240 + m +  4 n, n = 0..4
//!      52 53       d
//! ```
//!
//! A byte is a fraction: with v the five trits as a number in base 3, trit 0 first (four trits and a zero behind them in the
//! last four bytes), it is `ceil(256 v / 243)`, that is v / 243 in units of 1/256, rounded up. Multiplying by 3 and
//! keeping 8 bits moves the point by one trit; trit n is `((byte * 3^n mod 256) * 3) >> 8`. Not every byte can be: those
//! that no v gives are refused.
//!
//! Source: `block_tq1_0` of ggml. Product, scale and packing: [`super::tq`].

use super::decode::{Block, Blocks};
use super::tq::{self, LEN, Trits};
use super::{Checked, Format, Halves, Packed, half_at, part};

pub(crate) const BYTES: usize = 54;
/// Where the second and the third part and the scale start.
pub(crate) const SECOND: usize = 32;
pub(crate) const THIRD: usize = 48;
pub(crate) const D: usize = 52;
const _: () = assert!(SECOND * 5 + (THIRD - SECOND) * 5 + (D - THIRD) * 4 == LEN && BYTES == D + 2);

/// Bytes of a block whose weights are all zero, but for the scale.
pub(crate) const ZERO: [u8; D] = {
    let mut block = [fraction(121); D];
    let mut i = THIRD;
    while i < D {
        block[i] = fraction(120);
        i += 1;
    }
    block
};

/// The format.
pub static FORMAT: Format = Format::of::<Weights>();

struct Weights;

impl Blocks for Weights {
    const NAME: &str = "tq1_0";
    const GGML_TYPE: u32 = 34;
    const FILE_TYPE: Option<u32> = Some(36);
    const HALVES: Halves = &[(D, "scale")];
    const TERNARY: bool = true;
    const LEN: usize = LEN;
    const BYTES: usize = BYTES;

    #[inline(always)]
    fn block(bytes: &[u8], _: f32, out: &mut [Block]) {
        let mut q = [0; LEN];
        spread(part::<SECOND>(bytes, 0), &mut q[..160]);
        spread(part::<{ THIRD - SECOND }>(bytes, SECOND), &mut q[160..240]);
        spread(part::<{ D - THIRD }>(bytes, THIRD), &mut q[240..]);
        let d = half_at(bytes, D);
        for (out, q) in out.iter_mut().zip(q.as_chunks().0) {
            (out.q, out.scale) = (*q, d);
        }
    }

    fn validate(data: &[u8], rows: usize, cols: usize) -> Checked {
        tq::validate::<Self>(data, rows, cols)
    }

    fn pack(weights: &[f32], rows: usize, cols: usize) -> Packed {
        tq::pack::<Self>(weights, rows, cols)
    }
}

impl Trits for Weights {
    const D: usize = D;

    fn store(block: &mut [u8], codes: &[u8; LEN]) {
        let mut values = [0u8; D];
        // Rising i meets the trits of a byte in rising n: the first becomes the most significant.
        for (i, code) in codes.iter().enumerate() {
            let value = &mut values[place(i)];
            *value = *value * 3 + code;
        }
        values[THIRD..].iter_mut().for_each(|v| *v *= 3);
        for (byte, v) in block.iter_mut().zip(values) {
            *byte = fraction(v);
        }
    }

    fn wrong(block: &[u8]) -> Option<usize> {
        let (five, four) = block[..D].split_at(THIRD);
        let rest = || four.iter().position(|b| !FOUR[usize::from(*b)]).map(|at| THIRD + at);
        five.iter().position(|b| !FIVE[usize::from(*b)]).or_else(rest)
    }
}

/// The byte in which weight `i` of a block lies.
fn place(i: usize) -> usize {
    match i {
        0..160 => i % 32,
        160..240 => SECOND + i % 16,
        _ => THIRD + i % 4,
    }
}

/// `ceil(256 v / 243)`.
const fn fraction(v: u8) -> u8 {
    (v as u16 * 256).div_ceil(243) as u8
}

/// The first trits of all bytes less 1, then the second ones, and so on.
#[inline(always)]
fn spread<const N: usize>(bytes: &[u8; N], out: &mut [i8]) {
    let mut moved = *bytes;
    for out in out.as_chunks_mut::<N>().0 {
        for (out, byte) in out.iter_mut().zip(&mut moved) {
            // `(byte * 3) >> 8`, which is how many of 86 and 171 it reaches.
            *out = i8::from(*byte >= 86) + i8::from(*byte >= 171) - 1;
            *byte = byte.wrapping_mul(3);
        }
    }
}

/// The bytes that five trits give, and those that four give.
static FIVE: [bool; 256] = possible(1);
static FOUR: [bool; 256] = possible(3);

const fn possible(step: u8) -> [bool; 256] {
    let mut out = [false; 256];
    let mut v = 0;
    while v < 243 {
        out[fraction(v) as usize] = true;
        v += step;
    }
    out
}
