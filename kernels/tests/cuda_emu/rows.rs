//! What works row by row or element by element: embedding, sums, gates, norms and int8, rope and the cache, the largest.

use bitnet_kernels::cuda::emu::Arg;
use bitnet_kernels::{ActKind, Rope, numerics};

use super::common::{Random, assert_bits, prepared, values};
use super::{How, ORDERS, assert_halves, hows, of, room, scalar};

#[test]
fn embedding() {
    // Every f16 there is, by rows of 64; then a token that is not in the vocabulary.
    let table: Vec<u16> = (0..=u16::MAX).collect();
    let (cols, vocab) = (64, 1024);
    let mut tokens: Vec<u32> = (0..vocab).rev().collect();
    tokens.push(vocab);
    for (multiplier, how) in [1.0f32, 0.37].into_iter().zip(hows(&[[3, 1, 1]], &[96])) {
        let x = room::<f32>(tokens.len() * cols);
        let (n, table, ids) = (tokens.len() as u32, of(&table), of(&tokens));
        let args = [
            Arg::Buffer(&table),
            Arg::Buffer(&ids),
            Arg::Buffer(&x),
            Arg::U32(n),
            Arg::U32(cols as u32),
            Arg::U32(vocab),
            Arg::F32(multiplier),
        ];
        how.run("bn_embed_f16", 0, &args).unwrap();
        let want: Vec<f32> = tokens
            .iter()
            .flat_map(|&t| (0..cols as u32).map(move |i| t * cols as u32 + i))
            .map(|at| u16::try_from(at).map_or(f32::NAN, |bits| numerics::f16_to_f32(bits) * multiplier))
            .collect();
        assert_bits(&x.read(), &want, &"embedding");
    }
}

#[test]
fn sums_and_gates() {
    let mut r = Random::new(1);
    for n in [1, 31, 257, 4000] {
        let (a, b) = (values(n, &mut r), values(n, &mut r));
        for how in hows(&[[1, 1, 1], [5, 1, 1]], &[32, 256]) {
            let (up, n) = (of(&b), Arg::U64(n as u64));
            let (x, mut want) = (of(&a), a.clone());
            how.run("bn_add", 0, &[Arg::Buffer(&x), Arg::Buffer(&up), n]).unwrap();
            scalar().add(&mut want, &b);
            assert_bits(&x.read(), &want, &"add");
            for kind in 0..2 {
                let (gate, mut want) = (of(&a), a.clone());
                how.run("bn_gate", 0, &[Arg::U32(kind), Arg::Buffer(&gate), Arg::Buffer(&up), n]).unwrap();
                match kind {
                    0 => scalar().relu2_gate(&mut want, &b),
                    _ => scalar().silu_gate(&mut want, &b),
                }
                assert_bits(&gate.read(), &want, &format_args!("gate {kind}"));
            }
        }
    }
}

/// exp over its whole range, by way of the SiLU gate with up = 1.
#[test]
fn exponentials() {
    let mut x: Vec<f32> = (-120_000..120_000).map(|i| i as f32 * 1e-3 + (i % 7) as f32 * 1e-5).collect();
    x.extend([f32::MIN_POSITIVE, -f32::MIN_POSITIVE, f32::MAX, f32::MIN, f32::INFINITY, f32::NEG_INFINITY, f32::NAN]);
    let up = vec![1.0; x.len()];
    let (gate, ones) = (of(&x), of(&up));
    let args = [Arg::U32(1), Arg::Buffer(&gate), Arg::Buffer(&ones), Arg::U64(x.len() as u64)];
    How::new([7, 1, 1], 256, 0).run("bn_gate", 0, &args).unwrap();
    scalar().silu_gate(&mut x, &up);
    assert_bits(&gate.read(), &x, &"silu");
}

pub(crate) struct Normed {
    pub(crate) residual: Vec<f32>,
    pub(crate) values: Vec<f32>,
    pub(crate) q: Vec<i8>,
    pub(crate) scale: Vec<f32>,
    pub(crate) isum: Vec<i32>,
}

