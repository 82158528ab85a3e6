//! What an executor drives: memory and launches, of a card through the driver or of the emulation.
//!
//! Everything happens in one order, that of the calls. [`Buffer::write`] and [`Buffer::read`] wait for what was started
//! before them; a launch only starts.

use super::architecture::ArchitectureError;
use super::driver::DriverError;
use super::nvrtc::NvrtcError;
use crate::lines::Plain;
use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Why a device does not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum CudaError {
    #[error(transparent)]
    Driver(#[from] DriverError),
    #[error(transparent)]
    Compiler(#[from] NvrtcError),
    #[error(transparent)]
    Architecture(#[from] ArchitectureError),
    #[error(
        "{device} has not enough memory: {what} needs {}, {} are free; close what else uses the card (`nvidia-smi` shows it), take a \
         shorter --context, or --device cpu",
        megabytes(*bytes), megabytes(*free)
    )]
    Memory { device: String, what: String, bytes: u64, free: u64 },
    #[error("{0}; launches overlap here (programmatic dependent launch), with BITNET_CUDA_OVERLAP=0 they do not")]
    Overlap(DriverError),
    #[error("there is no kernel `{entry}`: this is a mistake in BitNet.rs")]
    Entry { entry: &'static str },
    #[error("{0}")]
    Emulation(String),
    #[error("`{entry}` was given memory of another device: this is a mistake in BitNet.rs")]
    AnotherDevice { entry: &'static str },
    #[error(
        "{bytes} bytes from byte {offset} on do not lie in a buffer of {len} bytes on the device: this is a mistake in BitNet.rs"
    )]
    Range { offset: usize, bytes: usize, len: usize },
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1_000_000))
}

/// One start of a kernel: what `cuLaunchKernel` takes, without the arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Name of the entry, one of [`super::sources`].
    pub entry: &'static str,
    /// Blocks, x y z.
    pub grid: [u32; 3],
    /// Threads of a block, along x; whole warps.
    pub block: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
}

/// An argument of a launch, with memory of one kind or another.
#[derive(Debug)]
pub enum Arg<'a, B = Buffer> {
    /// A pointer to the start of a buffer.
    Buffer(&'a B),
    /// A pointer to so many bytes into a buffer.
    At(&'a B, usize),
    /// No pointer.
    Null,
    /// `u32` or `i32`.
    U32(u32),
    /// `u64`.
    U64(u64),
    /// `float`.
    F32(f32),
}

impl<B> Clone for Arg<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for Arg<'_, B> {}

impl<B> Arg<'_, B> {
    /// As the device takes it; `address` is that of so many bytes into a buffer.
    pub(super) fn value<E>(&self, address: impl Fn(&B, usize) -> Result<u64, E>) -> Result<Value, E> {
        Ok(match *self {
            Self::Buffer(buffer) => Value::Pointer(address(buffer, 0)?),
            Self::At(buffer, offset) => Value::Pointer(address(buffer, offset)?),
            Self::Null => Value::Pointer(0),
            Self::U32(v) => Value::U32(v),
            Self::U64(v) => Value::U64(v),
            Self::F32(v) => Value::F32(v),
        })
    }
}

/// An argument as the device takes it: pointers are addresses there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// An address, 0 for none.
    Pointer(u64),
    /// `u32` or `i32`.
    U32(u32),
    /// `u64`.
    U64(u64),
    /// `float`.
    F32(f32),
}

/// What a caller has a device do.
pub type Work<'a> = dyn FnMut() -> Result<(), CudaError> + 'a;

/// Bytes that [`Device::read_before`] takes.
pub const FEW: usize = 64;

/// A device. [`Buffer`] and [`start`] are the ways to use it.
pub trait Device: fmt::Debug + Send + Sync {
    /// `cuda:0`, `cuda-emu`.
    fn name(&self) -> &str;

    /// What it is, for people: name of the card, architecture, driver.
    fn describe(&self) -> String;

    /// Multiprocessors: how many blocks keep it busy.
    fn multiprocessors(&self) -> u32;

    /// Bytes of memory that are free.
    ///
    /// # Errors
    /// The device does not answer.
    fn free_memory(&self) -> Result<u64, CudaError>;

    /// Waits until everything that was started is done.
    ///
    /// # Errors
    /// What was started failed.
    fn finish(&self) -> Result<(), CudaError>;

