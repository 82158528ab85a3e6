//! A real card as a [`Device`]: one stream in its primary context, on which everything happens in the order of the calls.
//!
//! A card is opened with its kernels: NVRTC compiles every file of [`super::sources`] for it, or they come from the folder of
//! earlier runs, and all entries are there before a model is uploaded. Threads may share a card. Each call makes its
//! context the thread's own and stays there; while one thread records, the others wait.
//!
//! What ran: the order of the driver's calls and what they are given, with a library that plays the driver
//! (engine/cli/tests/program/cuda.rs). What did not: a real card. The calls are by NVIDIA's documentation of the driver API; that
//! event times are wall times of the card, and that a copy from pinned memory overlaps with the next read, is theirs to keep.

mod copies;
mod graph;
mod modules;
mod owned;

use super::architecture::{Architecture, loads};
use super::cache::Cache;
use super::device::{CudaError, Device, Launch, Recorded, Value, Work};
use super::driver::functions::{Functions, Handle};
use super::driver::{Context, Driver, DriverError};
use super::nvrtc::Nvrtc;
use super::overlap;
use copies::{Pinned, Staging};
use cudarc::driver::sys::{
    CUfunction_attribute, CUlaunchAttribute, CUlaunchAttributeID, CUlaunchAttributeValue, CUlaunchConfig, CUresult,
    CUstream_flags,
};
use modules::Modules;
use owned::Owned;
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

/// Dynamic shared memory that a block may have without asking, bytes. (CUDA C++ programming guide, "Technical
/// Specifications per Compute Capability".)
const SHARED: u32 = 48 << 10;

/// A card that is open, with its kernels.
#[derive(Debug, Clone)]
pub struct Card(Arc<State>);

/// What a card is opened with.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    /// NVRTC, if not where the system's loader looks: a file, or its folder.
    pub nvrtc: Option<&'a Path>,
    /// Where cubins are kept; none: nowhere.
    pub cache: Option<&'a Cache>,
    /// Whether launches [overlap] where the card and the driver can do it.
    pub overlap: bool,
}

impl Default for Setup<'_> {
    /// NVRTC where the system finds it, no folder, launches that overlap.
    fn default() -> Self {
        Self { nvrtc: None, cache: None, overlap: true }
    }
}

/// Fields go in their order: what lives in the context before the context.
#[derive(Debug)]
struct State {
    name: String,
    /// As its maker names it.
    model: String,
    description: String,
    notes: Vec<String>,
    multiprocessors: u32,
    turn: Mutex<Turn>,
    over: Condvar,
    entries: HashMap<&'static str, Handle>,
    /// Whether launches of entries that keep the rule may overlap.
    overlap: bool,
    staging: Staging,
    _modules: Vec<Owned>,
    stream: Owned,
    context: Context,
    f: &'static Functions,
}

// SAFETY: contexts, streams, events, modules and functions are the driver's and may be used from any thread, as long as the
// context is made current there (CUDA driver API, "Context Management"); `turn` lets one call happen at a time.
unsafe impl Send for State {}
// SAFETY: as for `Send`.
unsafe impl Sync for State {}

/// What one call at a time has.
#[derive(Debug, Default)]
struct Turn {
    /// Who records.
    recorder: Option<ThreadId>,
    /// What was given back during a recording, in which nothing can be.
    later: Vec<u64>,
    /// Shared memory beyond [`SHARED`] that was allowed, by entry.
    allowed: HashMap<&'static str, u32>,
    /// The pinned buffer that is next.
    half: usize,
    /// Small ones that nobody has.
    small: Vec<Pinned>,
}

