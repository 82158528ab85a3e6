//! Every operation by itself, on rows of a few numbers whose results are known without it.

mod examples;
mod widths;

use super::batch::place;
use super::*;
use crate::random::SplitMix64;
use bitnet_kernels::numerics::{exp, f16_to_f32, gelu, silu};
use bitnet_kernels::quant::by_name;
use bitnet_kernels::{Matrix, Pool, Rope};
use rope::RopeTable;

/// Tensors of a model, in floats.
#[derive(Default)]
struct Few {
    matrices: Vec<(usize, usize, Vec<u8>)>,
    vectors: Vec<Vec<f32>>,
}

impl Few {
    /// The values of a matrix by rows.
    fn matrix(mut self, cols: usize, values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.matrices.push((values.len() / cols, cols, bytes));
        self
    }

    fn vector(mut self, values: &[f32]) -> Self {
        self.vectors.push(values.to_vec());
        self
    }
}

impl Tensors for Few {
    fn matrix(&self, id: MatrixId) -> Matrix<'_> {
        let (rows, cols, bytes) = &self.matrices[id.0];
        Matrix::new(by_name("f32").unwrap(), *rows, *cols, bytes).unwrap()
    }

    fn vector(&self, id: VectorId) -> &[f32] {
        &self.vectors[id.0]
    }
}

/// Two rows of sequence 1 from its start, and one of sequence 0 at position 3. Of all but the first logits are wanted.
const SPANS: [Span; 2] =
    [Span { sequence: 1, position: 0, tokens: 2, wanted: 1 }, Span { sequence: 0, position: 3, tokens: 1, wanted: 1 }];
const TOKENS: [u32; 3] = [2, 0, 3];

/// Runs operations on the rows of [`SPANS`] and shows a slot.
fn run<const N: usize>(
    ops: [Op; N],
    tensors: &Few,
    slots: &[(Slot, &[f32])],
    memory: &mut Memory,
    show: Slot,
) -> Vec<f32> {
    let (pool, mut work) = (Pool::new(1).unwrap(), Workspace::default());
    for (slot, values) in slots {
        work.slots[slot.index()] = (*values).into();
    }
    let kernels = bitnet_kernels::by_name("scalar").unwrap();
    let batch = Batch { tokens: &TOKENS, spans: &SPANS };
    let mut state = State::new((kernels, &pool), tensors, &batch, &mut work, memory);
    ops.iter().for_each(|op| op.as_operation().run(&mut state));
    work.slots[show.index()].to_vec()
}

fn nothing() -> Memory {
    Memory::new(Vec::new(), &[], 8)
}

/// [`run`] of an operation that remembers nothing.
fn one(op: impl Into<Op>, tensors: &Few, slots: &[(Slot, &[f32])], show: Slot) -> Vec<f32> {
    run([op.into()], tensors, slots, &mut nothing(), show)
}

fn near(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{found:?} {expected:?}");
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{found:?} {expected:?}");
    }
}

use Slot::{Gate as GateSlot, Hidden, Key, Query, Residual, Router, Side, Up, Value};

#[test]
fn rows_are_looked_up_and_added() {
    let table = Few::default().matrix(2, &[0.0, 1.0, 10.0, 11.0, 20.0, 21.0, 30.0, 31.0]);
    let embed = Embed { table: MatrixId(0), dst: Residual };
    assert_eq!(one(embed, &table, &[], Residual), [20.0, 21.0, 0.0, 1.0, 30.0, 31.0]);
    let positions = Positions { slot: Residual, table: MatrixId(0) };
    let rows = (Residual, &[0.5; 6][..]);
    assert_eq!(one(positions, &table, &[rows], Residual), [0.5, 1.5, 10.5, 11.5, 30.5, 31.5]);
    let bias = Bias { slot: Residual, bias: VectorId(0) };
    let vector = Few::default().vector(&[1.0, -1.0]);
    assert_eq!(
        one(bias, &vector, &[(Residual, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])], Residual),
        [2.0, 1.0, 4.0, 3.0, 6.0, 5.0]
    );
}

