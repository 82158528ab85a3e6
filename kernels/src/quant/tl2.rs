//! TL2 (ggml type 39 of bitnet.cpp, for x86): ternary weights in threes, five bits each, and one f32 scale for the matrix.
//! (Today's llama.cpp has MXFP4 under this number.)
//!
//! ```text
//! three (a, b, c), each -1, 0, +1:  |9 a + 3 b + c|, 0 ... 13, in a nibble; 1 in a plane of signs if it is below 0
//! pair (a, b):                      3 a + b + 4, 0 ... 8, in a nibble
//!
//! the columns that fill tiles of BK are stored in threes, the rest (a multiple of 32, less than BK) in pairs
//!
//! 1  threes, columns * rows / 6 bytes:
//!     tile of BM rows            from above
//!       tile of BK columns       from the left
//!         32 rows                from above
//!           6 columns            from the left: 32 bytes, the first three of columns in bits 7-4, the second in 3-0;
//!                                rows 0-7, 16-23, 8-15, 24-31
//! 2  signs, columns * rows / 24 bytes:
//!     the same tiles and 32 rows
//!           24 columns           from the left: 16 u16 little-endian; number j, bit 15 - 2 t: three t (0 ... 7) of row j,
//!                                bit 14 - 2 t: three t of row 16 + j
//! 3  pairs, rest * rows / 4 bytes: as 1 with tiles of 32 columns and 4 columns to 32 bytes
//! 4  zeros up to P = (cols - 256) * rows / 3 * 5 / 8 + 256 * rows / 2 * 4 / 8, rounded up to 32
//! 5  | scale, f32 little-endian | 28 bytes of zero |
//! ```
//!
//! P is what bitnet.cpp reserves for any shape; it has room for the largest rest. The scale lies behind it as in
//! [`super::tl1`]. How tiles are chosen, and what happens at load: [`super::tiled`].
//!
//! Source: bitnet.cpp's converter and its `codegen_tl2.py`.

use super::tiled::{Rows, Shape, Tile, Tiled, check_shape, check_size, preset, tile_rows};
use super::{I2S_TRAILER, Packed, QuantError};

/// The format.
pub static FORMAT: Tiled = Tiled {
    name: NAME,
    ggml_type: 39,
    file_type: Some(39),
    matrix_bytes,
    preset: |rows, cols| preset(SHAPES, rows, cols).is_some(),
    pack,
    unpack,
};

const NAME: &str = "tl2";
/// Rows of a group, always.
const GROUP: usize = 32;

const fn shape(rows: usize, cols: usize, tile_rows: usize, tile_cols: usize) -> Shape {
    Shape { rows, cols, tile: Tile { rows: tile_rows, cols: tile_cols, group: GROUP } }
}

static SHAPES: &[Shape] = &[
    // bitnet_b1_58-large
    shape(1536, 4096, 256, 96),
    shape(1536, 1536, 128, 192),
    shape(4096, 1536, 256, 96),
    // bitnet_b1_58-3B
    shape(3200, 8640, 160, 96),
    shape(3200, 3200, 320, 96),
    shape(8640, 3200, 320, 96),
    // Llama3-8B-1.58, Falcon3
    shape(14336, 4096, 256, 96),
    shape(4096, 14336, 128, 96),
    shape(1024, 4096, 256, 96),
    shape(4096, 4096, 128, 96),
];

/// Where the regions are.
struct Regions {
    tile: Tile,
    /// Columns stored in threes.
    three_cols: usize,
    signs: usize,
    pairs: usize,
    scale: usize,
}

fn regions(rows: usize, cols: usize) -> Result<Regions, QuantError> {
    check_shape(NAME, rows, cols)?;
    let rule = || tile_rows(rows).map(|rows| Tile { rows, cols: 96, group: GROUP });
    let wrong = QuantError::Tiles { format: NAME, rows, cols };
    let tile = preset(SHAPES, rows, cols).or_else(rule).ok_or(wrong)?;
    let three_cols = cols / tile.cols * tile.cols;
    let signs = three_cols * rows / 6;
    let reserved = (cols - 256) * rows / 3 * 5 / 8 + 256 * rows / 2 * 4 / 8;
    Ok(Regions { tile, three_cols, signs, pairs: signs + three_cols * rows / 24, scale: reserved.next_multiple_of(32) })
}

