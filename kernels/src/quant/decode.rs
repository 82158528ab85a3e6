//! Weights as integers with scales: what every format but those of floats is decoded to, 32 weights at a time.
//!
//! ```text
//! Shape::Scale        w_i = scale * q_i
//! Shape::Minimum      w_i = scale * q_i + minimum
//! Shape::Halves       w_i = scale * factors[i / 16] * q_i
//! Shape::HalfMinima   w_i = scale * factors[i / 16] * q_i + minimum * minima[i / 16]
//! ```
//!
//! A format says how its blocks become [`Block`]s (`Blocks`), and everything else follows: its exact values, its naive
//! product with every kind of activations, and the kernels that the sets share for formats of which they have none of
//! their own. Decoding is plain Rust; on x86-64 it is compiled a second time with AVX2, so that the same loops become
//! wider.
//!
//! ## The products
//! * F32: [`numerics::dot`] of the exact values.
//! * Q8: 16 lanes; block `b` of 32 weights, group `g` of 4 goes to lane `(b % 2) * 8 + g` by
//!   `fma(scale * d, t, lane)`, where `d` is the activations' step and `t` the exact integer sum of the group's
//!   `factor * q * x`. With [`Shape::HalfMinima`] `fma(minimum * d, u, lane)` follows, `u` the exact sum of
//!   `minima * x`. The lanes are summed by [`numerics::tree`]. With [`Shape::Minimum`] the chain
//!   `fma(minimum, bsum, m)` over rising blocks, from `+0.0`, is added last.
//! * I8, ternary formats: exact where it can be. The sum of `q x` runs in i32 over a *run*: consecutive blocks with one
//!   scale, blocks of scale 0 passed over, since their weights are zero. At the end of a run `sum / s * scale` is added to
//!   the row, runs in rising order; `s` is the token's factor. A model that was trained ternary has one scale for a
//!   tensor, hence one run a row.

use super::{Checked, Format, Halves, Matrix, Packed};
use crate::activations::{Activations, I8Token, Q8_BLOCK, Q8Token};
use crate::numerics::{self, tree};

/// 32 weights.
#[derive(Debug, Clone, Copy)]
pub struct Block {
    /// The integers; -128 occurs in Q8_0 only.
    pub q: [i8; Q8_BLOCK],
    /// The step.
    pub scale: f32,
    /// See [`Shape`]; 0 where the shape has none.
    pub minimum: f32,
    /// Of each 16 weights; 1 where the shape has none.
    pub factors: [i16; 2],
    /// Of each 16 weights; 0 where the shape has none.
    pub minima: [i16; 2],
}

impl Block {
    /// No weights, of which every field has the value that a shape without it wants.
    pub const ZERO: Self = Self { q: [0; Q8_BLOCK], scale: 0.0, minimum: 0.0, factors: [1; 2], minima: [0; 2] };

    /// The exact values.
    #[inline(always)] // into the caller's instruction set
    fn values(&self, shape: Shape, out: &mut [f32]) {
        for (h, (q, out)) in self.q.as_chunks::<16>().0.iter().zip(out.as_chunks_mut::<16>().0).enumerate() {
            let step = self.scale * f32::from(self.factors[h]);
            for (out, q) in out.iter_mut().zip(q) {
                *out = step * f32::from(*q);
            }
            let offset = self.minimum * if shape == Shape::HalfMinima { f32::from(self.minima[h]) } else { 1.0 };
            // Not for the others: zeros would lose their sign.
            if matches!(shape, Shape::Minimum | Shape::HalfMinima) {
                out.iter_mut().for_each(|out| *out += offset);
            }
        }
    }
}

/// What blocks of a format have besides integers and a scale; see the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Nothing.
    Scale,
    /// A minimum for 32 weights.
    Minimum,
    /// A factor for 16 weights.
    Halves,
    /// A factor and a minimum for 16 weights.
    HalfMinima,
}

/// A format of blocks: its facts, how its bytes become [`Block`]s, and how weights become its bytes.
pub(crate) trait Blocks: Sized {
    /// See the fields of [`Format`].
    const NAME: &str;
    const GGML_TYPE: u32;
    const ALSO: &[u32] = &[];
    const FILE_TYPE: Option<u32> = None;
    const HEAD: usize = 0;
    /// Weights of a block in memory: 32, 64, 128 or 256.
    const LEN: usize;
    const BYTES: usize;
    const TRAILER: usize = 0;
    const HALVES: Halves = &[];
    /// Whether the integers are -1, 0 and 1 only.
    const TERNARY: bool = false;
    /// What blocks have.
    const SHAPE: Shape = Shape::Scale;
    const FORMAT: &Format = &Format::of::<Self>();

