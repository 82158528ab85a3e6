//! Attention: every split over the context, for one token and for many, in the canonical order.

use bitnet_kernels::cuda::emu::{Arg, EmuError};
use bitnet_kernels::numerics::{PV_CHUNK, f32_to_f16};

use super::common::{Random, assert_bits};
use super::{How, of, room, scalar};

/// A cache with some tokens at its end.
pub(crate) struct Case {
    dim: usize,
    heads: usize,
    kv_heads: usize,
    capacity: usize,
    start: usize,
    tokens: usize,
    q: Vec<f32>,
    keys: Vec<u16>,
    values: Vec<u16>,
}

impl Case {
    pub(crate) fn new(
        (dim, heads, kv_heads): (usize, usize, usize),
        (start, tokens, capacity): (usize, usize, usize),
        r: &mut Random,
    ) -> Self {
        let mut halves = |n: usize| -> Vec<u16> { (0..n).map(|_| f32_to_f16(r.unit() * 4.0)).collect() };
        let cached = kv_heads * capacity * dim;
        let (keys, values) = (halves(cached), halves(cached));
        Self { dim, heads, kv_heads, capacity, start, tokens, q: r.floats(tokens * heads * dim, 3.0), keys, values }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }

    pub(crate) fn want(&self) -> Vec<f32> {
        let (dim, group) = (self.dim, self.heads / self.kv_heads);
        let mut out = vec![0.0; self.q.len()];
        let mut scratch = vec![0.0; self.capacity];
        for t in 0..self.tokens {
            for h in 0..self.heads {
                let head = (t * self.heads + h) * dim..(t * self.heads + h + 1) * dim;
                let cached = h / group * self.capacity * dim..(h / group + 1) * self.capacity * dim;
                scalar().attention(
                    &self.q[head.clone()],
                    &self.keys[cached.clone()],
                    &self.values[cached],
                    dim,
                    self.start + t + 1,
                    self.scale(),
                    &mut scratch,
                    &mut out[head],
                );
            }
        }
        out
    }

    /// Two launches with tiles of `tile` rows; the second with `skip` of `how`, or the first if `first`, and then what it
    /// leaves to the second comes behind the result.
    pub(crate) fn run(&self, tile: usize, how: How, first: bool) -> Result<Vec<f32>, EmuError> {
        let rows = self.tokens * self.heads;
        let chunks = self.capacity.div_ceil(PV_CHUNK);
        let tiles = (rows / self.kv_heads).div_ceil(tile);
        let (q, keys, values) = (of(&self.q), of(&self.keys), of(&self.values));
        let (position, done) = (of(&[self.start as u32]), of(&vec![0u32; self.kv_heads * tiles]));
        let (scores, maxima) = (room::<f32>(rows * self.capacity), room::<f32>(rows * chunks));
        let partial = room::<f32>(rows * chunks * self.dim);
        let shape = [self.tokens, self.heads, self.kv_heads, self.dim, self.capacity].map(|n| Arg::U32(n as u32));
        let mut args = vec![Arg::Buffer(&q), Arg::Buffer(&keys), Arg::Buffer(&position)];
        args.extend(shape);
        args.extend([Arg::F32(self.scale()), Arg::Buffer(&scores), Arg::Buffer(&maxima)]);
        let shared = PV_CHUNK * (2 * self.dim + 16) + tile * self.dim * 4;
        let other = |skipping: bool| How { skip: if skipping { how.skip } else { 0 }, ..how };
        other(first).run(&format!("bn_attention_scores_{tile}"), shared, &args)?;
        let mut args = vec![Arg::Buffer(&values), Arg::Buffer(&position)];
        args.extend(shape);
        // The result replaces the queries, as in a session.
        args.extend([&scores, &maxima, &partial, &done, &q].map(Arg::Buffer));
        other(!first).run(&format!("bn_attention_values_{tile}"), PV_CHUNK * (2 * self.dim + 4 * tile), &args)?;
        assert!(done.read::<u32>().iter().all(|&n| n == 0), "the counts are left at zero for the next launch");
        let mut out = q.read();
        if first {
            out.extend(maxima.read::<f32>());
        }
        Ok(out)
    }
}

fn check(case: &Case, tile: usize, hows: &[How]) {
    let want = case.want();
    for &how in hows {
        let what = format!(
            "dim {}, heads {}/{}, {} tokens from {}, tile {tile}, {how:?}",
            case.dim, case.heads, case.kv_heads, case.tokens, case.start
        );
        assert_bits(&case.run(tile, how, false).unwrap(), &want, &what);
    }
}

/// Decode: one token over contexts around every boundary of lanes and chunks.
#[test]
fn one_token() {
    let mut r = Random::new(20);
    for (i, n) in [1, 2, 63, 64, 65, 127, 128, 129, 200, 256, 257, 383, 511, 600].into_iter().enumerate() {
        let shape = [(64, 4, 1), (128, 4, 1), (128, 6, 2), (64, 3, 3), (128, 8, 1)][i % 5];
        // A grid for the whole capacity, as a graph has, and smaller ones.
        let case = Case::new(shape, (n - 1, 1, 640), &mut r);
        let (kv, order) = (shape.2 as u32, i as u32 % 3);
        check(&case, 4, &[How::new([5, 2, kv], 256, order), How::new([1, 1, 1], 256, 1)]);
        check(&case, 16, &[How::new([2, 1, kv], 256, 2)]);
    }
}

/// Prompts: rows of a tile see contexts of different lengths, some of them not a single position of the last chunk.
#[test]
fn many_tokens() {
    let mut r = Random::new(21);
    for (shape, span) in [
        ((64, 4, 1), (0, 3, 64)),
        ((128, 4, 2), (120, 13, 200)),
        ((64, 2, 2), (0, 150, 150)),
        ((128, 5, 1), (250, 11, 300)),
        ((128, 3, 1), (0, 1, 1)),
    ] {
        let case = Case::new(shape, span, &mut r);
        check(&case, 16, &[How::new([2, 4, 1], 256, 0), How::new([1, 1, 1], 256, 1), How::new([3, 2, 2], 256, 9)]);
        check(&case, 4, &[How::new([2, 3, 1], 256, 1)]);
    }
}

/// Heads of other widths, and more teams than rows.
#[test]
fn other_dimensions() {
    let mut r = Random::new(22);
    for dim in [8, 16, 32, 72, 80, 96, 192, 256] {
        let case = Case::new((dim, 4, 2), (130, 2, 140), &mut r);
        check(&case, 4, &[How::new([2, 1, 2], 256, 0)]);
        check(&case, 16, &[How::new([1, 1, 1], 256, 1)]);
    }
}

/// Scores that overflow, NaN in the cache, scores of minus infinity: what the oracle makes of them.
#[test]
fn values_that_are_no_numbers() {
    let mut r = Random::new(23);
    for special in [0x7e00_u16, 0x7c00, 0xfc00] {
        for place in 0..3 {
            let mut case = Case::new((64, 4, 1), (170, 1, 192), &mut r);
            match place {
                0 => case.keys[140 * 64 + 3] = special,
                1 => case.values[3 * 64 + 5] = special,
                _ => case.q.fill(f32::MAX),
            }
            check(&case, 4, &[How::new([2, 1, 1], 256, 0)]);
        }
    }
}
