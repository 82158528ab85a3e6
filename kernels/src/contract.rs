//! The trait that every kernel set implements.
//!
//! One trait and not one table of function pointers per operation, because a set is chosen once and because the harness
//! plants mutants: it wraps a set in its own `impl Kernels` that breaks one operation and delegates the others. So
//! nothing here is sealed, and [`Activations`] and [`OutView`] can be read and written from outside the crate.
//!
//! Every method is exact: its docs or [`crate::numerics`] fix the order of each float operation, and two sets that
//! differ in one bit are a bug in one of them.

use std::ops::Range;

use crate::screen::{self, Bound};
use crate::{ActKind, Activations, Matrix, OutView, numerics};

/// Which elements of a head are rotated together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rope {
    /// Pairs `(i, i + n_rot/2)`: GPT-NeoX, BitNet.
    Neox,
    /// Pairs `(2i, 2i + 1)`: the original LLaMA order.
    Norm,
}

/// The compute kernels of one instruction set.
///
/// Shapes are the caller's duty: a slice of a wrong length panics (it is a bug in the program, never a property of a
/// file, whose shapes [`Matrix::new`] has checked).
pub trait Kernels: Send + Sync {
    /// The name under which the set is listed, e.g. `avx2`.
    fn name(&self) -> &'static str;

    /// Prepares `x`, laid out `[n_tokens][K]`, as input for weights that want `kind`. `out` is overwritten and
    /// its buffers are reused. For [`ActKind::Q8`] K must be a multiple of 32.
    fn prepare(&self, kind: ActKind, x: &[f32], n_tokens: usize, out: &mut Activations);

    /// `y[t][r] = dot(w[r], x[t])` for the rows `r` in `rows` and all tokens `t`. `y` is `[n_tokens][w.rows]`; nothing
    /// outside the columns `rows` is written, so threads own disjoint row ranges.
    fn matmul(&self, w: &Matrix<'_>, x: &Activations, rows: Range<usize>, y: OutView<'_>);

    /// `y_i = (x_i * r) * w_i` with `r = 1 / sqrt(dot(x, x) / n + eps)`, for one row.
    fn rms_norm(&self, x: &[f32], w: &[f32], eps: f32, y: &mut [f32]);

    /// `y_i = ((x_i - mean) * r) * w_i + b_i` with `mean = sum(x) / n` and `r = 1 / sqrt(dot(d, d) / n + eps)`, `d = x - mean`,
    /// for one row: layer normalisation with the population variance. Sum and dot are those of [`crate::numerics`].
    ///
    /// # Panics
    /// If the slices are not of one length.
    fn layer_norm(&self, x: &[f32], w: &[f32], b: &[f32], eps: f32, y: &mut [f32]) {
        check_layer_norm(x, w, b, y);
        let mean = numerics::sum(x) / x.len() as f32;
        for (y, x) in y.iter_mut().zip(x) {
            *y = x - mean;
        }
        let r = 1.0 / (numerics::dot(y, y) / x.len() as f32 + eps).sqrt();
        for ((y, w), b) in y.iter_mut().zip(w).zip(b) {
            *y = *y * r * w + b;
        }
    }

    /// Rotates one head in place; `cos` and `sin` hold `n_rot / 2` entries each, elements from `n_rot` on stay.
    /// `y0 = x0*c - x1*s`, `y1 = x0*s + x1*c`, without fused operations.
    fn rope(&self, kind: Rope, x: &mut [f32], cos: &[f32], sin: &[f32]);

    /// One query head over `n >= 1` cached positions. `k` and `v` are f16 bits, position `t` starts at `t * stride` and
    /// has `q.len()` elements. `scratch` has at least `n` elements; what it holds afterwards is unspecified.
    /// Order: see [`crate::numerics`].
    #[allow(clippy::too_many_arguments)]
    fn attention(
        &self,
        q: &[f32],
        k: &[u16],
        v: &[u16],
        stride: usize,
        n: usize,
        scale: f32,
        scratch: &mut [f32],
        out: &mut [f32],
    );

    /// [`Self::attention`] of some query heads that share their keys and values (grouped-query attention): `q` and `out`
    /// are `[heads][dim]`, `scratch` has at least `n` elements for each head. The same bits as one head after the other.
    #[allow(clippy::too_many_arguments)]
    fn attention_group(
        &self,
        q: &[f32],
        dim: usize,
        k: &[u16],
        v: &[u16],
        stride: usize,
        n: usize,
        scale: f32,
        scratch: &mut [f32],
        out: &mut [f32],
    ) {
        for (q, out) in q.chunks_exact(dim).zip(out.chunks_exact_mut(dim)) {
            self.attention(q, k, v, stride, n, scale, scratch, out);
        }
    }

    /// `gate = max(gate, 0)^2 * up`.
    fn relu2_gate(&self, gate: &mut [f32], up: &[f32]);

    /// `gate = gate / (1 + exp(-gate)) * up`.
    fn silu_gate(&self, gate: &mut [f32], up: &[f32]);

    /// `x = gelu(x)`, see [`numerics::gelu`].
    fn gelu(&self, x: &mut [f32]) {
        for x in x {
            *x = numerics::gelu(*x);
        }
    }

