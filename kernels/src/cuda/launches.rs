//! The entries of [`super`] as functions: grids that suit the device, and arguments that are checked against the buffers, so
//! that whoever calls them needs no `unsafe`.

mod args;
mod token;

pub use args::{AttentionScratch, Gate, Heads, Input, Int8, Norm, Product, RopeTables, Row, Rows, Weights};

use super::device::{Arg, Buffer, CudaError, Device, Launch, start};
use crate::Rope;
use crate::numerics::PV_CHUNK;
use std::sync::Arc;

/// Blocks for each multiprocessor, where threads step over the work by themselves.
const WAVES: u32 = 8;

/// Starts kernels on a device. Each start fails where a buffer is too small, or the device refuses.
#[derive(Debug, Clone)]
pub struct Launches {
    device: Arc<dyn Device>,
}

fn number(n: usize) -> Arg<'static> {
    // Shapes of models are far below; a larger one is refused by the checks of sizes, and on the device reads nothing.
    Arg::U32(u32::try_from(n).unwrap_or(0))
}

fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Whole warps, no fewer than `least` threads and no more than `most`.
fn threads(wanted: usize, least: u32, most: u32) -> u32 {
    small(wanted.next_multiple_of(32)).clamp(least, most)
}

pub(super) fn holds(buffer: &Buffer, offset: usize, bytes: usize) -> Result<(), CudaError> {
    match offset.checked_add(bytes) {
        Some(end) if end <= buffer.bytes() => Ok(()),
        _ => Err(CudaError::Range { offset, bytes, len: buffer.bytes() }),
    }
}

fn rows_hold(rows: Rows<'_>, n: usize) -> Result<(), CudaError> {
    holds(rows.buffer, 4 * rows.from, 4 * n)
}

fn hold(list: &[(&Buffer, usize)]) -> Result<(), CudaError> {
    list.iter().try_for_each(|&(buffer, bytes)| holds(buffer, 0, bytes))
}

/// Tables, a layer's cache and the position, as what rotates and appends needs them.
fn cache_holds(
    rope: &RopeTables,
    [keys, values]: [&Buffer; 2],
    position: &Buffer,
    shape: Heads,
) -> Result<(), CudaError> {
    let (table, half) = (4 * shape.capacity * (rope.dims / 2), 2 * shape.cache_len());
    hold(&[(&rope.cos, table), (&rope.sin, table), (position, 4), (keys, half), (values, half)])
}

fn rope_kind(kind: Rope) -> Arg<'static> {
    Arg::U32(match kind {
        Rope::Neox => 0,
        Rope::Norm => 1,
    })
}

impl Launches {
    /// Of a device.
    pub fn new(device: &Arc<dyn Device>) -> Self {
        Self { device: Arc::clone(device) }
    }

