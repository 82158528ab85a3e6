//! Bytes in memory of our own, mapped apart so that the system may back them with huge pages.
//!
//! What every token reads from end to end (an int8 copy of the output matrix, copied weights) meets a page of 4 KiB every
//! few microseconds; with pages of 2 MiB the processor looks up 512 times fewer addresses. Linux gives them where a mapping
//! asks for it (`madvise` in `/sys/kernel/mm/transparent_hugepage/enabled`) and has some free; elsewhere nothing is lost.

use crate::lines::Plain;
use memmap2::{MmapOptions, MmapRaw};
use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// Bytes of all [`Pages`] that there are.
static HELD: AtomicUsize = AtomicUsize::new(0);
/// The most that [`HELD`] was since it was asked for.
static MOST: AtomicUsize = AtomicUsize::new(0);

/// Bytes that all [`Pages`] of the process have. An allocator does not know of them.
pub fn held() -> usize {
    HELD.load(Ordering::Relaxed)
}

/// The most bytes that all [`Pages`] had at a time since the last call.
pub fn most_held() -> usize {
    MOST.swap(held(), Ordering::Relaxed)
}

/// A zeroed mapping.
pub struct Pages {
    map: Arc<MmapRaw>,
    /// Where its bytes are in it: large ones begin at a huge page.
    range: Range<usize>,
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages").field("len", &self.len()).finish()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        HELD.fetch_sub(self.range.len(), Ordering::Relaxed);
    }
}

