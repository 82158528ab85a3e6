//! NVIDIA's driver, loaded when it is asked for: which cards there are, and why there are none.
//!
//! Every function is looked up before one is called ([`functions`]): a machine without a driver, or with an old one, says so.
//!
//! What ran: every message of [`DriverError`], and a card's facts, with a library that plays the driver
//! (engine/cli/tests/program/cuda.rs). What did not: a real driver. The numbers of attributes and the order of calls are those of
//! NVIDIA's documentation of the driver API, by cudarc's bindings.

pub(super) mod functions;
mod hints;

use super::architecture::LOWEST;
use cudarc::driver::sys::{CUdevice, CUdevice_attribute, CUresult};
use functions::{Functions, Handle};
use hints::hint;
use std::ffi::{CStr, c_char, c_int};

/// The oldest driver, by the CUDA version that it speaks: the first that loads cubins of NVRTC 12.
pub const OLDEST: (u32, u32) = (12, 0);

/// Why there is no card to use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum DriverError {
    #[error(
        "there is no NVIDIA driver here ({tried}); it comes with the driver, not with the CUDA toolkit, and into a container only if that is started with its GPUs (`docker run --gpus all`)"
    )]
    NoLibrary { tried: String },
    #[error("the NVIDIA driver ({library}) has no function `{symbol}`: it is too old, CUDA {}.{} or newer is needed; update the driver", OLDEST.0, OLDEST.1)]
    NoSymbol { library: String, symbol: &'static str },
    #[error("the NVIDIA driver speaks CUDA {}.{}, {}.{} or newer is needed; update the driver", found.0, found.1, OLDEST.0, OLDEST.1)]
    TooOld { found: (u32, u32) },
    #[error(
        "the NVIDIA driver (CUDA {}.{}) finds no card; `nvidia-smi -L` lists what it sees, and CUDA_VISIBLE_DEVICES hides cards", driver.0, driver.1
    )]
    NoCard { driver: (u32, u32) },
    #[error(
        "there is no card {index}: the driver shows {count}, counted from 0; `bitnet devices` lists them, and CUDA_VISIBLE_DEVICES hides cards"
    )]
    NoSuchCard { index: u32, count: u32 },
    #[error("the NVIDIA driver: {call}{of} failed with {name}{}", hint(*code))]
    Call {
        call: &'static str,
        /// What it was for, with ` of ` before it; or nothing.
        of: String,
        code: i32,
        /// `CUDA_ERROR_...`, or the number if it has no name.
        name: String,
    },
}

impl DriverError {
    /// Whether the message says what fixes it; of a call that failed it may not.
    pub(super) fn has_hint(&self) -> bool {
        !matches!(self, Self::Call { code, .. } if hint(*code).is_empty())
    }
}

/// A card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// The `N` of `cuda:N`, as the driver counts.
    pub index: u32,
    /// `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Major and minor version of its instruction set: (9, 0) of an H100.
    pub compute: (u32, u32),
    /// Bytes of memory.
    pub memory_total: u64,
    /// Bytes that nobody has taken, or why the card does not say.
    pub memory_free: Result<u64, DriverError>,
    /// Bytes of the second cache.
    pub l2: u64,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// The CUDA version that the driver speaks.
    pub driver: (u32, u32),
}

/// A driver that is here, started and new enough.
#[derive(Debug, Clone, Copy)]
pub struct Driver {
    functions: &'static Functions,
    version: (u32, u32),
}

/// What opening a card needs of it; asking does not touch the card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) index: u32,
    pub(super) device: CUdevice,
    pub(super) name: String,
    pub(super) compute: (u32, u32),
    pub(super) multiprocessors: u32,
}

/// Every card that the driver shows.
///
/// # Errors
/// There is no driver, it is too old, it does not start, or it has no card.
pub fn cards() -> Result<Vec<Card>, DriverError> {
    Driver::open()?.cards()
}

