//! The CUDA kernels on the CPU, under the cargo feature `cuda-emu`: the same `.cu` files, compiled as C++ with a small shim.
//!
//! It runs what a card would run (grids, blocks, barriers, shuffles, tensor-core fragments) in any order of blocks, warps
//! and lanes that one asks for, and what is undefined on a card is an error that names the kernel, the block and the
//! thread: a barrier that some threads do not reach, a shuffle with a lane that is not there, an access beyond a buffer or
//! a shared array (both end at a page that cannot be touched), a misaligned one, and where launches [overlap](super::overlap) a
//! thread that does not wait for earlier ones, or touches before what they may still write (which cannot be touched
//! until the block waits). It proves indices and arithmetic.
//!
//! What it does not see: time; what a compiler for cards may do wrong; the order of memory between blocks, which run one after
//! the other; and, where a buffer's size is not a multiple of 16, a read of the up to 15 bytes behind it (a write is noticed
//! when the launch ends).
//!
//! * `shim.h`: the language, `machine.h`, `machine.cpp`, `fiber.cpp`: blocks as fibers; `entries.cpp`: the kernels and
//!   their table; `faults.cu`: kernels that are wrong on purpose.
//!
//! [`Buffer`] is device memory and [`Launch`] what `cuLaunchKernel` takes, with what only an emulation can vary; an executor
//! drives [`Emulation`], as it drives a card.

mod device;
mod ffi;

pub use device::Emulation;

use std::ffi::{CString, c_void};

use super::device::Value;
use crate::Unavailable;
pub use crate::lines::Plain;

/// Memory of the emulated device. Fresh bytes are 0xff: a NaN, or -1.
#[derive(Debug)]
pub struct Buffer {
    data: *mut u8,
    bytes: usize,
}

// SAFETY: the memory belongs to the buffer alone; kernels write it only while a launch borrows the buffer.
unsafe impl Send for Buffer {}

/// An argument of a launch.
pub type Arg<'a> = super::device::Arg<'a, Buffer>;

/// What one kernel is started with.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// Name of the entry.
    pub entry: &'a str,
    /// Blocks, x y z.
    pub grid: [u32; 3],
    /// Threads of a block, x y z; whole warps.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// In which order blocks, warps and lanes run: 0 rising, 1 falling, anything else some other order. The result must not
    /// depend on it.
    pub order: u32,
    /// The barrier (counted from 1 in each thread) at which nobody waits, 0 for none: a planted fault.
    pub skip_barrier: u32,
    /// Whether it may begin before earlier launches are over, and then which arguments (from 0 on, below 64) it may read
    /// before it waits for them: [`super::overlap::early`], as a card launches it. A thread that does not wait is an error,
    /// and so is any access before the wait to what the other arguments point to.
    pub overlap: Option<&'a [usize]>,
}

/// Why a launch failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum EmuError {
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    #[error("CUDA emulation: {0}")]
    Fault(String),
    #[error("CUDA emulation: no memory for a buffer of {bytes} bytes")]
    Memory { bytes: usize },
}

/// Whether it runs in this build.
///
/// # Errors
/// Why not, e.g. that no C++ compiler was there when the crate was built.
pub fn available() -> Result<(), Unavailable> {
    ffi::AVAILABLE.map_err(|reason| Unavailable { name: "cuda-emu", reason: reason.to_owned() })
}

/// The names of the entries that were compiled, the planted faults (`fault_...`) among them.
pub fn entries() -> Vec<String> {
    (0..).map_while(ffi::entry).collect()
}

impl Buffer {
    /// Memory for so many bytes.
    ///
    /// # Errors
    /// If the emulation is unavailable, or there is no memory.
    pub fn new(bytes: usize) -> Result<Self, EmuError> {
        available()?;
        let data = ffi::alloc(bytes);
        if data.is_null() { Err(EmuError::Memory { bytes }) } else { Ok(Self { data, bytes }) }
    }

