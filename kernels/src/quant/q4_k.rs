//! Q4_K (ggml type 12): super-blocks of 256 four-bit codes; each 32 have a six-bit scale and a six-bit minimum, the
//! super-block an f16 unit for either; 144 bytes. `w = d * scale * code - dmin * minimum`.
//!
//! ```text
//! byte  0 1   d
//!       2 3   dmin
//!       4 ... 15   s[0..12]: six bits of scale and minimum j (0 ... 7)
//!                    j < 4:   scale s[j] bits 5-0             minimum s[j + 4] bits 5-0
//!                    j >= 4:  scale s[j + 4] bits 3-0,        minimum s[j + 4] bits 7-4,
//!                             its high two s[j - 4] bits 7-6  its high two s[j] bits 7-6
//!      16 ... 143  codes: 32 bytes for each 64 weights; byte l: weight l in bits 3-0, weight l + 32 in bits 7-4
//! ```
//!
//! Source: `block_q4_K` of ggml. The product of an f16 and six bits is exact in f32, so a block of 32 has the scale
//! `d * scale` and the minimum `-(dmin * minimum)`.

use super::decode::{Block, Blocks, Shape};
use super::{Format, Halves, Packed, half_at};
use crate::activations::Q8_BLOCK;
use crate::numerics::f16_to_f32;

pub(crate) const LEN: usize = 256;
pub(crate) const BYTES: usize = 144;
/// Where the six-bit numbers and the codes start.
pub(crate) const SCALES: usize = 4;
pub(crate) const CODES: usize = 16;
const BLOCKS: usize = LEN / Q8_BLOCK;
const _: () = assert!(SCALES + BLOCKS * 12 / 8 == CODES && CODES + LEN / 2 == BYTES);

/// The format.
pub static FORMAT: Format = Format::of::<Codes>();

/// Scale and minimum of block `j`, six bits each; `s` is the super-block from [`SCALES`] on.
pub(crate) fn six_bits(s: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        (s[j] & 63, s[j + 4] & 63)
    } else {
        (s[j + 4] & 15 | s[j - 4] >> 6 << 4, s[j + 4] >> 4 | s[j] >> 6 << 4)
    }
}

fn store_six_bits(s: &mut [u8], j: usize, scale: u8, minimum: u8) {
    if j < 4 {
        s[j] |= scale;
        s[j + 4] |= minimum;
    } else {
        s[j + 4] |= scale & 15 | (minimum & 15) << 4;
        s[j - 4] |= scale >> 4 << 6;
        s[j] |= minimum >> 4 << 6;
    }
}

/// `(d * scale, dmin * minimum)` of block `j`. Q5_K has the same.
#[inline(always)]
pub(super) fn step_and_minimum(block: &[u8], j: usize) -> (f32, f32) {
    let (scale, minimum) = six_bits(&block[SCALES..], j);
    (half_at(block, 0) * f32::from(scale), half_at(block, 2) * f32::from(minimum))
}

/// Where weight `i` of a super-block lies: `(byte, shift)`.
fn place(i: usize) -> (usize, u32) {
    (CODES + i / 64 * 32 + i % 32, i as u32 % 64 / 32 * 4)
}

struct Codes;

impl Blocks for Codes {
    const NAME: &str = "q4_k";
    const GGML_TYPE: u32 = 12;
    const FILE_TYPE: Option<u32> = Some(14);
    const HALVES: Halves = &[(0, "scale"), (2, "minimum")];
    const LEN: usize = LEN;
    const BYTES: usize = BYTES;
    const SHAPE: Shape = Shape::Minimum;

    #[inline(always)]
    fn block(bytes: &[u8], _: f32, out: &mut [Block]) {
        for (j, out) in out.iter_mut().enumerate() {
            let (step, minimum) = step_and_minimum(bytes, j);
            (out.scale, out.minimum) = (step, -minimum);
            // Two blocks of 32 share their bytes.
            let (codes, shift) = (&bytes[CODES + j / 2 * 32..], j % 2 * 4);
            for (q, byte) in out.q.iter_mut().zip(codes) {
                *q = (byte >> shift & 15) as i8;
            }
        }
    }