#[test]
fn norms_of_rows_and_of_heads() {
    let weights = Few::default().vector(&[1.0, 2.0]).vector(&[0.5, -0.5]);
    let rows: (Slot, &[f32]) = (Residual, &[3.0, 4.0, 1.0, 1.0, 0.0, 2.0]);
    let (a, b) = (12.5f32.sqrt(), 2f32.sqrt());
    let rms = [3.0 / a, 8.0 / a, 1.0, 2.0, 0.0, 4.0 / b];
    for dst in [Residual, Hidden] {
        let norm = RmsNorm { src: Residual, dst, weight: VectorId(0), eps: 0.0 };
        near(&one(norm, &weights, &[rows], dst), &rms);
        let norm = LayerNorm { src: Residual, dst, weight: VectorId(0), bias: VectorId(1), eps: 0.0 };
        let flat: (Slot, &[f32]) = (Residual, &[1.0, 3.0, 3.0, 1.0, 10.0, 12.0]);
        near(&one(norm, &weights, &[flat], dst), &[-0.5, 1.5, 1.5, -2.5, -0.5, 1.5]);
    }
    // Rows of two heads, each as wide as the weight.
    let heads: (Slot, &[f32]) = (Residual, &[3.0, 4.0, 1.0, 1.0, 0.0, 2.0, 3.0, 4.0, 1.0, 1.0, 0.0, 2.0]);
    let norm = RmsNorm { src: Residual, dst: Hidden, weight: VectorId(0), eps: 0.0 };
    near(&one(norm, &weights, &[heads], Hidden), &rms.repeat(2));
}

#[test]
fn products_that_share_an_input() {
    let tensors =
        Few::default().matrix(2, &[1.0, 10.0, 2.0, 20.0, 3.0, 30.0]).matrix(2, &[1.0, -1.0]).matrix(3, &[1.0; 3]);
    let input: (Slot, &[f32]) = (Hidden, &[1.0, 1.0, 2.0, 0.0, 0.0, 3.0]);
    let linear = |src, dst, weight| Linear { src, dst, weight: MatrixId(weight) };
    let wide = [11.0, 22.0, 33.0, 2.0, 4.0, 6.0, 30.0, 60.0, 90.0];
    assert_eq!(one(linear(Hidden, Query, 0), &tensors, &[input], Query), wide);
    assert_eq!(one(linear(Hidden, Hidden, 1), &tensors, &[input], Hidden), [0.0, 2.0, -3.0]);
    let plan = |all: &[Linear]| -> Vec<Step> {
        all.iter().map(|op| Step { name: "x".to_owned(), op: op.clone().into() }).collect()
    };
    let (q, k, o) = (linear(Hidden, Query, 0), linear(Hidden, Key, 1), linear(Query, Residual, 2));
    assert_eq!(linear::group(&plan(&[q.clone(), k.clone(), o.clone()])), [q.clone(), k.clone()]);
    // What a product writes over its own input, the next one does not read as it was.
    let over = linear(Hidden, Hidden, 1);
    assert_eq!(linear::group(&plan(&[q.clone(), over.clone(), k.clone()])), [q.clone(), over]);
    let mut other = plan(&[q.clone(), k.clone()]);
    other.insert(0, Step { name: "x".to_owned(), op: Scale { slot: Hidden, factor: 1.0 }.into() });
    assert_eq!(linear::group(&other), []);
    assert_eq!(linear::group(&other[1..]), [q, k]);
    assert_eq!(linear::group(&[]), []);
}

/// Of so many elements that they are more than one piece.
#[test]
fn elements_by_themselves() {
    let (x, y): (Vec<f32>, Vec<f32>) =
        (0..3 * 3000u16).map(|i| (f32::from(i) / 1000.0 - 4.0, f32::from(i % 7) - 2.0)).unzip();
    let pairs = || x.iter().copied().zip(y.iter().copied());
    let slots: &[(Slot, &[f32])] = &[(GateSlot, &x), (Up, &y)];
    let none = &Few::default();
    let each = |f: &dyn Fn(f32, f32) -> f32| pairs().map(|(x, y)| f(x, y)).collect::<Vec<_>>();
    assert_eq!(one(Add { src: Up, dst: GateSlot }, none, slots, GateSlot), each(&|x, y| x + y));
    assert_eq!(one(Scale { slot: GateSlot, factor: 0.25 }, none, slots, GateSlot), each(&|x, _| 0.25 * x));
    assert_eq!(one(Gelu { slot: GateSlot }, none, slots, GateSlot), each(&|x, _| gelu(x)));
    assert_eq!(one(Gate(Gating::Relu2), none, slots, GateSlot), each(&|x, y| x.max(0.0) * x.max(0.0) * y));
    assert_eq!(one(Gate(Gating::Silu), none, slots, GateSlot), each(&|x, y| silu(x) * y));
    assert_eq!(one(Gate(Gating::Gelu), none, slots, GateSlot), each(&|x, y| gelu(x) * y));
    assert_eq!(one(Gate(Gating::Gelu), none, slots, Up), y);
}