/// `bn_norm_quant`; `int8` false leaves the quantised outputs out.
pub(crate) fn norm_quant(
    how: How,
    (input, eps, int8): (u32, f32, bool),
    (x, y): (&[f32], &[f32]),
    weight: Option<&[f32]>,
    cols: usize,
) -> Result<Normed, bitnet_kernels::cuda::emu::EmuError> {
    let n = x.len() / cols;
    let (residual, other, weight) = (of(x), of(y), weight.map(of));
    let out = room::<f32>(x.len());
    let (q, scale, isum) = (room::<i8>(if int8 { x.len() } else { 0 }), room::<f32>(n), room::<i32>(n));
    let args = [
        Arg::U32(input),
        Arg::Buffer(&residual),
        Arg::Buffer(&other),
        weight.as_ref().map_or(Arg::Null, Arg::Buffer),
        Arg::F32(eps),
        Arg::U32(n as u32),
        Arg::U32(cols as u32),
        Arg::Buffer(&out),
        if int8 { Arg::Buffer(&q) } else { Arg::Null },
        Arg::Buffer(&scale),
        Arg::Buffer(&isum),
    ];
    how.run("bn_norm_quant", 4 * cols, &args)?;
    Ok(Normed { residual: residual.read(), values: out.read(), q: q.read(), scale: scale.read(), isum: isum.read() })
}

#[test]
fn norms_and_int8() {
    let mut r = Random::new(2);
    for (cols, tokens) in [(4, 1), (64, 2), (100, 3), (256, 1), (2560, 2), (6912, 1)] {
        let (x, y) = (values(cols * tokens, &mut r), values(cols * tokens, &mut r));
        let weight = r.floats(cols, 0.05);
        for how in hows(&[[1, 1, 1], [2, 1, 1]], &[64, 256, 512]).step_by(2) {
            for input in 0..4 {
                for weight in [Some(&*weight), None] {
                    let mut row = x.clone();
                    match input {
                        0 => {}
                        1 => scalar().add(&mut row, &y),
                        2 => scalar().relu2_gate(&mut row, &y),
                        _ => scalar().silu_gate(&mut row, &y),
                    }
                    let residual = if input == 1 { row.clone() } else { x.clone() };
                    if let Some(weight) = weight {
                        for row in row.chunks_exact_mut(cols) {
                            let input = row.to_vec();
                            scalar().rms_norm(&input, weight, 1e-5, row);
                        }
                    }
                    let want = prepared(scalar(), ActKind::I8, &row, tokens);
                    let what = format!("{cols} columns, {tokens} tokens, input {input}, {how:?}");
                    let got = norm_quant(how, (input, 1e-5, true), (&x, &y), weight, cols).unwrap();
                    assert_bits(&got.residual, &residual, &what);
                    assert_bits(&got.values, &row, &what);
                    for t in 0..tokens {
                        let want = want.i8(t);
                        assert_eq!(&got.q[t * cols..(t + 1) * cols], want.q, "{what}");
                        assert_eq!(got.isum[t], want.isum, "{what}");
                        assert_bits(&[got.scale[t]], &[want.scale], &what);
                    }
                }
            }
        }
    }
    // Without int8.
    let (x, weight) = (values(2 * 76, &mut r), r.floats(76, 1.0));
    let got = norm_quant(How::new([1, 1, 1], 128, 1), (0, 0.1, false), (&x, &x), Some(&weight), 76).unwrap();
    let mut want = vec![0.0; x.len()];
    for (x, want) in x.chunks(76).zip(want.chunks_mut(76)) {
        scalar().rms_norm(x, &weight, 0.1, want);
    }
    assert_bits(&got.values, &want, &"norm alone");
}

