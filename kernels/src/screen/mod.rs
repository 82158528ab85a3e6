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
//!
//! A copy need not be whole. Rows that it has not yet are multiplied exactly, and [`Screen::read_on`] copies some more of them
//! in the very pass that multiplies them: they are in the cache then.

pub(crate) mod narrow;

pub use narrow::Bound;
pub(crate) use narrow::narrow;

use crate::pages::{Backing, Pages};
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

/// An int8 copy of a matrix, or of its first rows, with bounds.
pub struct Screen {
    rows: usize,
    cols: usize,
    /// `[rows][cols]` of i8.
    q: Pages,
    /// Gives it the cheaper pages; `None` where its pages are decided.
    backing: Option<Backing>,
    /// Of the rows that are copied.
    bounds: Vec<Bound>,
    /// The largest norm of those.
    norm: f32,
    /// Whether a row was met that has no bound: nothing is copied any more.
    stuck: bool,
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rows, cols, .. } = self;
        f.debug_struct("Screen")
            .field("rows", rows)
            .field("cols", cols)
            .field("copied", &self.copied())
            .finish_non_exhaustive()
    }
}

/// What was last read from a copy, and buffers that are kept between calls.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Of each token read; `None` where it leaves no bound.
    tokens: Vec<Option<Token>>,
    /// `[tokens][cols]`.
    x: Vec<i16>,
    /// Rows that were copied.
    copied: usize,
    /// `[copied / CHUNK][tokens][CHUNK]`; the last piece has fewer rows.
    sums: Vec<i32>,
    /// `[tokens][rows - copied]`: the products of the others.
    exact: Vec<f32>,
    lower: Vec<f64>,
    ranked: Vec<f64>,
}

/// Rows that one thread takes.
const CHUNK: usize = 512;
/// Rows that stay in a core's cache while one token after the other is multiplied with them.
const BLOCK: usize = 64;
/// Rows that stay in a core's second cache between their product and their copy.
const COPIED_TOGETHER: usize = 128;

fn norm(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|x| x * x).sum::<f64>().sqrt()
}

impl Screen {
    /// The copy of a matrix of floats (f32, f16, bf16); `None` for other formats, for a multiplier beside the bytes, for values that are not finite, for
    /// rows longer than the exact sums allow (65,536), and where there is no memory for it.
    pub fn new(w: &Matrix<'_>, (kernels, pool): (&dyn Kernels, &Pool)) -> Option<Self> {
        let mut screen = Self::empty(w, None)?;
        screen.copy((kernels, pool), w, w.rows, None, &|_| {});
        screen.is_whole().then_some(screen)
    }

    /// A copy that has no row yet, in huge pages or not; without a word on that, in what the system gives faster. `None` as in
    /// [`Screen::new`], but that values are not looked at.
    pub fn empty(w: &Matrix<'_>, huge: Option<bool>) -> Option<Self> {
        if w.act != ActKind::F32
            || w.format.act != ActKind::F32
            || w.multiplier != 1.0
            || w.cols == 0
            || w.rows == 0
            || w.cols > 1 << 16
        {
            return None;
        }
        w.part(0..0)?;
        let q = Pages::new(w.rows.checked_mul(w.cols)?, huge == Some(true)).ok()?;
        let backing = huge.is_none().then(|| q.backing());
        Some(Self { rows: w.rows, cols: w.cols, q, backing, bounds: Vec::new(), norm: 0.0, stuck: false })
    }

    /// Rows that are copied.
    pub fn copied(&self) -> usize {
        self.bounds.len()
    }

    /// Whether all rows are copied.
    pub fn is_whole(&self) -> bool {
        self.copied() == self.rows
    }

    /// Bytes of the copy.
    pub fn bytes(&self) -> usize {
        self.copied() * (self.cols + size_of::<Bound>())
    }

