//! Buffers that begin at a cache line.
//!
//! An allocator aligns to 16 bytes, and puts a large buffer 16 bytes behind the start of a page. There every load of 64 bytes lies in
//! two lines, and so does every second load of 32: on a Zen 4, products of f32 and f16 weights take a fifth longer.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Numbers that any bytes are: what [`Lines`], [`crate::pages::Pages`] and the buffers of a device hold.
pub trait Plain: Copy + private::Sealed {}

mod private {
    /// Any bits are a value, there is no padding, and the size and the alignment divide 64 (so that the size is not 0).
    pub trait Sealed {}
}

macro_rules! plain {
    ($($t:ty),*) => { $(impl private::Sealed for $t {} impl Plain for $t {})* };
}
plain!(u8, i8, u16, u32, i32, u64, f32);

/// Some numbers, the first of which is the first of a cache line.
#[derive(Clone)]
pub struct Lines<T: Plain> {
    lines: Vec<Line>,
    len: usize,
    of: PhantomData<T>,
}

impl<T: Plain> Lines<T> {
    /// None, and nothing is allocated.
    #[must_use]
    pub const fn new() -> Self {
        Self { lines: Vec::new(), len: 0, of: PhantomData }
    }

    /// Changes the length. The values of new numbers are not specified. Nothing is allocated where it was as long before.
    pub fn resize(&mut self, len: usize) {
        self.lines.resize(len.div_ceil(size_of::<Line>() / size_of::<T>()), Line([0; 64]));
        self.len = len;
    }
}

impl<T: Plain> From<&[T]> for Lines<T> {
    fn from(numbers: &[T]) -> Self {
        let mut lines = Self::default();
        lines.resize(numbers.len());
        lines.copy_from_slice(numbers);
        lines
    }
}

impl<T: Plain> Default for Lines<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Plain + std::fmt::Debug> std::fmt::Debug for Lines<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self[..].fmt(f)
    }
}

impl<T: Plain> Deref for Lines<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `resize` made that many bytes, they are initialised, and any bytes are a `T`, which is aligned to 64 at most.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl<T: Plain> DerefMut for Lines<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `self` is borrowed as a whole.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_at_a_line_and_has_its_length() {
        let mut numbers = Lines::<f32>::default();
        assert!(numbers.is_empty());
        for len in [1, 16, 17, 5000, 3, 0, 40] {
            numbers.resize(len);
            assert_eq!((numbers.len(), numbers.as_ptr() as usize % 64), (len, 0));
            numbers.fill(2.0);
            assert_eq!(numbers.clone().iter().sum::<f32>(), 2.0 * len as f32);
        }
        let bytes = Lines::from([7u8; 65].as_slice());
        assert_eq!((bytes.len(), bytes.lines.len(), bytes[64]), (65, 2, 7));
    }
}