#[test]
fn rope_and_the_cache() {
    let mut r = Random::new(3);
    for (dim, n_rot, heads, kv_heads, n, start, capacity) in
        [(64, 64, 4, 1, 1, 0, 3), (128, 128, 5, 5, 3, 4, 9), (128, 96, 4, 2, 5, 6, 8), (2, 2, 1, 1, 1, 0, 1)]
    {
        let [q, k, v] = [heads, kv_heads, kv_heads].map(|heads| values(n * heads * dim, &mut r));
        let (cos, sin) = (r.floats(capacity * n_rot / 2, 1.0), r.floats(capacity * n_rot / 2, 1.0));
        for (kind, rope) in [(0, Rope::Neox), (1, Rope::Norm)] {
            let mut want = (q.clone(), k.clone());
            let cached = kv_heads * capacity * dim;
            let (mut keys, mut vals) = (vec![0xffff_u16; cached], vec![0xffff_u16; cached]);
            // What the cache does not hold is left alone.
            for t in 0..n.min(capacity - start) {
                let at = start + t;
                let table = at * n_rot / 2..(at + 1) * n_rot / 2;
                for head in want.0[t * heads * dim..(t + 1) * heads * dim].chunks_mut(dim) {
                    scalar().rope(rope, head, &cos[table.clone()], &sin[table.clone()]);
                }
                for h in 0..kv_heads {
                    let head = (t * kv_heads + h) * dim..(t * kv_heads + h + 1) * dim;
                    scalar().rope(rope, &mut want.1[head.clone()], &cos[table.clone()], &sin[table.clone()]);
                    let to = (h * capacity + at) * dim..(h * capacity + at + 1) * dim;
                    scalar().f32_to_f16(&want.1[head.clone()], &mut keys[to.clone()]);
                    scalar().f32_to_f16(&v[head], &mut vals[to]);
                }
            }
            for how in hows(&[[1, 1, 1], [7, 1, 1]], &[32, 64]) {
                let (dq, dk, dv) = (of(&q), of(&k), of(&v));
                let (dc, ds, dp) = (of(&cos), of(&sin), of(&[start as u32]));
                let (got_keys, got_vals) = (room::<u16>(cached), room::<u16>(cached));
                let args = [
                    Arg::U32(kind),
                    Arg::Buffer(&dq),
                    Arg::Buffer(&dk),
                    Arg::Buffer(&dv),
                    Arg::Buffer(&dc),
                    Arg::Buffer(&ds),
                    Arg::Buffer(&dp),
                    Arg::U32(n as u32),
                    Arg::U32(heads as u32),
                    Arg::U32(kv_heads as u32),
                    Arg::U32(dim as u32),
                    Arg::U32(n_rot as u32),
                    Arg::Buffer(&got_keys),
                    Arg::Buffer(&got_vals),
                    Arg::U32(capacity as u32),
                ];
                how.run("bn_rope_append", 0, &args).unwrap();
                assert_bits(&dq.read(), &want.0, &"q");
                assert_bits(&dk.read(), &want.1, &"k");
                assert_halves(&got_keys.read::<u16>(), &keys, &"keys");
                assert_halves(&got_vals.read::<u16>(), &vals, &"values");
            }
        }
    }
}

