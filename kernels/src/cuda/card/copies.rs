//! Copies between the host and the card.
//!
//! Large ones go through two pinned buffers in turns. On the way to the card one is filled while the card fetches the other,
//! which for a mapped file is the reading of it; what was written that way is on its way when the call returns, and in order with
//! all that is started later. On the way back one is emptied while the card fills the other.

use super::owned::Owned;
use super::{State, Turn};
use crate::cuda::device::{CudaError, FEW, Work};
use crate::cuda::driver::DriverError;
use crate::cuda::driver::functions::{Functions, Handle};
use cudarc::driver::sys::CUevent_flags;
use std::ffi::c_void;

/// Bytes of a pinned buffer: few, since nothing overlaps with the first part on its way up and the last on its way down.
const HALF: usize = 1 << 20;
/// Up to so many bytes a copy to the card is one call, which waits.
const DIRECT: usize = 64 << 10;

/// The two buffers.
#[derive(Debug)]
pub(super) struct Staging([Pinned; 2]);

#[derive(Debug)]
pub(super) struct Pinned {
    /// Pinned memory.
    memory: Owned,
    /// Happens when the card has done with the buffer.
    done: Owned,
}

impl Staging {
    pub(super) fn new(f: &Functions) -> Result<Self, DriverError> {
        Ok(Self([Pinned::new(f, HALF)?, Pinned::new(f, HALF)?]))
    }
}

impl Pinned {
    fn new(f: &Functions, bytes: usize) -> Result<Self, DriverError> {
        let memory = |h: *mut Handle| {
            // SAFETY: one pointer is written; no flags.
            unsafe { (f.host_alloc)(h, bytes, 0) }
        };
        let memory = Owned::new(f, "cuMemHostAlloc", f.host_free, memory)?;
        Ok(Self { memory, done: event(f, CUevent_flags::CU_EVENT_DISABLE_TIMING)? })
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
        let mut rest = bytes;
        let mut fill = |part: &mut [u8]| {
            let (now, later) = rest.split_at(part.len());
            part.copy_from_slice(now);
            rest = later;
        };
        // SAFETY: the caller's promise.
        unsafe { self.write_by(turn, address, bytes.len(), &mut fill) }
    }

    /// # Safety
    /// As `Device::write_by`.
    pub(super) unsafe fn write_by(
        &self,
        turn: &mut Turn,
        address: u64,
        bytes: usize,
        fill: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), CudaError> {
        for from in (0..bytes).step_by(HALF) {
            let half = self.next(turn);
            // One that was never recorded is over.
            self.wait_for(half)?;
            let (memory, n) = (half.memory.handle(), HALF.min(bytes - from));
            // SAFETY: the buffer has HALF bytes, the card has done with it, and nobody else has it meanwhile: `turn` is here.
            fill(unsafe { std::slice::from_raw_parts_mut(memory.cast(), n) });
            // SAFETY: the caller's promise; the buffer is not written before the event.
            unsafe { self.send(address + from as u64, memory, n) }?;
            self.mark(half)?;
        }
        Ok(())
    }

    /// The pinned buffer whose turn it is.
    fn next(&self, turn: &mut Turn) -> &Pinned {
        let half = &self.staging.0[turn.half];
        turn.half = 1 - turn.half;
        half
    }

    /// What the card has to do with a buffer was started.
    fn mark(&self, half: &Pinned) -> Result<(), DriverError> {
        let f = self.f;
        // SAFETY: event and stream live as long as this.
        f.check("cuEventRecord", unsafe { (f.event_record)(half.done.handle(), self.stream.handle()) })
    }

    /// Waits until the card has done with a buffer.
    fn wait_for(&self, half: &Pinned) -> Result<(), DriverError> {
        let f = self.f;
        // SAFETY: the event lives as long as this.
        f.check("cuEventSynchronize", unsafe { (f.event_wait)(half.done.handle()) })
    }

    /// # Safety
    /// As `Device::write`; the bytes must stay until the stream has come so far.
    unsafe fn send(&self, address: u64, from: *const c_void, bytes: usize) -> Result<(), DriverError> {
        let f = self.f;
        // SAFETY: the caller's promise.
        f.check("cuMemcpyHtoDAsync", unsafe { (f.copy_to)(address, from, bytes, self.stream.handle()) })
    }

    /// # Safety
    /// As `Device::read`; the bytes must stay until the stream has come so far.
    unsafe fn fetch(&self, to: *mut c_void, address: u64, bytes: usize) -> Result<(), DriverError> {
        let f = self.f;
        // SAFETY: the caller's promise.
        f.check("cuMemcpyDtoHAsync", unsafe { (f.copy_from)(to, address, bytes, self.stream.handle()) })
    }

    /// # Safety
    /// As `Device::read`.
    pub(super) unsafe fn read(&self, turn: &mut Turn, address: u64, out: &mut [u8]) -> Result<(), CudaError> {
        let empty = |half: &Pinned, out: &mut [u8]| {
            self.wait_for(half)?;
            // SAFETY: the buffer has HALF bytes, which is what a part has at most, the copy into it is over, and it is not the
            // caller's memory.
            unsafe { std::ptr::copy_nonoverlapping(half.memory.handle().cast(), out.as_mut_ptr(), out.len()) };
            Ok::<_, DriverError>(())
        };
        let mut from = address;
        let mut before: Option<(&Pinned, &mut [u8])> = None;
        for part in out.chunks_mut(HALF) {
            let half = self.next(turn);
            // SAFETY: the caller's promise for the address; the buffer has room, and was emptied. What may still be fetched
            // from it goes before, in the order of the stream.
            unsafe { self.fetch(half.memory.handle(), from, part.len()) }?;
            self.mark(half)?;
            from += part.len() as u64;
            // While the card fills this one.
            if let Some((half, part)) = before.replace((half, part)) {
                empty(half, part)?;
            }
        }
        if let Some((half, part)) = before {
            empty(half, part)?;
        }
        Ok(())
    }

    /// # Safety
    /// As `Device::read_before`.
    pub(super) unsafe fn read_before(
        &self,
        address: u64,
        out: &mut [u8],
        more: &mut Work<'_>,
    ) -> Result<(), CudaError> {
        if out.len() > FEW {
            return Err(CudaError::Range { offset: 0, bytes: out.len(), len: FEW });
        }
        let pinned = {
            let mut turn = self.enter()?;
            let pinned = turn.small.pop().map_or_else(|| Pinned::new(self.f, FEW), Ok)?;
            // SAFETY: the caller's promise for the address; the buffer has room for it, and nobody else has it.
            unsafe { self.fetch(pinned.memory.handle(), address, out.len()) }?;
            self.mark(&pinned)?;
            pinned
        };
        // Others may have their turn meanwhile, and `more` has.
        let started = more();
        let mut turn = self.enter()?;
        self.wait_for(&pinned)?;
        // SAFETY: the buffer has so many bytes, the copy into it is over, and it is not the caller's memory.
        unsafe { std::ptr::copy_nonoverlapping(pinned.memory.handle().cast(), out.as_mut_ptr(), out.len()) };
        turn.small.push(pinned);
        started
    }
}
