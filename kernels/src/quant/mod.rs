//! Weight formats: one file each, one line each in [`FORMATS`].
//!
//! A format is a few facts and plain functions. How it decodes its blocks is a loop that one can check against the layout
//! drawing above it; the products follow from that ([`decode`]), naively in [`Row::dot`], which is the oracle of the whole
//! project, and fast in kernels that the sets share for formats of which they have none of their own. Property tests, the
//! harness' cells and the benches run over the table, so a new format needs its file and its line.
//!
//! [`Format`]'s functions take data whose size [`Matrix::new`] (or [`Format::check_size`]) has checked; with other data
//! they panic, they never read out of bounds.

pub mod bf16;
pub mod decode;
pub mod f16;
pub mod f32;
pub mod i2_s;
pub mod i2_s_arm;
pub mod i2_s_rows4;
pub mod iq1_bn;
pub mod iq2_bn;
pub mod iq4_nl;
pub mod mxfp4;
pub mod q1_0;
pub mod q2_0;
pub mod q2_0_g128;
pub mod q2_k;
pub mod q3_k;
pub mod q4_0;
pub mod q4_1;
pub mod q4_k;
pub mod q5_0;
pub mod q5_1;
pub mod q5_k;
pub mod q6_k;
pub mod q8_0;
pub mod storage;
pub mod tiled;
pub mod tl1;
pub mod tl2;
pub mod tq;
pub mod tq1_0;
pub mod tq2_0;

use std::ops::Range;

use crate::QuantError;
use crate::activations::{ActKind, Activations};
use crate::numerics::{f16_to_f32, f32_to_f16};

/// Every format.
pub static FORMATS: &[&Format] = &[
    &f32::FORMAT,
    &f16::FORMAT,
    &bf16::FORMAT,
    &q8_0::FORMAT,
    &q4_0::FORMAT,
    &q4_1::FORMAT,
    &q4_k::FORMAT,
    &q6_k::FORMAT,
    &i2_s::FORMAT,
    &i2_s_arm::FORMAT,
    &tq2_0::FORMAT,
    &tq1_0::FORMAT,
    &iq2_bn::FORMAT,
    &iq1_bn::FORMAT,
    &q1_0::FORMAT,
    &q2_0::FORMAT,
    &q2_0_g128::FORMAT,
    &q5_0::FORMAT,
    &q5_1::FORMAT,
    &q2_k::FORMAT,
    &q3_k::FORMAT,
    &q5_k::FORMAT,
    &iq4_nl::FORMAT,
    &mxfp4::FORMAT,
];

use decode::Blocks;
pub use decode::{Block, Decoder, Row, Shape};
pub use storage::Storage;
pub use tiled::{TILED, Tiled};

/// Bytes after the rows of an I2_S matrix: the f32 scale and padding to the alignment.
pub const I2S_TRAILER: usize = 32;

/// See [`Format::validate`].
pub type Checked = Result<(), QuantError>;
/// See [`Format::pack`].
pub type Packed = Result<Vec<u8>, QuantError>;
/// See [`Format::halves`].
pub type Halves = &'static [(usize, &'static str)];

/// A weight format.
#[derive(Debug)]
pub struct Format {
    /// Stable name, e.g. `i2_s`.
    pub name: &'static str,
    /// The tensor type id in GGUF files.
    pub ggml_type: u32,
    /// Other ids under which files have it.
    pub also: &'static [u32],
    /// `general.file_type` of GGUF files most of whose weights have it. Source: `llama_ftype` in llama.h; 40 in bitnet.cpp's
    /// fork.
    pub file_type: Option<u32>,
    /// Bytes at the start of each row.
    pub row_head: usize,
    /// Weights per block; K must be a multiple.
    pub block_len: usize,
    /// Bytes per block.
    pub block_bytes: usize,
    /// Bytes after the last row.
    pub trailer_bytes: usize,
    /// The f16 numbers of a block: where each begins, and what it is.
    pub halves: Halves,
    /// What the weights are multiplied with where nobody says otherwise: see [`Matrix::act`].
    pub act: ActKind,
    /// `(matrix, rows, cols)`: the size, and that every code and scale is one a quantiser can have written.
    pub validate: fn(&[u8], usize, usize) -> Checked,
    /// `(weights [rows][cols], rows, cols)`: quantises.
    pub pack: fn(&[f32], usize, usize) -> Packed,
    /// What the bytes mean.
    pub values: Values,
}

