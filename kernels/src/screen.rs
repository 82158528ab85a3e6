//! The exact head by screening: which rows of a large matrix can be among the largest products, without reading it all.
//!
//! The output matrix of a model is most of the bytes of a decoded token, and a sampler wants a few of its products. A
//! [`Screen`] is an int8 copy of the matrix (half the bytes of f16) with bounds of what the copy leaves out. From it every
//! product is known up to a bound that is proven, not estimated; the rows whose upper bound reaches the wanted rank are
//! then multiplied exactly, from the matrix itself. So the result is that of the whole matrix, bit for bit.
//!
//! For a row `w = s q + e` (q int8) and an input `x = h X + d` (X int16), by Cauchy and Schwarz:
//!
//! ```text
//! |w.x - s h (q.X)|  <=  (|w| + |e|) |d|  +  |e| |x|
//! |canonical dot - w.x|  <=  g |w| |x|,   g = n u / (1 - n u),  u = 2^-24
//! ```
//!
//! where n is the number of roundings that an element meets in the canonical order of [`crate::numerics`]: one for each
//! 64 columns and six in the tree. `q.X` is an exact i32. The norms are kept rounded up, the rest is f64.

use crate::pages::Pages;
use crate::{ActKind, Activations, Kernels, Matrix, OutView, Pool};
use std::ops::Range;

/// What the caller will look at.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// So many of the largest products; at least 1.
    pub count: usize,
    /// And all that are less than this below the last of them.
    pub within: f32,
    /// And these rows.
    pub also: &'a [u32],
}

/// An int8 copy of a matrix with bounds.
pub struct Screen {
    rows: usize,
    cols: usize,
    /// `[rows][cols]` of i8.
    q: Pages,
    bounds: Vec<Bound>,
    /// The largest norm.
    norm: f32,
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").field("rows", &self.rows).field("cols", &self.cols).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Default)]
struct Bound {
    scale: f32,
    /// `|w|`, rounded up.
    norm: f32,
    /// `|e|`, rounded up.
    rest: f32,
}

/// What was last read from a copy, and buffers that are kept between calls.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Of each token read; `None` where it leaves no bound.
    tokens: Vec<Option<Token>>,
    /// `[tokens][cols]`.
    x: Vec<i16>,
    /// `[rows / CHUNK][tokens][CHUNK]`; the last piece has fewer rows.
    sums: Vec<i32>,
    lower: Vec<f64>,
    ranked: Vec<f64>,
}

/// Rows that one thread takes.
const CHUNK: usize = 512;
/// Rows that stay in a core's cache while one token after the other is multiplied with them.
const BLOCK: usize = 64;

/// The f32 not below a non-negative f64.
fn up(x: f64) -> f32 {
    // One part in a million covers every rounding on the way here and the conversion.
    (x * (1.0 + 1e-6)) as f32 + f32::MIN_POSITIVE
}

fn norm(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|x| x * x).sum::<f64>().sqrt()
}

impl Screen {
    /// The copy of a matrix of floats (f32, f16, bf16); `None` for other formats, for a multiplier beside the bytes, for values that are not finite, for
    /// rows longer than the exact sums allow (65,536), and where there is no memory for it.
    #[must_use]
    pub fn new(w: &Matrix<'_>, pool: &Pool) -> Option<Self> {
        Self::build(w, pool, true, &|_| {})
    }

    /// [`Screen::new`] that asks for huge pages if `huge`, and calls `read` with rows of the matrix (on any thread) that are
    /// in the copy now: whoever owns their memory may give it back for a while.
    #[must_use]
    pub fn build(w: &Matrix<'_>, pool: &Pool, huge: bool, read: &(dyn Fn(Range<usize>) + Sync)) -> Option<Self> {
        if w.act != ActKind::F32
            || w.format.act != ActKind::F32
            || w.multiplier != 1.0
            || w.cols == 0
            || w.rows == 0
            || w.cols > 1 << 16
        {
            return None;
        }
        let q = Pages::new(w.rows.checked_mul(w.cols)?, huge).ok()?;
        let mut screen = Self { rows: w.rows, cols: w.cols, q, bounds: Vec::new(), norm: 0.0 };
        let mut rows: Vec<(&mut [i8], Bound)> =
            screen.q.as_i8_mut().chunks_exact_mut(w.cols).map(|q| (q, Bound::default())).collect();
        pool.for_rows(&mut rows, CHUNK, 1, &|chunk, rows| {
            let mut values = vec![0.0; w.cols];
            for (i, (q, bound)) in rows.iter_mut().enumerate() {
                w.unpack_row(chunk * CHUNK + i, &mut values);
                *bound = quantise(&values, q);
            }
            read(chunk * CHUNK..chunk * CHUNK + rows.len());
        });
        screen.bounds = rows.into_iter().map(|(_, bound)| bound).collect();
        screen.norm = screen.bounds.iter().fold(0.0, |most, b| most.max(b.norm));
        screen.norm.is_finite().then_some(screen)
    }

