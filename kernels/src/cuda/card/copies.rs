//! Copies between the host and the card.
//!
//! Large ones go to the card through two pinned buffers in turns: while the card fetches one, the other is filled, which for
//! a mapped file is the reading of it. What was written that way is on its way when the call returns, and in order with all
//! that is started later.

use super::owned::Owned;
use super::{State, Turn};
use crate::cuda::device::CudaError;
use crate::cuda::driver::DriverError;
use crate::cuda::driver::functions::{Functions, Handle};
use cudarc::driver::sys::CUevent_flags;
use std::ffi::c_void;

/// Bytes of a pinned buffer.
const HALF: usize = 4 << 20;
/// Up to so many bytes a copy to the card is one call, which waits.
const DIRECT: usize = 64 << 10;

/// The two buffers.
#[derive(Debug)]
pub(super) struct Staging([Half; 2]);

#[derive(Debug)]
struct Half {
    /// [`HALF`] bytes of pinned memory.
    memory: Owned,
    /// Happens when the card has fetched the buffer.
    fetched: Owned,
}

impl Staging {
    pub(super) fn new(f: &Functions) -> Result<Self, DriverError> {
        Ok(Self([Half::new(f)?, Half::new(f)?]))
    }
}

impl Half {
    fn new(f: &Functions) -> Result<Self, DriverError> {
        let memory = |h: *mut Handle| {
            // SAFETY: one pointer is written; no flags.
            unsafe { (f.host_alloc)(h, HALF, 0) }
        };
        let memory = Owned::new(f, "cuMemHostAlloc", f.host_free, memory)?;
        Ok(Self { memory, fetched: event(f, CUevent_flags::CU_EVENT_DISABLE_TIMING)? })
    }
}

/// A new event.
pub(super) fn event(f: &Functions, flags: CUevent_flags) -> Result<Owned, DriverError> {
    // SAFETY: one handle is written.
    Owned::new(f, "cuEventCreate", f.event_destroy, |h| unsafe { (f.event_create)(h, flags) })
}

impl State {
    /// # Safety
    /// As `Device::write`.
    pub(super) unsafe fn write(&self, turn: &mut Turn, address: u64, bytes: &[u8]) -> Result<(), CudaError> {
        if bytes.is_empty() {
            return Ok(());
        }
        if bytes.len() <= DIRECT {
            // SAFETY: the caller's promise; the bytes stay until the wait is over.
            unsafe { self.send(address, bytes.as_ptr().cast(), bytes.len()) }?;
            return Ok(self.wait()?);
        }
        let f = self.f;
        let mut to = address;
        for part in bytes.chunks(HALF) {
            let half = &self.staging.0[turn.half];
            turn.half = 1 - turn.half;
            // SAFETY: the event lives as long as this; one that was never recorded is over.
            f.check("cuEventSynchronize", unsafe { (f.event_wait)(half.fetched.handle()) })?;
            let memory = half.memory.handle();
            // SAFETY: the buffer has HALF bytes, which is what a part has at most, and the card has done with it.
            unsafe { std::ptr::copy_nonoverlapping(part.as_ptr(), memory.cast(), part.len()) };
            // SAFETY: the caller's promise; the buffer is not written before the event.
            unsafe { self.send(to, memory, part.len()) }?;
            // SAFETY: event and stream live as long as this.
            f.check("cuEventRecord", unsafe { (f.event_record)(half.fetched.handle(), self.stream.handle()) })?;
            to += part.len() as u64;
        }
        Ok(())
    }

    /// # Safety
    /// As `Device::write`; the bytes must stay until the stream has come so far.
    unsafe fn send(&self, address: u64, from: *const c_void, bytes: usize) -> Result<(), DriverError> {
        let f = self.f;
        // SAFETY: the caller's promise.
        f.check("cuMemcpyHtoDAsync", unsafe { (f.copy_to)(address, from, bytes, self.stream.handle()) })
    }

    /// # Safety
    /// As `Device::read`.
    pub(super) unsafe fn read(&self, address: u64, out: &mut [u8]) -> Result<(), CudaError> {
        if out.is_empty() {
            return Ok(());
        }
        let f = self.f;
        // What fits goes through pinned memory, which is quicker than what the driver does for other memory.
        let pinned = (out.len() <= HALF).then(|| self.staging.0[0].memory.handle());
        let to = pinned.unwrap_or(out.as_mut_ptr().cast());
        // SAFETY: the caller's promise for the address; `to` has room, and what may still be fetched from it goes before, in
        // the order of the stream.
        let code = unsafe { (f.copy_from)(to, address, out.len(), self.stream.handle()) };
        f.check("cuMemcpyDtoHAsync", code)?;
        self.wait()?;
        if let Some(from) = pinned {
            // SAFETY: the buffer has HALF bytes, the copy into it is over, and it is not the caller's memory.
            unsafe { std::ptr::copy_nonoverlapping(from.cast(), out.as_mut_ptr(), out.len()) };
        }
        Ok(())
    }
}
