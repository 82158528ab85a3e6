//! The emulation as a device that an executor drives.

use super::{EmuError, Launch, available, ffi};
use crate::cuda::device::{self, CudaError, Device, Recorded, Value, Work};
use crate::cuda::overlap;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// Bytes that it gives out at most: an emulated card has no more memory than a small one.
const MEMORY: u64 = 8 << 30;
/// What is written by parts comes in parts of so many bytes: few, and no power of two.
const PART: usize = 1000;
/// Every launch runs in another order of blocks, warps and lanes: a result that depends on it is wrong.
const ORDERS: u32 = 7;

/// The emulated card.
#[derive(Debug, Clone)]
pub struct Emulation(Arc<State>);

#[derive(Debug, Default)]
struct State {
    inner: Mutex<Inner>,
    /// Launches and copies happen one at a time, as on a card's stream: a launch guards the memory that it may not touch yet.
    stream: Mutex<()>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Bytes by address.
    memory: BTreeMap<u64, u64>,
    /// Buffers that a kernel got, and not to read early, since somebody last waited for the device: it may still write
    /// them when the next launch begins.
    written: HashSet<u64>,
    /// What threads are recording; others run theirs meanwhile.
    recordings: HashMap<ThreadId, Vec<(device::Launch, Vec<Value>)>>,
    launches: u32,
}

/// Launches and their arguments.
#[derive(Debug)]
struct Kept {
    device: Emulation,
    launches: Vec<(device::Launch, Vec<Value>)>,
}

impl From<EmuError> for CudaError {
    fn from(error: EmuError) -> Self {
        Self::Emulation(error.to_string())
    }
}

impl Emulation {
    /// A card of its own.
    ///
    /// # Errors
    /// The emulation is not in this build, e.g. since there was no C++ compiler.
    pub fn new() -> Result<Self, CudaError> {
        available().map_err(EmuError::from)?;
        Ok(Self(Arc::default()))
    }

    fn inner<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.0.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn run(&self, launch: &device::Launch, values: &[Value]) -> Result<(), CudaError> {
        let device::Launch { entry, grid, block, shared } = *launch;
        let _stream = self.stream();
        let order = self.inner(|inner| {
            inner.launches = inner.launches.wrapping_add(1);
            inner.note(entry, values).map(|()| inner.launches % ORDERS)
        })?;
        Ok(Launch { grid, shared, order, ..Launch::new(entry, 1, block) }.run_on(values)?)
    }

    fn stream(&self) -> MutexGuard<'_, ()> {
        self.0.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that was started is over, and its writes are seen.
    fn waited(&self) {
        self.inner(|inner| inner.written.clear());
    }
}

impl Inner {
    /// Notes the memory that a launch may write, and refuses what it would read while an earlier one may.
    fn note(&mut self, entry: &str, values: &[Value]) -> Result<(), CudaError> {
        let early = overlap::early(entry).unwrap_or_default();
        let pointers = values.iter().enumerate().filter_map(|(i, value)| match *value {
            Value::Pointer(address) if address != 0 => Some((i, self.memory.range(..=address).next_back()?.0)),
            _ => None,
        });
        let (early, late): (Vec<_>, Vec<_>) = pointers.partition(|(i, _)| early.contains(i));
        if let Some((i, _)) = early.iter().find(|(_, buffer)| self.written.contains(buffer)) {
            let text =
                format!("{entry}: argument {i} is read before it waits, and an earlier launch may still write it");
            return Err(EmuError::Fault(text).into());
        }
        self.written.extend(late.into_iter().map(|(_, buffer)| *buffer));
        Ok(())
    }
}

impl Device for Emulation {
    fn name(&self) -> &str {
        "cuda-emu"
    }

    fn describe(&self) -> String {
        "the CUDA kernels on the CPU: for proofs, not for speed".to_owned()
    }

    /// Few, so that blocks do more than one piece of work.
    fn multiprocessors(&self) -> u32 {
        2
    }

    fn free_memory(&self) -> Result<u64, CudaError> {
        Ok(MEMORY - self.inner(|inner| inner.memory.values().sum::<u64>()).min(MEMORY))
    }

    fn finish(&self) -> Result<(), CudaError> {
        self.waited();
        Ok(())
    }

    fn time(&self, work: &mut Work<'_>) -> Result<Duration, CudaError> {
        let start = Instant::now();
        work()?;
        Ok(start.elapsed())
    }

    fn record(&self, launches: &mut Work<'_>) -> Result<Box<dyn Recorded>, CudaError> {
        let mine = thread::current().id();
        self.inner(|inner| inner.recordings.insert(mine, Vec::new()));
        let done = launches();
        let kept = self.inner(|inner| inner.recordings.remove(&mine)).unwrap_or_default();
        done?;
        Ok(Box::new(Kept { device: self.clone(), launches: kept }))
    }

    fn alloc(&self, bytes: usize, what: &str) -> Result<u64, CudaError> {
        let free = self.free_memory()?;
        let data = if bytes as u64 <= free { ffi::alloc(bytes) } else { std::ptr::null_mut() };
        if data.is_null() {
            let (device, what) = (self.name().to_owned(), what.to_owned());
            return Err(CudaError::Memory { device, what, bytes: bytes as u64, free });
        }
        self.inner(|inner| inner.memory.insert(data as u64, bytes as u64));
        Ok(data as u64)
    }

    unsafe fn free(&self, address: u64) {
        self.waited();
        self.inner(|inner| inner.memory.remove(&address));
        ffi::free(address as *mut u8);
    }

    unsafe fn write(&self, address: u64, bytes: &[u8]) -> Result<(), CudaError> {
        let _stream = self.stream();
        self.waited();
        // SAFETY: the caller's promise: the range is memory of `ffi::alloc`, which nothing else has.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
        Ok(())
    }

    unsafe fn write_by(&self, address: u64, bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), CudaError> {
        let mut part = vec![0; PART.min(bytes)];
        for from in (0..bytes).step_by(PART) {
            let part = &mut part[..PART.min(bytes - from)];
            fill(part);
            // SAFETY: the caller's promise.
            unsafe { self.write(address + from as u64, part) }?;
        }
        Ok(())
    }

    unsafe fn read(&self, address: u64, out: &mut [u8]) -> Result<(), CudaError> {
        let _stream = self.stream();
        self.waited();
        // SAFETY: as for `write`.
        unsafe { std::ptr::copy_nonoverlapping(address as *const u8, out.as_mut_ptr(), out.len()) };
        Ok(())
    }

    unsafe fn read_before(&self, address: u64, out: &mut [u8], more: &mut Work<'_>) -> Result<(), CudaError> {
        // SAFETY: as for `write`.
        unsafe { self.read(address, out) }?;
        more()
    }

    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), CudaError> {
        let _stream = self.stream();
        // SAFETY: as for `write`, for both; they do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes) };
        Ok(())
    }

    unsafe fn start(&self, launch: &device::Launch, values: &[Value]) -> Result<(), CudaError> {
        let mine = thread::current().id();
        let kept = self
            .inner(|inner| inner.recordings.get_mut(&mine).map(|kept| kept.push((*launch, values.to_vec()))).is_some());
        if kept { Ok(()) } else { self.run(launch, values) }
    }
}

impl Recorded for Kept {
    unsafe fn replay(&self) -> Result<(), CudaError> {
        self.launches.iter().try_for_each(|(launch, values)| self.device.run(launch, values))
    }
}
