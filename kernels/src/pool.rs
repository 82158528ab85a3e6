//! A small fork-join pool for the steps of a forward pass.
//!
//! A token of a small model is some two hundred parallel regions of a few microseconds each, which is below what a
//! general work-stealing pool wakes up in. Here the workers spin for a short while between two regions and then
//! sleep, and the caller works along as one of them.
//!
//! Nobody waits for a thread that the operating system took away. Every thread has a part of the work and takes pieces of it from
//! front to back, so that it reads memory in one stream; who is through takes pieces of the others' parts. A worker has to enter
//! a region before it takes a piece; when no piece is left the caller closes the region, and a worker that comes later finds
//! nothing to do and is not waited for. What remains to wait for is a worker that lost its processor in the middle of a piece.
//! The caller spins for it for a moment and then sleeps, so that its own processor is free for that worker.
//!
//! Which thread computes which piece is left to chance; no result may depend on it, and none does, because every
//! kernel computes an output element by itself, in the one canonical order.

use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Iterations of the spin loop before a waiting thread sleeps: some tens of microseconds.
const SPINS: usize = 2_000;

/// Pieces are so many times smaller than what is left of a part: large ones first, small ones at the end, where threads have to
/// finish together.
const SHARE: usize = 3;

/// A job as the workers see it; the lifetime is erased because [`Pool::run`] outlives every use.
type Job = *const (dyn Fn(usize) + Sync);

/// The bits of [`Shared::state`]: threads inside of the region, threads that have entered it, and then flags and the
/// number of the region.
mod bits {
    pub(super) const INSIDE: u64 = 1;
    pub(super) const ENTERED: u64 = 1 << 16;
    /// Workers may enter.
    pub(super) const OPEN: u64 = 1 << 32;
    /// The caller sleeps until the last worker leaves.
    pub(super) const AWAITED: u64 = 1 << 33;
    /// The pool ends.
    pub(super) const STOP: u64 = 1 << 34;
    pub(super) const REGION: u64 = 1 << 35;

    /// Workers inside.
    pub(super) fn inside(state: u64) -> u64 {
        state % ENTERED
    }

    /// Workers that have entered.
    pub(super) fn entered(state: u64) -> u64 {
        state % OPEN / ENTERED
    }

    /// The region's number.
    pub(super) fn region(state: u64) -> u64 {
        state / REGION
    }

    /// Whether a worker that was last in region `seen` finds something to do.
    pub(super) fn calls(state: u64, seen: u64) -> bool {
        state & STOP != 0 || state & OPEN != 0 && region(state) != seen
    }
}

struct Shared {
    state: AtomicU64,
    job: UnsafeCell<Option<Job>>,
    /// Workers that sleep, or are about to.
    asleep: AtomicUsize,
    /// Held to fall asleep on a condition and to wake who sleeps on it.
    sleep: Mutex<()>,
    /// There is something to do.
    wake: Condvar,
    /// All workers have left.
    left: Condvar,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Microseconds that a worker loses before it enters a region.
    #[cfg(test)]
    stall: AtomicU64,
}

// SAFETY: `job` is written by the holder of `Pool::region` while the region is closed and nobody is inside, and read only by
// workers that are inside; `state` orders the two. The pointee is `Sync`, and `Pool::region` keeps it alive until all left.
unsafe impl Sync for Shared {}
// SAFETY: as for `Sync`.
unsafe impl Send for Shared {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A pool of `threads` threads, the caller being one of them. With one thread nothing is spawned.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held for the length of a region: two callers take turns.
    region: Mutex<()>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish()
    }
}