    /// The device.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// The caller has checked the arguments.
    fn start(
        &self,
        entry: &'static str,
        grid: [u32; 3],
        (block, shared): (u32, usize),
        args: &[Arg<'_>],
    ) -> Result<(), CudaError> {
        let launch = Launch { entry, grid, block, shared: small(shared) };
        // SAFETY: every function below gives an entry the arguments of the table in `super`, after it has compared the sizes
        // that they say with the buffers.
        unsafe { start(&*self.device, &launch, args) }
    }

    /// Blocks for so many pieces of work.
    fn blocks(&self, pieces: usize) -> u32 {
        small(pieces).clamp(1, (WAVES * self.device.multiprocessors()).max(1))
    }

    /// `x [n][cols] = table[tokens[i]]`, the table f16 `[vocab][cols]`, the tokens u32 from some element of a buffer on.
    pub fn embed(
        &self,
        table: &Buffer,
        (vocab, cols, multiplier): (usize, usize, f32),
        (tokens, from): (&Buffer, usize),
        n: usize,
        x: &Buffer,
    ) -> Result<(), CudaError> {
        hold(&[(table, 2 * vocab * cols), (x, 4 * n * cols)])?;
        holds(tokens, 4 * from, 4 * n)?;
        let args = [
            Arg::Buffer(table),
            Arg::At(tokens, 4 * from),
            Arg::Buffer(x),
            number(n),
            number(cols),
            number(vocab),
            Arg::F32(multiplier),
        ];
        self.start("bn_embed_f16", [self.blocks((n * cols).div_ceil(256)), 1, 1], (256, 0), &args)
    }

    /// `x += y`, both `[n]`.
    pub fn add(&self, x: Rows<'_>, y: Rows<'_>, n: usize) -> Result<(), CudaError> {
        rows_hold(x, n)?;
        rows_hold(y, n)?;
        self.start("bn_add", [self.blocks(n.div_ceil(256)), 1, 1], (256, 0), &[x.arg(), y.arg(), Arg::U64(n as u64)])
    }

    /// Gates `gate [n]` with `up [n]` in place.
    pub fn gate(&self, kind: Gate, gate: &Buffer, up: &Buffer, n: usize) -> Result<(), CudaError> {
        hold(&[(gate, 4 * n), (up, 4 * n)])?;
        let args = [Arg::U32(kind.number()), Arg::Buffer(gate), Arg::Buffer(up), Arg::U64(n as u64)];
        self.start("bn_gate", [self.blocks(n.div_ceil(256)), 1, 1], (256, 0), &args)
    }

    /// Rows by `norm`, `[tokens][cols]`.
    pub fn norm(&self, norm: &Norm<'_>, tokens: usize, cols: usize) -> Result<(), CudaError> {
        let n = tokens * cols;
        if !cols.is_multiple_of(4) {
            return Err(CudaError::Range { offset: 0, bytes: n, len: tokens * (cols / 4 * 4) });
        }
        let (input, y) = match norm.input {
            Input::Plain => (0, None),
            Input::Sum(y) => (1, Some(y)),
            Input::Gate(gate, y) => (2 + gate.number(), Some(y)),
        };
        for rows in [Some(norm.x), y, norm.values].into_iter().flatten() {
            rows_hold(rows, n)?;
        }
        if let Some((weight, _)) = norm.weight {
            hold(&[(weight, 4 * cols)])?;
        }
        let mut args = vec![Arg::U32(input), norm.x.arg(), y.unwrap_or(norm.x).arg()];
        args.push(norm.weight.map_or(Arg::Null, |(weight, _)| Arg::Buffer(weight)));
        args.extend([Arg::F32(norm.weight.map_or(0.0, |(_, eps)| eps)), number(tokens), number(cols)]);
        args.push(norm.values.map_or(Arg::Null, Rows::arg));
        match norm.int8 {
            Some(Int8 { q, scale, isum }) => {
                hold(&[(q, n), (scale, 4 * tokens), (isum, 4 * tokens)])?;
                args.extend([q, scale, isum].map(Arg::Buffer));
            }
            None => args.extend([Arg::Null; 3]),
        }
        let wide = if tokens == 1 { 512 } else { 256 };
        self.start("bn_norm_quant", [small(tokens), 1, 1], (threads(cols / 4, 64, wide), 4 * cols), &args)
    }

    /// Products of I2_S matrices with the same int8 rows `[tokens][cols]`, on the tensor cores.
    pub fn ternary(&self, parts: &[Product<'_>], x: &Int8, tokens: usize, cols: usize) -> Result<(), CudaError> {
        hold(&[(&x.q, tokens * cols), (&x.scale, 4 * tokens), (&x.isum, 4 * tokens)])?;
        for Product { w, y } in parts {
            hold(&[(w.buffer, w.ternary_bytes(cols)), (y, 4 * tokens * w.rows)])?;
            let mut args = vec![Arg::Buffer(w.buffer), number(w.rows), number(cols), Arg::F32(w.multiplier)];
            args.extend([&x.q, &x.scale, &x.isum].map(Arg::Buffer));
            args.extend([number(tokens), Arg::Buffer(y)]);
            let grid = [small(w.rows.div_ceil(128)), small(tokens.div_ceil(64)), 1];
            self.start("bn_gemm_i2s", grid, (256, 0), &args)?;
        }
        Ok(())
    }

    /// The product of an f16 matrix with f32 rows `x [tokens][cols]`. `best`, `u64 [tokens]` of zeros, gets each token's largest
    /// result as a key (see [`token_of`]).
    pub fn dense(
        &self,
        part: &Product<'_>,
        x: Rows<'_>,
        (tokens, cols): (usize, usize),
        best: Option<&Buffer>,
    ) -> Result<(), CudaError> {
        let Product { w, y } = part;
        hold(&[(w.buffer, 2 * w.rows * cols), (y, 4 * tokens * w.rows)])?;
        rows_hold(x, tokens * cols)?;
        if let Some(best) = best {
            hold(&[(best, 8 * tokens)])?;
        }
        let mut args = vec![Arg::Buffer(w.buffer), number(w.rows), number(cols), Arg::F32(w.multiplier), x.arg()];
        args.extend([number(tokens), Arg::Buffer(y), best.map_or(Arg::Null, Arg::Buffer)]);
        let grid = [self.blocks(w.rows.div_ceil(64)), small(tokens).min(u32::from(u16::MAX)), 1];
        self.start("bn_head_f16", grid, (256, 4 * cols.next_multiple_of(64)), &args)
    }

    /// Rotates `q [tokens][heads][dim]` and `k [tokens][kv_heads][dim]` in place and appends k and v to a layer's cache, from
    /// `position`, a u32 on the device, on.
    pub fn rope_append(
        &self,
        (kind, rope): (Rope, &RopeTables),
        [q, k, v]: [&Buffer; 3],
        [keys, values]: [&Buffer; 2],
        (position, tokens): (&Buffer, usize),
        shape: Heads,
    ) -> Result<(), CudaError> {
        let Heads { heads, kv_heads, dim, capacity } = shape;
        hold(&[(q, 4 * tokens * heads * dim), (k, 4 * tokens * kv_heads * dim), (v, 4 * tokens * kv_heads * dim)])?;
        cache_holds(rope, [keys, values], position, shape)?;
        let mut args = vec![rope_kind(kind)];
        args.extend([q, k, v, &rope.cos, &rope.sin, position].map(Arg::Buffer));
        args.extend([tokens, heads, kv_heads, dim, rope.dims].map(number));
        args.extend([Arg::Buffer(keys), Arg::Buffer(values), number(capacity)]);
        let block = if dim > 64 { 64 } else { 32 };
        self.start("bn_rope_append", [small(tokens * (heads + 2 * kv_heads)), 1, 1], (block, 0), &args)
    }

    /// Causal attention of `q [tokens][heads][dim]` over a layer's cache; the result replaces the queries.
    pub fn attention(
        &self,
        q: &Buffer,
        [keys, values]: [&Buffer; 2],
        (position, tokens): (&Buffer, usize),
        shape: Heads,
        scratch: &AttentionScratch,
    ) -> Result<(), CudaError> {
        let Heads { heads, kv_heads, dim, capacity } = shape;
        let (rows, (tile, tiles)) = (tokens * heads, shape.tiles(tokens));
        let AttentionScratch { scores, maxima, partial, done } = scratch;
        hold(&[(q, 4 * rows * dim), (position, 4)])?;
        hold(&[(keys, 2 * shape.cache_len()), (values, 2 * shape.cache_len())])?;
        hold(&[(scores, 4 * rows * capacity), (maxima, 4 * rows * shape.chunks())])?;
        hold(&[(partial, 4 * rows * shape.chunks() * dim), (done, 4 * kv_heads * tiles)])?;
        let (first, second) = match tile {
            4 => ("bn_attention_scores_4", "bn_attention_values_4"),
            _ => ("bn_attention_scores_16", "bn_attention_values_16"),
        };
        let grid = [small(shape.chunks()), small(tiles).min(u32::from(u16::MAX)), small(kv_heads)];
        let sizes = [tokens, heads, kv_heads, dim, capacity].map(number);
        let mut args = [q, keys, position].map(Arg::Buffer).to_vec();
        args.extend(sizes);
        args.extend([Arg::F32(1.0 / (dim as f32).sqrt()), Arg::Buffer(scores), Arg::Buffer(maxima)]);
        self.start(first, grid, (256, PV_CHUNK * (2 * dim + 16) + 4 * dim * tile), &args)?;
        let mut args = [values, position].map(Arg::Buffer).to_vec();
        args.extend(sizes);
        args.extend([scores, maxima, partial, done, q].map(Arg::Buffer));
        self.start(second, grid, (256, PV_CHUNK * (2 * dim + 4 * tile)), &args)
    }

    /// The token of the key becomes the device's next input: `input` is `u32 [position, ..., token]`, the token at element
    /// `at`; the position advances, `history`, u32, gets the token at its new position, and the key is zero again.
    pub fn next(&self, best: &Buffer, (input, at): (&Buffer, usize), history: &Buffer) -> Result<(), CudaError> {
        hold(&[(best, 8), (input, 4)])?;
        holds(input, 4 * at, 4)?;
        let args = [
            Arg::Buffer(best),
            Arg::At(input, 4 * at),
            Arg::Buffer(input),
            Arg::Buffer(history),
            number(history.bytes() / 4),
        ];
        self.start("bn_next", [1, 1, 1], (32, 0), &args)
    }
}

/// The row and the value of a key: that of the largest logit, the lower row on a tie; `None` if nothing could win (NaN and minus
/// infinity never do).
pub fn token_of(key: u64) -> Option<(u32, f32)> {
    let bits = (key >> 32) as u32;
    let bits = if bits >> 31 == 0 { !bits } else { bits & 0x7fff_ffff };
    (key != 0).then_some((!(key as u32), f32::from_bits(bits)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `key_of` of `head.cu` makes them.
    #[test]
    fn keys_go_back_to_rows_and_values() {
        for value in [0.0f32, 1.5, -1.5, f32::MAX, f32::MIN, f32::MIN_POSITIVE, -1e-40] {
            let bits = value.to_bits();
            let bits = if bits >> 31 == 1 { !bits } else { bits | 0x8000_0000 };
            let key = u64::from(bits) << 32 | u64::from(!77u32);
            assert_eq!(token_of(key), Some((77, value)));
        }
        assert_eq!(token_of(0), None);
    }
}