    /// How long `work` takes on the device, by its own clock.
    ///
    /// # Errors
    /// The work's, or the clock's.
    fn time(&self, work: &mut Work<'_>) -> Result<Duration, CudaError>;

    /// Keeps what `launches` starts, without running it, as one thing that can be replayed (a CUDA graph). Nothing but launches
    /// may happen meanwhile; the buffers must outlive it: [`record`] keeps them.
    ///
    /// # Errors
    /// The launches', or the device cannot keep them.
    fn record(&self, launches: &mut Work<'_>) -> Result<Box<dyn Recorded>, CudaError>;

    /// Memory, aligned to 256 bytes, with any contents. `what` is for the message.
    ///
    /// # Errors
    /// There is not so much.
    fn alloc(&self, bytes: usize, what: &str) -> Result<u64, CudaError>;

    /// Gives memory back, once everything that was started is done.
    ///
    /// # Safety
    /// The address is of [`Device::alloc`] of this device, is freed once, and nothing that starts later has it.
    unsafe fn free(&self, address: u64);

    /// Copies to the device.
    ///
    /// # Errors
    /// The copy, or what was started before it, failed.
    ///
    /// # Safety
    /// The bytes from `address` on lie in memory of [`Device::alloc`] of this device.
    unsafe fn write(&self, address: u64, bytes: &[u8]) -> Result<(), CudaError>;

    /// As [`Device::write`], of bytes that `fill` puts, a part after the other, where the device fetches them from: nothing is
    /// copied on the way. `fill` gets all of them in order, in parts of any length, and does not use the device.
    ///
    /// # Errors
    /// As for [`Device::write`].
    ///
    /// # Safety
    /// As for [`Device::write`].
    unsafe fn write_by(&self, address: u64, bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), CudaError>;

    /// Copies from the device.
    ///
    /// # Errors
    /// As for [`Device::write`].
    ///
    /// # Safety
    /// As for [`Device::write`].
    unsafe fn read(&self, address: u64, out: &mut [u8]) -> Result<(), CudaError>;

    /// Copies at most [`FEW`] bytes from the device, as they are behind all that was started before; `more` starts what is to
    /// come, for which this does not wait: the device goes on while the host looks at them.
    ///
    /// # Errors
    /// As for [`Device::write`], or those of `more`.
    ///
    /// # Safety
    /// As for [`Device::write`].
    unsafe fn read_before(&self, address: u64, out: &mut [u8], more: &mut Work<'_>) -> Result<(), CudaError>;

    /// Copies within the device; only starts. The ranges do not overlap.
    ///
    /// # Errors
    /// The device refuses.
    ///
    /// # Safety
    /// As for [`Device::write`], for both ranges.
    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), CudaError>;

    /// Starts a kernel.
    ///
    /// # Errors
    /// No such entry, or a launch that the device refuses.
    ///
    /// # Safety
    /// The values are as many and of the kinds that the entry takes, and what it reads and writes by them lies in memory of
    /// [`Device::alloc`] of this device, as the table of [`super`] says.
    unsafe fn start(&self, launch: &Launch, values: &[Value]) -> Result<(), CudaError>;
}

/// What [`Device::record`] kept.
pub trait Recorded: fmt::Debug + Send + Sync {
    /// Starts all of it.
    ///
    /// # Errors
    /// The device refuses.
    ///
    /// # Safety
    /// Every buffer that was an argument of what was recorded is still there.
    unsafe fn replay(&self) -> Result<(), CudaError>;
}

/// Memory of a device. Clones are the same memory, which is freed with the last of them.
#[derive(Debug, Clone)]
pub struct Buffer(Arc<Owned>);

#[derive(Debug)]
struct Owned {
    device: Arc<dyn Device>,
    address: u64,
    bytes: usize,
}

fn bytes_of<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: the values have no padding, and bytes may be looked at through any alignment.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

impl Buffer {
    /// Memory for `n` values of `T`, with any contents. `what` it is for is said if there is too little.
    ///
    /// # Errors
    /// There is too little.
    pub fn new<T: Plain>(device: &Arc<dyn Device>, n: usize, what: &str) -> Result<Self, CudaError> {
        let bytes = n.saturating_mul(size_of::<T>());
        let address = device.alloc(bytes, what)?;
        Ok(Self(Arc::new(Owned { device: Arc::clone(device), address, bytes })))
    }

    /// Memory that holds `values`.
    ///
    /// # Errors
    /// As [`Buffer::new`], or the copy failed.
    pub fn of<T: Plain>(device: &Arc<dyn Device>, values: &[T], what: &str) -> Result<Self, CudaError> {
        let buffer = Self::new::<T>(device, values.len(), what)?;
        buffer.write(0, values)?;
        Ok(buffer)
    }

    /// Bytes.
    pub fn bytes(&self) -> usize {
        self.0.bytes
    }

    fn range(&self, offset: usize, bytes: usize) -> Result<u64, CudaError> {
        match offset.checked_add(bytes) {
            Some(end) if end <= self.0.bytes => Ok(self.0.address + offset as u64),
            _ => Err(CudaError::Range { offset, bytes, len: self.0.bytes }),
        }
    }

    /// Writes `values` from byte `offset` on.
    ///
    /// # Errors
    /// They do not lie in the buffer, or the copy or something started before it failed.
    pub fn write<T: Plain>(&self, offset: usize, values: &[T]) -> Result<(), CudaError> {
        let address = self.range(offset, size_of_val(values))?;
        // SAFETY: the range lies in this buffer, which the device allocated.
        unsafe { self.0.device.write(address, bytes_of(values)) }
    }

    /// Writes `bytes` bytes from byte `offset` on, which `fill` puts: [`Device::write_by`].
    ///
    /// # Errors
    /// As [`Buffer::write`].
    pub fn write_by(&self, offset: usize, bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), CudaError> {
        let address = self.range(offset, bytes)?;
        // SAFETY: the range lies in this buffer, which the device allocated.
        unsafe { self.0.device.write_by(address, bytes, fill) }
    }

    /// Fills `out` from byte `offset` on.
    ///
    /// # Errors
    /// As [`Buffer::write`].
    pub fn read<T: Plain>(&self, offset: usize, out: &mut [T]) -> Result<(), CudaError> {
        let address = self.range(offset, size_of_val(out))?;
        // SAFETY: the values have no padding and may have any bits.
        let out = unsafe { std::slice::from_raw_parts_mut(out.as_mut_ptr().cast(), size_of_val(out)) };
        // SAFETY: the range lies in this buffer, which the device allocated.
        unsafe { self.0.device.read(address, out) }
    }

    /// The value at byte `offset` behind all that was started before, while the device goes on with what `more` starts:
    /// [`Device::read_before`].
    ///
    /// # Errors
    /// As [`Buffer::write`], or those of `more`.
    pub fn word_before(&self, offset: usize, more: &mut Work<'_>) -> Result<u64, CudaError> {
        let mut out = [0; size_of::<u64>()];
        let address = self.range(offset, out.len())?;
        // SAFETY: the range lies in this buffer, which the device allocated.
        unsafe { self.0.device.read_before(address, &mut out, more) }?;
        Ok(u64::from_ne_bytes(out))
    }
}

impl Buffer {
    /// Starts a copy of another buffer of the same device, as long as both are, to this one.
    ///
    /// # Errors
    /// The lengths or the devices differ, or the device refuses.
    pub fn copy_of(&self, from: &Self) -> Result<(), CudaError> {
        let (from, to) = (&*from.0, &*self.0);
        if from.bytes != to.bytes || from.address == to.address || !Arc::ptr_eq(&from.device, &to.device) {
            return Err(CudaError::Range { offset: 0, bytes: from.bytes, len: to.bytes });
        }
        // SAFETY: both are whole buffers of this device, and two of them.
        unsafe { to.device.copy(from.address, to.address, to.bytes) }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the address is of this device, and this is its owner. Recordings do not outlive it.
        unsafe { self.device.free(self.address) }
    }
}

thread_local! {
    /// Buffers of what this thread is recording.
    static KEPT: RefCell<Option<Vec<Buffer>>> = const { RefCell::new(None) };
}

/// Launches that can be started again and again, with the buffers that they use.
#[derive(Debug)]
pub struct Replay {
    recorded: Box<dyn Recorded>,
    /// Never read: so that the memory stays.
    _buffers: Vec<Buffer>,
}

impl Replay {
    /// Starts all of it.
    ///
    /// # Errors
    /// The device refuses.
    pub fn start(&self) -> Result<(), CudaError> {
        // SAFETY: every buffer of the launches is held here.
        unsafe { self.recorded.replay() }
    }
}

/// Keeps what `launches` [starts](start) on a device, on this thread, instead of running it.
///
/// # Errors
/// Those of `launches`, or the device cannot keep them.
pub fn record(device: &dyn Device, launches: &mut Work<'_>) -> Result<Replay, CudaError> {
    KEPT.set(Some(Vec::new()));
    let recorded = device.record(launches);
    let buffers = KEPT.take().unwrap_or_default();
    Ok(Replay { recorded: recorded?, _buffers: buffers })
}

/// Starts a kernel on a device.
///
/// # Errors
/// A buffer of another device, a pointer beyond its buffer, no such entry, or a launch that the device refuses.
///
/// # Safety
/// The arguments are those that the entry takes by the table of [`super`], with buffers as large as it says.
pub unsafe fn start(device: &dyn Device, launch: &Launch, args: &[Arg<'_>]) -> Result<(), CudaError> {
    let buffers = || {
        args.iter().filter_map(|arg| match arg {
            Arg::Buffer(buffer) | Arg::At(buffer, _) => Some(*buffer),
            _ => None,
        })
    };
    if buffers().any(|buffer| !std::ptr::addr_eq(Arc::as_ptr(&buffer.0.device), device)) {
        return Err(CudaError::AnotherDevice { entry: launch.entry });
    }
    KEPT.with_borrow_mut(|kept| {
        if let Some(kept) = kept {
            kept.extend(buffers().cloned());
        }
    });
    let value = |arg: &Arg<'_>| arg.value(|buffer, offset| buffer.range(offset, 0));
    let values = args.iter().map(value).collect::<Result<Vec<_>, CudaError>>()?;
    // SAFETY: the caller's promise.
    unsafe { device.start(launch, &values) }
}
