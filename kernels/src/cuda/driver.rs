//! NVIDIA's driver, loaded when it is asked for: which cards there are, and why there are none.
//!
//! cudarc's bindings load `libcuda` by themselves and end the process where it or a function is missing. So nothing of them
//! is called before [`Driver::open`] has seen that the library is here and has every function that is used; a function
//! that is newly used goes into `NEEDED` first.
//!
//! What ran: every message of [`DriverError`], and a card's facts, with a library that plays the driver
//! (engine/cli/tests/cuda.rs). What did not: a real driver. The numbers of attributes and the order of calls are those of
//! NVIDIA's documentation of the driver API, by cudarc's bindings.

use cudarc::driver::sys::{self, CUdevice, CUdevice_attribute, CUresult};
use libloading::Library;
use std::ffi::{CStr, c_char, c_int};

/// The oldest driver, by the CUDA version that it speaks: the first that loads cubins of NVRTC 12.
pub const OLDEST: (u32, u32) = (12, 0);

/// Every function of the driver that is called.
const NEEDED: &[&str] = &[
    "cuInit",
    "cuDriverGetVersion",
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDeviceTotalMem_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuMemGetInfo_v2",
];

/// Why there is no card to use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DriverError {
    /// No driver's library.
    #[error(
        "there is no NVIDIA driver here ({tried}); it comes with the driver, not with the CUDA toolkit, and into a container only if that is started with its GPUs (`docker run --gpus all`)"
    )]
    NoLibrary {
        /// What was looked for.
        tried: String,
    },
    /// A driver without a function that is needed.
    #[error("the NVIDIA driver ({library}) has no function `{symbol}`: it is too old, CUDA {}.{} or newer is needed; update the driver", OLDEST.0, OLDEST.1)]
    NoSymbol {
        /// The library.
        library: String,
        /// What it lacks.
        symbol: &'static str,
    },
    /// A driver that is too old.
    #[error("the NVIDIA driver speaks CUDA {}.{}, {}.{} or newer is needed; update the driver", found.0, found.1, OLDEST.0, OLDEST.1)]
    TooOld {
        /// What it speaks.
        found: (u32, u32),
    },
    /// A driver and no card.
    #[error(
        "the NVIDIA driver (CUDA {}.{}) finds no card; `nvidia-smi -L` lists what it sees, and CUDA_VISIBLE_DEVICES hides cards", driver.0, driver.1
    )]
    NoCard {
        /// What the driver speaks.
        driver: (u32, u32),
    },
    /// A call that failed.
    #[error("the NVIDIA driver: {call} failed with {code}{}", hint(code))]
    Call {
        /// The function.
        call: &'static str,
        /// `CUDA_ERROR_...`
        code: String,
    },
}

/// What mends an error, where one thing does.
fn hint(code: &str) -> &'static str {
    match code {
        "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH" => {
            ": its library and its kernel module are of different versions; restart the machine, or install one version of both"
        }
        "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE" => {
            ": CUDA's forward compatibility does not cover this card; update the driver"
        }
        "CUDA_ERROR_STUB_LIBRARY" => ": that is the toolkit's stub for linking; take its folder out of LD_LIBRARY_PATH",
        "CUDA_ERROR_UNKNOWN" | "CUDA_ERROR_SYSTEM_NOT_READY" => {
            ": the kernel module does not answer; look at `nvidia-smi` and the kernel's log"
        }
        "CUDA_ERROR_DEVICE_UNAVAILABLE" => {
            ": the card is held by another process in exclusive mode; `nvidia-smi` shows it"
        }
        "CUDA_ERROR_OUT_OF_MEMORY" => ": the card has no memory left; `nvidia-smi` shows who has it",
        _ => "",
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
    version: (u32, u32),
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
        let (library, place) = library()?;
        for symbol in NEEDED {
            // SAFETY: the pointer is not called and not kept; its type does not matter.
            if unsafe { library.get::<*const ()>(symbol.as_bytes()) }.is_err() {
                return Err(DriverError::NoSymbol { library: place, symbol });
            }
        }
        // cudarc opens it once more, by the same names in the same order, and keeps it.
        let mut version: c_int = 0;
        // SAFETY: the function exists (`NEEDED`), may be called before cuInit, and writes one integer.
        let code = unsafe { sys::cuDriverGetVersion(&raw mut version) };
        check("cuDriverGetVersion", code)?;
        let version = u32::try_from(version).unwrap_or(0);
        // CUDA's own way: 12040 is 12.4.
        let version = (version / 1000, version % 1000 / 10);
        if version < OLDEST {
            return Err(DriverError::TooOld { found: version });
        }
        // SAFETY: the function exists; the flags must be 0.
        match unsafe { sys::cuInit(0) } {
            CUresult::CUDA_ERROR_NO_DEVICE => Err(DriverError::NoCard { driver: version }),
            code => check("cuInit", code).map(|()| Self { version }),
        }
    }

    /// The CUDA version that the driver speaks.
    #[must_use]
    pub fn version(self) -> (u32, u32) {
        self.version
    }

    /// Every card.
    ///
    /// # Errors
    /// There is none, or the driver fails.
    pub fn cards(self) -> Result<Vec<Card>, DriverError> {
        let mut count: c_int = 0;
        // SAFETY: the driver was started, and writes one integer.
        check("cuDeviceGetCount", unsafe { sys::cuDeviceGetCount(&raw mut count) })?;
        if count <= 0 {
            return Err(DriverError::NoCard { driver: self.version });
        }
        (0..count).map(|index| self.card(index)).collect()
    }

    fn card(self, index: c_int) -> Result<Card, DriverError> {
        let mut device: CUdevice = 0;
        // SAFETY: the driver was started; the index is below its count.
        check("cuDeviceGet", unsafe { sys::cuDeviceGet(&raw mut device, index) })?;
        let mut total = 0_usize;
        // SAFETY: the device is the driver's own; one `size_t` is written.
        check("cuDeviceTotalMem", unsafe { sys::cuDeviceTotalMem_v2(&raw mut total, device) })?;
        let attribute = |which: CUdevice_attribute| {
            let mut value: c_int = 0;
            // SAFETY: the device is the driver's own; one integer is written.
            check("cuDeviceGetAttribute", unsafe { sys::cuDeviceGetAttribute(&raw mut value, which, device) })?;
            Ok(u32::try_from(value).unwrap_or(0))
        };
        Ok(Card {
            index: u32::try_from(index).unwrap_or(0),
            name: name(device)?,
            compute: (
                attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            memory_total: total as u64,
            memory_free: free(device),
            l2: u64::from(attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?),
            multiprocessors: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            driver: self.version,
        })
    }
}