/// How bytes are weights.
#[derive(Debug, Clone, Copy)]
pub enum Values {
    /// Numbers themselves: `(row, out)` writes the exact values of the bytes of a row.
    Floats(fn(&[u8], &mut [f32])),
    /// Integers in blocks with scales.
    Blocks(Decoder),
    /// The same, and the integers are -1, 0 and 1 only.
    Ternary(Decoder),
}

impl Format {
    const fn of<D: Blocks>() -> Self {
        let decoder = Decoder::of::<D>();
        Self {
            name: D::NAME,
            ggml_type: D::GGML_TYPE,
            also: D::ALSO,
            file_type: D::FILE_TYPE,
            row_head: D::HEAD,
            block_len: D::LEN,
            block_bytes: D::BYTES,
            trailer_bytes: D::TRAILER,
            halves: D::HALVES,
            act: if D::TERNARY { ActKind::I8 } else { ActKind::Q8 },
            validate: D::validate,
            pack: D::pack,
            values: if D::TERNARY { Values::Ternary(decoder) } else { Values::Blocks(decoder) },
        }
    }

    /// `N` bytes a weight and no blocks.
    const fn floats<const N: usize, F: Float<N>>() -> Self {
        Self {
            name: F::NAME,
            ggml_type: F::GGML_TYPE,
            also: &[],
            file_type: Some(F::FILE_TYPE),
            row_head: 0,
            block_len: 1,
            block_bytes: N,
            trailer_bytes: 0,
            halves: &[],
            act: ActKind::F32,
            validate: F::validate,
            pack: F::pack,
            values: Values::Floats(F::unpack),
        }
    }

    /// Bytes of one row of `cols` weights, without the trailer. `cols` is a multiple of the block length.
    pub const fn row_bytes(&self, cols: usize) -> usize {
        self.row_head + cols / self.block_len * self.block_bytes
    }

    /// Whether it holds ternary weights and nothing else.
    pub const fn is_ternary(&self) -> bool {
        matches!(self.values, Values::Ternary(_))
    }

    /// Whether there are products with activations of this kind: f32 with every format, int8 blocks with all but floats, int8
    /// with one scale per token with ternary weights.
    pub const fn takes(&self, act: ActKind) -> bool {
        match act {
            ActKind::F32 => true,
            ActKind::Q8 => self.decoder().is_some(),
            ActKind::I8 => self.is_ternary(),
        }
    }

    /// How blocks become integers with scales; `None` for floats.
    pub(crate) const fn decoder(&self) -> Option<&Decoder> {
        match &self.values {
            Values::Floats(_) => None,
            Values::Blocks(decoder) | Values::Ternary(decoder) => Some(decoder),
        }
    }

    /// Bytes of a matrix, with the trailer of I2_S.
    pub fn matrix_bytes(&self, rows: usize, cols: usize) -> Result<usize, QuantError> {
        let format = self.name;
        if rows == 0 || cols == 0 {
            return Err(QuantError::Empty { format, rows, cols });
        }
        if !cols.is_multiple_of(self.block_len) {
            return Err(QuantError::Columns { format, cols, block_len: self.block_len });
        }
        // The number of weights must fit too: everything else indexes by it.
        rows.checked_mul(cols)
            .and(self.row_bytes_checked(cols))
            .and_then(|row| row.checked_mul(rows))
            .and_then(|bytes| bytes.checked_add(self.trailer_bytes))
            .ok_or(QuantError::TooLarge { format, rows, cols })
    }

    fn row_bytes_checked(&self, cols: usize) -> Option<usize> {
        (cols / self.block_len).checked_mul(self.block_bytes)?.checked_add(self.row_head)
    }

    /// Checks that `got` bytes are exactly a matrix of this shape.
    pub fn check_size(&self, got: usize, rows: usize, cols: usize) -> Result<(), QuantError> {
        let expected = self.matrix_bytes(rows, cols)?;
        if got == expected { Ok(()) } else { Err(QuantError::Size { format: self.name, rows, cols, expected, got }) }
    }

    /// Checks that `got` numbers are `rows * cols`, and the shape; returns the bytes of the matrix.
    fn check_count(&self, got: usize, rows: usize, cols: usize) -> Result<usize, QuantError> {
        let bytes = self.matrix_bytes(rows, cols)?;
        let expected = rows * cols;
        if got == expected {
            Ok(bytes)
        } else {
            Err(QuantError::Count { format: self.name, rows, cols, expected, got })
        }
    }
}

/// A format of numbers of `N` bytes.
trait Float<const N: usize>: Sized {
    const NAME: &str;
    const GGML_TYPE: u32;
    const FILE_TYPE: u32;
    const FORMAT: &Format = &Format::floats::<N, Self>();

    /// Whether all bits of the exponent are set: infinite, or not a number.
    fn is_special(bytes: [u8; N]) -> bool;

