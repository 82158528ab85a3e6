//! Products of one token: a row is normed, made int8 and multiplied in one launch, with what follows the product.

use super::{Gate, Heads, Launches, Product, RopeTables, Row, Weights, cache_holds, hold, number, rope_kind};
use crate::Rope;
use crate::cuda::device::{Arg, Buffer, CudaError};

/// Threads of a block.
const BLOCK: u32 = 256;
/// The widest row: what a block makes of it, 5 bytes an element, is in shared memory, of which every card has 96 KiB.
const MAX_COLS: usize = 19_584;

/// Lanes that share a row of a matrix, of which a launch multiplies `pairs` pairs. Few have long reads, all of which are on their
/// way at once; where they would leave multiprocessors without work, as many as it takes for the fewest rows one after the other.
/// Not tuned on a card.
fn lanes(pairs: usize, multiprocessors: u32) -> u32 {
    let multiprocessors = multiprocessors.max(1) as usize;
    let blocks = |lanes: u32| pairs.div_ceil((BLOCK / lanes) as usize);
    if blocks(8) >= multiprocessors {
        return 8;
    }
    let in_turn = |&lanes: &u32| blocks(lanes).div_ceil(multiprocessors) * (BLOCK / lanes) as usize;
    // The first of those that are equal.
    [8, 16, 32].into_iter().min_by_key(in_turn).unwrap_or(8)
}

impl Launches {
    /// Whether rows of so many elements are multiplied in one launch, by [`Launches::token_store`] and those beside it.
    pub fn takes_row(cols: usize) -> bool {
        cols.is_multiple_of(128) && cols <= MAX_COLS
    }

    /// The first arguments, and a launch for so many pairs of rows.
    fn token<'a>(
        &self,
        entry: &'static str,
        row: &Row<'a>,
        pairs: usize,
        args: impl IntoIterator<Item = Arg<'a>>,
    ) -> Result<(), CudaError> {
        let Row { x, cols, weight } = *row;
        if pairs == 0 {
            return Ok(());
        }
        if !Self::takes_row(cols) {
            return Err(CudaError::Range { offset: 0, bytes: cols, len: MAX_COLS });
        }
        hold(&[(x, 4 * cols)])?;
        if let Some((weight, _)) = weight {
            hold(&[(weight, 4 * cols)])?;
        }
        let lanes = lanes(pairs, self.device.multiprocessors());
        let mut all = vec![Arg::Buffer(x), weight.map_or(Arg::Null, |(weight, _)| Arg::Buffer(weight))];
        all.extend([Arg::F32(weight.map_or(0.0, |(_, eps)| eps)), number(cols), Arg::U32(lanes.trailing_zeros())]);
        all.extend(args);
        let blocks = self.blocks(pairs.div_ceil((BLOCK / lanes) as usize));
        self.start(entry, [blocks, 1, 1], (BLOCK, 5 * cols), &all)
    }

    /// Products of a row, at most three.
    ///
    /// # Errors
    /// Those of all starts, or a row that is too wide ([`Launches::takes_row`]).
    pub fn token_store(&self, row: &Row<'_>, parts: &[Product<'_>]) -> Result<(), CudaError> {
        let mut args = Vec::with_capacity(12);
        for i in 0..3 {
            match parts.get(i) {
                Some(Product { w, y }) => {
                    hold(&[(w.buffer, w.ternary_bytes(row.cols)), (y, 4 * w.rows)])?;
                    args.extend([Arg::Buffer(w.buffer), number(w.rows), Arg::F32(w.multiplier), Arg::Buffer(y)]);
                }
                None => args.extend([Arg::Null, number(0), Arg::F32(1.0), Arg::Null]),
            }
        }
        let rows: usize = parts.iter().map(|part| part.w.rows).sum();
        self.token("bn_gemv_store", row, rows.div_ceil(2), args)
    }

    /// `y += w x`; y is not x.
    pub fn token_add(&self, row: &Row<'_>, Product { w, y }: Product<'_>) -> Result<(), CudaError> {
        hold(&[(w.buffer, w.ternary_bytes(row.cols)), (y, 4 * w.rows)])?;
        let args = [Arg::Buffer(w.buffer), number(w.rows), Arg::F32(w.multiplier), Arg::Buffer(y)];
        self.token("bn_gemv_add", row, w.rows.div_ceil(2), args)
    }

    /// `y = gate(w x, up x)`; y is not x, and the matrices have as many rows.
    pub fn token_gate(
        &self,
        row: &Row<'_>,
        kind: Gate,
        Product { w, y }: Product<'_>,
        up: Weights<'_>,
    ) -> Result<(), CudaError> {
        let bytes = w.ternary_bytes(row.cols);
        hold(&[(w.buffer, bytes), (up.buffer, bytes), (y, 4 * w.rows)])?;
        let mut args = vec![Arg::U32(kind.number()), Arg::Buffer(w.buffer), Arg::F32(w.multiplier)];
        args.extend([Arg::Buffer(up.buffer), Arg::F32(up.multiplier), number(w.rows), Arg::Buffer(y)]);
        self.token("bn_gemv_gate", row, w.rows, args)
    }

    /// Queries to `q [heads][dim]`, rotated by `position`, a u32 on the device; keys, rotated, and values to a layer's cache.
    pub fn token_rope(
        &self,
        row: &Row<'_>,
        [of_q, of_k, of_v]: [Weights<'_>; 3],
        (kind, rope): (Rope, &RopeTables),
        q: &Buffer,
        (cache, position): ([&Buffer; 2], &Buffer),
        shape: Heads,
    ) -> Result<(), CudaError> {
        let Heads { heads, kv_heads, dim, capacity } = shape;
        let of = |w: Weights<'_>, heads: usize| Weights { rows: heads * dim, ..w }.ternary_bytes(row.cols);
        hold(&[(of_q.buffer, of(of_q, heads)), (of_k.buffer, of(of_k, kv_heads)), (of_v.buffer, of(of_v, kv_heads))])?;
        hold(&[(q, 4 * heads * dim)])?;
        cache_holds(rope, cache, position, shape)?;
        let mut args = Vec::with_capacity(20);
        for w in [of_q, of_k, of_v] {
            args.extend([Arg::Buffer(w.buffer), Arg::F32(w.multiplier)]);
        }
        args.push(rope_kind(kind));
        args.extend([&rope.cos, &rope.sin, position].map(Arg::Buffer));
        args.extend([heads, kv_heads, dim, rope.dims].map(number));
        args.extend([Arg::Buffer(q), Arg::Buffer(cache[0]), Arg::Buffer(cache[1]), number(capacity)]);
        self.token("bn_gemv_rope", row, (heads + 2 * kv_heads) * (dim / 2), args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The matrices of the 2B-4T shape on a card of 132 multiprocessors: q k v, o and down, gate and up.
    #[test]
    fn narrow_products_spread_over_the_card() {
        assert_eq!([1920, 1280, 6912].map(|pairs| lanes(pairs, 132)), [16, 16, 8]);
        assert_eq!([0, 1, 9, 100].map(|pairs| lanes(pairs, 2)), [8, 32, 32, 8]);
    }
}