impl Pool {
    /// Starts `threads - 1` workers (`threads` is taken as at least 1).
    ///
    /// # Errors
    /// The operating system's error if a thread cannot be started.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            asleep: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            left: Condvar::new(),
            panic: Mutex::new(None),
            #[cfg(test)]
            stall: AtomicU64::new(0),
        });
        let mut pool = Self { shared, workers: Vec::new(), region: Mutex::new(()) };
        for id in 1..threads.max(1) {
            let shared = Arc::clone(&pool.shared);
            let worker = std::thread::Builder::new().name(format!("bitnet-{id}")).spawn(move || worker(&shared, id))?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// Threads that work in a region, the caller included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `job(thread)` once on every thread and returns when all are done. A panic of any of them is passed on.
    /// A job must not start another region of the same pool.
    pub fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        self.region(job, true);
    }

    /// Runs `job(thread)` once on the caller, and on every other thread that comes before the caller is done; on `all` of them
    /// if so wanted.
    fn region(&self, job: &(dyn Fn(usize) + Sync), all: bool) {
        if self.workers.is_empty() {
            return job(0);
        }
        let region = lock(&self.region);
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. Workers use the pointer only while they are inside of the region, and this
        // function does not return (nor unwind) before it is closed and nobody is inside.
        let erased: Job = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(job) };
        // SAFETY: `region` is held, so no other caller writes; the last region is closed to new workers, all of which have
        // left it.
        unsafe { *shared.job.get() = Some(erased) };
        let number = bits::region(shared.state.load(Ordering::Relaxed)).wrapping_add(1);
        // Either a worker that falls asleep sees this, or it is seen to be asleep: both orders are `SeqCst`.
        shared.state.store(number.wrapping_mul(bits::REGION) | bits::OPEN, Ordering::SeqCst);
        if shared.asleep.load(Ordering::SeqCst) > 0 {
            drop(lock(&shared.sleep));
            shared.wake.notify_all();
        }
        let own = catch_unwind(AssertUnwindSafe(|| job(0)));
        shared.end(if all { self.workers.len() as u64 } else { 0 });
        let theirs = lock(&shared.panic).take();
        drop(region);
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        if let Some(panic) = theirs {
            resume_unwind(panic);
        }
    }

    /// Splits `0..total` into ranges of whole chunks of `chunk` (the last one may be shorter) and hands them out until none is
    /// left. A thread's ranges follow one another, as far as they go: what lies behind the end of one may be asked of memory.
    pub fn for_chunks(&self, total: usize, chunk: usize, job: &(dyn Fn(Range<usize>) + Sync)) {
        let chunk = chunk.max(1);
        if self.workers.is_empty() || total <= chunk {
            if total > 0 {
                job(0..total);
            }
            return;
        }
        let (threads, chunks) = (self.threads(), total.div_ceil(chunk));
        let border = |thread: usize| total.min(chunks * thread / threads * chunk);
        let parts: Vec<Part> =
            (0..threads).map(|t| Part { next: AtomicUsize::new(border(t)), end: border(t + 1) }).collect();
        let work = |thread: usize| {
            let (before, own) = parts.split_at(thread);
            own.iter().chain(before).for_each(|part| part.work(chunk, job));
        };
        self.region(&work, false);
    }

    /// Calls `job(i, row)` for every `row_len` elements of `data` (the last row may be shorter). Fewer than `min_rows`
    /// rows a thread are not worth handing out.
    pub fn for_rows<T: Send>(
        &self,
        data: &mut [T],
        row_len: usize,
        min_rows: usize,
        job: &(dyn Fn(usize, &mut [T]) + Sync),
    ) {
        let (len, rows) = (data.len(), data.len().div_ceil(row_len.max(1)));
        let base = SendPtr(data.as_mut_ptr());
        self.for_chunks(rows, min_rows, &|range| {
            for row in range {
                let start = row * row_len;
                let end = (start + row_len).min(len);
                // SAFETY: `for_chunks` hands out every index once, rows do not overlap, `start <= end <= len`, and
                // `data` stays borrowed until all threads are done.
                let part = unsafe { std::slice::from_raw_parts_mut(base.get().add(start), end - start) };
                job(row, part);
            }
        });
    }
}

/// A part of some work, on a cache line of its own: mostly one thread takes from it.
#[repr(align(64))]
struct Part {
    next: AtomicUsize,
    end: usize,
}

impl Part {
    /// Does pieces of whole chunks until none is left.
    fn work(&self, chunk: usize, job: &(dyn Fn(Range<usize>) + Sync)) {
        let piece = |start: usize| {
            let left = self.end.checked_sub(start).filter(|left| *left > 0)?;
            Some(start + left.min((left / chunk / SHARE).max(1) * chunk))
        };
        while let Ok(start) = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, piece) {
            job(start..piece(start).unwrap_or(self.end));
        }
    }
}

/// Lets the base of a slice cross threads; what is done with it is argued where it is used.
struct SendPtr<T>(*mut T);
// SAFETY: see the use in `for_rows`: threads touch disjoint elements of type `T: Send`.
unsafe impl<T: Send> Sync for SendPtr<T> {}

impl<T> SendPtr<T> {
    fn get(&self) -> *mut T {
        self.0
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.state.fetch_or(bits::STOP, Ordering::SeqCst);
        drop(lock(&self.shared.sleep));
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its jobs; there is nothing to report from its end.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Closes the region once so many workers have entered it, and waits until all that did have left.
    fn end(&self, entered: u64) {
        let over = |state| bits::inside(state) == 0 && bits::entered(state) >= entered;
        if entered == 0 {
            self.state.fetch_and(!bits::OPEN, Ordering::AcqRel);
        }
        for _ in 0..SPINS {
            if over(self.state.load(Ordering::Acquire)) {
                return;
            }
            std::hint::spin_loop();
        }
        let mut sleep = lock(&self.sleep);
        let mut state = self.state.fetch_or(bits::AWAITED, Ordering::AcqRel);
        while !over(state) {
            sleep = self.left.wait(sleep).unwrap_or_else(PoisonError::into_inner);
            state = self.state.load(Ordering::Acquire);
        }
    }

    /// Waits for a region after number `seen`, first spinning, then asleep, and enters it. Its number; `None` at the pool's end.
    fn enter(&self, seen: u64) -> Option<u64> {
        let mut spins = 0;
        loop {
            let state = self.state.load(Ordering::Acquire);
            if state & bits::STOP != 0 {
                return None;
            }
            if bits::calls(state, seen) {
                let inside = state + bits::ENTERED + bits::INSIDE;
                if self.state.compare_exchange(state, inside, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                    return Some(bits::region(state));
                }
            } else if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                self.doze(seen);
                spins = 0;
            }
        }
    }

