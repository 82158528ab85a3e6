//! A row of floats as int8, with a proven bound of what is left out.
//!
//! ```text
//! s = max|w| / 127,   v = w / s,   q = round(v)
//! |w| <= s (1 + g) |v|',   |w - s q| <= s ((1 + g) |v - q|' + d sqrt(n))
//! ```
//!
//! `|.|'` is the norm as computed in f32, on [`LANES`] sums. `v - q` is exact. g covers the roundings of a norm: one for each
//! element of a lane, the tree, the root; d those of v, which is at most 127 and was rounded three times. In units of s nothing
//! overflows, and what underflows is far below d.

/// Sums of a norm. A compiler makes registers of them, of whatever width there is.
pub(crate) const LANES: usize = 32;
/// A float plus this has its integer, rounded to even, in the low bits: 1.5 * 2^23.
pub(crate) const ROUND: f32 = 12_582_912.0;
const ROUND_OFF: f64 = f32::EPSILON as f64 / 2.0;

/// What is known of a row beside its int8 values.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bound {
    /// The row is about `scale` times its int8 values.
    pub scale: f32,
    /// The row's norm, rounded up.
    pub norm: f32,
    /// The norm of what the int8 values leave out, rounded up.
    pub rest: f32,
}

/// The f32 not below a non-negative f64.
fn up(x: f64) -> f32 {
    // One part in a million covers every rounding on the way here and the conversion.
    (x * (1.0 + 1e-6)) as f32 + f32::MIN_POSITIVE
}

/// The scale of a row whose largest magnitude is this; `None` if that is not finite.
#[inline(always)]
pub(crate) fn scale(most: f32) -> Option<f32> {
    // A scale that is not a normal number would lose the bits that the bound counts on.
    most.is_finite().then(|| (most / 127.0).max(f32::MIN_POSITIVE))
}

impl Bound {
    /// Of a row with a value that is not finite: there is none.
    pub(crate) const NONE: Self = Self { scale: 0.0, norm: f32::INFINITY, rest: 0.0 };

    /// Of a row of `n` values with that scale: the sums of `v^2` and of `(v - q)^2` by lanes, each added in the order of the row.
    pub(crate) fn of(n: usize, scale: f32, whole: [f32; LANES], rest: [f32; LANES]) -> Self {
        let norm = |lanes: [f32; LANES]| lanes.into_iter().map(f64::from).sum::<f64>().sqrt();
        let roundings = (n.div_ceil(LANES) + 4) as f64 * ROUND_OFF;
        let (growth, scale64) = (1.0 + roundings / (1.0 - roundings), f64::from(scale));
        let lost = 127.0 * 4.0 * ROUND_OFF * (n as f64).sqrt();
        Self {
            scale,
            norm: up(scale64 * (growth * norm(whole) + lost)),
            rest: up(scale64 * (growth * norm(rest) + lost)),
        }
    }
}

/// Writes a row as int8 to `q`. The norm is infinite if a value is not finite.
#[inline(always)]
pub(crate) fn narrow(w: &[f32], q: &mut [i8]) -> Bound {
    // As integers magnitudes have the same order, and what is not finite is above all else.
    let most = f32::from_bits(w.iter().fold(0, |most, w| most.max(w.to_bits() & 0x7fff_ffff)));
    let Some(scale) = scale(most) else { return Bound::NONE };
    let inverse = 1.0 / scale;
    let (mut whole, mut rest) = ([0.0f32; LANES], [0.0f32; LANES]);
    for (w, q) in w.chunks(LANES).zip(q.chunks_mut(LANES)) {
        for ((w, q), (whole, rest)) in w.iter().zip(q).zip(whole.iter_mut().zip(&mut rest)) {
            let v = *w * inverse;
            let rounded = v + ROUND;
            let e = v - (rounded - ROUND);
            *q = rounded.to_bits() as i8;
            *whole += v * v;
            *rest += e * e;
        }
    }
    Bound::of(w.len(), scale, whole, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both bounds hold against f64 and are not far above it, whatever the magnitude, as long as the norm is an f32.
    #[test]
    fn bounds_hold_and_are_tight() {
        let mut seed = 1u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        for n in [1, 31, 32, 33, 2560, 6912] {
            for magnitude in [1e-44, 1e-38, 1e-30, 1e-5, 1.0, 3e4, 1e30, 3e36f32] {
                for spike in [false, true] {
                    let mut w: Vec<f32> =
                        (0..n).map(|_| random() * magnitude * if spike { 0.001 } else { 1.0 }).collect();
                    w[n / 2] = magnitude;
                    let mut q = vec![0i8; n];
                    let bound = narrow(&w, &mut q);
                    let scale = f64::from(bound.scale);
                    let norm = w.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt();
                    let left_out = w.iter().zip(&q).map(|(w, q)| (f64::from(*w) - scale * f64::from(*q)).powi(2));
                    let rest = left_out.sum::<f64>().sqrt();
                    let what = format!("{n} values of {magnitude}, {bound:?}, {norm} {rest}");
                    assert!(f64::from(bound.norm) >= norm && f64::from(bound.rest) >= rest, "{what}");
                    let slack = scale * 1e-4 * (n as f64).sqrt() + 1e-37;
                    assert!(
                        f64::from(bound.norm) <= norm * 1.001 + slack && f64::from(bound.rest) <= rest * 1.001 + slack,
                        "{what}"
                    );
                    assert!(
                        q.iter().zip(&w).all(|(q, w)| (f64::from(*w) / scale - f64::from(*q)).abs() <= 0.5001),
                        "{what}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_not_finite_has_no_bound() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(narrow(&[1.0, bad, 0.0], &mut [0; 3]).norm.is_infinite(), "{bad}");
        }
    }
}
