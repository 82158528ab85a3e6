//! Where a matrix product writes: a view of `y` that several threads can share without sharing a single element.
//!
//! A slice cannot express it: with more than one token the rows of one thread are a *column band* of `[n_tokens][rows]`,
//! so the elements of two threads interleave in memory. The view carries the band that it may write, and is split by band.

use std::marker::PhantomData;
use std::ops::Range;

/// A writable band of an output `[n_tokens][width]`; `width` is the number of rows of the weight matrix.
#[derive(Debug)]
pub struct OutView<'a> {
    ptr: *mut f32,
    n_tokens: usize,
    width: usize,
    band: Range<usize>,
    marker: PhantomData<&'a mut [f32]>,
}

// SAFETY: a view is an exclusive borrow of the elements in its band (bands of different views do not overlap, see
// `split_at` and the duty of `alias`'s caller), so moving it to a thread is moving a `&mut [f32]`.
unsafe impl Send for OutView<'_> {}
// SAFETY: through `&OutView` one can only read the shape, or call the unsafe `alias`.
unsafe impl Sync for OutView<'_> {}

impl<'a> OutView<'a> {
    /// The whole of `y`, laid out `[n_tokens][width]`.
    ///
    /// # Panics
    /// If `y` does not have exactly `n_tokens * width` elements.
    pub fn new(y: &'a mut [f32], n_tokens: usize, width: usize) -> Self {
        assert_eq!(Some(y.len()), n_tokens.checked_mul(width), "y must be [n_tokens][width]");
        Self { ptr: y.as_mut_ptr(), n_tokens, width, band: 0..width, marker: PhantomData }
    }

    /// Number of tokens.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// Number of columns of `y`, in and out of the band.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The columns that may be written through this view.
    pub fn band(&self) -> Range<usize> {
        self.band.clone()
    }

    /// The same view for a shorter time.
    pub fn reborrow(&mut self) -> OutView<'_> {
        OutView { ptr: self.ptr, n_tokens: self.n_tokens, width: self.width, band: self.band(), marker: PhantomData }
    }

    /// Two views: the columns of the band before `column`, and the rest.
    ///
    /// # Panics
    /// If `column` is outside the band.
    pub fn split_at(self, column: usize) -> (OutView<'a>, OutView<'a>) {
        assert!(self.band.start <= column && column <= self.band.end, "column {column} is outside {:?}", self.band);
        let band =
            |band| OutView { ptr: self.ptr, n_tokens: self.n_tokens, width: self.width, band, marker: PhantomData };
        (band(self.band.start..column), band(column..self.band.end))
    }

    /// A second view of the columns `band`, for a thread pool whose closure is shared by its threads.
    ///
    /// # Safety
    /// While the result lives, no other view may be used to read or write these columns.
    ///
    /// # Panics
    /// If `band` is not inside this view's band.
    pub unsafe fn alias(&self, band: Range<usize>) -> OutView<'a> {
        assert!(
            self.band.start <= band.start && band.start <= band.end && band.end <= self.band.end,
            "columns {band:?} are not inside {:?}",
            self.band
        );
        OutView { ptr: self.ptr, n_tokens: self.n_tokens, width: self.width, band, marker: PhantomData }
    }

    /// Writes one element.
    ///
    /// # Panics
    /// If the token does not exist or the column is outside the band.
    pub fn set(&mut self, token: usize, column: usize, value: f32) {
        assert!(token < self.n_tokens && self.band.contains(&column), "[{token}][{column}] is outside the view");
        // SAFETY: token < n_tokens and column < width, so the offset is inside the slice given to `new`; the column is
        // in the band, which this view borrows exclusively.
        unsafe { *self.ptr.add(token * self.width + column) = value }
    }

    /// Some columns of one token.
    ///
    /// # Panics
    /// If the token does not exist or a column is outside the band.
    pub fn row(&mut self, token: usize, columns: Range<usize>) -> &mut [f32] {
        assert!(
            token < self.n_tokens
                && self.band.start <= columns.start
                && columns.start <= columns.end
                && columns.end <= self.band.end,
            "[{token}][{columns:?}] is outside the view"
        );
        // SAFETY: as in `set`, for each of the columns; they lie side by side.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(token * self.width + columns.start), columns.len()) }
    }

    /// Reads one element.
    ///
    /// # Panics
    /// As [`set`](Self::set).
    pub fn get(&self, token: usize, column: usize) -> f32 {
        assert!(token < self.n_tokens && self.band.contains(&column), "[{token}][{column}] is outside the view");
        // SAFETY: as in `set`.
        unsafe { *self.ptr.add(token * self.width + column) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_interleave_and_stay_apart() {
        let mut y = vec![0.0f32; 6];
        let (mut left, mut right) = OutView::new(&mut y, 2, 3).split_at(1);
        left.set(0, 0, 1.0);
        left.set(1, 0, 2.0);
        right.set(0, 2, 3.0);
        right.set(1, 1, 4.0);
        assert_eq!(right.get(1, 1), 4.0);
        right.row(0, 1..3)[0] = 5.0;
        assert_eq!(y, [1.0, 5.0, 3.0, 2.0, 4.0, 0.0]);
    }

    #[test]
    #[should_panic(expected = "outside the view")]
    fn a_column_of_the_neighbour_is_refused() {
        let mut y = vec![0.0f32; 6];
        let (mut left, _right) = OutView::new(&mut y, 2, 3).split_at(1);
        left.set(0, 1, 1.0);
    }

    #[test]
    #[should_panic(expected = "outside the view")]
    fn a_row_into_the_neighbour_is_refused() {
        let mut y = vec![0.0f32; 6];
        let (mut left, _right) = OutView::new(&mut y, 2, 3).split_at(1);
        left.row(0, 0..2);
    }
}
