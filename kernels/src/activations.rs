//! The input side of a matrix product, prepared once per layer and then read by every row of the weights.
//!
//! Which preparation a matrix wants is its [`ActKind`]; it follows how the model was trained, and each format has a default:
//!
//! * `F32`: as it is (default of f32, f16, bf16 weights).
//! * `I8`: one scale per token (default of ternary weights). The absolute maximum starts at 1e-5; `s = 127 / absmax`;
//!   `q = round_ties_even(x * s)` clamped to -128..=127. The sum of q is kept, since ternary codes are stored as w + 1:
//!   `sum(w q) = sum(code q) - sum(q)`.
//! * `Q8`: one scale per block of 32 (default of all others). `d = amax / 127`, `id = 1 / d` (0 if d is 0),
//!   `q = round_ties_even(x * id)` clamped to +-127, `bsum = d * sum(q)`. d stays f32.
//!
//! A NaN quantises to 0 and is passed over by the maximum.

use std::ops::Range;

use crate::QuantError;
use crate::lines::Lines;

/// Weights per block of [`ActKind::Q8`].
pub const Q8_BLOCK: usize = 32;

/// What weights are multiplied with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ActKind {
    /// f32, untouched.
    F32,
    /// int8 with one scale per token.
    I8,
    /// int8 with one scale per block of 32.
    Q8,
}

impl ActKind {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::F32, Self::I8, Self::Q8];
}

/// Prepared input of some tokens, all of one kind. Buffers only grow: preparing again allocates nothing once the largest
/// shape has been seen.
#[derive(Debug, Clone)]
pub struct Activations {
    kind: ActKind,
    n_tokens: usize,
    cols: usize,
    /// F32: `[n_tokens][cols]`.
    values: Lines<f32>,
    /// I8, Q8: `[n_tokens][cols]`.
    q: Lines<i8>,
    /// I8: `[n_tokens]`, the factor that was applied. Q8: `[n_tokens][cols / 32]`, the step d.
    scale: Vec<f32>,
    /// I8: `[n_tokens]`.
    isum: Vec<i32>,
    /// Q8: `[n_tokens][cols / 32]`.
    bsum: Vec<f32>,
}

/// One token of [`ActKind::I8`].
#[derive(Debug, Clone, Copy)]
pub struct I8Token<'a> {
    /// The quantised values.
    pub q: &'a [i8],
    /// `127 / absmax`: x is about `q / scale`.
    pub scale: f32,
    /// The sum of `q`.
    pub isum: i32,
}

/// One token of [`ActKind::Q8`].
#[derive(Debug, Clone, Copy)]
pub struct Q8Token<'a> {
    /// The quantised values, within +-127.
    pub q: &'a [i8],
    /// The step of each block: x is about `q * d`.
    pub d: &'a [f32],
    /// `d * sum(q)` of each block.
    pub bsum: &'a [f32],
}

/// The parts that [`Activations::reset`] has sized, to be filled by a kernel set. Parts of other kinds are empty.
#[derive(Debug)]
pub struct ActivationsMut<'a> {
    /// F32: `[n_tokens][cols]`.
    pub values: &'a mut [f32],
    /// I8, Q8: `[n_tokens][cols]`.
    pub q: &'a mut [i8],
    /// I8: `[n_tokens]`. Q8: `[n_tokens][cols / 32]`.
    pub scale: &'a mut [f32],
    /// I8: `[n_tokens]`.
    pub isum: &'a mut [i32],
    /// Q8: `[n_tokens][cols / 32]`.
    pub bsum: &'a mut [f32],
}

impl Default for Activations {
    fn default() -> Self {
        Self {
            kind: ActKind::F32,
            n_tokens: 0,
            cols: 0,
            values: Lines::default(),
            q: Lines::default(),
            scale: Vec::new(),
            isum: Vec::new(),
            bsum: Vec::new(),
        }
    }
}