    /// `gate = gelu(gate) * up`.
    ///
    /// # Panics
    /// If the slices are not of one length.
    fn gelu_gate(&self, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len(), "gate and up must be of one length");
        self.gelu(gate);
        for (g, u) in gate.iter_mut().zip(up) {
            *g *= u;
        }
    }

    /// `x *= factor`.
    fn scale(&self, x: &mut [f32], factor: f32) {
        for x in x {
            *x *= factor;
        }
    }

    /// `x += y`.
    fn add(&self, x: &mut [f32], y: &[f32]);

    /// Rounds to f16 bits, to nearest even; what is too large becomes infinite.
    fn f32_to_f16(&self, x: &[f32], out: &mut [u16]);

    /// `out[r] = sum(w[r] * x)` of the rows `w`, laid out `[out.len()][x.len()]`, for [`crate::screen`]. The caller knows that
    /// the sums of the products' magnitudes fit an i32.
    ///
    /// # Panics
    /// If `w` is of another size.
    fn dots_i8_i16(&self, w: &[i8], x: &[i16], out: &mut [i32]) {
        check_dots(w, x, out);
        for (w, out) in w.chunks_exact(x.len()).zip(out) {
            *out = w.iter().zip(x).map(|(w, x)| i32::from(*w) * i32::from(*x)).sum();
        }
    }

    /// Row `row` of `w` as int8, `[cols]`, with what [`crate::screen`] must know of it; `values`, `[cols]`, is written over.
    ///
    /// # Panics
    /// If a slice is of another size, or there is no such row.
    fn narrow(&self, w: &Matrix<'_>, row: usize, values: &mut [f32], q: &mut [i8]) -> Bound {
        check_narrow(w, row, values, q);
        w.unpack_row(row, values);
        screen::narrow(values, q)
    }
}

/// Panics unless the arguments of [`Kernels::narrow`] fit each other.
pub(crate) fn check_narrow(w: &Matrix<'_>, row: usize, values: &[f32], q: &[i8]) {
    assert!(row < w.rows && values.len() == w.cols && q.len() == w.cols, "a row of w, and as many values");
}

/// Panics unless the arguments of [`Kernels::dots_i8_i16`] fit each other.
pub(crate) fn check_dots(w: &[i8], x: &[i16], out: &[i32]) {
    assert!(!x.is_empty(), "rows without columns");
    assert_eq!(Some(w.len()), x.len().checked_mul(out.len()), "w must be [out.len()][x.len()]");
}

/// Panics unless the arguments of [`Kernels::matmul`] fit each other. Every implementation calls it first: kernels that
/// read through pointers rely on it.
///
/// # Panics
/// If the data is not the size of the shape, the activations are of another kind or length, or `rows` or `y` do not fit.
pub fn check_matmul(w: &Matrix<'_>, x: &Activations, rows: &Range<usize>, y: &OutView<'_>) {
    assert_eq!(
        Ok(w.data.len()),
        w.format.matrix_bytes(w.rows, w.cols),
        "a matrix was changed after Matrix::new checked it"
    );
    assert!(w.format.takes(w.act), "{} weights have no product with {:?} activations", w.format.name, w.act);
    assert_eq!(x.kind(), w.act, "the {} weights want {:?} activations", w.format.name, w.act);
    assert_eq!(x.cols(), w.cols, "activations have {} columns, weights {}", x.cols(), w.cols);
    assert!(rows.start <= rows.end && rows.end <= w.rows, "rows {rows:?} of a matrix of {} rows", w.rows);
    assert_eq!(y.n_tokens(), x.n_tokens(), "y has another number of tokens than x");
    assert_eq!(y.width(), w.rows, "y has another width than the matrix has rows");
    let band = y.band();
    assert!(
        rows.is_empty() || (band.start <= rows.start && rows.end <= band.end),
        "rows {rows:?} are outside the band {band:?}"
    );
}

/// Multiplies finished products with the matrix's factor: the last step of [`Kernels::matmul`] for an implementation that
/// does not use [`Matrix::dot`], which has done it.
pub fn multiply(w: &Matrix<'_>, rows: &Range<usize>, y: &mut OutView<'_>) {
    if w.multiplier != 1.0 {
        for token in 0..y.n_tokens() {
            for row in rows.clone() {
                y.set(token, row, y.get(token, row) * w.multiplier);
            }
        }
    }
}

/// Panics unless the arguments of [`Kernels::layer_norm`] fit each other.
pub(crate) fn check_layer_norm(x: &[f32], w: &[f32], b: &[f32], y: &[f32]) {
    assert!(x.len() == w.len() && x.len() == b.len() && x.len() == y.len(), "x, w, b and y must be of one length");
}

/// Panics unless the arguments of [`Kernels::attention`] fit each other.
pub(crate) fn check_attention(
    (q, k, v): (&[f32], &[u16], &[u16]),
    stride: usize,
    n: usize,
    scratch: &[f32],
    out: &[f32],
) {
    assert!(n >= 1, "attention over no positions");
    let last = (n - 1).checked_mul(stride).and_then(|last| last.checked_add(q.len()));
    assert!(
        last.is_some_and(|last| last <= k.len() && last <= v.len()),
        "{n} positions of stride {stride} end beyond the cache of {} and {} elements",
        k.len(),
        v.len()
    );
    assert!(scratch.len() >= n, "scratch of {} floats for {n} positions", scratch.len());
    assert_eq!(out.len(), q.len(), "out and q must be of one length");
}

/// Panics unless the arguments of [`Kernels::rope`] fit each other.
pub(crate) fn check_rope(x: &[f32], cos: &[f32], sin: &[f32]) {
    assert_eq!(cos.len(), sin.len(), "cos and sin must be of one length");
    assert!(2 * cos.len() <= x.len(), "tables for {} elements, the head has {}", 2 * cos.len(), x.len());
}