impl Driver {
    /// Finds the driver, and starts it.
    ///
    /// # Errors
    /// There is none, it is too old, or it does not start.
    pub fn open() -> Result<Self, DriverError> {
        let f = Functions::load()?;
        let mut version: c_int = 0;
        // SAFETY: may be called before cuInit, and writes one integer.
        f.check("cuDriverGetVersion", unsafe { (f.driver_version)(&raw mut version) })?;
        let version = u32::try_from(version).unwrap_or(0);
        // CUDA's own way: 12040 is 12.4.
        let version = (version / 1000, version % 1000 / 10);
        if version < OLDEST {
            return Err(DriverError::TooOld { found: version });
        }
        // SAFETY: the flags must be 0.
        let code = unsafe { (f.init)(0) };
        if code == CUresult::CUDA_ERROR_NO_DEVICE as c_int {
            return Err(DriverError::NoCard { driver: version });
        }
        f.check("cuInit", code).map(|()| Self { functions: f, version })
    }

    /// The CUDA version that the driver speaks.
    pub fn version(self) -> (u32, u32) {
        self.version
    }

    pub(super) fn functions(self) -> &'static Functions {
        self.functions
    }

    /// Every card.
    ///
    /// # Errors
    /// There is none, or the driver fails.
    pub fn cards(self) -> Result<Vec<Card>, DriverError> {
        (0..self.count()?).map(|index| self.card(index)).collect()
    }

    /// The card with this number, or without a number the first that the kernels are written for (the first of all, if there
    /// is no such).
    ///
    /// # Errors
    /// There is none, or the driver fails.
    pub(super) fn choose(self, index: Option<u32>) -> Result<Facts, DriverError> {
        let count = self.count()?;
        if let Some(index) = index {
            return match c_int::try_from(index) {
                Ok(at) if at < count => self.facts(at),
                _ => Err(DriverError::NoSuchCard { index, count: count.unsigned_abs() }),
            };
        }
        let first = self.facts(0)?;
        if first.compute >= LOWEST {
            return Ok(first);
        }
        for index in 1..count {
            let facts = self.facts(index)?;
            if facts.compute >= LOWEST {
                return Ok(facts);
            }
        }
        Ok(first)
    }

    /// How many cards there are; at least one.
    fn count(self) -> Result<c_int, DriverError> {
        let f = self.functions;
        let mut count: c_int = 0;
        // SAFETY: the driver was started, and writes one integer.
        f.check("cuDeviceGetCount", unsafe { (f.device_count)(&raw mut count) })?;
        if count > 0 { Ok(count) } else { Err(DriverError::NoCard { driver: self.version }) }
    }

    fn facts(self, index: c_int) -> Result<Facts, DriverError> {
        let f = self.functions;
        let mut device: CUdevice = 0;
        // SAFETY: the driver was started; the index is below its count.
        f.check("cuDeviceGet", unsafe { (f.device)(&raw mut device, index) })?;
        Ok(Facts {
            index: index.unsigned_abs(),
            device,
            name: self.name(device)?,
            compute: (
                self.attribute(device, CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                self.attribute(device, CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            multiprocessors: self.attribute(device, CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        })
    }

    fn card(self, index: c_int) -> Result<Card, DriverError> {
        let f = self.functions;
        let Facts { index, device, name, compute, multiprocessors } = self.facts(index)?;
        let mut total = 0_usize;
        // SAFETY: the device is the driver's own; one `size_t` is written.
        f.check("cuDeviceTotalMem", unsafe { (f.device_memory)(&raw mut total, device) })?;
        Ok(Card {
            index,
            name,
            compute,
            memory_total: total as u64,
            memory_free: self.free(device),
            l2: u64::from(self.attribute(device, CUdevice_attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?),
            multiprocessors,
            driver: self.version,
        })
    }

    fn attribute(self, device: CUdevice, which: CUdevice_attribute) -> Result<u32, DriverError> {
        let f = self.functions;
        let mut value: c_int = 0;
        // SAFETY: the device is the driver's own; one integer is written.
        f.check("cuDeviceGetAttribute", unsafe { (f.device_attribute)(&raw mut value, which, device) })?;
        Ok(u32::try_from(value).unwrap_or(0))
    }

    fn name(self, device: CUdevice) -> Result<String, DriverError> {
        let f = self.functions;
        let mut name: [c_char; 256] = [0; 256];
        // One byte less than there is, so that a 0 ends it in any case.
        // SAFETY: the device is the driver's own; at most as many bytes as is said are written.
        f.check("cuDeviceGetName", unsafe { (f.device_name)(name.as_mut_ptr(), 255, device) })?;
        // SAFETY: the last byte is 0.
        Ok(unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned())
    }

    /// Bytes of memory that are free. Only a context can say it, so one is made and let go.
    fn free(self, device: CUdevice) -> Result<u64, DriverError> {
        let f = self.functions;
        let mut before: Handle = std::ptr::null_mut();
        // SAFETY: the driver was started; one pointer is written, null if no context is current.
        f.check("cuCtxGetCurrent", unsafe { (f.context_get)(&raw mut before) })?;
        let context = Context::retain(f, device)?;
        let free = context.make_current().and_then(|()| context.memory());
        // SAFETY: what was current before, or none.
        let back = f.check("cuCtxSetCurrent", unsafe { (f.context_set)(before) });
        let free = free?.0;
        back.and(context.release()).map(|()| free)
    }
}

/// The primary context of a card, which everything on it happens in; let go when this goes.
#[derive(Debug)]
pub(super) struct Context {
    functions: &'static Functions,
    device: CUdevice,
    handle: Handle,
}

impl Context {
    pub(super) fn retain(functions: &'static Functions, device: CUdevice) -> Result<Self, DriverError> {
        let mut handle: Handle = std::ptr::null_mut();
        // SAFETY: the device is the driver's own; released once, when this goes.
        let code = unsafe { (functions.context_retain)(&raw mut handle, device) };
        functions.check("cuDevicePrimaryCtxRetain", code).map(|()| Self { functions, device, handle })
    }

    /// Makes it the context of the calls of this thread.
    pub(super) fn make_current(&self) -> Result<(), DriverError> {
        // SAFETY: the context is retained.
        self.functions.check("cuCtxSetCurrent", unsafe { (self.functions.context_set)(self.handle) })
    }

    /// Bytes that are free, and all. It must be current.
    pub(super) fn memory(&self) -> Result<(u64, u64), DriverError> {
        let (mut free, mut total) = (0_usize, 0_usize);
        // SAFETY: two `size_t` are written.
        let code = unsafe { (self.functions.memory_info)(&raw mut free, &raw mut total) };
        self.functions.check("cuMemGetInfo", code).map(|()| (free as u64, total as u64))
    }

    fn release(self) -> Result<(), DriverError> {
        let kept = std::mem::ManuallyDrop::new(self);
        // SAFETY: retained once; nothing else releases it, since its drop does not run.
        let code = unsafe { (kept.functions.context_release)(kept.device) };
        kept.functions.check("cuDevicePrimaryCtxRelease", code)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained once, and this is its end. What it returns helps nobody any more.
        unsafe { (self.functions.context_release)(self.device) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_cause_and_what_fixes_it() {
        let call = |code: i32| {
            let name = format!("error {code}");
            DriverError::Call { call: "cuInit", of: String::new(), code, name }.to_string()
        };
        for (code, want) in [
            (803, "restart the machine"),
            (34, "LD_LIBRARY_PATH"),
            (700, "CUDA_LAUNCH_BLOCKING=1"),
            (719, "--device cpu"),
            (214, "faulty"),
            (702, "screen"),
        ] {
            assert!(call(code).contains(want), "{}", call(code));
        }
        // Also for numbers that nobody knows yet.
        for code in [1, 9999, -5, i32::MAX] {
            assert_eq!(call(code), format!("the NVIDIA driver: cuInit failed with error {code}"));
        }
        let missing = DriverError::NoSuchCard { index: 9, count: 2 }.to_string();
        assert!(missing.starts_with("there is no card 9: the driver shows 2, counted from 0"), "{missing}");
        let old = DriverError::TooOld { found: (11, 4) }.to_string();
        assert_eq!(old, "the NVIDIA driver speaks CUDA 11.4, 12.0 or newer is needed; update the driver");
    }

    /// Whatever this machine has, it is said and not a panic.
    #[test]
    fn cards_or_a_reason() {
        match cards() {
            Ok(cards) => assert!(cards.iter().all(|card| !card.name.is_empty() && card.memory_total > 0), "{cards:?}"),
            Err(error) => assert!(error.to_string().contains("NVIDIA driver"), "{error}"),
        }
    }
}
