//! Bytes in memory of our own, mapped apart so that the system may back them with huge pages.
//!
//! What every token reads from end to end (an int8 copy of the output matrix, copied weights) meets a page of 4 KiB every
//! few microseconds; with pages of 2 MiB the processor looks up 512 times fewer addresses. Linux gives them where a mapping
//! asks for it (`madvise` in `/sys/kernel/mm/transparent_hugepage/enabled`) and has some free; elsewhere nothing is lost.

use memmap2::MmapMut;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::OnceLock;
use std::time::Instant;

/// A zeroed mapping.
pub struct Pages(MmapMut);

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages").field("len", &self.0.len()).finish()
    }
}

impl Pages {
    /// `len` zero bytes, none of them touched yet; `huge` asks for huge pages, which may be declined.
    ///
    /// # Errors
    /// The system has not that much memory to promise.
    pub fn new(len: usize, huge: bool) -> io::Result<Self> {
        let map = MmapMut::map_anon(len)?;
        #[cfg(target_os = "linux")]
        if huge {
            // A kernel that has none says that it does not know the advice: the bytes are the same.
            let _declined = map.advise(memmap2::Advice::HugePage);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = huge;
        Ok(Self(map))
    }

    /// The bytes as signed numbers.
    pub fn as_i8(&self) -> &[i8] {
        // SAFETY: i8 has the size and the alignment of u8, and every byte is one.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len()) }
    }

    /// [`Pages::as_i8`] to be written.
    pub fn as_i8_mut(&mut self) -> &mut [i8] {
        // SAFETY: as in `as_i8`; the mapping is borrowed as a whole.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len()) }
    }
}

/// Whether Linux gives huge pages to mappings that ask for them.
pub fn huge_pages_are_given() -> bool {
    static GIVEN: OnceLock<bool> = OnceLock::new();
    *GIVEN.get_or_init(|| {
        let enabled = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
        enabled.contains("[madvise]") || enabled.contains("[always]")
    })
}

/// What memory costs when it is first touched, in seconds a byte on one thread. On a bare machine huge pages are the cheaper ones; a virtual
/// one may have to ask its host for each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PageCost {
    /// In small pages.
    pub small: f64,
    /// Where huge pages are asked for.
    pub huge: f64,
}

impl PageCost {
    /// Measured once a process, on a few MiB; `None` where the system gives no huge pages to who asks.
    pub fn measured() -> Option<Self> {
        static COST: OnceLock<Option<PageCost>> = OnceLock::new();
        *COST.get_or_init(|| {
            if !huge_pages_are_given() {
                return None;
            }
            let touch = |huge| -> Option<f64> {
                let mut pages = Pages::new(PROBE, huge).ok()?;
                let started = Instant::now();
                pages.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
                Some(started.elapsed().as_secs_f64() / PROBE as f64)
            };
            Some(Self { small: touch(false)?, huge: touch(true)? })
        })
    }
}

/// Bytes that are touched to measure: three huge pages at least, wherever the mapping begins.
const PROBE: usize = 8 << 20;

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_cost_something() {
        if let Some(cost) = PageCost::measured() {
            // From a memory of 1 TB/s to a page fault of a millisecond.
            let plausible = 1e-12..1e-3 / 4096.0;
            assert!(plausible.contains(&cost.small) && plausible.contains(&cost.huge), "{cost:?}");
            assert_eq!(PageCost::measured(), Some(cost), "measured once");
        }
    }

    #[test]
    fn zero_at_first_then_what_was_written() {
        for huge in [false, true] {
            let mut pages = Pages::new(5 << 20, huge).unwrap();
            assert_eq!(pages.len(), 5 << 20);
            assert!(pages.iter().all(|b| *b == 0));
            pages.as_i8_mut()[3 << 20] = -2;
            assert_eq!((pages[3 << 20], pages.as_i8()[3 << 20]), (254, -2));
        }
        assert!(Pages::new(usize::MAX / 4, true).is_err(), "more than there can be");
    }
}