    /// Writes the products of `w` (the matrix that this is a copy of) with one token `x` to `y`, `[rows]`: exact, the very
    /// bits of [`Kernels::matmul`], for every row that `wanted` may mean, exact or minus infinity for all others. Returns how many
    /// rows were multiplied, or `None` (and `y` is as it was) if the input leaves no bound.
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
        self.read((kernels, pool), w, x, scratch);
        self.pick(kernels, w, (0, x), wanted, scratch, y)
    }

    /// The first half of [`Screen::top`], for every token of `x`: the copy, and of `w` what is not copied, is read once for all of them.
    ///
    /// # Panics
    /// If `w` or `x` are of another shape, or `x` has no token.
    pub fn read(&self, (kernels, pool): (&dyn Kernels, &Pool), w: &Matrix<'_>, x: &Activations, scratch: &mut Scratch) {
        if self.dots((kernels, pool), w, x, scratch) {
            self.multiply((kernels, pool), w, x, self.copied(), scratch);
        }
    }

    /// [`Screen::read`] that copies up to `more` further rows where it multiplies them, and calls `copied` with rows of the matrix (on
    /// any thread) that are in the copy now: whoever owns their memory may give it back for a while.
    ///
    /// # Panics
    /// As [`Screen::read`].
    pub fn read_on(
        &mut self,
        (kernels, pool): (&dyn Kernels, &Pool),
        (w, more): (&Matrix<'_>, usize),
        x: &Activations,
        copied: &(dyn Fn(Range<usize>) + Sync),
        scratch: &mut Scratch,
    ) {
        if self.dots((kernels, pool), w, x, scratch) {
            let end = self.copy((kernels, pool), w, more, Some((x, scratch)), copied);
            self.multiply((kernels, pool), w, x, end, scratch);
        }
    }

    /// The tokens as integers, and their products with the copied rows. Whether any token has a bound.
    fn dots(
        &self,
        (kernels, pool): (&dyn Kernels, &Pool),
        w: &Matrix<'_>,
        x: &Activations,
        scratch: &mut Scratch,
    ) -> bool {
        let (n, cols) = (x.n_tokens(), self.cols);
        assert!((w.rows, w.cols) == (self.rows, self.cols), "a screen of another matrix");
        assert!(n > 0 && x.cols() == cols, "tokens of {cols} values");
        scratch.x.resize(n * cols, 0);
        scratch.tokens.clear();
        let norm = f64::from(self.norm);
        scratch.tokens.extend(scratch.x.chunks_exact_mut(cols).enumerate().map(|(t, q)| Token::new(x.f32(t), norm, q)));
        scratch.copied = self.copied();
        if scratch.tokens.iter().all(Option::is_none) {
            return false;
        }
        scratch.exact.resize(n * (self.rows - self.copied()), 0.0);
        scratch.sums.resize(n * self.copied(), 0);
        let x = &scratch.x;
        pool.for_rows(&mut scratch.sums, CHUNK * n, 1, &|chunk, sums| {
            let rows = sums.len() / n;
            let block = if n == 1 { rows } else { BLOCK };
            for start in (0..rows).step_by(block) {
                let end = rows.min(start + block);
                let q = &self.q.as_slice()[(chunk * CHUNK + start) * cols..(chunk * CHUNK + end) * cols];
                for (x, sums) in x.chunks_exact(cols).zip(sums.chunks_exact_mut(rows)) {
                    kernels.dots_i8_i16(q, x, &mut sums[start..end]);
                }
            }
        });
        true
    }

    /// The exact products of the rows from `first` on.
    fn multiply(
        &self,
        (kernels, pool): (&dyn Kernels, &Pool),
        w: &Matrix<'_>,
        x: &Activations,
        first: usize,
        scratch: &mut Scratch,
    ) {
        let from = scratch.copied;
        let Some(part) = w.part(from..self.rows) else { return };
        let view = OutView::new(&mut scratch.exact, x.n_tokens(), part.rows);
        pool.for_chunks(self.rows - first, CHUNK, &|range| {
            let rows = first - from + range.start..first - from + range.end;
            // SAFETY: `for_chunks` hands out every row once, so no other view writes these, and `view` itself is not used to write.
            let band = unsafe { view.alias(rows.clone()) };
            kernels.matmul(&part, x, rows, band);
        });
    }

    /// Copies `more` rows, and multiplies them with the tokens if there are any. Returns the first row after them.
    fn copy(
        &mut self,
        (kernels, pool): (&dyn Kernels, &Pool),
        w: &Matrix<'_>,
        more: usize,
        input: Option<(&Activations, &mut Scratch)>,
        copied: &(dyn Fn(Range<usize>) + Sync),
    ) -> usize {
        let (from, cols) = (self.copied(), self.cols);
        let end = from + if self.stuck { 0 } else { more.min(self.rows - from) };
        let Some(part) = w.part(from..self.rows) else { return from };
        let products = input.map(|(x, scratch)| (x, OutView::new(&mut scratch.exact, x.n_tokens(), part.rows)));
        let backing = self.backing.as_ref();
        let mut rows: Vec<(&mut [i8], Bound)> = self.q.as_mut_slice()[from * cols..end * cols]
            .chunks_exact_mut(cols)
            .map(|q| (q, Bound::default()))
            .collect();
        pool.for_rows(&mut rows, COPIED_TOGETHER, 1, &|block, rows| {
            let range = block * COPIED_TOGETHER..block * COPIED_TOGETHER + rows.len();
            if let Some((x, view)) = &products {
                // SAFETY: `for_rows` hands out every block once, so no other view writes these rows, and `view` itself is not
                // used to write.
                let band = unsafe { view.alias(range.clone()) };
                kernels.matmul(&part, x, range.clone(), band);
            }
            if let Some(backing) = backing {
                backing.back((from + range.start) * cols..(from + range.end) * cols);
            }
            let mut values = vec![0.0; cols];
            for (row, (q, bound)) in range.clone().zip(rows) {
                *bound = kernels.narrow(&part, row, &mut values, q);
            }
            copied(from + range.start..from + range.end);
        });
        let norm = rows.iter().fold(self.norm, |most, (_, bound)| most.max(bound.norm));
        if norm.is_finite() {
            self.norm = norm;
            self.bounds.extend(rows.into_iter().map(|(_, bound)| bound));
        } else {
            self.stuck = true;
        }
        end
    }

    /// The second half of [`Screen::top`], for token `t` of those that were read last, of this copy or of one of the same matrix that
    /// had fewer rows; `x` is that token alone.
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
        let copied = scratch.copied;
        // The rows that go together, each with its number.
        let pieces = || {
            let bounds = self.bounds[..copied].chunks(CHUNK);
            scratch.sums.chunks(CHUNK * n).zip(bounds).enumerate().map(|(i, (sums, bounds))| {
                let rows = bounds.len();
                (i * CHUNK, &sums[t * rows..(t + 1) * rows], bounds)
            })
        };
        let others = &scratch.exact[t * (self.rows - copied)..(t + 1) * (self.rows - copied)];
        scratch.lower.clear();
        for (_, sums, bounds) in pieces() {
            scratch.lower.extend(sums.iter().zip(bounds).map(|(&sum, b)| value(sum, b) - token.error(b)));
        }
        scratch.lower.extend(others.iter().map(|y| f64::from(*y)));
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
        y[..copied].fill(f32::NEG_INFINITY);
        y[copied..].copy_from_slice(others);
        let mut exact = others.len();
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
        wanted.also.iter().map(|&row| row as usize).filter(|&row| row < copied).for_each(multiply);
        Some(exact)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum of both parts, with room for the roundings of itself and of products below the normal f32.
    #[test]
    fn an_error_is_rounded_up() {
        let token = Token { step: 1.0, of_norm: 2.0, of_rest: 3.0 };
        let error = |norm, rest| token.error(&Bound { scale: 1.0, norm, rest });
        assert!((31.000_03..31.000_04).contains(&error(5.0, 7.0)), "{}", error(5.0, 7.0));
        assert!((0.9e-30..1.1e-30).contains(&error(0.0, 0.0)), "{}", error(0.0, 0.0));
    }
}