#[test]
fn parts_of_rows_and_rows_of_parts() {
    let wide: Vec<f32> = (0..12u8).map(f32::from).collect();
    let split = Split { src: Side, parts: [(Query, 1), (Key, 2), (Value, 1)] };
    let shown = |slot| one(split.clone(), &Few::default(), &[(Side, &wide)], slot);
    assert_eq!(shown(Query), [0.0, 4.0, 8.0]);
    assert_eq!(shown(Key), [1.0, 2.0, 5.0, 6.0, 9.0, 10.0]);
    assert_eq!(shown(Value), [3.0, 7.0, 11.0]);
    assert_eq!(shown(Side), wide);
    // Of the first two rows the last is wanted, and the third; what follows sees these at their positions.
    let table = Few::default().matrix(4, &[0.5; 24].map(|v: f32| v));
    let select = SelectRows { slot: Side };
    let kept = run([select.into()], &table, &[(Side, &wide)], &mut nothing(), Side);
    assert_eq!(kept, wide[4..]);
    let rows: Vec<f32> = (0..6u8).flat_map(|i| [f32::from(i) * 10.0; 2]).collect();
    let table = Few::default().matrix(2, &rows);
    let select = SelectRows { slot: Side };
    let moved = run(
        [select.into(), Positions { slot: Side, table: MatrixId(0) }.into()],
        &table,
        &[(Side, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])],
        &mut nothing(),
        Side,
    );
    assert_eq!(moved, [13.0, 14.0, 35.0, 36.0]);
    assert_eq!(Batch { tokens: &TOKENS, spans: &SPANS }.wanted(), 2);
    assert_eq!([0, 1, 2].map(|row| place(&SPANS, row)), [(1, 0), (1, 1), (0, 3)]);
}

/// Wanted rows of longer spans: those in the middle too, and more than there are are all.
#[test]
fn the_last_rows_of_each_span_are_kept() {
    let span = |tokens, position, wanted| Span { sequence: 0, position, tokens, wanted };
    let spans = [span(3, 5, 2), span(2, 1, 0), span(4, 0, 3), span(1, 9, 7)];
    let (tokens, mut work, mut memory, pool) = ([0; 10], Workspace::default(), nothing(), Pool::new(1).unwrap());
    let rows: Vec<f32> = (0..10u8).flat_map(|row| [f32::from(row), -f32::from(row)]).collect();
    work.slots[Side.index()] = rows.as_slice().into();
    let (tensors, kernels) = (Few::default(), bitnet_kernels::by_name("scalar").unwrap());
    let batch = Batch { tokens: &tokens, spans: &spans };
    let mut state = State::new((kernels, &pool), &tensors, &batch, &mut work, &mut memory);
    state.select(Side);
    assert_eq!(state.slot(Side), [1.0, -1.0, 2.0, -2.0, 6.0, -6.0, 7.0, -7.0, 8.0, -8.0, 9.0, -9.0]);
    assert_eq!(state.spans(), [span(2, 6, 2), span(0, 3, 0), span(3, 1, 3), span(1, 9, 7)]);
    assert_eq!(state.rows(), 6);
}

fn rotation(dims: usize) -> RopeSpec {
    RopeSpec { dims, theta: 100.0, factors: None, magnitude: 1.0, beyond: None }
}