impl Card {
    /// Opens card `index` as the driver counts, or without a number the first that the kernels are written for, and
    /// compiles and loads its kernels.
    ///
    /// # Errors
    /// There is no driver, no such card or no NVRTC, they do not fit each other, a kernel does not compile, or the driver
    /// fails.
    pub fn open(index: Option<u32>, setup: Setup<'_>) -> Result<Self, CudaError> {
        let driver = Driver::open()?;
        let f = driver.functions();
        let facts = driver.choose(index)?;
        // All that can be known without touching the card first.
        let nvrtc = Nvrtc::load(setup.nvrtc)?;
        loads(driver.version(), nvrtc.version())?;
        let architecture = Architecture::for_card(facts.compute, nvrtc.architectures())?;
        let compiled = modules::compile(&nvrtc, setup.cache, architecture)?;
        let context = Context::retain(f, facts.device)?;
        context.make_current()?;
        let flags = CUstream_flags::CU_STREAM_NON_BLOCKING;
        // SAFETY: one handle is written.
        let stream = Owned::new(f, "cuStreamCreate", f.stream_destroy, |h| unsafe { (f.stream_create)(h, flags) })?;
        let notes = compiled.iter().filter_map(|(_, cubin)| cubin.note.clone()).collect();
        let Modules { modules, entries } = modules::load(f, &compiled)?;
        let overlap = setup.overlap && overlap::possible(architecture, driver.version());
        let dotted = |(major, minor): (u32, u32)| format!("{major}.{minor}");
        let description = format!(
            "{}, {architecture}, {} multiprocessors, driver for CUDA {}, kernels by NVRTC {}, launches {}",
            facts.name,
            facts.multiprocessors,
            dotted(driver.version()),
            dotted(nvrtc.version()),
            if overlap { "overlap" } else { "one after the other" },
        );
        Ok(Self(Arc::new(State {
            name: format!("cuda:{}", facts.index),
            model: facts.name,
            description,
            notes,
            multiprocessors: facts.multiprocessors,
            turn: Mutex::default(),
            over: Condvar::new(),
            entries,
            overlap,
            staging: Staging::new(f)?,
            _modules: modules,
            stream,
            context,
            f,
        })))
    }

    /// What was wrong with the folder of cubins, if anything was.
    pub fn notes(&self) -> &[String] {
        &self.0.notes
    }
}

impl State {
    /// Waits until no other thread records, and makes the context this thread's.
    fn enter(&self) -> Result<MutexGuard<'_, Turn>, DriverError> {
        let me = std::thread::current().id();
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let other = |turn: &mut Turn| turn.recorder.is_some_and(|recorder| recorder != me);
        let turn = self.over.wait_while(turn, other).unwrap_or_else(PoisonError::into_inner);
        self.context.make_current().map(|()| turn)
    }

    /// Waits for everything that was started. Only with a [`Turn`].
    fn wait(&self) -> Result<(), DriverError> {
        // SAFETY: the stream lives as long as this.
        self.f.check("cuStreamSynchronize", unsafe { (self.f.stream_wait)(self.stream.handle()) })
    }

    /// Frees memory of the card. Only with a [`Turn`].
    fn free(&self, address: u64) {
        // SAFETY: of `alloc`, and freed once: `Device::free` asks for that.
        let code = unsafe { (self.f.memory_free)(address) };
        // There is nobody to tell; a card that is lost says so at the next call.
        let _ = self.f.check("cuMemFree", code);
    }

    fn launch(&self, turn: &mut Turn, launch: &Launch, values: &[Value]) -> Result<(), CudaError> {
        let Launch { entry, grid: [x, y, z], block, shared } = *launch;
        let function = *self.entries.get(entry).ok_or(CudaError::Entry { entry })?;
        let f = self.f;
        if shared > SHARED.max(turn.allowed.get(entry).copied().unwrap_or(0)) {
            let which = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is of a module that lives as long as this.
            let code = unsafe { (f.function_set)(function, which, c_int::try_from(shared).unwrap_or(c_int::MAX)) };
            let of = || Some(format!("{shared} bytes of shared memory for {entry}"));
            f.check_of("cuFuncSetAttribute", of, code)?;
            turn.allowed.insert(entry, shared);
        }
        let mut slots: Vec<Slot> = values.iter().map(Slot::from).collect();
        let mut pointers: Vec<*mut c_void> = slots.iter_mut().map(|slot| (&raw mut *slot).cast()).collect();
        let (stream, pointers, none) = (self.stream.handle(), pointers.as_mut_ptr(), std::ptr::null_mut());
        let of =
            || Some(format!("{entry} ({x} x {y} x {z} blocks of {block} threads, {shared} bytes of shared memory)"));
        if !(self.overlap && overlap::overlaps(entry)) {
            // SAFETY: each pointer is to a value of the size of its argument, as the caller of `Device::start` says; the
            // driver copies them before it returns.
            let code = unsafe { (f.launch)(function, x, y, z, block, 1, 1, shared, stream, pointers, none) };
            return Ok(f.check_of("cuLaunchKernel", of, code)?);
        }
        let mut early = CUlaunchAttribute {
            id: CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: CUlaunchAttributeValue { pad: [0; 64] },
        };
        early.value.programmaticStreamSerializationAllowed = 1;
        let config = CUlaunchConfig {
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: block,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: shared,
            hStream: stream.cast(),
            attrs: &raw mut early,
            numAttrs: 1,
        };
        // SAFETY: as above; the configuration and its one attribute are read before the call returns.
        let code = unsafe { (f.launch_with)(&raw const config, function, pointers, none) };
        f.check_of("cuLaunchKernelEx", of, code).map_err(|error| self.refused(error))
    }

    /// What failed where launches overlap: if nothing better is known, how to do without.
    fn refused(&self, error: DriverError) -> CudaError {
        if self.overlap && !error.has_hint() { CudaError::Overlap(error) } else { error.into() }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // The fields give back what they have, which needs the context; on a lost card there is nothing to wait for.
        let _ = self.context.make_current().and_then(|()| self.wait());
    }
}