    /// Bytes of the copy.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.q.len() + size_of_val(&*self.bounds)
    }

    /// Writes the products of `w` (the matrix that this is a copy of) with one token `x` to `y`, `[rows]`: exact, the very
    /// bits of [`Kernels::matmul`], for every row that `wanted` may mean, minus infinity for all others. Returns how many rows
    /// were multiplied, or `None` (and `y` is as it was) if the input leaves no bound.
    ///
    /// # Panics
    /// If `w`, `x` or `y` are of another shape.
    pub fn top(
        &self,
        (kernels, pool): (&dyn Kernels, &Pool),
        w: &Matrix<'_>,
        x: &Activations,
        wanted: Wanted<'_>,
        scratch: &mut Scratch,
        y: &mut [f32],
    ) -> Option<usize> {
        self.read((kernels, pool), x, scratch);
        self.pick(kernels, w, (0, x), wanted, scratch, y)
    }

    /// The first half of [`Screen::top`], for every token of `x`: the copy is read once for all of them.
    ///
    /// # Panics
    /// If `x` is of another width, or has no token.
    pub fn read(&self, (kernels, pool): (&dyn Kernels, &Pool), x: &Activations, scratch: &mut Scratch) {
        let (n, cols) = (x.n_tokens(), self.cols);
        assert!(n > 0 && x.cols() == cols, "tokens of {cols} values");
        scratch.x.resize(n * cols, 0);
        scratch.tokens.clear();
        let norm = f64::from(self.norm);
        scratch.tokens.extend(scratch.x.chunks_exact_mut(cols).enumerate().map(|(t, q)| Token::new(x.f32(t), norm, q)));
        if scratch.tokens.iter().all(Option::is_none) {
            return;
        }
        scratch.sums.resize(n * self.rows, 0);
        let x = &scratch.x;
        pool.for_rows(&mut scratch.sums, CHUNK * n, 1, &|chunk, sums| {
            let rows = sums.len() / n;
            let block = if n == 1 { rows } else { BLOCK };
            for start in (0..rows).step_by(block) {
                let end = rows.min(start + block);
                let q = &self.q.as_i8()[(chunk * CHUNK + start) * cols..(chunk * CHUNK + end) * cols];
                for (x, sums) in x.chunks_exact(cols).zip(sums.chunks_exact_mut(rows)) {
                    kernels.dots_i8_i16(q, x, &mut sums[start..end]);
                }
            }
        });
    }

    /// The second half of [`Screen::top`], for token `t` of those that were read last; `x` is that token alone.
    ///
    /// # Panics
    /// If `w`, `x` or `y` are of another shape, or there is no such token.
    pub fn pick(
        &self,
        kernels: &dyn Kernels,
        w: &Matrix<'_>,
        (t, x): (usize, &Activations),
        wanted: Wanted<'_>,
        scratch: &mut Scratch,
        y: &mut [f32],
    ) -> Option<usize> {
        assert!((w.rows, w.cols) == (self.rows, self.cols), "a screen of another matrix");
        assert!(x.n_tokens() == 1 && y.len() == self.rows, "one token, one product for each row");
        let n = scratch.tokens.len();
        let token = scratch.tokens[t].as_ref()?;
        let value = |sum: i32, bound: &Bound| f64::from(bound.scale) * token.step * f64::from(sum);
        // The rows that go together, each with its number.
        let pieces = || {
            scratch.sums.chunks(CHUNK * n).zip(self.bounds.chunks(CHUNK)).enumerate().map(|(i, (sums, bounds))| {
                let rows = bounds.len();
                (i * CHUNK, &sums[t * rows..(t + 1) * rows], bounds)
            })
        };
        scratch.lower.clear();
        for (_, sums, bounds) in pieces() {
            scratch.lower.extend(sums.iter().zip(bounds).map(|(&sum, b)| value(sum, b) - token.error(b)));
        }
        let count = wanted.count.clamp(1, self.rows);
        let reach = if count == 1 {
            scratch.lower.iter().copied().fold(f64::NEG_INFINITY, f64::max)
        } else {
            scratch.ranked.clone_from(&scratch.lower);
            *scratch.ranked.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a)).1
        };
        if !reach.is_finite() {
            return None;
        }
        let reach = reach - f64::from(wanted.within);
        y.fill(f32::NEG_INFINITY);
        let mut exact = 0;
        let mut multiply = |row: usize| {
            exact += 1;
            kernels.matmul(w, x, row..row + 1, OutView::new(y, 1, self.rows));
        };
        for (first, sums, bounds) in pieces() {
            for (row, (&sum, bound)) in sums.iter().zip(bounds).enumerate() {
                if value(sum, bound) + token.error(bound) >= reach {
                    multiply(first + row);
                }
            }
        }
        wanted.also.iter().map(|&row| row as usize).filter(|&row| row < self.rows).for_each(multiply);
        Some(exact)
    }
}

