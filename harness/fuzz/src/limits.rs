//! Memory and time of one execution.
//!
//! [`Counting`] is the program's allocator: it counts what is held, and gives nothing beyond [`CEILING`], which ends the process.
//! Whoever started it finds the input where it was written before ([`crate::run`]).
//!
//! A thread counts for itself, and adds that to the common count every [`STEP`] bytes. An atomic operation for each allocation would cost
//! more than some whole executions. The thread that measures adds its count when it begins and ends, so that what one thread holds is exact.
//!
//! [`Pages`](pages::Pages) do not come from the allocator. They count themselves, and the most that they had is added to the most that was
//! allocated. Files that are mapped are not counted.

use bitnet_harness::cpu_time::CpuTime;
use bitnet_kernels::pages;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Processor time that one execution may take.
pub const TIME: Duration = Duration::from_secs(1);
/// Wall time from which on an execution is measured again: threads of its own may take a multiple of it.
pub(crate) const SEEMS_LATE: Duration = Duration::from_millis(100);
/// Bytes that may be held beside four times the input.
const MEMORY: usize = 64 << 20;
/// Bytes that one execution may hold at all.
const CEILING: usize = 2 << 30;
/// Bytes that a thread may have taken, or given back, without telling.
const STEP: isize = 64 << 10;

/// Told since the execution began. Below zero where more was given back than taken.
static HELD: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);
/// Bytes of [`Pages`](pages::Pages) when the execution began.
static PAGES: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Taken by this thread, less what it gave back, since it told.
    static UNTOLD: Cell<isize> = const { Cell::new(0) };
    /// The most that [`UNTOLD`] was.
    static CREST: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, counted.
#[derive(Debug)]
pub struct Counting;

/// Whether there may be so many bytes more. They are counted if so.
#[inline]
fn took(size: usize) -> bool {
    if size > CEILING {
        // Whoever lives with the refusal has asked for too much all the same.
        PEAK.fetch_max(isize::try_from(size).unwrap_or(isize::MAX), Ordering::Relaxed);
        return false;
    }
    let untold = UNTOLD.get() + size as isize;
    UNTOLD.set(untold);
    if untold > CREST.get() {
        CREST.set(untold);
    }
    if untold >= STEP && tell() > CEILING as isize {
        gave(size);
        return false;
    }
    true
}

#[inline]
fn gave(size: usize) {
    let untold = UNTOLD.get() - size as isize;
    UNTOLD.set(untold);
    if untold <= -STEP {
        tell();
    }
}

/// Adds what this thread did to what is held; gives the sum.
#[cold]
fn tell() -> isize {
    let (untold, crest) = (UNTOLD.replace(0), CREST.replace(0));
    let before = HELD.fetch_add(untold, Ordering::Relaxed);
    PEAK.fetch_max(before + crest, Ordering::Relaxed);
    before + untold
}

// SAFETY: every call that is let through goes to the system's allocator unchanged; a null pointer is how an allocator refuses.
// Counting touches atomics and cells of the thread, which need neither memory nor a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !took(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !took(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: as above. The system's own zeroing touches no pages that nobody uses.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        gave(layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !took(size) {
            return std::ptr::null_mut();
        }
        // SAFETY: as above.
        let moved = unsafe { System.realloc(ptr, layout, size) };
        gave(if moved.is_null() { size } else { layout.size() });
        moved
    }
}

/// One execution that is being measured: by the wall while all is well, which costs little; by the process when it seems late.
#[derive(Debug)]
pub enum Measured {
    /// Wall time.
    Wall(Instant),
    /// Processor time of all threads.
    Process(CpuTime),
}

/// What one execution took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Bytes held at most, or asked for and refused, beyond what was held before. Without [`Counting`] as the allocator, those of pages
    /// alone. What other threads hold may lack up to 64 KiB each.
    pub bytes: usize,
    /// Processor time of the process if it may have been too much, else wall time.
    pub time: Duration,
}

impl Measured {
    /// Begins, by the wall.
    pub fn start() -> Self {
        forget();
        Self::Wall(Instant::now())
    }

    /// Begins, by the processor time of the process.
    pub fn start_exactly() -> Self {
        forget();
        Self::Process(CpuTime::process())
    }

    pub fn end(&self) -> Cost {
        let time = match self {
            Self::Wall(start) => start.elapsed(),
            Self::Process(start) => start.elapsed(),
        };
        tell();
        let allocated = usize::try_from(PEAK.load(Ordering::Relaxed)).unwrap_or(0);
        let pages = pages::most_held().saturating_sub(PAGES.load(Ordering::Relaxed));
        Cost { bytes: allocated.saturating_add(pages), time }
    }
}

/// What was held before is not counted.
fn forget() {
    UNTOLD.set(0);
    CREST.set(0);
    HELD.store(0, Ordering::Relaxed);
    PEAK.store(0, Ordering::Relaxed);
    pages::most_held();
    PAGES.store(pages::held(), Ordering::Relaxed);
}

impl Cost {
    /// What is too much of it for an input of so many bytes.
    pub fn excess(&self, input: usize) -> Option<String> {
        let most = input.saturating_mul(4).saturating_add(MEMORY);
        if self.bytes > most {
            return Some(format!("held or wanted {} bytes for an input of {input}, {most} are allowed", self.bytes));
        }
        let late = self.time > TIME;
        late.then(|| format!("computed for {:.2} s, {:.0} s are allowed", self.time.as_secs_f64(), TIME.as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_are_four_times_the_input_and_a_second() {
        let cost = |bytes, seconds| Cost { bytes, time: Duration::from_secs_f64(seconds) };
        assert_eq!(cost(MEMORY + 400, 0.9).excess(100), None);
        assert!(cost(MEMORY + 401, 0.0).excess(100).is_some_and(|why| why.contains("for an input of 100")));
        assert!(cost(0, 1.1).excess(100).is_some_and(|why| why.contains("1.10 s")));
    }
}
