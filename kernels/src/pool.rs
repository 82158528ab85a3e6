//! A small fork-join pool for the steps of a forward pass.
//!
//! A token of a small model is some two hundred parallel regions of a few microseconds each, which is below what a
//! general work-stealing pool wakes up in. Here the workers spin for a short while between two regions and then
//! sleep, the caller works along as one of them, and work is handed out in chunks by one atomic counter, so that a
//! thread which the operating system took away holds up nobody for longer than its own chunk.
//!
//! Which thread computes which chunk is left to chance; no result may depend on it, and none does, because every
//! kernel computes an output element by itself, in the one canonical order.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Iterations of the spin loop before a waiting thread sleeps: some tens of microseconds.
const SPINS: usize = 8_000;

/// A job as the workers see it; the lifetime is erased because [`Pool::run`] outlives every use.
type Job = *const (dyn Fn(usize) + Sync);

struct Shared {
    /// Counts the regions that were started; a worker runs the job once whenever it changes.
    generation: AtomicUsize,
    /// Workers that have not yet finished the present region.
    running: AtomicUsize,
    stop: AtomicBool,
    job: Mutex<Option<JobCell>>,
    /// Workers asleep on `wake`.
    sleepers: Mutex<usize>,
    wake: Condvar,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

#[derive(Clone, Copy)]
struct JobCell(Job);
// SAFETY: the pointee is `Sync`, and `Pool::run` keeps it alive until every worker has left it.
unsafe impl Send for JobCell {}

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
            generation: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            job: Mutex::new(None),
            sleepers: Mutex::new(0),
            wake: Condvar::new(),
            panic: Mutex::new(None),
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
        if self.workers.is_empty() {
            return job(0);
        }
        let region = self.region.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. The pointer is used by workers between the change of `generation` below
        // and their decrement of `running`, and this function does not return (nor unwind) before `running` is 0.
        let erased: Job = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(job) };
        *shared.job.lock().unwrap_or_else(PoisonError::into_inner) = Some(JobCell(erased));
        shared.running.store(self.workers.len(), Ordering::Relaxed);
        shared.generation.fetch_add(1, Ordering::SeqCst);
        if *shared.sleepers.lock().unwrap_or_else(PoisonError::into_inner) > 0 {
            shared.wake.notify_all();
        }
        let own = catch_unwind(AssertUnwindSafe(|| job(0)));
        let mut spins = 0;
        while shared.running.load(Ordering::Acquire) != 0 {
            spins += 1;
            if spins < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        let theirs = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(region);
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        if let Some(panic) = theirs {
            resume_unwind(panic);
        }
    }

    /// Splits `0..total` into ranges of at most `chunk` and hands them out until none is left.
    pub fn for_chunks(&self, total: usize, chunk: usize, job: &(dyn Fn(Range<usize>) + Sync)) {
        let chunk = chunk.max(1);
        if self.workers.is_empty() || total <= chunk {
            if total > 0 {
                job(0..total);
            }
            return;
        }
        let next = AtomicUsize::new(0);
        self.run(&|_| {
            loop {
                let start = next.fetch_add(chunk, Ordering::Relaxed);
                if start >= total {
                    return;
                }
                job(start..(start + chunk).min(total));
            }
        });
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
        let chunk = rows.div_ceil(self.threads() * 4).max(min_rows);
        let base = SendPtr(data.as_mut_ptr());
        self.for_chunks(rows, chunk, &|range| {
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
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.generation.fetch_add(1, Ordering::SeqCst);
        drop(self.shared.sleepers.lock());
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its jobs; there is nothing to report from its end.
            let _ = worker.join();
        }
    }
}

fn worker(shared: &Shared, id: usize) {
    let mut seen = 0;
    loop {
        seen = wait(shared, seen);
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let job = *shared.job.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(JobCell(job)) = job {
            // SAFETY: `Pool::run` set the job for this generation and waits for the decrement of `running` below.
            let result = catch_unwind(AssertUnwindSafe(|| unsafe { (*job)(id) }));
            if let Err(panic) = result {
                *shared.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
            }
        }
        shared.running.fetch_sub(1, Ordering::Release);
    }
}

/// Waits until the generation differs from `seen`: first spinning, then asleep.
fn wait(shared: &Shared, seen: usize) -> usize {
    for _ in 0..SPINS {
        let now = shared.generation.load(Ordering::SeqCst);
        if now != seen {
            return now;
        }
        std::hint::spin_loop();
    }
    let mut sleepers = shared.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
    *sleepers += 1;
    let now = loop {
        let now = shared.generation.load(Ordering::SeqCst);
        if now != seen {
            break now;
        }
        sleepers = shared.wake.wait(sleepers).unwrap_or_else(PoisonError::into_inner);
    };
    *sleepers -= 1;
    now
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
}