    fn get(bytes: [u8; N]) -> f32;

    /// Rounds to nearest even.
    fn put(value: f32) -> [u8; N];

    fn validate(data: &[u8], rows: usize, cols: usize) -> Checked {
        Self::FORMAT.check_size(data.len(), rows, cols)?;
        let Some(i) = first(data, Self::is_special) else { return Ok(()) };
        let value = Self::get(*part(data, i * N));
        Err(QuantError::NotFinite { format: Self::NAME, row: i / cols, col: i % cols, value })
    }

    fn unpack(row: &[u8], out: &mut [f32]) {
        for (out, bytes) in out.iter_mut().zip(row.as_chunks().0) {
            *out = Self::get(*bytes);
        }
    }

    /// A weight that would round to infinity is an error.
    fn pack(weights: &[f32], rows: usize, cols: usize) -> Packed {
        pack_blocks(Self::FORMAT, weights, rows, cols, |w, row, col, out| {
            let bytes = Self::put(w[0]);
            if Self::is_special(bytes) {
                return Err(QuantError::Overflow { format: Self::NAME, row, col, value: w[0] });
            }
            out.copy_from_slice(&bytes);
            Ok(())
        })
    }
}

/// Which of the three I2_S layouts a file uses; nothing in the file tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum I2sLayout {
    /// 128 weights in 32 bytes: x86 builds, and all of late 2024.
    #[default]
    X86,
    /// 64 weights in 16 bytes: NEON builds of 2026.
    Arm,
    /// Four rows to a byte: x86 builds without `ACT_PARALLEL`.
    Rows4,
}

impl I2sLayout {
    /// `x86`, `arm` or `rows4`.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86 => "x86",
            Self::Arm => "arm",
            Self::Rows4 => "rows4",
        }
    }

    /// The layout of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::X86, Self::Arm, Self::Rows4].into_iter().find(|layout| layout.name() == name)
    }

    /// The name of the format of tensors that lie so.
    pub fn format(self) -> &'static str {
        match self {
            Self::X86 => i2_s::FORMAT.name,
            Self::Arm => i2_s_arm::FORMAT.name,
            Self::Rows4 => i2_s_rows4::FORMAT.name,
        }
    }

    /// The layout of the tensors of a format, if they are I2_S.
    pub fn of_format(name: &str) -> Option<Self> {
        [Self::X86, Self::Arm, Self::Rows4].into_iter().find(|layout| layout.format() == name)
    }
}

/// The format of this name.
pub fn by_name(name: &str) -> Result<&'static Format, QuantError> {
    FORMATS.iter().copied().find(|f| f.name == name).ok_or_else(|| QuantError::UnknownName {
        name: name.to_owned(),
        known: FORMATS.iter().map(|f| f.name).collect::<Vec<_>>().join(", "),
    })
}

/// The formats under this GGUF tensor type; several for a number that programs use for different things, its owner first.
pub fn of_ggml_type(ggml_type: u32) -> impl Iterator<Item = &'static Format> {
    let under = move |also: bool| {
        let found = move |f: &&Format| if also { f.also.contains(&ggml_type) } else { f.ggml_type == ggml_type };
        FORMATS.iter().copied().filter(found)
    };
    under(false).chain(under(true))
}

/// The format of this GGUF tensor type; `layout` decides between those that share the id of I2_S. Of others that share an id
/// it is the first of [`of_ggml_type`]: what else it may be only a file can tell.
pub fn by_ggml_type(ggml_type: u32, layout: I2sLayout) -> Result<&'static Format, QuantError> {
    // Rows4 is not computed with as it lies: see `TILED`.
    let wanted = |f: &&Format| f.ggml_type != i2_s::FORMAT.ggml_type || f.name == layout.format();
    of_ggml_type(ggml_type).find(wanted).ok_or_else(|| QuantError::UnknownType {
        ggml_type,
        known: FORMATS.iter().map(|f| format!("{} {}", f.ggml_type, f.name)).collect::<Vec<_>>().join(", "),
    })
}

/// Weights `[rows][cols]` in their format: `rows` outputs, `cols` inputs (K). The bytes are used as they lie in the file.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    /// The format of `data`.
    pub format: &'static Format,
    /// Outputs.
    pub rows: usize,
    /// Inputs (K).
    pub cols: usize,
    /// All bytes, with the trailer of I2_S; any alignment.
    pub data: &'a [u8],
    /// A factor of every weight that stands beside the bytes (a tensor `<name>.scale`); 1 where there is none. Products
    /// are multiplied with it last.
    pub multiplier: f32,
    /// What the weights are multiplied with. How activations are rounded is a property of the model, not of the format.
    pub act: ActKind,
}