#[test]
fn heads_turn_by_their_positions() {
    // A head of four of which two turn, and one that turns whole; position 3 is another row's.
    let input: Vec<f32> = (1..=24u8).map(f32::from).collect();
    for (dims, kind) in [(2, Rope::Norm), (4, Rope::Norm), (2, Rope::Neox), (4, Rope::Neox)] {
        let mut memory = Memory::new(Vec::new(), &[rotation(8), rotation(dims)], 8);
        let op = Rotate { slot: Query, heads: 2, dim: 4, kind, rope: RopeId(1) };
        let found = run([op.into()], &Few::default(), &[(Query, &input)], &mut memory, Query);
        let mut expected = input.clone();
        for (row, position) in [(0, 0.0f64), (1, 1.0), (2, 3.0)] {
            for head in expected[row * 8..(row + 1) * 8].chunks_exact_mut(4) {
                for pair in 0..dims / 2 {
                    let (a, b) = if kind == Rope::Norm { (2 * pair, 2 * pair + 1) } else { (pair, pair + dims / 2) };
                    let (sin, cos) = (position * 100f64.powf(-2.0 * pair as f64 / dims as f64)).sin_cos();
                    let (x, y) = (f64::from(head[a]), f64::from(head[b]));
                    (head[a], head[b]) = ((x * cos - y * sin) as f32, (x * sin + y * cos) as f32);
                }
            }
        }
        near(&found, &expected);
    }
}

#[test]
fn tables_grow_and_scale() {
    let spec = RopeSpec { factors: Some(vec![1.0, 4.0]), magnitude: 1.5, ..rotation(4) };
    let mut table = RopeTable::new(spec.clone());
    table.extend_to(2);
    let first = table.at(1).0.to_vec();
    table.extend_to(1);
    table.extend_to(5);
    assert_eq!(table.at(1).0, first, "what is there stays");
    assert_eq!((table.all().0.len(), table.all().1.len()), (10, 10));
    for position in 0..5 {
        let (cos, sin) = table.at(position);
        let angles = [position as f32, position as f32 / 10.0 / 4.0];
        near(cos, &angles.map(|a| 1.5 * a.cos()));
        near(sin, &angles.map(|a| 1.5 * a.sin()));
        assert_eq!((cos, sin), (&table.all().0[2 * position..][..2], &table.all().1[2 * position..][..2]));
    }
    let long = RopeSpec { beyond: Some((8, vec![2.0, 3.0])), ..spec };
    for (context, factors) in [(7, [1.0, 4.0]), (8, [1.0, 4.0]), (9, [2.0, 3.0])] {
        assert_eq!(long.within(context), RopeSpec { factors: Some(factors.to_vec()), beyond: None, ..long.clone() });
    }
    // A memory knows how long its context is.
    let op = |memory: &mut Memory| {
        let op = Rotate { slot: Query, heads: 1, dim: 4, kind: Rope::Norm, rope: RopeId(0) };
        run([op.into()], &Few::default(), &[(Query, &[1.0; 12])], memory, Query)
    };
    let at = |context| op(&mut Memory::new(Vec::new(), std::slice::from_ref(&long), context));
    assert_ne!(at(8), at(9));
}

