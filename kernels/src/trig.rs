//! sin, cos and the rope tables, the same on every target.
//!
//! The platform's libm differs between C libraries in the last bits, and a rope angle multiplies that into visible
//! differences at long contexts. So the angles, and the power that makes the frequencies, are computed here in f64 by
//! plain series, and rounded to f32 once. Tables are made once per position on the host: this is not a hot path.

/// pi/2 as a sum of three f64, each the rounded rest.
const PIO2: [f64; 3] = [std::f64::consts::FRAC_PI_2, 6.123_233_995_736_766e-17, -1.497_384_904_859_169_8e-33];

/// `(sin x, cos x)`, within about 1e-16 for |x| up to 2^40; NaN for what is not finite.
///
/// `x - n * pi/2` by three FMAs is exact but for the last rounding: the first has at most 53 significant bits left.
pub fn sincos(x: f64) -> (f64, f64) {
    if !x.is_finite() {
        return (f64::NAN, f64::NAN);
    }
    let n = (x * std::f64::consts::FRAC_2_PI).round_ties_even();
    let mut r = x;
    for part in PIO2 {
        r = n.mul_add(-part, r);
    }
    let r2 = r * r;
    // sin r = r (1 - r^2/(2*3) (1 - r^2/(4*5) (...))), cos r likewise; |r| <= pi/4.
    let (mut s, mut c) = (1.0, 1.0);
    for k in (1..=9).rev() {
        let k = f64::from(k);
        s = (r2 / (2.0 * k * (2.0 * k + 1.0))).mul_add(-s, 1.0);
        c = (r2 / ((2.0 * k - 1.0) * 2.0 * k)).mul_add(-c, 1.0);
    }
    let s = s * r;
    match n.rem_euclid(4.0) as u8 {
        0 => (s, c),
        1 => (c, -s),
        2 => (-s, -c),
        _ => (-c, s),
    }
}

/// ln x for normal positive x (NaN for anything else), within about 1e-15 of the larger of 1 and |ln x|.
pub fn ln(x: f64) -> f64 {
    if !(x.is_normal() && x > 0.0) {
        return f64::NAN;
    }
    let bits = x.to_bits();
    let mut e = ((bits >> 52) & 0x7ff) as i32 - 1023;
    let mut m = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    if m > std::f64::consts::SQRT_2 {
        m *= 0.5;
        e += 1;
    }
    // ln m = 2 atanh(s), |s| <= 0.172.
    let s = (m - 1.0) / (m + 1.0);
    let s2 = s * s;
    let mut sum = 0.0;
    for k in (0..=13).rev() {
        sum = s2.mul_add(sum, 1.0 / f64::from(2 * k + 1));
    }
    f64::from(e).mul_add(std::f64::consts::LN_2, 2.0 * s * sum)
}

/// e^x for |x| <= 700, within about 1e-15 relative.
pub fn exp(x: f64) -> f64 {
    const LN2_HI: f64 = std::f64::consts::LN_2;
    const LN2_LO: f64 = 2.319_046_813_846_299_6e-17;
    let n = (x * std::f64::consts::LOG2_E).round_ties_even();
    let r = n.mul_add(-LN2_LO, n.mul_add(-LN2_HI, x));
    let mut p = 1.0;
    for k in (1..=16).rev() {
        p = (r / f64::from(k)).mul_add(p, 1.0);
    }
    p * f64::from_bits(((n as i64 + 1023) as u64) << 52)
}

/// The rope tables of one position: `angle_i = pos * theta^(-2i / n_rot) / freq_factors[i]`, `i` in `0..n_rot/2`, in
/// f64, its cosine and sine rounded to f32 once.
///
/// # Panics
/// If `n_rot` is odd, `theta` is not a positive finite number, or a slice does not have `n_rot / 2` elements.
pub fn rope_table(
    n_rot: usize,
    theta: f32,
    freq_factors: Option<&[f32]>,
    pos: usize,
    cos: &mut [f32],
    sin: &mut [f32],
) {
    let half = n_rot / 2;
    assert!(n_rot.is_multiple_of(2), "n_rot {n_rot} is odd");
    assert!(theta.is_normal() && theta > 0.0, "theta {theta}");
    assert_eq!((cos.len(), sin.len()), (half, half), "rope tables of n_rot {n_rot}");
    assert!(freq_factors.is_none_or(|f| f.len() == half), "frequency factors of n_rot {n_rot}");
    let ln_theta = ln(f64::from(theta));
    for i in 0..half {
        let mut freq = exp(-(2.0 * i as f64 / n_rot as f64) * ln_theta);
        if let Some(factors) = freq_factors {
            freq /= f64::from(factors[i]);
        }
        let (s, c) = sincos(pos as f64 * freq);
        cos[i] = c as f32;
        sin[i] = s as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ln_and_exp_agree_with_the_host() {
        for x in [1e-3, 0.5, 0.75, 1.0, 1.4, 1.5, 2.0, 10.0, 1e4, 5e5, 1e6, 3.3e9] {
            assert!((ln(x) - f64::ln(x)).abs() <= 1e-15 * f64::ln(x).abs().max(1.0), "ln {x}");
        }
        for i in -400..=400 {
            let x = f64::from(i) * 0.0873;
            assert!((exp(x) / f64::exp(x) - 1.0).abs() < 2e-15, "exp {x}");
        }
    }
}
