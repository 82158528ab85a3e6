//! A device that counts what goes to it, and can say what its last recording takes when no host stands in between.
//!
//! A generated token is one recording that feeds itself: it picks the token that its next run begins with. Where a host waits
//! for each token, the card's events count the waiting as well; [`Metered::again`] starts the recording many times in
//! a row, so that what it measures is the card alone.

use super::device::{CudaError, Device, Launch, Recorded, Value, Work};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

/// What went to a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Kernels that were started, those of replayed recordings among them.
    pub launches: usize,
    /// Recordings that were replayed.
    pub replays: usize,
    /// Bytes to the device.
    pub written: u64,
    /// Bytes from the device.
    pub read: u64,
}

impl std::ops::Sub for Counts {
    type Output = Self;

    /// What came after `before`.
    fn sub(self, before: Self) -> Self {
        Self {
            launches: self.launches.saturating_sub(before.launches),
            replays: self.replays.saturating_sub(before.replays),
            written: self.written.saturating_sub(before.written),
            read: self.read.saturating_sub(before.read),
        }
    }
}

/// What [`Metered::again`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again {
    /// Kernels of the recording.
    pub launches: usize,
    /// By the device's clock, of all replays.
    pub time: Duration,
}

/// A device, counted. Clones are the same.
#[derive(Debug, Clone)]
pub struct Metered(Arc<State>);

#[derive(Debug)]
struct State {
    inner: Arc<dyn Device>,
    counts: Mutex<Counts>,
    /// Who records, and the kernels of it so far.
    recording: Mutex<Option<(ThreadId, usize)>>,
    /// What was replayed last and its kernels, as long as nothing was freed since.
    last: Mutex<Option<(Arc<dyn Recorded>, usize)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Metered {
    /// Everything that is done with this is done on `inner`, and counted.
    pub fn new(inner: &Arc<dyn Device>) -> Self {
        Self(Arc::new(State {
            inner: Arc::clone(inner),
            counts: Mutex::default(),
            recording: Mutex::default(),
            last: Mutex::default(),
        }))
    }

    /// What went to the device so far.
    pub fn counts(&self) -> Counts {
        *lock(&self.0.counts)
    }

    /// Replays so often what was replayed last, and says how long the device had to do. It does what replays do: whoever has
    /// state on the device must set it right. `None` if nothing was replayed, or if memory was freed since.
    ///
    /// # Errors
    /// The device refuses.
    pub fn again(&self, times: usize) -> Result<Option<Again>, CudaError> {
        // Held until all is done: nothing is freed meanwhile.
        let last = lock(&self.0.last);
        let Some((recorded, launches)) = &*last else { return Ok(None) };
        let time = self.0.inner.time(&mut || {
            (0..times).try_for_each(|_| {
                // SAFETY: every buffer was there when this was replayed last, as its caller said, and none was freed since:
                // that forgets it, and waits for this.
                unsafe { recorded.replay() }
            })
        })?;
        self.count(|counts| {
            counts.launches += times * launches;
            counts.replays += times;
        });
        Ok(Some(Again { launches: *launches, time }))
    }

    fn count(&self, add: impl FnOnce(&mut Counts)) {
        add(&mut lock(&self.0.counts));
    }
}

/// A recording, counted.
#[derive(Debug)]
struct Kept {
    recorded: Arc<dyn Recorded>,
    launches: usize,
    device: Metered,
}

impl Recorded for Kept {
    unsafe fn replay(&self) -> Result<(), CudaError> {
        let mut last = lock(&self.device.0.last);
        // SAFETY: the caller's promise.
        unsafe { self.recorded.replay() }?;
        *last = Some((Arc::clone(&self.recorded), self.launches));
        self.device.count(|counts| {
            counts.launches += self.launches;
            counts.replays += 1;
        });
        Ok(())
    }
}

impl Device for Metered {
    fn name(&self) -> &str {
        self.0.inner.name()
    }

    fn describe(&self) -> String {
        self.0.inner.describe()
    }

    fn multiprocessors(&self) -> u32 {
        self.0.inner.multiprocessors()
    }

    fn free_memory(&self) -> Result<u64, CudaError> {
        self.0.inner.free_memory()
    }

    fn finish(&self) -> Result<(), CudaError> {
        self.0.inner.finish()
    }

    fn time(&self, work: &mut Work<'_>) -> Result<Duration, CudaError> {
        self.0.inner.time(work)
    }