impl Pages {
    /// `len` zero bytes, none of them touched yet; `huge` asks for huge pages, which may be declined.
    ///
    /// # Errors
    /// The system has not that much memory to promise.
    pub fn new(len: usize, huge: bool) -> io::Result<Self> {
        let spare = if len < REGION { 0 } else { REGION };
        let whole = len.checked_add(spare).ok_or(io::ErrorKind::OutOfMemory)?;
        let map = MmapRaw::from(MmapOptions::new().len(whole).map_anon()?);
        let start = if spare == 0 { 0 } else { map.as_ptr().align_offset(REGION) };
        #[cfg(target_os = "linux")]
        if huge {
            // A kernel that has none says that it does not know the advice: the bytes are the same.
            let _declined = map.advise(memmap2::Advice::HugePage);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = huge;
        MOST.fetch_max(HELD.fetch_add(len, Ordering::Relaxed) + len, Ordering::Relaxed);
        Ok(Self { map: Arc::new(map), range: start..start + len })
    }

    /// To back these bytes, before they are written first, by the cheaper pages.
    #[must_use]
    pub fn backing(&self) -> Backing {
        let regions = (0..self.len().div_ceil(REGION)).map(|_| AtomicBool::new(false)).collect();
        let (map, range) = (Arc::clone(&self.map), self.range.clone());
        Backing { map, range, regions, small: Tally::default(), huge: Tally::default() }
    }

    /// The bytes as numbers of the machine's byte order; bytes at the end that are no whole number are left out.
    pub fn as_slice<T: Plain>(&self) -> &[T] {
        // SAFETY: any bytes are a `T`, and they begin at a page, which is more than its alignment.
        unsafe { std::slice::from_raw_parts(self.as_ptr().cast(), self.len() / size_of::<T>()) }
    }

    /// [`Pages::as_slice`] to be written.
    pub fn as_mut_slice<T: Plain>(&mut self) -> &mut [T] {
        // SAFETY: as in `as_slice`, and `T` has no padding; the mapping is borrowed as a whole.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr().cast(), self.len() / size_of::<T>()) }
    }
}

/// Bytes that are backed together: a huge page.
const REGION: usize = 2 << 20;
/// Nanoseconds by which huge pages may have been dearer, in all, before small ones are taken.
const SLACK: u64 = 5_000_000;

/// Gets the pages of a mapping from the system before they are written, and finds out on the way which kind is the cheaper one.
///
/// A huge page costs a quarter of the small ones in its place where its memory is at hand, and is read faster. A virtual machine may have to
/// ask its host for it: five times as much. What one costs is not known before it is there, so that each is timed.
#[derive(Debug)]
pub struct Backing {
    map: Arc<MmapRaw>,
    range: Range<usize>,
    /// Whether somebody has begun with it.
    regions: Vec<AtomicBool>,
    small: Tally,
    huge: Tally,
}

/// The time that regions took.
#[derive(Debug, Default)]
struct Tally {
    regions: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Tally {
    fn add(&self, started: Instant) {
        let time = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(time, Ordering::Relaxed);
        self.regions.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> (u64, u64) {
        (self.regions.load(Ordering::Relaxed), self.nanoseconds.load(Ordering::Relaxed))
    }
}

impl Backing {
    /// Backs what lies in `bytes`, and some more around. It is done once for every byte, by the first thread that asks for it, and another
    /// thread does not wait: a page that is not there yet comes with the first write.
    pub fn back(&self, bytes: Range<usize>) {
        for region in bytes.start / REGION..bytes.end.div_ceil(REGION).min(self.regions.len()) {
            if !self.regions[region].swap(true, Ordering::Relaxed) {
                self.get(region);
            }
        }
    }

    #[cfg(target_os = "linux")]
    fn get(&self, region: usize) {
        use memmap2::Advice;
        let start = self.range.start + region * REGION;
        let len = REGION.min(self.range.end - start);
        let huge = huge_pages_are_given() && huge_is_cheaper(self.small.get(), self.huge.get());
        let started = Instant::now();
        if huge {
            let _declined = self.map.advise_range(Advice::HugePage, start, len);
        }
        // Before Linux 5.14 this is declined, and the pages come with the first write.
        let got = self.map.advise_range(Advice::PopulateWrite, start, len).is_ok();
        if got {
            if huge { &self.huge } else { &self.small }.add(started);
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn get(&self, _: usize) {}
}

/// Whether the next region is to be a huge page, after so many regions in so many nanoseconds of each kind. One of small pages comes first.
fn huge_is_cheaper((small, small_time): (u64, u64), (huge, huge_time): (u64, u64)) -> bool {
    small > 0 && huge_time <= huge * (small_time / small) + SLACK
}

/// Whether Linux gives huge pages to mappings that ask for them.
pub fn huge_pages_are_given() -> bool {
    static GIVEN: OnceLock<bool> = OnceLock::new();
    *GIVEN.get_or_init(|| {
        let enabled = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
        enabled.contains("[madvise]") || enabled.contains("[always]")
    })
}

/// What memory costs when it is first touched, in seconds a byte on one thread, where huge pages are asked for. A virtual machine may have
/// to ask its host for each. Measured once a process, on a few MiB; `None` where the system gives no huge pages to who asks.
pub fn cost_of_huge_pages() -> Option<f64> {
    static COST: OnceLock<Option<f64>> = OnceLock::new();
    *COST.get_or_init(|| {
        let mut pages = huge_pages_are_given().then(|| Pages::new(PROBE, true).ok()).flatten()?;
        let started = Instant::now();
        pages.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        Some(started.elapsed().as_secs_f64() / PROBE as f64)
    })
}

/// Bytes that are touched to measure: three huge pages at least, wherever the mapping begins.
const PROBE: usize = 8 << 20;

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping is readable, has these bytes, is initialised by the system and lives as long as `self`. Only `&mut self` gives
        // access for writing; a backing does not change a byte.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(self.range.start), self.range.len()) }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and it is writable; `self` is borrowed as a whole, and not `Clone`.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().add(self.range.start), self.range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_cost_something() {
        if let Some(cost) = cost_of_huge_pages() {
            // From a memory of 1 TB/s to a page fault of a millisecond.
            assert!((1e-12..1e-3 / 4096.0).contains(&cost), "{cost}");
            assert_eq!(cost_of_huge_pages(), Some(cost), "measured once");
        }
    }

    #[test]
    fn huge_pages_while_they_are_not_dearer() {
        assert!(!huge_is_cheaper((0, 0), (0, 0)), "small ones first: nothing is known of them");
        assert!(huge_is_cheaper((1, 800_000), (0, 0)));
        assert!(huge_is_cheaper((1, 800_000), (10, 2_000_000)));
        // One that the host had to give; later ones may make good for it.
        assert!(huge_is_cheaper((2, 1_600_000), (1, 4_400_000)));
        assert!(!huge_is_cheaper((2, 1_600_000), (2, 8_800_000)));
        assert!(huge_is_cheaper((2, 1_600_000), (100, 80_000_000)));
    }

    #[test]
    fn what_is_backed_is_zero_and_keeps_what_is_written() {
        let mut pages = Pages::new((7 << 20) + 5, false).unwrap();
        let backing = pages.backing();
        pages[100] = 7;
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| backing.back(0..(7 << 20) + 5));
            }
        });
        let (small, huge) = (backing.small.get().0, backing.huge.get().0);
        assert!(small + huge <= 4 && (small > 0 || huge == 0), "{small} {huge}: each of four regions once");
        backing.back((7 << 20)..(9 << 20));
        assert_eq!(pages.iter().map(|b| u64::from(*b)).sum::<u64>(), 7);
        pages[7 << 20] = 9;
        assert_eq!((pages[100], pages[7 << 20]), (7, 9));
    }

    #[test]
    fn zero_at_first_then_what_was_written() {
        for huge in [false, true] {
            let mut pages = Pages::new(5 << 20, huge).unwrap();
            assert_eq!(pages.len(), 5 << 20);
            assert!(pages.iter().all(|b| *b == 0));
            pages.as_mut_slice::<i8>()[3 << 20] = -2;
            pages.as_mut_slice()[7] = u16::MAX;
            assert_eq!((pages[13], pages[14], pages[15], pages.as_slice()[7]), (0, 255, 255, u16::MAX));
            assert_eq!((pages[3 << 20], pages.as_slice::<i8>()[3 << 20]), (254, -2));
            assert_eq!(pages.as_slice::<u64>().len(), 5 << 17);
        }
        assert!(Pages::new(usize::MAX / 4, true).is_err(), "more than there can be");
    }
}