/// Quantises a row: `s = max|w| / 127`, `q = round(w / s)`.
fn quantise(w: &[f32], q: &mut [i8]) -> Bound {
    let most = w.iter().fold(0.0f32, |m, w| if w.abs() > m || w.is_nan() { w.abs() } else { m });
    if !most.is_finite() {
        return Bound { norm: f32::INFINITY, ..Bound::default() };
    }
    // A scale that is no normal number would lose the bits that the bound counts on.
    let scale = (most / 127.0).max(f32::MIN_POSITIVE);
    for (q, w) in q.iter_mut().zip(w) {
        *q = (w / scale).round_ties_even().clamp(-127.0, 127.0) as i8;
    }
    let rest = norm(w.iter().zip(q.iter()).map(|(w, q)| f64::from(*w) - f64::from(scale) * f64::from(*q)));
    Bound { scale, norm: up(norm(w.iter().map(|w| f64::from(*w)))), rest: up(rest) }
}

/// The input as integers, and what they leave out.
#[derive(Debug)]
struct Token {
    /// `x` is about `step * X`.
    step: f64,
    /// Factor of a row's norm in the error.
    of_norm: f64,
    /// Factor of a row's rest.
    of_rest: f64,
}

impl Token {
    /// `None` if a value is not finite, or if products with rows up to `largest` may overflow an f32: no bound holds then.
    fn new(x: &[f32], largest: f64, out: &mut [i16]) -> Option<Self> {
        let whole = norm(x.iter().map(|x| f64::from(*x)));
        // False for NaN too.
        let tame = whole * largest < 1e37;
        if !tame {
            out.fill(0);
            return None;
        }
        let most = x.iter().fold(0.0f64, |m, x| m.max(f64::from(x.abs())));
        // As fine as the exact i32 sums allow: cols * 127 * limit < 2^31.
        let limit = (f64::from(i32::MAX) / (127.0 * x.len() as f64)).floor().min(f64::from(i16::MAX));
        let step = if most > 0.0 { most / limit } else { 1.0 };
        for (q, x) in out.iter_mut().zip(x) {
            *q = (f64::from(*x) / step).round().clamp(-limit, limit) as i16;
        }
        let rest = norm(x.iter().zip(out.iter()).map(|(x, q)| f64::from(*x) - step * f64::from(*q)));
        let roundings = (x.len().div_ceil(64) + 6) as f64 * f64::from(f32::EPSILON) / 2.0;
        let rounding = roundings / (1.0 - roundings);
        Some(Self { step, of_norm: rest + rounding * whole, of_rest: rest + whole })
    }

    /// How far the canonical product of a row may be from its value by the copy.
    fn error(&self, bound: &Bound) -> f64 {
        let error = f64::from(bound.norm) * self.of_norm + f64::from(bound.rest) * self.of_rest;
        // f64 roundings on the way; and results below the normal f32, which round by an absolute amount.
        error * (1.0 + 1e-6) + 1e-30
    }
}