/// f32 to f16 where it rounds: every half, its neighbours as f32, and the middles between halves.
#[test]
fn halves() {
    let mut x = Vec::new();
    for bits in 0..=u16::MAX {
        let v = numerics::f16_to_f32(bits);
        let next = numerics::f16_to_f32(bits.wrapping_add(1));
        let middle = ((f64::from(v) + f64::from(next)) / 2.0) as f32;
        for v in [v, middle] {
            x.extend([v, f32::from_bits(v.to_bits().wrapping_add(1)), f32::from_bits(v.to_bits().wrapping_sub(1))]);
        }
    }
    x.extend([65504.0, 65519.996, 65520.0, 65535.0, 65536.0, 1e-8, 2.980_232_2e-8, 5.96e-8, 1e-40, -1e-45, f32::MAX]);
    x.resize(x.len().next_multiple_of(128), 0.0);
    let n = x.len() / 128;
    let mut want = vec![0; x.len()];
    scalar().f32_to_f16(&x, &mut want);
    let (q, v, table, position) = (room::<f32>(0), of(&x), room::<f32>(0), of(&[0u32]));
    let (k, keys, vals) = (of(&x), room::<u16>(x.len()), room::<u16>(x.len()));
    let args = [
        Arg::U32(0),
        Arg::Buffer(&q),
        Arg::Buffer(&k),
        Arg::Buffer(&v),
        Arg::Buffer(&table),
        Arg::Buffer(&table),
        Arg::Buffer(&position),
        Arg::U32(n as u32),
        Arg::U32(0),
        Arg::U32(1),
        Arg::U32(128),
        Arg::U32(0),
        Arg::Buffer(&keys),
        Arg::Buffer(&vals),
        Arg::U32(n as u32),
    ];
    How::new([64, 1, 1], 64, 0).run("bn_rope_append", 0, &args).unwrap();
    assert_halves(&keys.read::<u16>(), &want, &"keys");
    assert_halves(&vals.read::<u16>(), &want, &"values");
}

/// The engine's argmax: the lower row on a tie, NaN never, 0 if nothing is above minus infinity.
fn argmax(y: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (i, &v) in y.iter().enumerate() {
        if v > best.1 {
            best = (i as u32, v);
        }
    }
    best.0
}

#[test]
fn the_largest_and_the_next_token() {
    let mut r = Random::new(4);
    let mut cases: Vec<Vec<f32>> = vec![
        vec![f32::NAN],
        vec![f32::NEG_INFINITY; 3],
        vec![f32::NAN, f32::NEG_INFINITY, f32::MIN, f32::NAN],
        vec![-1.0, -0.0, 0.0, -0.0],
        vec![-1.0, 0.0, -0.0],
        vec![f32::INFINITY, f32::INFINITY],
        vec![-1e-45, -1e-44, f32::NAN],
    ];
    for n in [1, 32, 33, 1000, 5000] {
        cases.push(values(n, &mut r));
        // Ties everywhere.
        cases.push((0..n).map(|_| r.below(3) as f32 - 4.0).collect());
    }
    for y in &cases {
        for how in hows(&[[1, 1, 1], [6, 1, 1]], &[32, 128]) {
            let (best, logits, token, position) = (of(&[0u64]), of(y), of(&[9u32]), of(&[1u32]));
            let history = of(&[7u32; 4]);
            how.run("bn_argmax", 0, &[Arg::Buffer(&logits), Arg::U32(y.len() as u32), Arg::Buffer(&best)]).unwrap();
            let args = [&best, &token, &position, &history].map(Arg::Buffer);
            let next = How::new([1, 1, 1], 32, how.order);
            next.run("bn_next", 0, &[args[0], args[1], args[2], args[3], Arg::U32(4)]).unwrap();
            let want = argmax(y);
            assert_eq!(token.read::<u32>(), [want], "{y:?}");
            assert_eq!((position.read::<u32>(), best.read::<u64>()), (vec![2], vec![0]));
            assert_eq!(history.read::<u32>(), [7, 7, want, 7]);
            // Beyond the history nothing is written.
            position_beyond(&args, &token, want);
        }
    }
}

fn position_beyond(args: &[Arg<'_>; 4], token: &bitnet_kernels::cuda::emu::Buffer, before: u32) {
    let full = of(&[3u32]);
    let next = How::new([1, 1, 1], 32, ORDERS[0]);
    assert_eq!(token.read::<u32>(), [before]);
    next.run("bn_next", 0, &[args[0], args[1], Arg::Buffer(&full), args[3], Arg::U32(4)]).unwrap();
    // The key was 0: nothing had won.
    assert_eq!((token.read::<u32>(), full.read::<u32>()), (vec![0], vec![4]));
}
