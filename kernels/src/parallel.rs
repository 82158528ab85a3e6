//! Matrix products on a pool of threads: the rows of several matrices that share an input are one region.

use crate::{Activations, Kernels, Matrix, OutView, Pool};
use std::ops::Range;

/// Below this many multiplications a region is not worth waking the other threads.
pub const SERIAL_WORK: usize = 1 << 15;
/// Rows that one thread takes are a multiple of this: whole register tiles.
const ROW_TILE: usize = 32;

/// A matrix and the output that takes its product, `[tokens][rows]`.
pub struct Product<'a> {
    /// The matrix.
    pub matrix: Matrix<'a>,
    /// Its output.
    pub out: &'a mut [f32],
}

/// Computes all products with the same prepared input. Every output element is computed by one kernel call in the
/// canonical order, so the split changes no bit.
///
/// # Panics
/// If an output is not `[tokens][rows]`, or a matrix wants other activations than `x`.
pub fn matmul(pool: &Pool, kernels: &dyn Kernels, products: &mut [Product<'_>], x: &Activations) {
    let mut total = 0;
    let parts: Vec<(Range<usize>, Matrix<'_>, OutView<'_>)> = products
        .iter_mut()
        .map(|p| {
            let span = total..total + p.matrix.rows;
            total = span.end;
            (span, p.matrix, OutView::new(p.out, x.n_tokens(), p.matrix.rows))
        })
        .collect();
    let compute = |range: Range<usize>| {
        for (span, matrix, out) in &parts {
            let rows = range.start.max(span.start)..range.end.min(span.end);
            if rows.start < rows.end {
                let rows = rows.start - span.start..rows.end - span.start;
                // SAFETY: the ranges that `for_chunks` hands out do not overlap, so no other view writes these rows,
                // and the views in `parts` themselves are not used to write.
                let band = unsafe { out.alias(rows.clone()) };
                kernels.matmul(matrix, x, rows, band);
            }
        }
    };
    let threads = pool.threads();
    if threads == 1 || total * x.cols() * x.n_tokens() < SERIAL_WORK {
        return compute(0..total);
    }
    let least = SERIAL_WORK / 2 / (x.cols() * x.n_tokens());
    pool.for_chunks(total, least.next_multiple_of(ROW_TILE).max(ROW_TILE), &compute);
}