    fn record(&self, launches: &mut Work<'_>) -> Result<Box<dyn Recorded>, CudaError> {
        let me = std::thread::current().id();
        let mut kernels = 0;
        let recorded = self.0.inner.record(&mut || {
            // Here, since the device lets one thread record at a time.
            *lock(&self.0.recording) = Some((me, 0));
            let done = launches();
            kernels = lock(&self.0.recording).take().map_or(0, |(_, kernels)| kernels);
            done
        })?;
        Ok(Box::new(Kept { recorded: Arc::from(recorded), launches: kernels, device: self.clone() }))
    }

    fn alloc(&self, bytes: usize, what: &str) -> Result<u64, CudaError> {
        self.0.inner.alloc(bytes, what)
    }

    unsafe fn free(&self, address: u64) {
        *lock(&self.0.last) = None;
        // SAFETY: the caller's promise.
        unsafe { self.0.inner.free(address) }
    }

    unsafe fn write(&self, address: u64, bytes: &[u8]) -> Result<(), CudaError> {
        // SAFETY: the caller's promise.
        unsafe { self.0.inner.write(address, bytes) }?;
        self.count(|counts| counts.written += bytes.len() as u64);
        Ok(())
    }

    unsafe fn write_by(&self, address: u64, bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), CudaError> {
        // SAFETY: the caller's promise.
        unsafe { self.0.inner.write_by(address, bytes, fill) }?;
        self.count(|counts| counts.written += bytes as u64);
        Ok(())
    }

    unsafe fn read(&self, address: u64, out: &mut [u8]) -> Result<(), CudaError> {
        // SAFETY: the caller's promise.
        unsafe { self.0.inner.read(address, out) }?;
        self.count(|counts| counts.read += out.len() as u64);
        Ok(())
    }

    unsafe fn read_before(&self, address: u64, out: &mut [u8], more: &mut Work<'_>) -> Result<(), CudaError> {
        // SAFETY: the caller's promise.
        unsafe { self.0.inner.read_before(address, out, more) }?;
        self.count(|counts| counts.read += out.len() as u64);
        Ok(())
    }

    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), CudaError> {
        // SAFETY: the caller's promise.
        unsafe { self.0.inner.copy(from, to, bytes) }
    }

    unsafe fn start(&self, launch: &Launch, values: &[Value]) -> Result<(), CudaError> {
        // SAFETY: the caller's promise.
        unsafe { self.0.inner.start(launch, values) }?;
        let me = std::thread::current().id();
        match &mut *lock(&self.0.recording) {
            Some((recorder, kernels)) if *recorder == me => *kernels += 1,
            _ => self.count(|counts| counts.launches += 1),
        }
        Ok(())
    }
}

#[cfg(all(test, feature = "cuda-emu"))]
mod tests {
    use super::*;
    use crate::cuda::device::{Buffer, record};
    use crate::cuda::emu::Emulation;
    use crate::cuda::launches::Launches;

    #[test]
    fn launches_bytes_and_replays_are_counted() {
        let emulation = match Emulation::new() {
            Ok(emulation) => emulation,
            // Without a C++ compiler.
            Err(reason) => return eprintln!("unavailable, not run: {reason}"),
        };
        let metered = Metered::new(&(Arc::new(emulation) as Arc<dyn Device>));
        let device: Arc<dyn Device> = Arc::new(metered.clone());
        let x = Buffer::of(&device, &[1.0f32; 8], "x").unwrap();
        let y = Buffer::of(&device, &[2.0f32; 8], "y").unwrap();
        let launches = Launches::new(&device);
        let add = || launches.add((&x).into(), (&y).into(), 8);
        add().unwrap();
        let before = metered.counts();
        assert_eq!(before, Counts { launches: 1, replays: 0, written: 64, read: 0 });
        assert_eq!(metered.again(3).unwrap(), None, "nothing was replayed");

        let replay = record(&*device, &mut || (0..2).try_for_each(|_| add())).unwrap();
        assert_eq!(metered.counts() - before, Counts::default(), "a recording starts nothing");
        replay.start().unwrap();
        let again = metered.again(3).unwrap().unwrap();
        assert_eq!(again.launches, 2);
        let value = || {
            let mut out = [0.0f32; 8];
            x.read(0, &mut out).unwrap();
            out[7]
        };
        // One launch, then four replays of two.
        assert_eq!(value(), 1.0 + 2.0 * (1.0 + 4.0 * 2.0));
        assert_eq!(metered.counts() - before, Counts { launches: 8, replays: 4, written: 0, read: 32 });

        drop(Buffer::new::<u8>(&device, 1, "a byte").unwrap());
        assert_eq!(metered.again(1).unwrap(), None, "what was freed might have been its");
        replay.start().unwrap();
        assert!(metered.again(1).unwrap().is_some());
        drop(replay);
        drop((x, y, launches));
        assert_eq!(metered.again(1).unwrap(), None);
    }
}