    /// A scale that stands outside of the blocks, for all of a row.
    #[inline(always)]
    fn row_scale(_w: &Matrix<'_>, _row: usize) -> f32 {
        1.0
    }

    /// Writes the integers, the scale, and what the shape has; `bytes` are [`Blocks::BYTES`], `out` holds the
    /// [`Blocks::LEN`] weights. Implementations are `#[inline(always)]`, into the instruction set of the caller.
    fn block(bytes: &[u8], row_scale: f32, out: &mut [Block]);

    /// See [`Format::validate`].
    fn validate(data: &[u8], rows: usize, cols: usize) -> Checked {
        super::finite_halves(Self::FORMAT, data, rows, cols)
    }

    /// See [`Format::pack`].
    fn pack(weights: &[f32], rows: usize, cols: usize) -> Packed;
}

/// 32 numbers of 16 bytes, each of which holds number j and number j + 16. Two loops of a fixed length, which the compiler
/// turns into registers; `map` of arrays it would not.
#[inline(always)]
pub(super) fn two_of_each<T: Default + Copy>(
    bytes: &[u8; 16],
    first: impl Fn(u8) -> T,
    second: impl Fn(u8) -> T,
) -> [T; Q8_BLOCK] {
    let mut out = [T::default(); Q8_BLOCK];
    let (low, high) = out.split_at_mut(16);
    for (out, byte) in low.iter_mut().zip(bytes) {
        *out = first(*byte);
    }
    for (out, byte) in high.iter_mut().zip(bytes) {
        *out = second(*byte);
    }
    out
}

