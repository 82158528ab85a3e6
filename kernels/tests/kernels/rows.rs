//! Everything but the products: each kernel set equals the oracle bit for bit, at every length and tail, and writes
//! nothing beyond its slices.

use crate::common::{Random, assert_bits, fast_sets, models, values};
use bitnet_kernels::{ActKind, Activations, Kernels, Rope, by_name, numerics};
use proptest::prelude::*;

fn scalar() -> &'static dyn Kernels {
    by_name("scalar").unwrap()
}

/// Runs `f` on a copy of `x` between canaries and returns what it left.
fn guarded<T: Copy + PartialEq + std::fmt::Debug>(x: &[T], canary: T, f: impl FnOnce(&mut [T])) -> Vec<T> {
    let mut all = vec![canary; x.len() + 33];
    all[17..17 + x.len()].copy_from_slice(x);
    f(&mut all[17..17 + x.len()]);
    assert!(all[..17].iter().chain(&all[17 + x.len()..]).all(|v| *v == canary), "wrote outside its slice");
    all[17..17 + x.len()].to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn preparing(tokens in 1usize..5, length in 1usize..600, seed: u64) {
        for kind in [ActKind::F32, ActKind::I8, ActKind::Q8] {
            let cols = if kind == ActKind::Q8 { length.next_multiple_of(32) } else { length };
            let x = values(tokens * cols, &mut Random::new(seed));
            let mut want = Activations::default();
            scalar().prepare(kind, &x, tokens, &mut want);
            for k in fast_sets() {
                // Reused after another shape and kind: nothing stale may stay.
                let mut got = Activations::default();
                k.prepare(ActKind::Q8, &[1.0; 64], 2, &mut got);
                k.prepare(kind, &x, tokens, &mut got);
                prop_assert_eq!((got.kind(), got.n_tokens(), got.cols()), (kind, tokens, cols));
                for t in 0..tokens {
                    match kind {
                        ActKind::F32 => assert_bits(got.f32(t), want.f32(t), &"f32"),
                        ActKind::I8 => {
                            let (g, w) = (got.i8(t), want.i8(t));
                            prop_assert_eq!(g.q, w.q);
                            prop_assert_eq!(g.isum, w.isum);
                            assert_bits(&[g.scale], &[w.scale], &"scale");
                        }
                        ActKind::Q8 => {
                            let (g, w) = (got.q8(t), want.q8(t));
                            prop_assert_eq!(g.q, w.q);
                            assert_bits(g.d, w.d, &"d");
                            assert_bits(g.bsum, w.bsum, &"bsum");
                            prop_assert!(g.q.iter().all(|q| *q >= -127));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn norm_gates_add_convert(n in 1usize..700, seed: u64) {
        let r = &mut Random::new(seed);
        let (x, w) = (values(n, r), values(n, r));
        let norm = |k: &dyn Kernels| guarded(&vec![7.0; n], 7.0, |y| k.rms_norm(&x, &w, 1e-5, y));
        let relu2 = |k: &dyn Kernels| guarded(&x, 7.0, |x| k.relu2_gate(x, &w));
        let silu = |k: &dyn Kernels| guarded(&x, 7.0, |x| k.silu_gate(x, &w));
        let add = |k: &dyn Kernels| guarded(&x, 7.0, |x| k.add(x, &w));
        let half = |k: &dyn Kernels| {
            let halves = guarded(&vec![1u16; n], 1, |out| k.f32_to_f16(&x, out));
            halves.into_iter().map(numerics::f16_to_f32).collect::<Vec<_>>()
        };
        let ordinary: Vec<_> = (0..n).map(|_| r.unit()).collect();
        let plain_norm = |k: &dyn Kernels| guarded(&vec![7.0; n], 7.0, |y| k.rms_norm(&ordinary, &w, 1e-5, y));
        let bias = values(n, r);
        let layer = |k: &dyn Kernels| guarded(&vec![7.0; n], 7.0, |y| k.layer_norm(&x, &w, &bias, 1e-5, y));
        let plain_layer = |k: &dyn Kernels| guarded(&vec![7.0; n], 7.0, |y| k.layer_norm(&ordinary, &w, &bias, 1e-5, y));
        let gelu = |k: &dyn Kernels| guarded(&x, 7.0, |x| k.gelu(x));
        let gelu_gate = |k: &dyn Kernels| guarded(&x, 7.0, |x| k.gelu_gate(x, &w));
        let scale = |k: &dyn Kernels| guarded(&x, 7.0, |x| k.scale(x, 0.3));
        for k in fast_sets().into_iter().chain(models().iter().copied()) {
            assert_bits(&layer(k), &layer(scalar()), &"layer_norm");
            assert_bits(&plain_layer(k), &plain_layer(scalar()), &"layer_norm of ordinary values");
            assert_bits(&gelu(k), &gelu(scalar()), &"gelu");
            assert_bits(&gelu_gate(k), &gelu_gate(scalar()), &"gelu_gate");
            assert_bits(&scale(k), &scale(scalar()), &"scale");
            assert_bits(&norm(k), &norm(scalar()), &"rms_norm");
            assert_bits(&plain_norm(k), &plain_norm(scalar()), &"rms_norm of ordinary values");
            assert_bits(&relu2(k), &relu2(scalar()), &"relu2_gate");
            assert_bits(&silu(k), &silu(scalar()), &"silu_gate");
            assert_bits(&add(k), &add(scalar()), &"add");
            assert_bits(&half(k), &half(scalar()), &"f32_to_f16");
        }
    }

    #[test]
    fn rope(half in 0usize..70, pass in 0usize..20, seed: u64) {
        let r = &mut Random::new(seed);
        let (x, cos, sin) = (r.floats(2 * half + pass, 4.0), r.floats(half, 1.0), r.floats(half, 1.0));
        for kind in [Rope::Neox, Rope::Norm] {
            let want = guarded(&x, 7.0, |x| scalar().rope(kind, x, &cos, &sin));
            assert_bits(&want[2 * half..], &x[2 * half..], &"beyond n_rot");
            for k in fast_sets() {
                assert_bits(&guarded(&x, 7.0, |x| k.rope(kind, x, &cos, &sin)), &want, &"rope");
            }
        }
    }

    #[test]
    fn attention(dim in 1usize..200, n in 1usize..300, gap in 0usize..50, seed: u64) {
        let r = &mut Random::new(seed);
        let stride = dim + gap;
        let q = r.floats(dim, 2.0);
        let mut halves = || r.floats((n - 1) * stride + dim, 3.0).into_iter().map(numerics::f32_to_f16).collect::<Vec<_>>();
        let (k, v) = (halves(), halves());
        let scale = 1.0 / (dim as f32).sqrt();
        let run = |set: &dyn Kernels| {
            guarded(&vec![7.0; dim], 7.0, |out| {
                guarded(&vec![f32::MAX; n], 7.0, |scratch| set.attention(&q, &k, &v, stride, n, scale, scratch, out));
            })
        };
        let want = run(scalar());
        for set in fast_sets() {
            assert_bits(&run(set), &want, &format!("attention {dim} x {n}"));
        }
        // And it is attention: f64, no particular order.
        let at = |h: &[u16], t: usize, d: usize| f64::from(numerics::f16_to_f32(h[t * stride + d]));
        let scores: Vec<f64> = (0..n)
            .map(|t| (0..dim).map(|d| f64::from(q[d]) * at(&k, t, d)).sum::<f64>() * f64::from(scale))
            .collect();
        let m = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let e: Vec<f64> = scores.iter().map(|s| (s - m).exp()).collect();
        let z: f64 = e.iter().sum();
        for (d, got) in want.iter().enumerate() {
            let exact = (0..n).map(|t| e[t] * at(&v, t, d)).sum::<f64>() / z;
            prop_assert!((f64::from(*got) - exact).abs() < 1e-4, "{got} is not {exact}");
        }
    }

    #[test]
    fn heads_together_are_heads_alone(heads in 1usize..10, blocks in 0usize..4, rest in prop::sample::select(vec![0usize, 0, 7, 32]), n in 1usize..300, gap in 0usize..50, seed: u64) {
        let dim = (64 * blocks + rest).max(1);
        let r = &mut Random::new(seed);
        let stride = dim + gap;
        let q = r.floats(heads * dim, 2.0);
        let mut halves = || r.floats((n - 1) * stride + dim, 3.0).into_iter().map(numerics::f32_to_f16).collect::<Vec<_>>();
        let (k, v) = (halves(), halves());
        let scale = 1.0 / (dim as f32).sqrt();
        let want: Vec<f32> = q
            .chunks_exact(dim)
            .flat_map(|q| {
                let mut out = vec![0.0; dim];
                scalar().attention(q, &k, &v, stride, n, scale, &mut vec![0.0; n], &mut out);
                out
            })
            .collect();
        for set in [scalar()].into_iter().chain(fast_sets()) {
            let got = guarded(&vec![7.0; heads * dim], 7.0, |out| {
                guarded(&vec![f32::MAX; heads * n], 7.0, |scratch| {
                    set.attention_group(&q, dim, &k, &v, stride, n, scale, scratch, out);
                });
            });
            assert_bits(&got, &want, &format!("{heads} heads of {dim} over {n}"));
        }
    }
}

#[test]
fn rope_turns_by_hand() {
    // A quarter turn of the first pair, none of the second.
    for (kind, want) in [(Rope::Neox, [-3.0, 2.0, 1.0, 4.0, 5.0]), (Rope::Norm, [-2.0, 1.0, 3.0, 4.0, 5.0])] {
        let mut x = [1.0, 2.0, 3.0, 4.0, 5.0];
        scalar().rope(kind, &mut x, &[0.0, 1.0], &[1.0, 0.0]);
        assert_eq!(x, want);
    }
}

/// Against f64, and on numbers that can be checked by hand.
#[test]
fn layer_norm_and_scale_by_hand() {
    let mut y = [0.0; 4];
    // Mean 2, deviations -1, 1, -1, 1, variance 1; eps 3: r is a half.
    scalar().layer_norm(&[1.0, 3.0, 1.0, 3.0], &[2.0, 2.0, 4.0, 4.0], &[0.0, 1.0, 0.0, 10.0], 3.0, &mut y);
    assert_eq!(y, [-1.0, 2.0, -2.0, 12.0]);
    scalar().scale(&mut y, -0.5);
    assert_eq!(y, [0.5, -1.0, 1.0, -6.0]);
    let r = &mut Random::new(12);
    // Far from zero, where the mean of squares less the square of the mean would cancel.
    let x: Vec<f32> = (0..1000).map(|_| 1000.0 + r.unit()).collect();
    let mut y = vec![0.0; 1000];
    scalar().layer_norm(&x, &[1.0; 1000], &[0.0; 1000], 1e-5, &mut y);
    let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / 1000.0;
    let variance = x.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / 1000.0;
    for (x, y) in x.iter().zip(&y) {
        let want = (f64::from(*x) - mean) / (variance + 1e-5).sqrt();
        assert!((f64::from(*y) - want).abs() < 2e-4, "{y} is not {want}");
    }
}

#[test]
fn preparing_by_hand() {
    let mut x = Activations::default();
    scalar().prepare(ActKind::I8, &[2.0, -1.0, 0.5, 0.0], 1, &mut x);
    let t = x.i8(0);
    // s = 63.5; -63.5 and 31.75 round to even and to nearest.
    assert_eq!((t.q, t.scale, t.isum), (&[127i8, -64, 32, 0][..], 63.5, 95));
    scalar().prepare(ActKind::I8, &[0.0; 3], 1, &mut x);
    assert_eq!((x.i8(0).q, x.i8(0).scale), (&[0i8; 3][..], 127.0 / 1e-5));
    let mut block = [0.0; 32];
    (block[0], block[1]) = (-254.0, 5.0);
    scalar().prepare(ActKind::Q8, &block, 1, &mut x);
    let t = x.q8(0);
    assert_eq!((t.q[0], t.q[1], t.d, t.bsum), (-127, 2, &[2.0f32][..], &[-250.0f32][..]));
}

/// Halves in every lane and in the tail, in both directions: every set rounds them to the even neighbour.
#[test]
fn ties_go_to_even_in_every_lane() {
    const LENGTH: usize = 32 * 3 + 31;
    let mut sets = fast_sets();
    sets.push(scalar());
    for k in sets {
        for lane in 0..LENGTH {
            for whole in [-126, -125, -2, -1, 0, 1, 2, 63, 125] {
                let even = if whole % 2 == 0 { whole } else { whole + 1 };
                // The largest magnitude is 127, so that the scale is 1 and the halves stay halves.
                let mut x = [0.0f32; LENGTH + 1];
                (x[lane], x[(lane + 1) % LENGTH]) = (whole as f32 + 0.5, 127.0);
                let mut out = Activations::default();
                k.prepare(ActKind::I8, &x[..LENGTH], 1, &mut out);
                let token = out.i8(0);
                assert_eq!((token.scale, i32::from(token.q[lane])), (1.0, even), "{} lane {lane}: {whole}.5", k.name());
                assert_eq!(token.isum, 127 + even, "{} lane {lane}", k.name());
                // Blocks of 32 have a scale each.
                for largest in (0..LENGTH + 1).step_by(32).map(|block| block + usize::from(block == lane)) {
                    x[largest] = 127.0;
                }
                k.prepare(ActKind::Q8, &x, 1, &mut out);
                assert_eq!(
                    (out.q8(0).d[lane / 32], i32::from(out.q8(0).q[lane])),
                    (1.0, even),
                    "{} lane {lane}",
                    k.name()
                );
            }
        }
    }
}

/// Values in the middle of two f16, normal and not, in every lane.
#[test]
fn ties_of_f16_go_to_even_in_every_lane() {
    let wide = |bits: u16| f64::from(numerics::f16_to_f32(bits));
    let mut sets = fast_sets();
    sets.push(scalar());
    for k in sets {
        for lane in 0..53 {
            for low in [0u16, 1, 2, 0x3FE, 0x3FF, 0x400, 0x3C00, 0x3C01, 0x7BFD, 0x7BFE] {
                let middle = ((wide(low) + wide(low + 1)) / 2.0) as f32;
                let even = low + (low & 1);
                for (sign, bit) in [(1.0, 0), (-1.0, 0x8000)] {
                    let (mut x, mut out) = ([1.0f32; 53], [0u16; 53]);
                    x[lane] = sign * middle;
                    k.f32_to_f16(&x, &mut out);
                    assert_eq!(out[lane], even | bit, "{} lane {lane}: {}", k.name(), x[lane]);
                    x[lane] = sign * f32::from_bits(middle.to_bits() + 1);
                    k.f32_to_f16(&x, &mut out);
                    assert_eq!(out[lane], (low + 1) | bit, "{} lane {lane}: just above the middle", k.name());
                }
            }
        }
    }
}