/// An argument, where the driver reads it: at the start, in its own size.
#[repr(C)]
union Slot {
    u64: u64,
    u32: u32,
    f32: f32,
}

impl From<&Value> for Slot {
    fn from(value: &Value) -> Self {
        match *value {
            Value::Pointer(u64) | Value::U64(u64) => Self { u64 },
            Value::U32(u32) => Self { u32 },
            Value::F32(f32) => Self { f32 },
        }
    }
}

impl Device for Card {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn describe(&self) -> String {
        self.0.description.clone()
    }

    fn multiprocessors(&self) -> u32 {
        self.0.multiprocessors
    }

    fn free_memory(&self) -> Result<u64, CudaError> {
        let _turn = self.0.enter()?;
        Ok(self.0.context.memory()?.0)
    }

    fn finish(&self) -> Result<(), CudaError> {
        let _turn = self.0.enter()?;
        Ok(self.0.wait()?)
    }

    fn time(&self, work: &mut Work<'_>) -> Result<Duration, CudaError> {
        graph::time(&self.0, work)
    }

    fn record(&self, launches: &mut Work<'_>) -> Result<Box<dyn Recorded>, CudaError> {
        Ok(Box::new(graph::record(&self.0, launches)?))
    }

    fn alloc(&self, bytes: usize, what: &str) -> Result<u64, CudaError> {
        let state = &*self.0;
        let _turn = state.enter()?;
        let free = state.context.memory()?.0;
        let few = || {
            let device = format!("{} ({})", state.name, state.model);
            CudaError::Memory { device, what: what.to_owned(), bytes: bytes as u64, free }
        };
        if bytes as u64 > free {
            return Err(few());
        }
        let mut address = 0;
        // Nothing is an allocation of no bytes for the driver, and an empty buffer has an address too.
        // SAFETY: one address is written.
        let code = unsafe { (state.f.memory_alloc)(&raw mut address, bytes.max(1)) };
        if code == CUresult::CUDA_ERROR_OUT_OF_MEMORY as c_int {
            return Err(few());
        }
        state.f.check("cuMemAlloc", code)?;
        Ok(address)
    }

    unsafe fn free(&self, address: u64) {
        let Ok(mut turn) = self.0.enter() else { return };
        if turn.recorder.is_some() {
            turn.later.push(address);
        } else if self.0.wait().is_ok() {
            self.0.free(address);
        }
    }

    unsafe fn write(&self, address: u64, bytes: &[u8]) -> Result<(), CudaError> {
        let mut turn = self.0.enter()?;
        // SAFETY: the caller's promise.
        unsafe { self.0.write(&mut turn, address, bytes) }
    }

    unsafe fn write_by(&self, address: u64, bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), CudaError> {
        let mut turn = self.0.enter()?;
        // SAFETY: the caller's promise.
        unsafe { self.0.write_by(&mut turn, address, bytes, fill) }
    }

    unsafe fn read(&self, address: u64, out: &mut [u8]) -> Result<(), CudaError> {
        let mut turn = self.0.enter()?;
        // SAFETY: the caller's promise.
        unsafe { self.0.read(&mut turn, address, out) }
    }

    unsafe fn read_before(&self, address: u64, out: &mut [u8], more: &mut Work<'_>) -> Result<(), CudaError> {
        // SAFETY: the caller's promise.
        unsafe { self.0.read_before(address, out, more) }
    }

    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), CudaError> {
        let _turn = self.0.enter()?;
        let (f, stream) = (self.0.f, self.0.stream.handle());
        // SAFETY: the caller's promise; the stream keeps the order.
        Ok(f.check("cuMemcpyDtoDAsync", unsafe { (f.copy_within)(to, from, bytes, stream) })?)
    }

    unsafe fn start(&self, launch: &Launch, values: &[Value]) -> Result<(), CudaError> {
        let mut turn = self.0.enter()?;
        self.0.launch(&mut turn, launch, values)
    }
}