    fn pack(weights: &[f32], rows: usize, cols: usize) -> Packed {
        pack(&FORMAT, 15.0, weights, rows, cols, |out, i, code| {
            let (byte, shift) = place(i);
            out[byte] |= code << shift;
        })
    }
}

/// Each 32 weights get the scale and the minimum that minimise the error weighted by rms + |w|, over some candidate
/// roundings; both are then rounded to six bits of a unit (the largest becomes 63), and the codes, 0 up to `most`, follow from
/// those. `store(block, i, code)` stores the code of weight i where zeros are. Q5_K has the same scales.
pub(super) fn pack(
    format: &'static Format,
    most: f32,
    weights: &[f32],
    rows: usize,
    cols: usize,
    store: impl Fn(&mut [u8], usize, u8),
) -> Packed {
    super::pack_blocks(format, weights, rows, cols, |w, row, col, out| {
        let mut fits = [(0.0f32, 0.0f32); BLOCKS];
        for (fit, w) in fits.iter_mut().zip(w.chunks_exact(Q8_BLOCK)) {
            *fit = best_fit(w, most.into());
        }
        let unit = |part: fn(&(f32, f32)) -> f32| fits.iter().map(part).fold(0.0f32, f32::max) / 63.0;
        let halves = [unit(|fit| fit.0), unit(|fit| fit.1)];
        let mut units = [0.0; 2];
        for (i, value) in halves.into_iter().enumerate() {
            let bits = super::scale_bits(format.name, value, row, col)?;
            units[i] = f16_to_f32(bits);
            out[2 * i..2 * i + 2].copy_from_slice(&bits.to_le_bytes());
        }
        let six = |value: f32, unit: f32| if unit > 0.0 { (value / unit).round().min(63.0) as u8 } else { 0 };
        for (j, (scale, minimum)) in fits.into_iter().enumerate() {
            store_six_bits(&mut out[SCALES..CODES], j, six(scale, units[0]), six(minimum, units[1]));
        }
        for (i, w) in w.iter().enumerate() {
            let (step, minimum) = step_and_minimum(out, i / Q8_BLOCK);
            let code = if step > 0.0 { ((w + minimum) / step).round_ties_even().clamp(0.0, most) as u8 } else { 0 };
            store(out, i, code);
        }
        Ok(())
    })
}

/// `(step, minimum)`, both at least 0, such that `w` is about `step * code - minimum` with codes 0 up to `most`.
pub(super) fn best_fit(w: &[f32], most: f64) -> (f32, f32) {
    let w: Vec<f64> = w.iter().map(|w| f64::from(*w)).collect();
    let low = w.iter().copied().fold(0.0f64, f64::min);
    let high = w.iter().copied().fold(0.0f64, f64::max);
    if high == low {
        return (0.0, 0.0);
    }
    let rms = (w.iter().map(|w| w * w).sum::<f64>() / w.len() as f64).sqrt();
    let (mut best, mut least) = ((high - low) / most, f64::INFINITY);
    let mut best_low = low;
    for tenth in -10..=10 {
        let inverse = (most + 0.1 * f64::from(tenth)) / (high - low);
        let code = |w: f64| ((w - low) * inverse).round_ties_even().clamp(0.0, most);
        // Weighted sums of 1, code, code^2, w, w code: the normal equations of w = step * code + offset.
        let mut sums = [0.0f64; 5];
        for &w in &w {
            let (weight, q) = (rms + w.abs(), code(w));
            for (sum, term) in sums.iter_mut().zip([1.0, q, q * q, w, w * q]) {
                *sum += weight * term;
            }
        }
        let [n, q, qq, x, xq] = sums;
        let determinant = n * qq - q * q;
        if determinant <= 0.0 {
            continue;
        }
        let (mut step, mut offset) = ((n * xq - x * q) / determinant, (qq * x - q * xq) / determinant);
        if offset > 0.0 {
            (step, offset) = (xq / qq, 0.0);
        }
        let error: f64 = w.iter().map(|&w| (rms + w.abs()) * (step * code(w) + offset - w).powi(2)).sum();
        if error < least && step > 0.0 {
            (least, best, best_low) = (error, step, offset);
        }
    }
    (best as f32, -best_low as f32)
}