/// The driver's library, by the names that cudarc tries.
fn library() -> Result<(Library, String), DriverError> {
    let names: Vec<String> = ["cuda", "nvcuda"].iter().flat_map(|name| cudarc::get_lib_name_candidates(name)).collect();
    for name in &names {
        // SAFETY: loading runs the initialisers of NVIDIA's driver library, if that is what has its name.
        if let Ok(library) = unsafe { Library::new(name) } {
            return Ok((library, name.clone()));
        }
    }
    // The first is the name for development, the last the one that every driver installs on Linux.
    let usual = names.iter().find(|name| name.ends_with(".so.1") || name.ends_with("nvcuda.dll")).or(names.first());
    Err(DriverError::NoLibrary { tried: format!("no {}", usual.map_or("libcuda", String::as_str)) })
}

fn check(call: &'static str, code: CUresult) -> Result<(), DriverError> {
    match code {
        CUresult::CUDA_SUCCESS => Ok(()),
        code => Err(DriverError::Call { call, code: format!("{code:?}") }),
    }
}

fn name(device: CUdevice) -> Result<String, DriverError> {
    let mut name: [c_char; 256] = [0; 256];
    // One byte less than there is, so that a 0 ends it in any case.
    // SAFETY: the device is the driver's own; at most as many bytes as is said are written.
    check("cuDeviceGetName", unsafe { sys::cuDeviceGetName(name.as_mut_ptr(), 255, device) })?;
    // SAFETY: the last byte is 0.
    Ok(unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned())
}

/// Bytes of memory that are free. Only a context can say it, so one is made and let go.
fn free(device: CUdevice) -> Result<u64, DriverError> {
    let mut context: sys::CUcontext = std::ptr::null_mut();
    let mut before: sys::CUcontext = std::ptr::null_mut();
    // SAFETY: the driver was started; one pointer is written, null if no context is current.
    check("cuCtxGetCurrent", unsafe { sys::cuCtxGetCurrent(&raw mut before) })?;
    // SAFETY: the device is the driver's own; released below, whatever happens.
    check("cuDevicePrimaryCtxRetain", unsafe { sys::cuDevicePrimaryCtxRetain(&raw mut context, device) })?;
    let (mut free, mut total) = (0_usize, 0_usize);
    // SAFETY: the context was just retained.
    let asked = check("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(context) })
        // SAFETY: a context is current; two `size_t` are written.
        .and_then(|()| check("cuMemGetInfo", unsafe { sys::cuMemGetInfo_v2(&raw mut free, &raw mut total) }));
    // SAFETY: what was current before, or none.
    let back = check("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(before) });
    // SAFETY: retained above, once.
    let released = check("cuDevicePrimaryCtxRelease", unsafe { sys::cuDevicePrimaryCtxRelease_v2(device) });
    asked.and(back).and(released).map(|()| free as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_cause_and_what_mends_it() {
        let call = |code: &str| DriverError::Call { call: "cuInit", code: code.to_owned() }.to_string();
        assert!(call("CUDA_ERROR_SYSTEM_DRIVER_MISMATCH").contains("restart the machine"));
        assert!(call("CUDA_ERROR_STUB_LIBRARY").contains("LD_LIBRARY_PATH"));
        assert_eq!(call("CUDA_ERROR_INVALID_VALUE"), "the NVIDIA driver: cuInit failed with CUDA_ERROR_INVALID_VALUE");
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
