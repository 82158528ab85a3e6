//! Cubins of all sources, and the functions in them.

use super::owned::Owned;
use crate::cuda::architecture::Architecture;
use crate::cuda::cache::{Cache, Cubin};
use crate::cuda::device::CudaError;
use crate::cuda::driver::functions::{Functions, Handle};
use crate::cuda::nvrtc::{Nvrtc, NvrtcError, Program};
use crate::cuda::{HEADERS, Source, sources};
use std::collections::HashMap;
use std::ffi::CString;

/// What was loaded.
pub(super) struct Modules {
    pub(super) modules: Vec<Owned>,
    /// `CUfunction` by entry; they live as long as the modules.
    pub(super) entries: HashMap<&'static str, Handle>,
}

/// Compiles every source, or takes it from the folder.
pub(super) fn compile(
    nvrtc: &Nvrtc,
    cache: Option<&Cache>,
    architecture: Architecture,
) -> Result<Vec<(&'static Source, Cubin)>, NvrtcError> {
    let compile = |source: &'static Source| {
        let name = format!("{}.cu", source.name);
        let program = Program { name: &name, text: source.text, headers: HEADERS };
        let cubin = match cache {
            Some(cache) => cache.compile(nvrtc, &program, architecture)?,
            None => {
                let bytes = nvrtc.compile(&program, architecture, &[])?.cubin;
                Cubin { bytes, cached: false, note: None }
            }
        };
        Ok((source, cubin))
    };
    sources().iter().map(compile).collect()
}

/// Loads the cubins and finds every entry. The context is current.
pub(super) fn load(f: &'static Functions, compiled: &[(&'static Source, Cubin)]) -> Result<Modules, CudaError> {
    let mut loaded = Modules { modules: Vec::new(), entries: HashMap::new() };
    for (source, cubin) in compiled {
        let mut handle: Handle = std::ptr::null_mut();
        // SAFETY: the cubin is a whole ELF file, as NVRTC made it; one handle is written. The driver copies the file.
        let code = unsafe { (f.module_load)(&raw mut handle, cubin.bytes.as_ptr().cast()) };
        f.check_of("cuModuleLoadData", || Some(format!("{}.cu", source.name)), code)?;
        loaded.modules.push(Owned::given(handle, f.module_unload));
        for entry in source.entries {
            let name = CString::new(*entry).map_err(|_| CudaError::Entry { entry })?;
            let mut function: Handle = std::ptr::null_mut();
            // SAFETY: the module is loaded, the name ends with 0, and one handle is written.
            let code = unsafe { (f.module_function)(&raw mut function, handle, name.as_ptr()) };
            f.check_of("cuModuleGetFunction", || Some((*entry).to_owned()), code)?;
            loaded.entries.insert(entry, function);
        }
    }
    Ok(loaded)
}