fn matrix_bytes(rows: usize, cols: usize) -> Result<usize, QuantError> {
    Ok(regions(rows, cols)?.scale + I2S_TRAILER)
}

/// The row and the first column of every byte of a region whose bytes have `width` columns: tiles of `tile` in `columns`.
fn places(
    rows: usize,
    columns: std::ops::Range<usize>,
    tile: Tile,
    width: usize,
) -> impl Iterator<Item = (usize, usize)> {
    let steps = |end: usize, by: usize| (0..end).step_by(by);
    steps(rows, tile.rows).flat_map(move |r0| {
        columns.clone().step_by(tile.cols).flat_map(move |c0| {
            steps(tile.rows, GROUP).flat_map(move |r1| {
                steps(tile.cols, width).flat_map(move |c1| {
                    [0, 16, 8, 24].into_iter().flat_map(move |r2| (0..8).map(move |r3| (r0 + r1 + r2 + r3, c0 + c1)))
                })
            })
        })
    })
}

impl Regions {
    fn threes(&self, rows: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        places(rows, 0..self.three_cols, self.tile, 6)
    }

    fn pairs(&self, rows: usize, cols: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        places(rows, self.three_cols..cols, Tile { cols: 32, ..self.tile }, 4)
    }

    /// Byte and bit of the sign of the three that begins at (row, col).
    fn sign(&self, row: usize, col: usize) -> (usize, u32) {
        let tile = self.tile;
        let across = self.three_cols / tile.cols;
        let tile_at = row / tile.rows * across + col / tile.cols;
        let group = tile_at * (tile.rows / GROUP) + row % tile.rows / GROUP;
        let (t, r) = (col % tile.cols / 3, row % GROUP);
        let numbers = group * (tile.cols / 24) + t / 8;
        let bit = 15 - (2 * (t % 8) + r / 16);
        (self.signs + numbers * 32 + r % 16 * 2 + bit / 8, bit as u32 % 8)
    }
}

fn pack(weights: &[f32], rows: usize, cols: usize) -> Packed {
    let regions = regions(rows, cols)?;
    let source = Rows::pack(NAME, weights, rows, cols)?;
    let mut out = vec![0; regions.scale + I2S_TRAILER];
    for (at, (row, col)) in regions.threes(rows).enumerate() {
        for (shift, col) in [(4, col), (0, col + 3)] {
            let digits = (0..3).fold(0, |v, i| v * 3 + i32::from(source.get(row, col + i)));
            let value = digits - 13;
            out[at] |= (value.unsigned_abs() as u8) << shift;
            let (byte, bit) = regions.sign(row, col);
            out[byte] |= u8::from(value < 0) << bit;
        }
    }
    let pair = |row, col| 3 * source.get(row, col) + source.get(row, col + 1);
    for (out, (row, col)) in out[regions.pairs..].iter_mut().zip(regions.pairs(rows, cols)) {
        *out = pair(row, col) << 4 | pair(row, col + 2);
    }
    out[regions.scale..regions.scale + 4].copy_from_slice(&source.scale().to_le_bytes());
    Ok(out)
}

fn unpack(data: &[u8], rows: usize, cols: usize) -> Packed {
    let regions = regions(rows, cols)?;
    check_size(&FORMAT, data.len(), rows, cols)?;
    let mut out = Rows::new(rows, cols);
    for (at, (row, col)) in regions.threes(rows).enumerate() {
        for (code, col) in [(data[at] >> 4, col), (data[at] & 15, col + 3)] {
            let (byte, bit) = regions.sign(row, col);
            let below = data[byte] >> bit & 1 == 1;
            // Zero has no sign.
            if code > 13 || code == 0 && below {
                return Err(QuantError::Code { format: NAME, row, byte: at });
            }
            let digits = if below { 13 - code } else { 13 + code };
            out.set(row, col, digits / 9);
            out.set(row, col + 1, digits / 3 % 3);
            out.set(row, col + 2, digits % 3);
        }
    }
    for (at, (row, col)) in (regions.pairs..).zip(regions.pairs(rows, cols)) {
        for (code, col) in [(data[at] >> 4, col), (data[at] & 15, col + 2)] {
            if code > 8 {
                return Err(QuantError::Code { format: NAME, row, byte: at });
            }
            out.set(row, col, code / 3);
            out.set(row, col + 1, code % 3);
        }
    }
    out.finish(NAME, data, regions.scale)
}
