//! Our own functions against the host's f64, and the vector `exp` against the scalar one on a dense sweep.

use crate::common::{assert_bits, fast_sets};
use bitnet_kernels::{by_name, numerics, rope_table, sincos};

/// Distance in units of the last place of the exact value's f32 neighbourhood.
fn ulps(got: f32, exact: f64) -> f64 {
    let nearest = exact as f32;
    let ulp = f64::from(nearest.next_up()) - f64::from(nearest);
    (f64::from(got) - exact).abs() / ulp
}

#[test]
fn exp_is_within_2_ulp() {
    let mut worst = (0.0, 0.0);
    // Every 997th float from the smallest to the last with a finite result, both signs.
    for bits in (0..=0x42b1_7217u32).step_by(997).chain([0x42b1_7217, 0x42b1_7218]) {
        for x in [f32::from_bits(bits), -f32::from_bits(bits)] {
            let exact = f64::from(x).exp();
            let got = numerics::exp(x);
            if exact > f64::from(f32::MAX) * (1.0 + 1e-7) {
                assert_eq!(got, f32::INFINITY, "exp {x}");
                continue;
            }
            let error = ulps(got, exact);
            if error > worst.0 {
                worst = (error, x);
            }
        }
    }
    assert!(worst.0 < 2.0, "exp {} is off by {} ulp", worst.1, worst.0);
    for (x, want) in [
        (0.0, 1.0),
        (-0.0, 1.0),
        (89.0, f32::INFINITY),
        (1e30, f32::INFINITY),
        (f32::INFINITY, f32::INFINITY),
        (-104.0, 0.0),
        (-1e30, 0.0),
        (f32::NEG_INFINITY, 0.0),
    ] {
        assert_eq!(numerics::exp(x), want, "exp {x}");
    }
    assert!(numerics::exp(f32::NAN).is_nan());
    // Denormal results are not flushed.
    assert!(numerics::exp(-100.0) > 0.0 && ulps(numerics::exp(-100.0), (-100.0f64).exp()) < 1.0);
}

#[test]
fn tanh_is_within_4_ulp_and_gelu_is_its_formula() {
    let mut worst = (0.0, 0.0);
    for bits in (0..0x7f80_0000u32).step_by(9973).chain([0x3e99_9999, 0x3e99_999a, 0x3e99_999b]) {
        let x = f32::from_bits(bits);
        let error = ulps(numerics::tanh(x), f64::from(x).tanh());
        if error > worst.0 {
            worst = (error, x);
        }
        assert_eq!(numerics::tanh(-x), -numerics::tanh(x));
        if x > 1e15 {
            continue;
        }
        for x in [x, -x] {
            let wide = f64::from(x);
            let u = 0.797_884_560_802_865_4 * wide * (1.0 + 0.044_715 * wide * wide);
            let (got, want) = (f64::from(numerics::gelu(x)), 0.5 * wide * (1.0 + u.tanh()));
            // 1 + tanh cancels on the negative side: an error of 1e-7 of x is the formula's.
            assert!((got - want).abs() <= 4e-7 * wide.abs() + 1e-44, "gelu {x} is {got}, not {want}");
        }
    }
    assert!(worst.0 < 4.0, "tanh {} is off by {} ulp", worst.1, worst.0);
    for (x, want) in [(0.0, 0.0f32), (-0.0, -0.0), (f32::INFINITY, 1.0), (f32::NEG_INFINITY, -1.0), (40.0, 1.0)] {
        assert_eq!(numerics::tanh(x).to_bits(), want.to_bits(), "tanh {x}");
    }
    assert!(numerics::tanh(f32::NAN).is_nan() && numerics::gelu(f32::NAN).is_nan());
    assert_eq!((numerics::gelu(f32::INFINITY), numerics::gelu(-1e30)), (f32::INFINITY, 0.0));
}

#[test]
fn vector_gelu_equals_scalar_gelu() {
    let scalar = by_name("scalar").unwrap();
    let mut want: Vec<f32> =
        (0..0x7f80_0000u32).step_by(10_007).flat_map(|b| [f32::from_bits(b), -f32::from_bits(b)]).collect();
    want.extend([f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.3, -0.3, 0.3f32.next_down(), 0.0, -0.0]);
    let x = want.clone();
    scalar.gelu(&mut want);
    for k in fast_sets() {
        let mut got = x.clone();
        k.gelu(&mut got);
        assert_bits(&got, &want, &k.name());
    }
}

