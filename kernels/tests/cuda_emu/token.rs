//! Products of one token with the norm before them and what follows: `bn_gemv_*`.

use bitnet_kernels::cuda::emu::{Arg, Buffer, EmuError};
use bitnet_kernels::quant::i2_s;
use bitnet_kernels::{ActKind, Activations, Matrix, Rope};

use super::common::{FILLS, Random, assert_bits, matmul, matrix, prepared, values};
use super::{How, assert_halves, hows, of, room, scalar};

const EPS: f32 = 1e-5;

/// A row, as the device takes it and as the oracle does.
pub(crate) struct Row {
    pub(crate) x: Vec<f32>,
    pub(crate) weight: Option<Vec<f32>>,
    host: Activations,
}

impl Row {
    pub(crate) fn new(x: Vec<f32>, weight: Option<Vec<f32>>) -> Self {
        let mut row = x.clone();
        if let Some(weight) = &weight {
            scalar().rms_norm(&x, weight, EPS, &mut row);
        }
        let host = prepared(scalar(), ActKind::I8, &row, 1);
        Self { x, weight, host }
    }

    pub(crate) fn random(cols: usize, r: &mut Random) -> Self {
        let weight = (r.below(3) > 0).then(|| r.floats(cols, 0.05));
        Self::new(values(cols, r), weight)
    }

    fn cols(&self) -> usize {
        self.x.len()
    }

    fn product(&self, w: &Ternary) -> Vec<f32> {
        let m = Matrix::new(&i2_s::FORMAT, w.rows, self.cols(), &w.bytes).unwrap().times(w.multiplier);
        matmul(scalar(), &m, &self.host)
    }