    fn doze(&self, seen: u64) {
        let mut sleep = lock(&self.sleep);
        self.asleep.fetch_add(1, Ordering::SeqCst);
        while !bits::calls(self.state.load(Ordering::SeqCst), seen) {
            sleep = self.wake.wait(sleep).unwrap_or_else(PoisonError::into_inner);
        }
        self.asleep.fetch_sub(1, Ordering::SeqCst);
    }

    fn leave(&self) {
        let before = self.state.fetch_sub(bits::INSIDE, Ordering::AcqRel);
        if before & bits::AWAITED != 0 && bits::inside(before) == 1 {
            drop(lock(&self.sleep));
            self.left.notify_one();
        }
    }
}

fn worker(shared: &Shared, id: usize) {
    let mut seen = 0;
    loop {
        #[cfg(test)]
        std::thread::sleep(std::time::Duration::from_micros(shared.stall.load(Ordering::Relaxed)));
        let Some(region) = shared.enter(seen) else { return };
        seen = region;
        // SAFETY: this thread is inside of the region: the job was written before it opened, and stays until this thread left.
        if let Some(job) = unsafe { *shared.job.get() } {
            // SAFETY: as above, the pointee is alive.
            let result = catch_unwind(AssertUnwindSafe(|| unsafe { (*job)(id) }));
            if let Err(panic) = result {
                *lock(&shared.panic) = Some(panic);
            }
        }
        shared.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_is_handed_out_once() {
        for threads in [1, 2, 4] {
            let pool = Pool::new(threads).unwrap();
            for round in 0..200 {
                let counts: Vec<AtomicUsize> = (0..97).map(|_| AtomicUsize::new(0)).collect();
                pool.for_chunks(counts.len(), 1 + round % 13, &|range| {
                    for i in range {
                        counts[i].fetch_add(1, Ordering::Relaxed);
                    }
                });
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1), "threads {threads}, round {round}");
            }
        }
    }

    #[test]
    fn every_row_is_written_once() {
        let pool = Pool::new(3).unwrap();
        for len in [0, 1, 7, 64, 1000] {
            let mut data = vec![0u32; len];
            pool.for_rows(&mut data, 7, 1, &|i, row| row.iter_mut().for_each(|x| *x += i as u32 + 1));
            assert!(data.iter().enumerate().all(|(i, &x)| x == (i / 7) as u32 + 1), "length {len}");
        }
    }

    #[test]
    fn wakes_sleeping_workers() {
        let pool = Pool::new(3).unwrap();
        for _ in 0..5 {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let ran = AtomicUsize::new(0);
            pool.run(&|_| {
                ran.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(ran.into_inner(), 3);
        }
    }

    #[test]
    fn a_panic_is_passed_on_and_the_pool_lives() {
        let pool = Pool::new(2).unwrap();
        for culprit in [0, 1] {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(&|id| assert!(id != culprit, "planted"));
            }));
            assert!(result.is_err());
        }
        let ran = AtomicUsize::new(0);
        pool.run(&|_| {
            ran.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ran.into_inner(), 2);
    }

    /// A worker that has lost its processor holds up nobody: neither before it begins, nor more than its own piece.
    #[test]
    fn nobody_waits_for_a_stalled_worker() {
        let pool = Pool::new(2).unwrap();
        pool.shared.stall.store(400_000, Ordering::Relaxed);
        let started = std::time::Instant::now();
        // The worker may meet the first regions before it stalls.
        for _ in 0..200 {
            let done = AtomicUsize::new(0);
            pool.for_chunks(64, 1, &|range| {
                done.fetch_add(range.len(), Ordering::Relaxed);
            });
            assert_eq!(done.into_inner(), 64);
        }
        // All 200 with a worker that is waited for would be 80 s.
        assert!(started.elapsed().as_millis() < 4_000, "{:?}", started.elapsed());
    }

    #[test]
    fn one_that_stalls_inside_holds_up_its_own_piece() {
        let pool = Pool::new(2).unwrap();
        let (caller, theirs) = (std::thread::current().id(), AtomicUsize::new(0));
        let done = AtomicUsize::new(0);
        pool.for_chunks(48, 1, &|range| {
            if std::thread::current().id() == caller {
                // Until the worker has a piece, so that it is there in the test.
                while theirs.load(Ordering::Relaxed) == 0 {
                    std::thread::yield_now();
                }
            } else {
                theirs.fetch_add(1, Ordering::Relaxed);
                while done.load(Ordering::Relaxed) + range.len() < 48 {
                    std::thread::yield_now();
                }
            }
            done.fetch_add(range.len(), Ordering::Relaxed);
        });
        // The worker was let go only when the caller had done all the rest.
        assert_eq!((theirs.into_inner(), done.into_inner()), (1, 48));
    }
}