/// The `exp` of a set is seen through `silu_gate` with `up = 1`, and through the softmax of attention.
#[test]
fn vector_exp_equals_scalar_exp() {
    let scalar = by_name("scalar").unwrap();
    let edges = [87.3f32, 88.0, 88.722_8, 88.73, 89.0, 100.0, 103.97, 104.0, 110.0, 111.0, 1e-30, 0.346_57, 0.3466];
    let specials = [0.0f32, f32::INFINITY, f32::NAN, f32::MAX, f32::MIN_POSITIVE, 1e-45];
    let around = |x: f32| [x.next_down(), x, x.next_up()];
    let mut gates: Vec<f32> = edges.into_iter().flat_map(around).chain(specials).flat_map(|x| [x, -x]).collect();
    gates.extend((0..0x7f80_0000u32).step_by(10_007).flat_map(|b| [f32::from_bits(b), -f32::from_bits(b)]));
    gates.resize(gates.len().next_multiple_of(8), 1.0);
    let up = vec![1.0; gates.len()];
    let mut want = gates.clone();
    scalar.silu_gate(&mut want, &up);
    for k in fast_sets() {
        let mut got = gates.clone();
        k.silu_gate(&mut got, &up);
        assert_bits(&got, &want, &k.name());
    }
    // Attention over nine positions, one of which scores x and has the value 1, the others 0: exp(x - max) is seen.
    let one = numerics::f32_to_f16(1.0);
    let (mut k, mut v) = ([0u16; 9], [0u16; 9]);
    (k[2], v[2]) = (one, one);
    for x in gates.iter().filter(|x| x.is_finite()).step_by(7) {
        let run = |set: &dyn bitnet_kernels::Kernels| {
            let mut out = [0.0];
            set.attention(&[*x], &k, &v, 1, 9, 1.0, &mut [0.0; 9], &mut out);
            out
        };
        for set in fast_sets() {
            assert_bits(&run(set), &run(scalar), &format!("softmax of {x}"));
        }
    }
}

#[test]
fn sincos_is_within_1e_15() {
    for i in 0..200_000u32 {
        let x = f64::from(i) * 0.0137 - 900.0;
        let (s, c) = sincos(x);
        assert!((s - x.sin()).abs() < 4e-16 && (c - x.cos()).abs() < 4e-16, "{x}");
    }
    // Near multiples of pi/2 the relative error counts: the sine of the nearest double to n pi.
    for n in [1u32, 2, 3, 355, 100_000, 1 << 30] {
        let x = f64::from(n) * std::f64::consts::PI;
        let (s, c) = sincos(x);
        assert!((s - x.sin()).abs() <= 1e-15 * x.sin().abs() + 1e-24, "sin {x}: {s}, {}", x.sin());
        assert!((c - x.cos()).abs() < 4e-16);
        let x = x + std::f64::consts::FRAC_PI_2;
        let (s, c) = sincos(x);
        assert!((s - x.sin()).abs() < 4e-16 && (c - x.cos()).abs() < 4e-16, "{x}");
    }
    assert_eq!(sincos(0.0), (0.0, 1.0));
    assert!(sincos(f64::NAN).0.is_nan() && sincos(f64::INFINITY).1.is_nan());
}

#[test]
fn rope_tables() {
    let (mut cos, mut sin) = ([0.0f32; 64], [0.0f32; 64]);
    for (theta, pos) in [(500_000.0f32, 0), (500_000.0, 1), (10_000.0, 4095), (1e6, 131_071)] {
        rope_table(128, theta, None, pos, &mut cos, &mut sin);
        for i in 0..64 {
            let angle = pos as f64 * f64::from(theta).powf(-(2.0 * i as f64) / 128.0);
            let error = (f64::from(cos[i]) - angle.cos()).abs().max((f64::from(sin[i]) - angle.sin()).abs());
            // f32's own rounding is 2^-25 at most.
            assert!(error < 3.1e-8, "theta {theta} pos {pos} pair {i}: {error}");
        }
    }
    // Frequency factors divide; a factor of 2 at pos 2 is pos 1.
    let (mut cos2, mut sin2) = ([0.0f32; 64], [0.0f32; 64]);
    rope_table(128, 1e4, None, 1, &mut cos, &mut sin);
    rope_table(128, 1e4, Some(&[2.0; 64]), 2, &mut cos2, &mut sin2);
    assert_eq!((cos, sin), (cos2, sin2));
    assert_eq!((cos[0], sin[0]), (0.540_302_3, 0.841_470_96));
}

#[test]
fn halves_are_those_of_ieee() {
    for (x, bits) in [(1.0f32, 0x3c00u16), (65519.0, 0x7bff), (65520.0, 0x7c00), (-0.0, 0x8000), (2f32.powi(-24), 1)] {
        assert_eq!(numerics::f32_to_f16(x), bits, "{x}");
    }
    // All 65,536, there and back.
    for bits in 0..=u16::MAX {
        let x = numerics::f16_to_f32(bits);
        if !x.is_nan() {
            assert_eq!(numerics::f32_to_f16(x), bits);
        }
    }
}
