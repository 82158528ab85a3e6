//! Q6_K (ggml type 14): super-blocks of 256 six-bit codes, an int8 scale for each 16 and one f16 scale, 210 bytes.
//! `w_i = d * scale[i / 16] * (code_i - 32)`.
//!
//! ```text
//! byte  0 ... 127  ql  low four bits     two halves of 64 bytes, one for each 128 weights
//!     128 ... 191  qh  high two bits     two halves of 32 bytes
//!     192 ... 207  scale[0..16], int8
//!     208 209      d
//!
//! in a half, for l in 0..32:           ql byte  nibble   qh byte  bits
//!     weight l                          l        low      l        1-0
//!     weight l + 32                     l + 32   low      l        3-2
//!     weight l + 64                     l        high     l        5-4
//!     weight l + 96                     l + 32   high     l        7-6
//! ```

use super::decode::{Block, Blocks, Shape};
use super::{Format, Halves, Packed, half_at};

pub(crate) const LEN: usize = 256;
pub(crate) const BYTES: usize = 210;
/// Where the high bits, the sub-scales and the scale start.
pub(crate) const QH: usize = 128;
pub(crate) const SCALES: usize = 192;
pub(crate) const D: usize = 208;
const SUB: usize = 16;
const _: () = assert!(QH == LEN / 2 && SCALES == QH + LEN / 4 && D == SCALES + LEN / SUB && BYTES == D + 2);

/// The format.
pub static FORMAT: Format = Format::of::<Codes>();

/// Where weight `i` of a super-block lies: `(ql byte, its shift, qh byte, its shift)`.
fn place(i: usize) -> (usize, u32, usize, u32) {
    let (half, quarter, l) = (i / 128, i % 128 / 32, i % 32);
    (half * 64 + quarter % 2 * 32 + l, quarter as u32 / 2 * 4, QH + half * 32 + l, quarter as u32 * 2)
}

fn sub_scale(block: &[u8], i: usize) -> i16 {
    i16::from(block[SCALES + i / SUB] as i8)
}

struct Codes;

impl Blocks for Codes {
    const NAME: &str = "q6_k";
    const GGML_TYPE: u32 = 14;
    const FILE_TYPE: Option<u32> = Some(18);
    const HALVES: Halves = &[(D, "scale")];
    const LEN: usize = LEN;
    const BYTES: usize = BYTES;
    const SHAPE: Shape = Shape::Halves;

    #[inline(always)]
    fn block(bytes: &[u8], _: f32, out: &mut [Block]) {
        let d = half_at(bytes, D);
        for (b, out) in out.iter_mut().enumerate() {
            let (low, low_shift, high, high_shift) = place(b * 32);
            let (low, high) = (&bytes[low..], &bytes[high..]);
            for ((q, low), high) in out.q.iter_mut().zip(low).zip(high) {
                *q = ((low >> low_shift & 15) | (high >> high_shift & 3) << 4) as i8 - 32;
            }
            out.scale = d;
            out.factors = [sub_scale(bytes, b * 32), sub_scale(bytes, b * 32 + SUB)];
        }
    }

    /// Each 16 weights get the scale that minimises the error weighted by w^2, searched around `largest / -32`; the
    /// sub-scales are then rounded to int8 steps of d (the largest becomes -128), and the codes follow from those.
    fn pack(weights: &[f32], rows: usize, cols: usize) -> Packed {
        super::pack_blocks(&FORMAT, weights, rows, cols, |w, row, col, out| {
            let mut scales = [0.0f32; LEN / SUB];
            for (scale, w) in scales.iter_mut().zip(w.chunks_exact(SUB)) {
                *scale = best_scale(w, 32);
            }
            let bits = super::scale_bits(FORMAT.name, super::largest(&scales) / -128.0, row, col)?;
            let d = crate::numerics::f16_to_f32(bits);
            out[D..].copy_from_slice(&bits.to_le_bytes());
            if d == 0.0 {
                // Too small for f16: everything is zero, code 32.
                out[QH..SCALES].fill(0b1010_1010);
                return Ok(());
            }
            for (i, scale) in scales.iter().enumerate() {
                out[SCALES + i] = (scale / d).round().clamp(-128.0, 127.0) as i8 as u8;
            }
            for (i, w) in w.iter().enumerate() {
                let step = d * f32::from(sub_scale(out, i));
                let code = if step == 0.0 { 32 } else { code_of(*w / step, 32) };
                let (low, low_shift, high, high_shift) = place(i);
                out[low] |= (code & 15) << low_shift;
                out[high] |= (code >> 4) << high_shift;
            }
            Ok(())
        })
    }
}

/// The code of a weight that is so many steps, of codes 0 up to `2 * half - 1`; `half` is zero.
pub(super) fn code_of(steps: f32, half: u8) -> u8 {
    let half = f32::from(half);
    (steps.round_ties_even().clamp(-half, half - 1.0) + half) as u8
}

/// The scale of 16 weights for codes as those of [`code_of`]: of some candidate roundings, the one whose least-squares scale
/// explains most.
pub(super) fn best_scale(w: &[f32], half: u8) -> f32 {
    let largest = super::largest(w);
    let zero = f32::from(half);
    if largest.abs() < 1e-15 {
        return 0.0;
    }
    let (mut best, mut best_gain) = (largest / -zero, 0.0f64);
    for tenth in -9..=9 {
        let inverse = -(zero + 0.1 * tenth as f32) / largest;
        // With weights w^2, the scale sum(w^2 w q) / sum(w^2 q^2) leaves the error total - gain.
        let (mut wq, mut qq) = (0.0f64, 0.0f64);
        for &w in w {
            let (q, w) = (f64::from(code_of(w * inverse, half)) - f64::from(half), f64::from(w));
            wq += w * w * w * q;
            qq += w * w * q * q;
        }
        if qq > 0.0 && wq * wq / qq > best_gain {
            best_gain = wq * wq / qq;
            best = (wq / qq) as f32;
        }
    }
    best
}
