//! The functions of the driver, looked up once by name.
//!
//! cudarc's own bindings end the process where the library or a function is missing, and return its enum of result codes, to
//! which a driver that is newer than cudarc may give a number that the enum does not have. So the functions are looked up
//! here, all before any is called, and return the number that C returns. cudarc gives the types, the constants and the
//! names of the library.

use super::DriverError;
use cudarc::driver::sys::{
    CUdevice, CUdevice_attribute, CUdeviceptr, CUevent_flags, CUfunction_attribute, CUlaunchConfig, CUresult,
    CUstream_flags, CUstreamCaptureMode,
};
use libloading::Library;
use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::sync::OnceLock;

/// Any of the driver's opaque things: context, stream, event, module, function, graph; or memory of the host.
pub(crate) type Handle = *mut c_void;

macro_rules! functions {
    ($($name:ident: $symbol:literal ($($arg:ty),*);)*) => {
        /// The functions that are called, by their declarations in `cuda.h`; each returns a `CUresult`.
        pub(crate) struct Functions {
            $(pub(crate) $name: unsafe extern "C" fn($($arg),*) -> c_int,)*
        }

        impl Functions {
            /// Looks all of them up; the library stays loaded.
            fn find(library: &'static Library, place: &str) -> Result<Self, DriverError> {
                // SAFETY: each name is looked up with the type that `cuda.h` declares for it.
                Ok(unsafe { Self { $($name: function(library, place, $symbol)?,)* } })
            }
        }
    };
}

functions! {
    init: "cuInit" (c_uint);
    driver_version: "cuDriverGetVersion" (*mut c_int);
    error_name: "cuGetErrorName" (c_int, *mut *const c_char);
    device_count: "cuDeviceGetCount" (*mut c_int);
    device: "cuDeviceGet" (*mut CUdevice, c_int);
    device_name: "cuDeviceGetName" (*mut c_char, c_int, CUdevice);
    device_attribute: "cuDeviceGetAttribute" (*mut c_int, CUdevice_attribute, CUdevice);
    device_memory: "cuDeviceTotalMem_v2" (*mut usize, CUdevice);
    context_retain: "cuDevicePrimaryCtxRetain" (*mut Handle, CUdevice);
    context_release: "cuDevicePrimaryCtxRelease_v2" (CUdevice);
    context_get: "cuCtxGetCurrent" (*mut Handle);
    context_set: "cuCtxSetCurrent" (Handle);
    memory_info: "cuMemGetInfo_v2" (*mut usize, *mut usize);
    memory_alloc: "cuMemAlloc_v2" (*mut CUdeviceptr, usize);
    memory_free: "cuMemFree_v2" (CUdeviceptr);
    host_alloc: "cuMemHostAlloc" (*mut Handle, usize, c_uint);
    host_free: "cuMemFreeHost" (Handle);
    copy_to: "cuMemcpyHtoDAsync_v2" (CUdeviceptr, *const c_void, usize, Handle);
    copy_from: "cuMemcpyDtoHAsync_v2" (*mut c_void, CUdeviceptr, usize, Handle);
    copy_within: "cuMemcpyDtoDAsync_v2" (CUdeviceptr, CUdeviceptr, usize, Handle);
    stream_create: "cuStreamCreate" (*mut Handle, CUstream_flags);
    stream_destroy: "cuStreamDestroy_v2" (Handle);
    stream_wait: "cuStreamSynchronize" (Handle);
    capture_begin: "cuStreamBeginCapture_v2" (Handle, CUstreamCaptureMode);
    capture_end: "cuStreamEndCapture" (Handle, *mut Handle);
    graph_instantiate: "cuGraphInstantiateWithFlags" (*mut Handle, Handle, c_ulonglong);
    graph_launch: "cuGraphLaunch" (Handle, Handle);
    graph_destroy: "cuGraphDestroy" (Handle);
    replay_destroy: "cuGraphExecDestroy" (Handle);
    event_create: "cuEventCreate" (*mut Handle, CUevent_flags);
    event_destroy: "cuEventDestroy_v2" (Handle);
    event_record: "cuEventRecord" (Handle, Handle);
    event_wait: "cuEventSynchronize" (Handle);
    event_elapsed: "cuEventElapsedTime" (*mut f32, Handle, Handle);
    module_load: "cuModuleLoadData" (*mut Handle, *const c_void);
    module_unload: "cuModuleUnload" (Handle);
    module_function: "cuModuleGetFunction" (*mut Handle, Handle, *const c_char);
    function_set: "cuFuncSetAttribute" (Handle, CUfunction_attribute, c_int);
    launch: "cuLaunchKernel" (
        Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle, *mut *mut c_void, *mut *mut c_void
    );
    launch_with: "cuLaunchKernelEx" (*const CUlaunchConfig, Handle, *mut *mut c_void, *mut *mut c_void);
}

/// # Safety
/// `F` must be the type of the function pointer `symbol`.
unsafe fn function<F: Copy>(library: &'static Library, place: &str, symbol: &'static str) -> Result<F, DriverError> {
    // SAFETY: the caller vouches for the type.
    match unsafe { library.get::<F>(symbol.as_bytes()) } {
        Ok(found) => Ok(*found),
        Err(_) => Err(DriverError::NoSymbol { library: place.to_owned(), symbol }),
    }
}

impl std::fmt::Debug for Functions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Functions").finish_non_exhaustive()
    }
}

impl Functions {
    /// The driver's functions. Once found they stay.
    ///
    /// # Errors
    /// There is no library, or it lacks one of them.
    pub(super) fn load() -> Result<&'static Self, DriverError> {
        static FOUND: OnceLock<Functions> = OnceLock::new();
        if let Some(found) = FOUND.get() {
            return Ok(found);
        }
        let (library, place) = library()?;
        // A driver is never unloaded: it has threads of its own.
        let functions = Self::find(Box::leak(Box::new(library)), &place)?;
        Ok(FOUND.get_or_init(|| functions))
    }

    /// What a call returned.
    ///
    /// # Errors
    /// Anything but success.
    pub(crate) fn check(&self, call: &'static str, code: c_int) -> Result<(), DriverError> {
        self.check_of(call, || None, code)
    }

    /// As [`Self::check`], with what the call was for.
    pub(crate) fn check_of(
        &self,
        call: &'static str,
        of: impl FnOnce() -> Option<String>,
        code: c_int,
    ) -> Result<(), DriverError> {
        if code == CUresult::CUDA_SUCCESS as c_int {
            return Ok(());
        }
        Err(DriverError::Call {
            call,
            of: of().map_or_else(String::new, |of| format!(" of {of}")),
            code,
            name: self.name(code),
        })
    }

    /// The driver's name of a code, whichever version either has.
    fn name(&self, code: c_int) -> String {
        let mut name: *const c_char = std::ptr::null();
        // SAFETY: any number may be given; one pointer is written, null for a number without a name.
        let found = unsafe { (self.error_name)(code, &raw mut name) };
        if found != CUresult::CUDA_SUCCESS as c_int || name.is_null() {
            return format!("error {code}");
        }
        // SAFETY: not null, ends with 0, and lives as long as the library.
        unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
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