impl Activations {
    /// Sizes the buffers for `n_tokens` of `cols` values and hands them out to be filled.
    ///
    /// # Panics
    /// If `kind` is [`ActKind::Q8`] and `cols` is not a multiple of 32, or the size overflows.
    pub fn reset(&mut self, kind: ActKind, n_tokens: usize, cols: usize) -> ActivationsMut<'_> {
        let all = n_tokens.checked_mul(cols).expect("the activations fit in memory");
        assert!(kind != ActKind::Q8 || cols.is_multiple_of(Q8_BLOCK), "{cols} columns are not blocks of {Q8_BLOCK}");
        (self.kind, self.n_tokens, self.cols) = (kind, n_tokens, cols);
        let (values, q, scale, isum, bsum) = match kind {
            ActKind::F32 => (all, 0, 0, 0, 0),
            ActKind::I8 => (0, all, n_tokens, n_tokens, 0),
            ActKind::Q8 => (0, all, all / Q8_BLOCK, 0, all / Q8_BLOCK),
        };
        self.values.resize(values);
        self.q.resize(q);
        self.scale.resize(scale, 0.0);
        self.isum.resize(isum, 0);
        self.bsum.resize(bsum, 0.0);
        ActivationsMut {
            values: &mut self.values,
            q: &mut self.q,
            scale: &mut self.scale,
            isum: &mut self.isum,
            bsum: &mut self.bsum,
        }
    }

    /// [`ActKind::I8`] from raw values `q` `[n_tokens][cols]` and one scale per token; any i8 is allowed, -128 too.
    /// For tests that need input no quantiser would produce.
    pub fn from_i8(q: &[i8], scale: &[f32], n_tokens: usize, cols: usize) -> Result<Self, QuantError> {
        expect_len("q", q.len(), n_tokens, cols, n_tokens.saturating_mul(cols))?;
        expect_len("scale", scale.len(), n_tokens, cols, n_tokens)?;
        let mut out = Self::default();
        let parts = out.reset(ActKind::I8, n_tokens, cols);
        parts.q.copy_from_slice(q);
        parts.scale.copy_from_slice(scale);
        for (t, isum) in parts.isum.iter_mut().enumerate() {
            *isum = q[t * cols..(t + 1) * cols].iter().map(|&v| i32::from(v)).sum();
        }
        Ok(out)
    }

    /// [`ActKind::Q8`] from raw values within +-127 `[n_tokens][cols]` and steps `[n_tokens][cols / 32]`.
    pub fn from_q8(q: &[i8], d: &[f32], n_tokens: usize, cols: usize) -> Result<Self, QuantError> {
        let all = n_tokens.saturating_mul(cols);
        expect_len("q", q.len(), n_tokens, cols, all)?;
        expect_len("d", d.len(), n_tokens, cols, all / Q8_BLOCK)?;
        expect_len("the last block", cols % Q8_BLOCK, n_tokens, cols, 0)?;
        // The one value that sign tricks cannot negate; the quantiser never makes it.
        expect_len("q below -127", q.iter().filter(|&&v| v == -128).count(), n_tokens, cols, 0)?;
        let mut out = Self::default();
        let parts = out.reset(ActKind::Q8, n_tokens, cols);
        parts.q.copy_from_slice(q);
        parts.scale.copy_from_slice(d);
        for (b, bsum) in parts.bsum.iter_mut().enumerate() {
            *bsum = block_sum(d[b], &q[b * Q8_BLOCK..(b + 1) * Q8_BLOCK]);
        }
        Ok(out)
    }

    /// What kind was prepared.
    pub fn kind(&self) -> ActKind {
        self.kind
    }

    /// Number of tokens.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// Values per token (K).
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// One token of [`ActKind::F32`].
    ///
    /// # Panics
    /// If the kind is another or the token does not exist; so do [`i8`](Self::i8),
    /// [`i8_rows`](Self::i8_rows) and [`q8`](Self::q8).
    #[inline]
    pub fn f32(&self, token: usize) -> &[f32] {
        self.check(ActKind::F32, token);
        &self.values[token * self.cols..(token + 1) * self.cols]
    }

    /// One token of [`ActKind::I8`].
    #[inline]
    pub fn i8(&self, token: usize) -> I8Token<'_> {
        self.check(ActKind::I8, token);
        I8Token {
            q: &self.q[token * self.cols..(token + 1) * self.cols],
            scale: self.scale[token],
            isum: self.isum[token],
        }
    }

    /// The quantised values of some tokens of [`ActKind::I8`], `[tokens][cols]`.
    pub fn i8_rows(&self, tokens: Range<usize>) -> &[i8] {
        assert_eq!(self.kind, ActKind::I8, "activations were prepared as another kind");
        &self.q[tokens.start * self.cols..tokens.end * self.cols]
    }

    /// One token of [`ActKind::Q8`].
    #[inline]
    pub fn q8(&self, token: usize) -> Q8Token<'_> {
        self.check(ActKind::Q8, token);
        let blocks = self.cols / Q8_BLOCK;
        Q8Token {
            q: &self.q[token * self.cols..(token + 1) * self.cols],
            d: &self.scale[token * blocks..(token + 1) * blocks],
            bsum: &self.bsum[token * blocks..(token + 1) * blocks],
        }
    }

    #[inline]
    fn check(&self, kind: ActKind, token: usize) {
        assert_eq!(self.kind, kind, "activations were prepared as another kind");
        assert!(token < self.n_tokens, "token {token} of {}", self.n_tokens);
    }
}

fn expect_len(what: &'static str, got: usize, n_tokens: usize, cols: usize, expected: usize) -> Result<(), QuantError> {
    if got == expected { Ok(()) } else { Err(QuantError::Activations { what, n_tokens, cols, expected, got }) }
}

/// `d * sum(q)`.
pub(crate) fn block_sum(d: f32, q: &[i8]) -> f32 {
    d * (q.iter().map(|&v| i32::from(v)).sum::<i32>() as f32)
}

/// The largest magnitude, at least `floor`, NaN passed over.
fn absmax(x: &[f32], floor: f32) -> f32 {
    x.iter().fold(floor, |m, v| if v.abs() > m { v.abs() } else { m })
}

/// Quantises one token with one scale; returns `(scale, sum of q)`. The definition, and the scalar kernel.
pub fn quantize_token(x: &[f32], q: &mut [i8]) -> (f32, i32) {
    let scale = 127.0 / absmax(x, 1e-5);
    let mut isum = 0;
    for (q, x) in q.iter_mut().zip(x) {
        *q = (x * scale).round_ties_even().clamp(-128.0, 127.0) as i8; // `as` takes NaN to 0
        isum += i32::from(*q);
    }
    (scale, isum)
}

/// Quantises one block of 32; returns `(d, bsum)`. The definition, and the scalar kernel.
pub fn quantize_block(x: &[f32], q: &mut [i8]) -> (f32, f32) {
    let d = absmax(x, 0.0) / 127.0;
    let id = if d > 0.0 { 1.0 / d } else { 0.0 };
    for (q, x) in q.iter_mut().zip(x) {
        *q = (x * id).round_ties_even().clamp(-127.0, 127.0) as i8;
    }
    (d, block_sum(d, q))
}
