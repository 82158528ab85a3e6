//! What launches take: rows, norms, products, shapes, scratch.

use crate::cuda::device::{Arg, Buffer, CudaError, Device};
use crate::numerics::PV_CHUNK;
use std::sync::Arc;

/// f32 rows in a buffer, from some element on.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// Where.
    pub buffer: &'a Buffer,
    /// First element.
    pub from: usize,
}

impl<'a> From<&'a Buffer> for Rows<'a> {
    fn from(buffer: &'a Buffer) -> Self {
        Self { buffer, from: 0 }
    }
}

impl<'a> Rows<'a> {
    pub(super) fn arg(self) -> Arg<'a> {
        Arg::At(self.buffer, 4 * self.from)
    }
}

/// int8 activations: `q [tokens][cols]`, `scale [tokens]`, `isum [tokens]`.
#[derive(Debug)]
pub struct Int8 {
    pub(super) q: Buffer,
    pub(super) scale: Buffer,
    pub(super) isum: Buffer,
}

impl Int8 {
    /// Room for `tokens` of up to `cols` elements.
    ///
    /// # Errors
    /// There is too little memory.
    pub fn new(device: &Arc<dyn Device>, tokens: usize, cols: usize) -> Result<Self, CudaError> {
        let what = "activations";
        Ok(Self {
            q: Buffer::new::<i8>(device, tokens * cols, what)?,
            scale: Buffer::new::<f32>(device, tokens, what)?,
            isum: Buffer::new::<i32>(device, tokens, what)?,
        })
    }
}

/// What a row is before its norm.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// As it is.
    Plain,
    /// With another added, and kept.
    Sum(Rows<'a>),
    /// Gated with the up projection.
    Gate(Gate, Rows<'a>),
}

/// The gate of a feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// `relu(gate)^2 * up`.
    Relu2,
    /// `gate * sigmoid(gate) * up`.
    Silu,
}

/// A norm, and what happens to its rows.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// What comes before it.
    pub input: Input<'a>,
    /// `[tokens][cols]`.
    pub x: Rows<'a>,
    /// The weight `[cols]` and epsilon; no norm without.
    pub weight: Option<(&'a Buffer, f32)>,
    /// The rows as f32 go here; may be `x`.
    pub values: Option<Rows<'a>>,
    /// The rows as int8 go here.
    pub int8: Option<&'a Int8>,
}

/// A matrix on the device, `[rows][cols]`.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    /// Where: I2_S with its scale behind, or f16.
    pub buffer: &'a Buffer,
    /// Outputs.
    pub rows: usize,
    /// A factor of the whole matrix.
    pub multiplier: f32,
}

impl Weights<'_> {
    /// Bytes of an I2_S matrix of so many columns, with its scale.
    pub(super) fn ternary_bytes(&self, cols: usize) -> usize {
        self.rows * (cols / 4) + 4
    }
}

/// A product: `y [tokens][rows] = w x`.
#[derive(Debug, Clone, Copy)]
pub struct Product<'a> {
    /// The matrix.
    pub w: Weights<'a>,
    /// Where the result goes.
    pub y: &'a Buffer,
}

/// The row of one token that a ternary product takes; it becomes int8 in the launch.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// f32 `[cols]`.
    pub x: &'a Buffer,
    /// Elements: a multiple of 128.
    pub cols: usize,
    /// The weight `[cols]` and epsilon of its RMS norm; no norm without.
    pub weight: Option<(&'a Buffer, f32)>,
}

/// Heads and the KV cache, f16 `[kv_heads][capacity][dim]`.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    /// Query heads.
    pub heads: usize,
    /// Key-value heads.
    pub kv_heads: usize,
    /// Dimensions of a head.
    pub dim: usize,
    /// Positions of the cache.
    pub capacity: usize,
}

impl Heads {
    /// Elements of the keys or the values of a layer.
    pub fn cache_len(&self) -> usize {
        self.kv_heads * self.capacity * self.dim
    }

    pub(super) fn chunks(&self) -> usize {
        self.capacity.div_ceil(PV_CHUNK)
    }

    /// Rows of a tile of the attention, and tiles of a KV head.
    pub(super) fn tiles(&self, tokens: usize) -> (usize, usize) {
        let tile = if tokens == 1 { 4 } else { 16 };
        (tile, (tokens * (self.heads / self.kv_heads)).div_ceil(tile))
    }
}

/// Rotary tables, `[capacity][dims / 2]` each.
#[derive(Debug)]
pub struct RopeTables {
    /// Cosines.
    pub cos: Buffer,
    /// Sines.
    pub sin: Buffer,
    /// Dimensions of a head that are rotated.
    pub dims: usize,
}

/// What attention keeps between its launches.
#[derive(Debug)]
pub struct AttentionScratch {
    pub(super) scores: Buffer,
    pub(super) maxima: Buffer,
    pub(super) partial: Buffer,
    pub(super) done: Buffer,
}

impl AttentionScratch {
    /// Bytes that [`AttentionScratch::new`] takes.
    pub fn bytes(shape: Heads, tokens: usize) -> usize {
        let rows = tokens * shape.heads;
        4 * rows * (shape.capacity + shape.chunks() * (1 + shape.dim)) + 4 * (rows + shape.kv_heads)
    }

    /// Room for `tokens` at once.
    ///
    /// # Errors
    /// There is too little memory.
    pub fn new(device: &Arc<dyn Device>, shape: Heads, tokens: usize) -> Result<Self, CudaError> {
        let (rows, what) = (tokens * shape.heads, "attention");
        Ok(Self {
            scores: Buffer::new::<f32>(device, rows * shape.capacity, what)?,
            maxima: Buffer::new::<f32>(device, rows * shape.chunks(), what)?,
            partial: Buffer::new::<f32>(device, rows * shape.chunks() * shape.dim, what)?,
            done: Buffer::of(device, &vec![0u32; rows + shape.kv_heads], what)?,
        })
    }
}

impl Gate {
    pub(super) fn number(self) -> u32 {
        match self {
            Self::Relu2 => 0,
            Self::Silu => 1,
        }
    }
}