impl<'a> Matrix<'a> {
    /// Checks the size to the byte, not the contents: those are [`validate`](Self::validate)'s.
    pub fn new(format: &'static Format, rows: usize, cols: usize, data: &'a [u8]) -> Result<Self, QuantError> {
        format.check_size(data.len(), rows, cols)?;
        Ok(Self { format, rows, cols, data, multiplier: 1.0, act: format.act })
    }

    /// The same with a factor beside it.
    #[must_use]
    pub fn times(self, multiplier: f32) -> Self {
        Self { multiplier, ..self }
    }

    /// The same for activations of another kind; the format must have products with it ([`Format::takes`]).
    #[must_use]
    pub fn with_act(self, act: ActKind) -> Self {
        Self { act, ..self }
    }

    /// Checks every code and scale.
    pub fn validate(&self) -> Result<(), QuantError> {
        (self.format.validate)(self.data, self.rows, self.cols)
    }

    /// Some of the rows as a matrix of its own; `None` where the bytes of the rows are not all there is (the scale of I2_S), and for rows
    /// that are not there.
    pub fn part(&self, rows: Range<usize>) -> Option<Self> {
        let row = self.format.row_bytes(self.cols);
        let data = self.data.get(rows.start.checked_mul(row)?..rows.end.checked_mul(row)?)?;
        (self.format.trailer_bytes == 0).then_some(Self { rows: rows.len(), data, ..*self })
    }

    /// The exact values of one row.
    pub fn unpack_row(&self, row: usize, out: &mut [f32]) {
        self.stored_row(row, out);
        if self.multiplier != 1.0 {
            out[..self.cols].iter_mut().for_each(|w| *w *= self.multiplier);
        }
    }

    /// [`Self::unpack_row`] without the factor beside the bytes.
    pub(crate) fn stored_row(&self, row: usize, out: &mut [f32]) {
        match &self.format.values {
            Values::Floats(unpack) => unpack(self.row(row), &mut out[..self.cols]),
            Values::Blocks(decoder) | Values::Ternary(decoder) => decoder.values(self, row, out),
        }
    }

    /// One row for its products, the oracle of them all; without the factor beside the bytes.
    pub fn decode(&self, row: usize) -> Row {
        match self.format.decoder() {
            Some(decoder) if self.act != ActKind::F32 => Row::Blocks(decoder.shape, decoder.row(self, row)),
            _ => {
                let mut values = vec![0.0; self.cols];
                self.stored_row(row, &mut values);
                Row::Values(values)
            }
        }
    }

    /// The canonical dot product of one row and one token.
    pub fn dot(&self, row: usize, x: &Activations, token: usize) -> f32 {
        self.decode(row).dot(x, token) * self.multiplier
    }

    /// The bytes of one row.
    pub fn row(&self, row: usize) -> &'a [u8] {
        let bytes = self.format.row_bytes(self.cols);
        &self.data[row * bytes..][..bytes]
    }
}

/// The first element for which `bad`. A chunk is looked through without a way out, which the compiler turns into vectors: this runs
/// over every byte of a model at load.
fn first<const N: usize>(data: &[u8], bad: impl Fn([u8; N]) -> bool) -> Option<usize> {
    const CHUNK: usize = 1024;
    let (elements, _) = data.as_chunks::<N>();
    let any = |chunk: &[[u8; N]]| chunk.iter().fold(0u8, |any, w| any | u8::from(bad(*w))) != 0;
    let from = elements.chunks(CHUNK).position(any)? * CHUNK;
    elements[from..].iter().position(|w| bad(*w)).map(|i| from + i)
}

/// The bytes `at..at + N`. The range check is one comparison; it is what keeps a damaged caller out of other memory.
#[inline(always)]
fn part<const N: usize>(bytes: &[u8], at: usize) -> &[u8; N] {
    bytes[at..].first_chunk().expect("blocks are whole")
}

/// Two bytes as f16.
#[inline(always)]
fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

/// The number of the largest magnitude, the first of several; 0 if there is none.
fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |m, &v| if v.abs() > m.abs() { v } else { m })
}

/// A block scale as f16 bits, or the error that it does not fit.
fn scale_bits(format: &'static str, value: f32, row: usize, col: usize) -> Result<u16, QuantError> {
    let bits = f32_to_f16(value);
    if f16_to_f32(bits).is_finite() { Ok(bits) } else { Err(QuantError::Overflow { format, row, col, value }) }
}