/// Four query heads on two, over what earlier steps left: naive attention in f64.
#[test]
fn attention_sees_the_cache_of_its_own_sequence() {
    let (heads, kv_heads, dim, capacity) = (4usize, 2usize, 2usize, 5usize);
    let mut noise = SplitMix64(5);
    let mut values = |n: usize| (0..n).map(|_| (noise.next() * 64.0).round() / 16.0).collect::<Vec<f32>>();
    for window in [None, Some(1), Some(2), Some(3), Some(9)] {
        let cache = || KvCache::new(2, capacity, kv_heads, dim).unwrap();
        let mut memory = Memory::new(vec![cache(), cache()], &[], capacity);
        assert_eq!((cache().capacity(), cache().bytes()), (5, 2 * 2 * 2 * 5 * 2 * 2));
        // Sequence 0 has three positions already; layer 0 holds something else.
        let (old_keys, old_values) = (values(3 * kv_heads * dim), values(3 * kv_heads * dim));
        let kernels = bitnet_kernels::by_name("scalar").unwrap();
        memory.caches[0].append(kernels, 1, 0, &old_keys, &old_values);
        memory.caches[1].append(kernels, 0, 1, &[9.0; 4], &[9.0; 4]);
        let (query, key, value) = (values(3 * heads * dim), values(3 * kv_heads * dim), values(3 * kv_heads * dim));
        let attention = Attention { layer: 1, heads, kv_heads, dim, scale: 0.5, window };
        let slots: &[(Slot, &[f32])] = &[(Query, &query), (Key, &key), (Value, &value)];
        let ops = [CacheAppend { layer: 1 }.into(), attention.into()];
        let found = run(ops, &Few::default(), slots, &mut memory, Query);
        let mut expected = Vec::new();
        for (row, (sequence, position)) in [(1, 0usize), (1, 1), (0, 3)].into_iter().enumerate() {
            // Keys and values of all positions so far, [position][kv_heads * dim].
            let of = |now: &[f32], old: &[f32]| match sequence {
                0 => [old, &now[2 * kv_heads * dim..]].concat(),
                _ => now[..(position + 1) * kv_heads * dim].to_vec(),
            };
            let (keys, values) = (of(&key, &old_keys), of(&value, &old_values));
            let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
            for head in 0..heads {
                let query = &query[(row * heads + head) * dim..][..dim];
                let at = |of: &[f32], t: usize, d: usize| f64::from(of[(t * kv_heads + head / 2) * dim + d]);
                let score = |t: usize| 0.5 * (0..dim).map(|d| f64::from(query[d]) * at(&keys, t, d)).sum::<f64>();
                let shares: Vec<f64> = (first..=position).map(|t| score(t).exp()).collect();
                let sum: f64 = shares.iter().sum();
                expected.extend((0..dim).map(|d| {
                    let seen = shares.iter().zip(first..);
                    (seen.map(|(share, t)| share * at(&values, t, d)).sum::<f64>() / sum) as f32
                }));
            }
        }
        near(&found, &expected);
        // The cache of a head is its positions, one after the other; what was not written is zero.
        let (keys, _) = memory.caches[1].head(1, 1);
        assert_eq!(keys.len(), capacity * dim);
        let floats: Vec<f32> = keys.iter().map(|bits| f16_to_f32(*bits)).collect();
        assert_eq!(floats, [&key[2..4], &key[6..8], &[0.0; 6]].concat());
    }
    assert!(KvCache::new(1, usize::MAX, 2, 2).is_none() && KvCache::new(usize::MAX, 1 << 20, 1, 1).is_none());
}

/// Two of three experts a token, one of which nobody likes.
#[test]
fn experts_give_their_share() {
    let expert = |n: usize| Expert { gate: MatrixId(3 * n), up: MatrixId(3 * n + 1), down: MatrixId(3 * n + 2) };
    let mut tensors = Few::default();
    for n in 0..3u8 {
        let n = f32::from(n);
        tensors = tensors
            .matrix(2, &[1.0 + n, 0.0, 0.0, 1.0, -1.0, 2.0])
            .matrix(2, &[n, 1.0, 1.0, -3.0, 0.5, 0.5])
            .matrix(3, &[1.0, 0.0, 2.0, n, 1.0, -1.0]);
    }
    let experts = Experts { src: Hidden, dst: Side, experts: (0..3).map(expert).collect(), used: 2, limit: 3.0 };
    let input = [1.0, 2.0, -1.0, 0.5, 4.0, -3.0];
    let router = [0.0, 1.0, -9.0, 2.0, 1.0, -9.0, 0.5, 0.25, -9.0];
    for used in [1, 2] {
        let experts = Experts { used, ..experts.clone() };
        let mut expected = Vec::new();
        for (x, p) in input.chunks_exact(2).zip(router.chunks_exact(3)) {
            let mut out = [0.0f32; 2];
            for n in 0..2usize {
                let weight = match used {
                    1 => f32::from(u8::from(p[n] > p[1 - n])),
                    _ => exp(p[n]) / (exp(p[0]) + exp(p[1])),
                };
                let n = n as f32;
                let gate = [(1.0 + n) * x[0], x[1], 2.0 * x[1] - x[0]];
                let up = [n * x[0] + x[1], x[0] - 3.0 * x[1], 0.5 * x[0] + 0.5 * x[1]];
                let h: Vec<f32> = gate.iter().zip(up).map(|(g, u)| silu(g.min(3.0)) * u.clamp(-3.0, 3.0)).collect();
                out[0] += weight * (h[0] + 2.0 * h[2]);
                out[1] += weight * (n * h[0] + h[1] - h[2]);
            }
            expected.extend(out);
        }
        let slots: &[(Slot, &[f32])] = &[(Hidden, &input), (Router, &router)];
        near(&one(experts.clone(), &tensors, slots, Side), &expected);
        near(&one(Experts { dst: Hidden, ..experts.clone() }, &tensors, slots, Hidden), &expected);
        assert_eq!(one(experts, &tensors, slots, Hidden), input, "the input stays");
    }
}
