//! TL1 (ggml type 38 of bitnet.cpp, for ARM): ternary weights in pairs, four bits each, and one f32 scale for the matrix.
//!
//! ```text
//! pair (a, b), each -1, 0, +1:  code 3 a + b + 4, 0 ... 8
//! byte:                         pair of columns c, c+1 in bits 7-4, of columns c+2, c+3 in bits 3-0
//! bytes in this order:
//!     tile of BM rows            from above
//!       tile of BK columns       from the left
//!         group of bm rows       from above        (bm is 32 or 64)
//!           256 / bm columns     from the left
//!             16 rows            from above
//!               4 columns        from the left
//!                 row            from above: one byte
//! after the last tile (byte rows * cols / 4):
//!     | scale, f32 little-endian | 28 bytes of zero |
//! ```
//!
//! The scale is a tensor of its own to bitnet.cpp's converter, one that it writes without listing it; so it lies at the next
//! multiple of 32 bytes, which is where the tiles end. How tiles are chosen, and what happens at load: [`super::tiled`].
//!
//! Source: bitnet.cpp's converter and its `codegen_tl1.py`. The tiles are those with which its set-up calls that script; the
//! ready-made kernels for LLaMA-3 8B that lie beside it have other `bm`, but the set-up generates over them.

use super::tiled::{Rows, Shape, Tile, Tiled, check_shape, check_size, preset, tile_rows};
use super::{I2S_TRAILER, Packed, QuantError};

/// The format.
pub static FORMAT: Tiled = Tiled {
    name: NAME,
    ggml_type: 38,
    file_type: Some(38),
    matrix_bytes,
    preset: |rows, cols| preset(SHAPES, rows, cols).is_some(),
    pack,
    unpack,
};

const NAME: &str = "tl1";

const fn shape(rows: usize, cols: usize, tile_rows: usize, tile_cols: usize, group: usize) -> Shape {
    Shape { rows, cols, tile: Tile { rows: tile_rows, cols: tile_cols, group } }
}

static SHAPES: &[Shape] = &[
    // bitnet_b1_58-large
    shape(1536, 4096, 256, 128, 32),
    shape(1536, 1536, 128, 64, 64),
    shape(4096, 1536, 256, 128, 32),
    // bitnet_b1_58-3B
    shape(3200, 8640, 160, 64, 32),
    shape(3200, 3200, 320, 128, 64),
    shape(8640, 3200, 320, 64, 32),
    // Llama3-8B-1.58, Falcon3
    shape(14336, 4096, 256, 128, 32),
    shape(4096, 14336, 128, 64, 64),
    shape(1024, 4096, 256, 128, 32),
    shape(4096, 4096, 128, 64, 64),
];

fn tile(rows: usize, cols: usize) -> Result<Tile, QuantError> {
    check_shape(NAME, rows, cols)?;
    let rule = || tile_rows(rows).map(|rows| Tile { rows, cols: 64, group: 32 });
    preset(SHAPES, rows, cols).or_else(rule).ok_or(QuantError::Tiles { format: NAME, rows, cols })
}

fn matrix_bytes(rows: usize, cols: usize) -> Result<usize, QuantError> {
    tile(rows, cols)?;
    Ok(rows * cols / 4 + I2S_TRAILER)
}

/// The row and the first of four columns of every byte, in order.
fn places(rows: usize, cols: usize, tile: Tile) -> impl Iterator<Item = (usize, usize)> {
    let width = 256 / tile.group;
    let steps = |end: usize, by: usize| (0..end).step_by(by);
    steps(rows, tile.rows).flat_map(move |r0| {
        steps(cols, tile.cols).flat_map(move |c0| {
            steps(tile.rows, tile.group).flat_map(move |r1| {
                steps(tile.cols, width).flat_map(move |c1| {
                    steps(tile.group, 16).flat_map(move |r2| {
                        steps(width, 4).flat_map(move |c2| (0..16).map(move |r3| (r0 + r1 + r2 + r3, c0 + c1 + c2)))
                    })
                })
            })
        })
    })
}

fn pack(weights: &[f32], rows: usize, cols: usize) -> Packed {
    let tile = tile(rows, cols)?;
    let source = Rows::pack(NAME, weights, rows, cols)?;
    let pair = |row, col| 3 * source.get(row, col) + source.get(row, col + 1);
    let mut out: Vec<u8> =
        places(rows, cols, tile).map(|(row, col)| pair(row, col) << 4 | pair(row, col + 2)).collect();
    out.extend(source.scale().to_le_bytes());
    out.resize(rows * cols / 4 + I2S_TRAILER, 0);
    Ok(out)
}

fn unpack(data: &[u8], rows: usize, cols: usize) -> Packed {
    let tile = tile(rows, cols)?;
    check_size(&FORMAT, data.len(), rows, cols)?;
    let mut out = Rows::new(rows, cols);
    for (at, (row, col)) in places(rows, cols, tile).enumerate() {
        for (code, col) in [(data[at] >> 4, col), (data[at] & 15, col + 2)] {
            if code > 8 {
                return Err(QuantError::Code { format: NAME, row, byte: at });
            }
            out.set(row, col, code / 3);
            out.set(row, col + 1, code % 3);
        }
    }
    out.finish(NAME, data, rows * cols / 4)
}
