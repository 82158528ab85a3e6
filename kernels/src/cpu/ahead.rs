//! Asking memory for weights before their turn.
//!
//! The rows of a product lie one after the other, and a few are read together: several streams that end after some hundred
//! bytes, before a processor's own prefetcher has found them. So software asks, in the order in which the bytes lie, and not in
//! that in which they are read: a stream without an end, [`DISTANCE`] ahead of the reader, over the borders of rows and of the
//! pieces that a thread takes. Lines go to L2. There is more room than in L1 for lines that are on their way: on a Zen 4 of
//! 31 GB/s a thread got 8 GB/s of rows of 640 bytes with no prefetch or one into L1 of the same place in the next rows, and 25 so.

use crate::numerics::PV_CHUNK;
use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};

/// Bytes between what is asked for and what is read. What a memory delivers while a line is on its way is about 2 KiB for a thread.
const DISTANCE: usize = 6144;
/// Bytes of a cache line.
const LINE: usize = 64;

/// Cache lines of so many f16.
#[inline(always)]
pub(super) fn lines(halves: usize) -> usize {
    (2 * halves).div_ceil(LINE)
}

/// How far memory was asked, for rows that are read together.
pub(super) struct Ahead {
    from: *const u8,
    next: *const u8,
}

impl Ahead {
    /// Of so many rows, the first of which is `row`.
    #[inline(always)] // into the caller's instruction set
    pub(super) fn of<T>(row: &[T], rows: usize) -> Self {
        // Where the first of them is read, the last one is too.
        let read = (rows - 1) * size_of_val(row);
        let from = row.as_ptr().cast::<u8>().wrapping_add(read + DISTANCE);
        Self { from, next: from }
    }

    /// Of attention's values: a chunk is read in several passes, each some elements of all its positions, and the next one is to be
    /// asked for meanwhile. The first one is asked for here.
    #[inline(always)]
    pub(super) fn of_chunks(values: &[u16], stride: usize, positions: usize) -> Self {
        let from = values.as_ptr().cast::<u8>();
        let mut ahead = Self { from, next: from };
        ahead.ask(lines(stride) * positions.min(PV_CHUNK));
        ahead
    }

    /// The next so many lines, as many as are being read. Lines beyond what a loop reads are those of the next one.
    #[inline(always)]
    pub(super) fn ask(&mut self, lines: usize) {
        for line in 0..lines {
            // SAFETY: to the program a prefetch is not an access, any address will do; SSE is part of x86-64.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(self.next.wrapping_add(line * LINE).cast()) };
        }
        self.next = self.next.wrapping_add(lines * LINE);
    }

    /// As [`Ahead::ask`] where reading is not by lines: so many bytes of the rows, all together, were read or are being read.
    #[inline(always)]
    pub(super) fn reach(&mut self, bytes: usize) {
        let to = self.from.wrapping_add(bytes);
        while self.next < to {
            self.ask(1);
        }
    }
}
