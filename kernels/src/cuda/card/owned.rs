//! Things of the driver that are given back when they go.

use crate::cuda::driver::DriverError;
use crate::cuda::driver::functions::{Functions, Handle};
use std::ffi::c_int;

/// A stream, an event, a module, a graph, or pinned memory. The context must be current where it is made and where it goes.
#[derive(Debug)]
pub(super) struct Owned {
    handle: Handle,
    give_back: unsafe extern "C" fn(Handle) -> c_int,
}

impl Owned {
    /// What `make` writes; `give_back` is the function that undoes it.
    pub(super) fn new(
        f: &Functions,
        call: &'static str,
        give_back: unsafe extern "C" fn(Handle) -> c_int,
        make: impl FnOnce(*mut Handle) -> c_int,
    ) -> Result<Self, DriverError> {
        let mut handle: Handle = std::ptr::null_mut();
        let code = make(&raw mut handle);
        f.check(call, code).map(|()| Self::given(handle, give_back))
    }

    /// What was made and is this one's now.
    pub(super) fn given(handle: Handle, give_back: unsafe extern "C" fn(Handle) -> c_int) -> Self {
        Self { handle, give_back }
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the handle was made once, by the function that this one undoes. What it returns helps nobody any more.
        unsafe { (self.give_back)(self.handle) };
    }
}
