//! Formats that are stored and not computed with: bitnet.cpp's [`super::tl1`] and [`super::tl2`], and I2_S where it holds
//! four rows to a byte ([`super::i2_s_rows4`], whose shapes need no tiles).
//!
//! TL1 and TL2 hold the weights in the order in which its table look-ups consume them, in tiles of `BM` rows and `BK` columns
//! that are cut again for vectors. The tile is a constant of the program that wrote the file, chosen for the very shape,
//! and the file does not say it. So it is data here ([`Shape`]): the values with which bitnet.cpp's set-up generates its
//! code for the models that it knows. For any other shape there is a rule, [`Tiled::preset`] says which of the two it is:
//! without a word in the file that the rule was used, a reader must refuse rather than guess.
//!
//! A matrix of them is unpacked when it is loaded, all of it, into rows of [`super::i2_s_arm`] (two bits a weight, the same
//! scale), which every kernel set computes; that copy is what runs. Look-up tables give no exact advantage: the
//! numerics contract wants the same i32, and the two-bit kernels have it.

use super::{Checked, Format, I2S_TRAILER, Packed, QuantError, i2_s, i2_s_arm, i2_s_rows4, tl1, tl2};

/// Every such format.
pub static TILED: &[&Tiled] = &[&tl1::FORMAT, &tl2::FORMAT, &i2_s_rows4::FORMAT];

/// A format that is unpacked at load.
#[derive(Debug)]
pub struct Tiled {
    /// Stable name, e.g. `tl2`.
    pub name: &'static str,
    /// The tensor type id in GGUF files.
    pub ggml_type: u32,
    /// As [`Format::file_type`]: of bitnet.cpp's fork.
    pub file_type: Option<u32>,
    /// `(rows, cols)`: bytes of a matrix with its scale.
    pub matrix_bytes: fn(usize, usize) -> Result<usize, QuantError>,
    /// `(rows, cols)`: whether the tile is one that bitnet.cpp uses for this shape.
    pub preset: fn(usize, usize) -> bool,
    /// `(weights [rows][cols], rows, cols)`: takes what is ternary already, as I2_S does.
    pub pack: fn(&[f32], usize, usize) -> Packed,
    /// `(matrix, rows, cols)`: the bytes of the same matrix as [`ROWS`], every code and the scale checked.
    pub unpack: fn(&[u8], usize, usize) -> Packed,
}

/// What matrices are unpacked to.
pub static ROWS: &Format = &i2_s_arm::FORMAT;

/// A shape and its tile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) tile: Tile,
}

/// `BM` rows by `BK` columns, in groups of `group` rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tile {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) group: usize,
}

pub(super) fn preset(shapes: &[Shape], rows: usize, cols: usize) -> Option<Tile> {
    shapes.iter().find(|s| (s.rows, s.cols) == (rows, cols)).map(|s| s.tile)
}

/// The rule for the rows of a tile: the largest of 256, 128, 64, 32 that divides.
pub(super) fn tile_rows(rows: usize) -> Option<usize> {
    [256, 128, 64, 32].into_iter().find(|n| rows.is_multiple_of(*n))
}

/// Checks what both formats want of a shape.
pub(super) fn check_shape(format: &'static str, rows: usize, cols: usize) -> Checked {
    if rows == 0 || cols == 0 {
        return Err(QuantError::Empty { format, rows, cols });
    }
    // So that no product of sizes below overflows.
    if rows.checked_mul(cols).is_none_or(|n| n > 1 << 48) {
        return Err(QuantError::TooLarge { format, rows, cols });
    }
    if !cols.is_multiple_of(i2_s_arm::LEN) || !rows.is_multiple_of(32) || cols < 256 {
        return Err(QuantError::Tiles { format, rows, cols });
    }
    Ok(())
}

pub(super) fn check_size(format: &'static Tiled, got: usize, rows: usize, cols: usize) -> Checked {
    let expected = (format.matrix_bytes)(rows, cols)?;
    if got == expected { Ok(()) } else { Err(QuantError::Size { format: format.name, rows, cols, expected, got }) }
}

/// Codes (weight + 1) of a matrix as [`ROWS`], and its scale.
pub(super) struct Rows {
    cols: usize,
    bytes: Vec<u8>,
}

impl Rows {
    pub(super) fn new(rows: usize, cols: usize) -> Self {
        Self { cols, bytes: vec![0; rows * cols / 4 + I2S_TRAILER] }
    }

    /// Ternary weights.
    pub(super) fn pack(format: &'static str, weights: &[f32], rows: usize, cols: usize) -> Result<Self, QuantError> {
        let bytes = (ROWS.pack)(weights, rows, cols).map_err(|error| error.named(format))?;
        Ok(Self { cols, bytes })
    }

    fn place(&self, row: usize, col: usize) -> (usize, u32) {
        let (byte, shift) = i2_s_arm::place(col);
        (row * self.cols / 4 + byte, shift)
    }

    pub(super) fn get(&self, row: usize, col: usize) -> u8 {
        let (byte, shift) = self.place(row, col);
        self.bytes[byte] >> shift & 3
    }

    /// Sets a code that is 0 yet.
    pub(super) fn set(&mut self, row: usize, col: usize, code: u8) {
        let (byte, shift) = self.place(row, col);
        self.bytes[byte] |= code << shift;
    }

    pub(super) fn scale(&self) -> f32 {
        i2_s::scale(&self.bytes)
    }

    /// The bytes, with the scale that begins at `at` in `data`.
    pub(super) fn finish(mut self, format: &'static str, data: &[u8], at: usize) -> Packed {
        let value = f32::from_le_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]);
        if !(value.is_finite() && value > 0.0) {
            return Err(QuantError::Scale { format, what: "scale", row: 0, block: 0, value });
        }
        let trailer = self.bytes.len() - I2S_TRAILER;
        self.bytes[trailer..trailer + 4].copy_from_slice(&value.to_le_bytes());
        Ok(self.bytes)
    }
}