    /// A launch with `rest` behind the row's own arguments.
    fn run(&self, entry: &str, how: (How, u32), rest: &[Arg<'_>]) -> Result<(), EmuError> {
        self.run_with(entry, how, 5 * self.cols(), rest)
    }

    /// With so much shared memory.
    pub(crate) fn run_with(
        &self,
        entry: &str,
        (how, lanes): (How, u32),
        shared: usize,
        rest: &[Arg<'_>],
    ) -> Result<(), EmuError> {
        let (x, weight) = (of(&self.x), self.weight.as_ref().map(|w| of(w)));
        let mut args = vec![Arg::Buffer(&x), weight.as_ref().map_or(Arg::Null, Arg::Buffer), Arg::F32(EPS)];
        args.extend([Arg::U32(self.cols() as u32), Arg::U32(lanes.trailing_zeros())]);
        args.extend(rest);
        how.run(entry, shared, &args)
    }
}

/// A matrix with its factor.
pub(crate) struct Ternary {
    bytes: Vec<u8>,
    rows: usize,
    multiplier: f32,
    device: Buffer,
}

impl Ternary {
    pub(crate) fn new(rows: usize, cols: usize, r: &mut Random) -> Self {
        let bytes = matrix(&i2_s::FORMAT, rows, cols, FILLS[r.below(FILLS.len())], r);
        Self { rows, multiplier: [1.0, 0.3][r.below(2)], device: of(&bytes), bytes }
    }

    fn args(&self) -> [Arg<'_>; 2] {
        [Arg::Buffer(&self.device), Arg::F32(self.multiplier)]
    }
}

pub(crate) fn store(how: (How, u32), row: &Row, parts: &[Ternary]) -> Result<Vec<Vec<f32>>, EmuError> {
    let out: Vec<Buffer> = parts.iter().map(|part| room::<f32>(part.rows)).collect();
    let mut rest = Vec::new();
    for (part, y) in parts.iter().zip(&out) {
        let [w, multiplier] = part.args();
        rest.extend([w, Arg::U32(part.rows as u32), multiplier, Arg::Buffer(y)]);
    }
    for _ in parts.len()..3 {
        rest.extend([Arg::Null, Arg::U32(0), Arg::F32(1.0), Arg::Null]);
    }
    row.run("bn_gemv_store", how, &rest)?;
    Ok(out.iter().map(Buffer::read).collect())
}

fn add(how: (How, u32), row: &Row, part: &Ternary, y: &[f32]) -> Result<Vec<f32>, EmuError> {
    let y = of(y);
    let [w, multiplier] = part.args();
    row.run("bn_gemv_add", how, &[w, Arg::U32(part.rows as u32), multiplier, Arg::Buffer(&y)])?;
    Ok(y.read())
}

fn gate(how: (How, u32), row: &Row, kind: u32, [gate, up]: [&Ternary; 2]) -> Result<Vec<f32>, EmuError> {
    let y = room::<f32>(gate.rows);
    let mut rest = vec![Arg::U32(kind)];
    rest.extend(gate.args().into_iter().chain(up.args()));
    rest.extend([Arg::U32(gate.rows as u32), Arg::Buffer(&y)]);
    row.run("bn_gemv_gate", how, &rest)?;
    Ok(y.read())
}

/// Grids, blocks and lanes: few teams with many turns, and teams that are over.
fn shapes() -> impl Iterator<Item = (How, u32)> {
    let lanes = [8, 16, 32].into_iter().cycle();
    hows(&[[1, 1, 1], [3, 1, 1], [20, 1, 1]], &[64, 256]).zip(lanes)
}

#[test]
fn products_of_a_row() {
    let mut r = Random::new(10);
    for cols in [128, 256, 640, 1408, 2560, 6912] {
        for (i, rows) in [&[1][..], &[7, 2, 5], &[33, 64]].into_iter().enumerate() {
            let row = Row::random(cols, &mut r);
            let parts: Vec<_> = rows.iter().map(|&rows| Ternary::new(rows, cols, &mut r)).collect();
            let residual = values(rows[0], &mut r);
            for (how, lanes) in shapes().skip(i).step_by(4) {
                let what = format!("{cols} columns, rows {rows:?}, {lanes} lanes, {how:?}");
                for (got, part) in store((how, lanes), &row, &parts).unwrap().iter().zip(&parts) {
                    assert_bits(got, &row.product(part), &what);
                }
                let mut want = residual.clone();
                scalar().add(&mut want, &row.product(&parts[0]));
                assert_bits(&add((how, lanes), &row, &parts[0], &residual).unwrap(), &want, &what);
            }
        }
    }
}

#[test]
fn gated_products() {
    let mut r = Random::new(13);
    for (cols, rows) in [(128, 1), (256, 70), (2560, 9)] {
        let row = Row::random(cols, &mut r);
        let [g, up] = [(); 2].map(|()| Ternary::new(rows, cols, &mut r));
        for (how, lanes) in shapes().step_by(2) {
            for kind in [0, 1] {
                let mut want = row.product(&g);
                match kind {
                    0 => scalar().relu2_gate(&mut want, &row.product(&up)),
                    _ => scalar().silu_gate(&mut want, &row.product(&up)),
                }
                let got = gate((how, lanes), &row, kind, [&g, &up]).unwrap();
                assert_bits(&got, &want, &format_args!("{cols} columns, {rows} rows, {kind}, {lanes} lanes, {how:?}"));
            }
        }
    }
}

/// Heads and a cache for `bn_gemv_rope`.
struct Turned {
    row: Row,
    /// Queries, keys, values.
    of: [Ternary; 3],
    dim: usize,
    n_rot: usize,
    at: usize,
    capacity: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

type Rotated = (Vec<f32>, [Vec<u16>; 2]);

impl Turned {
    /// `(dim, n_rot)`, `(heads, kv_heads)`, `(at, capacity)`.
    fn new(
        cols: usize,
        (dim, n_rot): (usize, usize),
        heads: (usize, usize),
        (at, capacity): (usize, usize),
        r: &mut Random,
    ) -> Self {
        let of = [heads.0, heads.1, heads.1].map(|heads| Ternary::new(heads * dim, cols, r));
        let [cos, sin] = [(); 2].map(|()| r.floats(capacity * n_rot / 2, 1.0));
        Self { row: Row::random(cols, r), of, dim, n_rot, at, capacity, cos, sin }
    }

    fn heads(&self, i: usize) -> usize {
        self.of[i].rows / self.dim
    }

    fn run(&self, how: (How, u32), kind: u32) -> Result<Rotated, EmuError> {
        let q = room::<f32>(self.of[0].rows);
        let cache = [(); 2].map(|()| of(&vec![0xffff_u16; self.of[1].rows * self.capacity]));
        let (cos, sin, position) = (of(&self.cos), of(&self.sin), of(&[self.at as u32]));
        let mut rest: Vec<_> = self.of.iter().flat_map(Ternary::args).collect();
        rest.push(Arg::U32(kind));
        rest.extend([&cos, &sin, &position].map(Arg::Buffer));
        rest.extend([self.heads(0), self.heads(1), self.dim, self.n_rot].map(|n| Arg::U32(n as u32)));
        rest.extend([&q, &cache[0], &cache[1]].map(Arg::Buffer));
        rest.push(Arg::U32(self.capacity as u32));
        self.row.run("bn_gemv_rope", how, &rest)?;
        Ok((q.read(), cache.map(|c| c.read())))
    }

    fn want(&self, kind: Rope) -> Rotated {
        let mut cache = [(); 2].map(|()| vec![0xffff_u16; self.of[1].rows * self.capacity]);
        let [mut q, mut k, v] = [0, 1, 2].map(|i| self.row.product(&self.of[i]));
        let pairs = self.n_rot / 2;
        let table = self.at * pairs..(self.at + 1) * pairs;
        for head in q.chunks_mut(self.dim).chain(k.chunks_mut(self.dim)) {
            scalar().rope(kind, head, &self.cos[table.clone()], &self.sin[table.clone()]);
        }
        for (new, cache) in [k, v].iter().zip(&mut cache) {
            for (head, new) in new.chunks(self.dim).enumerate() {
                let to = (head * self.capacity + self.at) * self.dim;
                scalar().f32_to_f16(new, &mut cache[to..to + self.dim]);
            }
        }
        (q, cache)
    }
}

#[test]
fn rotated_products_and_the_cache() {
    let mut r = Random::new(14);
    for (cols, dims, heads, at) in [
        (128, (64, 64), (4, 1), (0, 3)),
        (256, (128, 96), (2, 2), (6, 8)),
        (640, (32, 32), (5, 1), (2, 3)),
        (128, (8, 0), (1, 1), (0, 1)),
    ] {
        let turned = Turned::new(cols, dims, heads, at, &mut r);
        for (how, lanes) in shapes().step_by(2) {
            for (kind, rope) in [(0, Rope::Neox), (1, Rope::Norm)] {
                let (q, [keys, vals]) = turned.run((how, lanes), kind).unwrap();
                let (want, [want_keys, want_vals]) = turned.want(rope);
                let what = format!("{cols} columns, {dims:?}, {heads:?}, {rope:?}, {lanes} lanes, {how:?}");
                assert_bits(&q, &want, &what);
                assert_halves(&keys, &want_keys, &what);
                assert_halves(&vals, &want_vals, &what);
            }
        }
    }
    // Behind the last position of the cache nothing is written.
    let full = Turned::new(128, (64, 64), (1, 1), (3, 3), &mut r);
    let (_, cache) = full.run((How::new([1, 1, 1], 64, 0), 8), 0).unwrap();
    assert!(cache.iter().flatten().all(|&h| h == 0xffff));
}