/// A scale whose f16 it is exactly, as bytes.
fn exact_half(format: &'static str, value: f32, row: usize, col: usize) -> Result<[u8; 2], QuantError> {
    let bits = scale_bits(format, value, row, col)?;
    let rounded = f16_to_f32(bits);
    if rounded == value {
        Ok(bits.to_le_bytes())
    } else {
        Err(QuantError::InexactScale { format, row, col, value, rounded })
    }
}

/// The s of weights that are -s, 0 and +s, if any of them is not 0.
fn ternary_scale(weights: &[f32]) -> Option<f32> {
    weights.iter().find(|w| **w != 0.0).map(|w| w.abs())
}

/// A ternary weight plus 1, or the error that it is not one; `unit` is what has one scale.
fn ternary_code(
    format: &'static str,
    unit: &'static str,
    (row, col): (usize, usize),
    value: f32,
    scale: f32,
) -> Result<u8, QuantError> {
    if value == 0.0 {
        Ok(1)
    } else if value.abs() == scale {
        Ok(2 * u8::from(value > 0.0))
    } else {
        Err(QuantError::NotTernary { format, unit, row, col, value, scale })
    }
}

/// Checks that the f16 numbers of every block are finite.
fn finite_halves(format: &Format, data: &[u8], rows: usize, cols: usize) -> Checked {
    format.check_size(data.len(), rows, cols)?;
    let per_row = cols / format.block_len;
    for (i, block) in data.chunks_exact(format.block_bytes).enumerate() {
        for &(at, what) in format.halves {
            let value = half_at(block, at);
            if !value.is_finite() {
                let (row, block) = (i / per_row, i % per_row);
                return Err(QuantError::Scale { format: format.name, what, row, block, value });
            }
        }
    }
    Ok(())
}

/// Packs block by block: `block(weights, row, col, out)` writes the bytes of one block.
fn pack_blocks(
    format: &Format,
    weights: &[f32],
    rows: usize,
    cols: usize,
    block: impl Fn(&[f32], usize, usize, &mut [u8]) -> Checked,
) -> Packed {
    let mut out = vec![0; format.check_count(weights.len(), rows, cols)?];
    let blocks = weights.chunks_exact(format.block_len).zip(out.chunks_exact_mut(format.block_bytes));
    for (i, (weights, out)) in blocks.enumerate() {
        let (row, col) = (i * format.block_len / cols, i * format.block_len % cols);
        if let Some(at) = weights.iter().position(|w| !w.is_finite()) {
            return Err(QuantError::NotFinite { format: format.name, row, col: col + at, value: weights[at] });
        }
        block(weights, row, col, out)?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookups() {
        for f in FORMATS {
            assert!(std::ptr::eq(by_name(f.name).unwrap(), *f));
        }
        assert_eq!(by_ggml_type(36, I2sLayout::X86).unwrap().name, "i2_s");
        assert_eq!(by_ggml_type(36, I2sLayout::Arm).unwrap().name, "i2_s-arm");
        assert_eq!(by_ggml_type(14, I2sLayout::Arm).unwrap().name, "q6_k");
        assert!(by_ggml_type(99, I2sLayout::X86).unwrap_err().to_string().contains("36 i2_s"));
        assert!(by_name("q9").unwrap_err().to_string().contains("i2_s-arm"));
    }

    #[test]
    fn a_number_has_one_owner() {
        for f in FORMATS {
            let owners = FORMATS.iter().filter(|g| g.ggml_type == f.ggml_type).count();
            assert!(owners == 1 || f.ggml_type == i2_s::FORMAT.ggml_type, "{}", f.name);
        }
        assert_eq!(of_ggml_type(42).map(|f| f.name).collect::<Vec<_>>(), ["q2_0", "q2_0-g128"]);
        assert_eq!(of_ggml_type(142).map(|f| f.name).collect::<Vec<_>>(), ["q2_0-g128"]);
        assert_eq!(by_ggml_type(42, I2sLayout::X86).unwrap().name, "q2_0");
    }

    #[test]
    fn sizes_do_not_overflow() {
        for f in FORMATS {
            assert!(matches!(f.matrix_bytes(usize::MAX / 2, 1 << 40), Err(QuantError::TooLarge { .. })), "{}", f.name);
            assert!(matches!(f.matrix_bytes(0, f.block_len), Err(QuantError::Empty { .. })));
        }
        assert_eq!(i2_s::FORMAT.matrix_bytes(3, 256), Ok(3 * 64 + 32));
        assert_eq!(
            i2_s::FORMAT.matrix_bytes(3, 64),
            Err(QuantError::Columns { format: "i2_s", cols: 64, block_len: 128 })
        );
    }
}
