//! The product of a [strip](crate::cpu::strips) in tiles.
//!
//! A tile of sums is sixteen tokens by sixteen rows of weights. A tile of activations is sixteen tokens by 64 columns, as they
//! lie in memory; a tile of codes is sixteen registers of a strip, which is the order that the instruction wants of its
//! second operand: four columns of sixteen rows side by side. Four sums at a time, 32 tokens by 32 rows, from two tiles of
//! either: eight tiles in all, four loads for four products.
//!
//! Columns need no remainder, since rows of every ternary format are whole times 64. Fewer tokens are tiles of fewer rows.
//! Weights that are not there are computed and not looked at, as in AVX-512.

use std::ops::Range;

use super::tiles::{Config, ROW, ROWS as TILE, Tiles};
use crate::cpu::strips::{GROUPS, LANES, ROWS, STEP, Sides, Strip, Strips, bytes};
use crate::{Activations, Matrix, OutView};

const _: () = assert!(TILE == LANES && ROW == LANES * STEP && GROUPS == 2);

/// Tokens of two tiles.
pub(super) const PAIR: usize = 2 * TILE;

/// Tokens that share an unpacked strip. A strip meets them four times as fast as in AVX-512, so it is unpacked for four times
/// as many; their activations still fit the 2 MiB of L2 that processors with AMX have. (Reckoned, not measured.)
const TOKENS: usize = 512;

/// Bytes from one register of a strip's group to the next.
const STRIDE: usize = GROUPS * ROW;

/// Sums of up to 32 tokens and 32 rows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[repr(align(64))]
pub(super) struct Sums(pub(super) [[i32; ROWS]; PAIR]);

impl Sums {
    pub(super) const ZERO: Self = Self([[0; ROWS]; PAIR]);
}

/// Tiles 0 to 3: sums, the first tokens' of both groups and the other tokens' of both. 4, 5: activations. 6, 7: codes.
const fn config(tokens: usize) -> Config {
    let first = if tokens < TILE { tokens } else { TILE };
    let config =
        Config::NONE.with(0, first, ROW).with(1, first, ROW).with(4, first, ROW).with(6, TILE, ROW).with(7, TILE, ROW);
    if tokens == first {
        return config;
    }
    config.with(2, tokens - first, ROW).with(3, tokens - first, ROW).with(5, tokens - first, ROW)
}

/// As [`crate::Kernels::matmul`], checked by `check_matmul`, without the matrix's factor.
pub(super) fn matmul(
    tiles: impl Tiles,
    sides: &dyn Sides,
    strips: Strips,
    (w, x): (&Matrix<'_>, &Activations),
    rows: Range<usize>,
    y: &mut OutView<'_>,
) {
    let mut blocks = Blocks::new(tiles);
    strips.matmul(sides, (w, x), rows, y, TOKENS, |strip, mut tokens, rows, scales, y| {
        while !tokens.is_empty() {
            let some = tokens.start..tokens.end.min(tokens.start + PAIR);
            let sums = blocks.sums(strip, rows.len(), x.i8_rows(some.clone()), some.len());
            for (token, sums) in some.clone().zip(&sums.0) {
                sides.finish(sums, &x.i8(token), scales, y.row(token, rows.clone()));
            }
            tokens.start = some.end;
        }
    });
}

/// Tiles, and what they are configured for.
pub(super) struct Blocks<T> {
    tiles: T,
    tokens: usize,
    sums: Sums,
}

impl<T: Tiles> Blocks<T> {
    pub(super) fn new(tiles: T) -> Self {
        Self { tiles, tokens: 0, sums: Sums::ZERO }
    }

    /// `sum(code * q)` of the first `rows` rows of a strip and `tokens` tokens `q`, `[tokens][cols]`, at most [`PAIR`]. What
    /// stands behind these rows and tokens is not specified.
    pub(super) fn sums(&mut self, strip: &Strip, rows: usize, q: &[i8], tokens: usize) -> &Sums {
        let cols = strip.len() * STEP;
        assert!(0 < tokens && tokens <= PAIR && q.len() == tokens * cols, "activations must be [{tokens}][{cols}]");
        assert!(cols.is_multiple_of(ROW), "{cols} columns are not tiles of {ROW}");
        if tokens != self.tokens {
            self.tiles.configure(config(tokens));
            self.tokens = tokens;
        }
        let Self { tiles, sums: Sums(sums), .. } = self;
        let (codes, sums) = (bytes(strip), sums.as_flattened_mut());
        match (tokens > TILE, rows > LANES) {
            (true, true) => product::<_, true, true>(tiles, codes, q, cols, sums),
            (true, false) => product::<_, true, false>(tiles, codes, q, cols, sums),
            (false, true) => product::<_, false, true>(tiles, codes, q, cols, sums),
            (false, false) => product::<_, false, false>(tiles, codes, q, cols, sums),
        }
        &self.sums
    }
}

/// More than sixteen tokens if `MORE`, both groups of rows if `BOTH`.
#[inline]
fn product<T: Tiles, const MORE: bool, const BOTH: bool>(
    tiles: &mut T,
    codes: &[u8],
    q: &[i8],
    cols: usize,
    sums: &mut [i32],
) {
    tiles.zero::<0>();
    if BOTH {
        tiles.zero::<1>();
    }
    if MORE {
        tiles.zero::<2>();
        if BOTH {
            tiles.zero::<3>();
        }
    }
    for (k, codes) in codes.chunks_exact(TILE * STRIDE).enumerate() {
        let q = &q[k * ROW..];
        tiles.load::<4, _>(q, cols);
        tiles.load::<6, _>(codes, STRIDE);
        tiles.dot::<0, 4, 6>();
        if BOTH {
            tiles.load::<7, _>(&codes[ROW..], STRIDE);
            tiles.dot::<1, 4, 7>();
        }
        if MORE {
            tiles.load::<5, _>(&q[TILE * cols..], cols);
            tiles.dot::<2, 5, 6>();
            if BOTH {
                tiles.dot::<3, 5, 7>();
            }
        }
    }
    tiles.store::<0>(sums, ROWS);
    if BOTH {
        tiles.store::<1>(&mut sums[LANES..], ROWS);
    }
    if MORE {
        let sums = &mut sums[TILE * ROWS..];
        tiles.store::<2>(sums, ROWS);
        if BOTH {
            tiles.store::<3>(&mut sums[LANES..], ROWS);
        }
    }
}