    /// Memory that holds `values`.
    ///
    /// # Errors
    /// As [`Buffer::new`].
    pub fn of<T: Plain>(values: &[T]) -> Result<Self, EmuError> {
        let mut buffer = Self::new(size_of_val(values))?;
        buffer.write(values);
        Ok(buffer)
    }

    /// Replaces what it holds.
    ///
    /// # Panics
    /// If `values` are not as many bytes as the buffer.
    pub fn write<T: Plain>(&mut self, values: &[T]) {
        assert_eq!(size_of_val(values), self.bytes, "a buffer of another size");
        // SAFETY: both are `bytes` long, `data` is the buffer's own memory, and T has no padding.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr().cast::<u8>(), self.data, self.bytes) }
    }

    /// A copy of what it holds.
    ///
    /// # Panics
    /// If the bytes are not whole values.
    pub fn read<T: Plain>(&self) -> Vec<T> {
        let n = self.bytes / size_of::<T>();
        assert_eq!(n * size_of::<T>(), self.bytes, "bytes that are not whole values");
        let mut out = Vec::<T>::with_capacity(n);
        // SAFETY: `out` has room for `bytes` bytes, `data` holds them, and any bits are a T.
        unsafe {
            std::ptr::copy_nonoverlapping(self.data, out.as_mut_ptr().cast::<u8>(), self.bytes);
            out.set_len(n);
        }
        out
    }

    /// Bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        ffi::free(self.data);
    }
}

impl<'a> Launch<'a> {
    /// `entry` on `grid` blocks of `block` threads, both along x.
    pub fn new(entry: &'a str, grid: u32, block: u32) -> Self {
        let overlap = super::overlap::early(entry);
        Self { entry, grid: [grid, 1, 1], block: [block, 1, 1], shared: 0, order: 0, skip_barrier: 0, overlap }
    }

    /// Runs all blocks.
    ///
    /// # Errors
    /// If the emulation is unavailable; no such entry, other arguments than it takes, a shape that no card takes; or what
    /// the kernel did that a card does not define.
    pub fn run(&self, args: &[Arg<'_>]) -> Result<(), EmuError> {
        let address = |buffer: &Buffer, offset: usize| {
            if offset <= buffer.bytes {
                return Ok(buffer.data as u64 + offset as u64);
            }
            let text = format!("{}: {offset} bytes into a buffer of {}", self.entry, buffer.bytes);
            Err(EmuError::Fault(text))
        };
        let value = |arg: &Arg<'_>| arg.value(address);
        self.run_on(&args.iter().map(value).collect::<Result<Vec<_>, _>>()?)
    }

    /// [`Launch::run`] with addresses, which must be of memory that is there.
    fn run_on(&self, args: &[Value]) -> Result<(), EmuError> {
        available()?;
        let entry = CString::new(self.entry).map_err(|_| EmuError::Fault("a name with a zero byte".into()))?;
        let mut kinds = Vec::with_capacity(args.len());
        let mut values = Vec::with_capacity(args.len());
        for arg in args {
            let (kind, value) = match *arg {
                Value::Pointer(address) => (b'p', address),
                // The low bytes first or not: a kernel reads as many bytes as the argument has.
                Value::U32(v) => (b'u', u64::from_ne_bytes(front(v.to_ne_bytes()))),
                Value::U64(v) => (b'l', v),
                Value::F32(v) => (b'f', u64::from_ne_bytes(front(v.to_ne_bytes()))),
            };
            kinds.push(kind);
            values.push(value);
        }
        kinds.push(0);
        let mut pointers: Vec<*mut c_void> = values.iter_mut().map(|v| std::ptr::from_mut(v).cast()).collect();
        ffi::launch(self, &entry, &mut pointers, &kinds).map_err(EmuError::Fault)
    }
}

/// Four bytes where a pointer to eight points.
fn front(v: [u8; 4]) -> [u8; 8] {
    [v[0], v[1], v[2], v[3], 0, 0, 0, 0]
}