/// [`Blocks`] compiled for some instruction set.
#[derive(Debug, Clone, Copy)]
struct Compiled {
    /// Writes some blocks of a row.
    blocks: unsafe fn(&Matrix<'_>, usize, usize, &mut [Block]),
    /// Writes the exact values of a row.
    values: unsafe fn(&Matrix<'_>, usize, &mut [f32]),
}

/// How a format's blocks become [`Block`]s, compiled.
#[derive(Debug, Clone, Copy)]
pub struct Decoder {
    /// What its blocks have.
    pub shape: Shape,
    plain: Compiled,
    #[cfg(target_arch = "x86_64")]
    avx2: Compiled,
}

/// Weights that are decoded at a time: whole blocks of every format.
const PIECE: usize = 256;

#[inline(always)]
fn blocks<D: Blocks>(w: &Matrix<'_>, row: usize, from: usize, out: &mut [Block]) {
    const { assert!(D::LEN.is_multiple_of(Q8_BLOCK) && PIECE.is_multiple_of(D::LEN)) };
    let each = D::LEN / Q8_BLOCK;
    let scale = D::row_scale(w, row);
    let bytes = &w.row(row)[D::HEAD + from / each * D::BYTES..];
    for (bytes, out) in bytes.chunks_exact(D::BYTES).zip(out.chunks_exact_mut(each)) {
        D::block(bytes, scale, out);
    }
}

#[inline(always)]
fn values<D: Blocks>(w: &Matrix<'_>, row: usize, out: &mut [f32]) {
    let mut piece = [Block::ZERO; PIECE / Q8_BLOCK];
    for (i, out) in out[..w.cols].chunks_mut(PIECE).enumerate() {
        blocks::<D>(w, row, i * PIECE / Q8_BLOCK, &mut piece);
        for (block, out) in piece.iter().zip(out.chunks_exact_mut(Q8_BLOCK)) {
            block.values(D::SHAPE, out);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn blocks_avx2<D: Blocks>(w: &Matrix<'_>, row: usize, from: usize, out: &mut [Block]) {
    blocks::<D>(w, row, from, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn values_avx2<D: Blocks>(w: &Matrix<'_>, row: usize, out: &mut [f32]) {
    values::<D>(w, row, out);
}

impl Decoder {
    /// The one of a format.
    pub(crate) const fn of<D: Blocks>() -> Self {
        Self {
            shape: D::SHAPE,
            plain: Compiled { blocks: blocks::<D>, values: values::<D> },
            #[cfg(target_arch = "x86_64")]
            avx2: Compiled { blocks: blocks_avx2::<D>, values: values_avx2::<D> },
        }
    }

    /// Writes the blocks of a row from the one of number `from` on, which begins a block of the format in memory, to `out`.
    /// All of `out` is one shape's: fields that it has not are left as they are.
    pub(crate) fn blocks(&self, w: &Matrix<'_>, row: usize, from: usize, out: &mut [Block]) {
        // SAFETY: compiled for every CPU.
        unsafe { (self.plain.blocks)(w, row, from, out) }
    }

    /// Writes the exact values of a row.
    pub(crate) fn values(&self, w: &Matrix<'_>, row: usize, out: &mut [f32]) {
        // SAFETY: compiled for every CPU.
        unsafe { (self.plain.values)(w, row, out) }
    }

    /// As [`Decoder::blocks`].
    ///
    /// # Safety
    /// The CPU has AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    pub(crate) unsafe fn blocks_avx2(&self, w: &Matrix<'_>, row: usize, from: usize, out: &mut [Block]) {
        // SAFETY: the caller's.
        unsafe { (self.avx2.blocks)(w, row, from, out) }
    }

    /// As [`Decoder::values`].
    ///
    /// # Safety
    /// The CPU has AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    pub(crate) unsafe fn values_avx2(&self, w: &Matrix<'_>, row: usize, out: &mut [f32]) {
        // SAFETY: the caller's.
        unsafe { (self.avx2.values)(w, row, out) }
    }

    /// A row, decoded once for several tokens.
    pub(super) fn row(&self, w: &Matrix<'_>, row: usize) -> Vec<Block> {
        let mut out = vec![Block::ZERO; w.cols / Q8_BLOCK];
        self.blocks(w, row, 0, &mut out);
        out
    }
}

/// The naive product with [`crate::ActKind::Q8`]; see the module.
pub(super) fn dot_q8(shape: Shape, row: &[Block], x: &Q8Token<'_>) -> f32 {
    let mut lanes = [0.0f32; 16];
    let mut minimum = 0.0f32;
    for (b, block) in row.iter().enumerate() {
        for g in 0..8 {
            let half = g / 4;
            let (mut t, mut u) = (0i32, 0i32);
            for i in g * 4..g * 4 + 4 {
                let x = i32::from(x.q[b * Q8_BLOCK + i]);
                t += i32::from(block.factors[half]) * i32::from(block.q[i]) * x;
                u += i32::from(block.minima[half]) * x;
            }
            let lane = &mut lanes[(b % 2) * 8 + g];
            *lane = (block.scale * x.d[b]).mul_add(t as f32, *lane);
            if shape == Shape::HalfMinima {
                *lane = (block.minimum * x.d[b]).mul_add(u as f32, *lane);
            }
        }
        minimum = block.minimum.mul_add(x.bsum[b], minimum);
    }
    let lanes = tree(lanes);
    if shape == Shape::Minimum { lanes + minimum } else { lanes }
}

/// The naive product with [`crate::ActKind::I8`]; see the module.
pub(super) fn dot_i8(row: &[Block], x: &I8Token<'_>) -> f32 {
    let mut runs = Runs::new(x.scale);
    for (block, x) in row.iter().zip(x.q.chunks_exact(Q8_BLOCK)) {
        runs.add(block.scale, block.q.iter().zip(x).map(|(q, x)| i32::from(*q) * i32::from(*x)).sum());
    }
    runs.total()
}

/// One row, as its product wants it.
#[derive(Debug)]
pub enum Row {
    /// Exact values.
    Values(Vec<f32>),
    /// Integers with scales.
    Blocks(Shape, Vec<Block>),
}

impl Row {
    /// The canonical dot product with one token of the kind for which the row was decoded, without the matrix's factor.
    ///
    /// # Panics
    /// If the activations are of another kind or length.
    pub fn dot(&self, x: &Activations, token: usize) -> f32 {
        match self {
            Self::Values(row) => numerics::dot(row, x.f32(token)),
            Self::Blocks(shape, row) if x.kind() == crate::ActKind::Q8 => dot_q8(*shape, row, &x.q8(token)),
            Self::Blocks(_, row) => dot_i8(row, &x.i8(token)),
        }
    }
}

/// The sum of a row with one scale per token, block by block; see the module.
pub(crate) struct Runs {
    scale: f32,
    d: f32,
    sum: i32,
    before: Option<f32>,
}

impl Runs {
    /// `scale` is the token's.
    pub(crate) fn new(scale: f32) -> Self {
        Self { scale, d: 0.0, sum: 0, before: None }
    }

    /// Adds a block with scale `d` and exact sum `sum`.
    pub(crate) fn add(&mut self, d: f32, sum: i32) {
        if d == 0.0 {
            return;
        }
        if d != self.d && self.d != 0.0 {
            self.before = Some(self.total());
            self.sum = 0;
        }
        self.d = d;
        self.sum = self.sum.wrapping_add(sum);
    }

    /// All that was added.
    pub(crate) fn total(&self) -> f32 {
        if self.d == 0.0 {
            return 0.0;
        }
        let run = self.sum as f32 / self.scale * self.d;
        self.before.map_or(run, |before| before + run)
    }
}
