//! Memory and time of one execution.
//!
//! [`Counting`] is the program's allocator: it counts what is held, and gives nothing beyond [`CEILING`], which ends the process.
//! Whoever started it finds the input where it was written before ([`crate::run`]).

use bitnet_harness::cpu_time::CpuTime;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Processor time that one execution may take.
pub const TIME: Duration = Duration::from_secs(1);
/// Wall time from which on an execution is measured again: threads of its own may take a multiple of it.
pub(crate) const SEEMS_LATE: Duration = Duration::from_millis(100);
/// Bytes that may be held beside four times the input.
const MEMORY: usize = 64 << 20;
/// Bytes that the process may hold at all.
const CEILING: usize = 2 << 30;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counted.
#[derive(Debug)]
pub struct Counting;

fn took(size: usize) -> bool {
    let held = HELD.fetch_add(size, Ordering::Relaxed).saturating_add(size);
    PEAK.fetch_max(held, Ordering::Relaxed);
    held <= CEILING
}

fn gave(size: usize) {
    HELD.fetch_sub(size, Ordering::Relaxed);
}

// SAFETY: every call that is let through goes to the system's allocator unchanged; a null pointer is how an allocator refuses.
// Counting touches atomics only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !took(layout.size()) {
            gave(layout.size());
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !took(layout.size()) {
            gave(layout.size());
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
            gave(size);
            return std::ptr::null_mut();
        }
        // SAFETY: as above.
        let moved = unsafe { System.realloc(ptr, layout, size) };
        gave(if moved.is_null() { size } else { layout.size() });
        moved
    }
}

/// One execution that is being measured.
#[derive(Debug)]
pub struct Measured {
    held: usize,
    start: Clock,
}

/// By the wall while all is well, which costs nothing; by the process when it seems late.
#[derive(Debug)]
enum Clock {
    Wall(Instant),
    Process(CpuTime),
}

/// What one execution took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Bytes held at most, beyond what was held before; 0 in a program with another allocator.
    pub bytes: usize,
    /// Processor time of the process if it may have been too much, else wall time.
    pub time: Duration,
}

impl Measured {
    /// Begins, by the wall.
    pub fn start() -> Self {
        Self::by(Clock::Wall(Instant::now()))
    }

    /// Begins, by the processor time of the process.
    pub fn start_exactly() -> Self {
        Self::by(Clock::Process(CpuTime::process()))
    }

    fn by(start: Clock) -> Self {
        let held = HELD.load(Ordering::Relaxed);
        PEAK.store(held, Ordering::Relaxed);
        Self { held, start }
    }

    pub fn end(&self) -> Cost {
        let time = match &self.start {
            Clock::Wall(start) => start.elapsed(),
            Clock::Process(start) => start.elapsed(),
        };
        Cost { bytes: PEAK.load(Ordering::Relaxed).saturating_sub(self.held), time }
    }
}

impl Cost {
    /// What is too much of it for an input of so many bytes.
    pub fn excess(&self, input: usize) -> Option<String> {
        let most = input.saturating_mul(4).saturating_add(MEMORY);
        if self.bytes > most {
            return Some(format!("held {} bytes for an input of {input}, {most} are allowed", self.bytes));
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
