//! NVIDIA's run-time compiler, loaded when it is asked for: building needs no CUDA, and a machine without it says so.
//!
//! Loaded with `libloading` and not through cudarc, whose bindings choose the library by name and end the process where it
//! or a function is missing. A handful of functions is all that is called; their declarations are those of `nvrtc.h`.

use super::architecture::Architecture;
use libloading::Library;
use std::ffi::{CStr, CString, c_char, c_int};
use std::path::{Path, PathBuf};

/// What every source is compiled with, whoever compiles it: the numerics contract. A fused multiply-add stands only where
/// the source says so, division and roots are IEEE's, and subnormal numbers stay.
pub const OPTIONS: &[&str] = &["--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true"];

/// What fixes a missing library.
pub const REMEDY: &str =
    "pip install nvidia-cuda-nvrtc and set BITNET_NVRTC to its libnvrtc, or install the CUDA toolkit";

/// Names that the system's loader is asked for, the newest first.
#[cfg(not(windows))]
const NAMES: &[&str] = &["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];
#[cfg(windows)]
const NAMES: &[&str] = &["nvrtc64_130_0.dll", "nvrtc64_120_0.dll"];

/// What NVRTC could not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum NvrtcError {
    #[error("NVRTC, NVIDIA's run-time compiler, cannot be loaded ({tried}); to fix it: {REMEDY}")]
    NoLibrary { tried: String },
    #[error("{library} has no function `{symbol}`, so it is not the NVRTC of CUDA 11.2 or newer; to fix it: {REMEDY}")]
    NoSymbol { library: String, symbol: &'static str },
    #[error("NVRTC: {call} of `{source_name}` failed: {meaning} ({code})")]
    Call { call: &'static str, source_name: String, meaning: String, code: i32 },
    #[error("`{source_name}` does not compile for {architecture}:\n{log}")]
    Compile { source_name: String, architecture: Architecture, log: String },
    #[error("the {what} of `{source_name}` has a byte 0 in it")]
    Nul { what: &'static str, source_name: String },
}

/// What is compiled.
#[derive(Debug, Clone, Copy)]
pub struct Program<'a> {
    /// The name in messages, e.g. `rows.cu`.
    pub name: &'a str,
    /// The text.
    pub text: &'a str,
    /// `(name, text)` of what it may include.
    pub headers: &'a [(&'a str, &'a str)],
}

/// What comes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// The cubin: an ELF file.
    pub cubin: Vec<u8>,
    /// What the compiler said, warnings and what an option asked it to report.
    pub log: String,
}

/// `nvrtcProgram`, opaque.
type Handle = *mut std::ffi::c_void;

/// The functions, by their declarations in `nvrtc.h`; `nvrtcResult` is an `int`.
struct Functions {
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int,
    count_archs: unsafe extern "C" fn(*mut c_int) -> c_int,
    archs: unsafe extern "C" fn(*mut c_int) -> c_int,
    create: unsafe extern "C" fn(
        *mut Handle,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    destroy: unsafe extern "C" fn(*mut Handle) -> c_int,
    compile: unsafe extern "C" fn(Handle, c_int, *const *const c_char) -> c_int,
    log_size: unsafe extern "C" fn(Handle, *mut usize) -> c_int,
    log: unsafe extern "C" fn(Handle, *mut c_char) -> c_int,
    cubin_size: unsafe extern "C" fn(Handle, *mut usize) -> c_int,
    cubin: unsafe extern "C" fn(Handle, *mut c_char) -> c_int,
}

/// The compiler. Threads may share it; how much of their work goes on at once is NVRTC's affair.
pub struct Nvrtc {
    functions: Functions,
    place: String,
    version: (u32, u32),
    architectures: Vec<u32>,
    /// Keeps the functions where they are.
    _library: Library,
}

impl std::fmt::Debug for Nvrtc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nvrtc").field("place", &self.place).field("version", &self.version).finish_non_exhaustive()
    }
}

impl Nvrtc {
    /// Loads the library `at` (a file, or a folder that holds one), else the one that the system's loader finds.
    ///
    /// # Errors
    /// There is none, it cannot be loaded, or it is not NVRTC.
    pub fn load(at: Option<&Path>) -> Result<Self, NvrtcError> {
        let candidates: Vec<PathBuf> = match at {
            Some(folder) if folder.is_dir() => {
                let files: Vec<PathBuf> = NAMES.iter().map(|name| folder.join(name)).filter(|f| f.is_file()).collect();
                if files.is_empty() {
                    let tried = format!("{} holds none of {}", folder.display(), NAMES.join(", "));
                    return Err(NvrtcError::NoLibrary { tried });
                }
                files
            }
            Some(file) => vec![file.to_owned()],
            None => NAMES.iter().map(PathBuf::from).collect(),
        };
        let mut tried = Vec::new();
        for candidate in &candidates {
            // SAFETY: loading runs the library's initialisers. It is NVIDIA's library by name, or the one that the user
            // named; running its code is what is asked for.
            match unsafe { Library::new(candidate) } {
                Ok(library) => return Self::new(library, candidate.display().to_string()),
                Err(error) => tried.push(format!("{}: {error}", candidate.display())),
            }
        }
        Err(NvrtcError::NoLibrary { tried: tried.join("; ") })
    }

    fn new(library: Library, place: String) -> Result<Self, NvrtcError> {
        // SAFETY: each name is looked up with the type that `nvrtc.h` declares for it; `_library` outlives the pointers.
        let functions = unsafe {
            Functions {
                error_string: function(&library, &place, "nvrtcGetErrorString")?,
                version: function(&library, &place, "nvrtcVersion")?,
                count_archs: function(&library, &place, "nvrtcGetNumSupportedArchs")?,
                archs: function(&library, &place, "nvrtcGetSupportedArchs")?,
                create: function(&library, &place, "nvrtcCreateProgram")?,
                destroy: function(&library, &place, "nvrtcDestroyProgram")?,
                compile: function(&library, &place, "nvrtcCompileProgram")?,
                log_size: function(&library, &place, "nvrtcGetProgramLogSize")?,
                log: function(&library, &place, "nvrtcGetProgramLog")?,
                cubin_size: function(&library, &place, "nvrtcGetCUBINSize")?,
                cubin: function(&library, &place, "nvrtcGetCUBIN")?,
            }
        };
        let mut nvrtc = Self { functions, place, version: (0, 0), architectures: Vec::new(), _library: library };
        let (mut major, mut minor, mut count) = (0, 0, 0);
        let f = &nvrtc.functions;
        // SAFETY: both arguments point at integers.
        nvrtc.check("nvrtcVersion", "", unsafe { (f.version)(&raw mut major, &raw mut minor) })?;
        // SAFETY: as above.
        nvrtc.check("nvrtcGetNumSupportedArchs", "", unsafe { (f.count_archs)(&raw mut count) })?;
        let mut archs: Vec<c_int> = vec![0; usize::try_from(count).unwrap_or(0)];
        // SAFETY: the vector has room for as many integers as NVRTC has just said it writes.
        nvrtc.check("nvrtcGetSupportedArchs", "", unsafe { (f.archs)(archs.as_mut_ptr()) })?;
        nvrtc.version = (u32::try_from(major).unwrap_or(0), u32::try_from(minor).unwrap_or(0));
        nvrtc.architectures = archs.into_iter().filter_map(|number| u32::try_from(number).ok()).collect();
        Ok(nvrtc)
    }

    /// Major and minor version: CUDA's.
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// Where it was loaded from: a path, or the name that the system's loader knew.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The architectures that it makes cubins for, by number: 80, 90, ...
    pub fn architectures(&self) -> &[u32] {
        &self.architectures
    }

    /// Compiles to a cubin, with [`OPTIONS`] and `more`.
    ///
    /// # Errors
    /// The source is wrong (with the compiler's words), or NVRTC fails.
    pub fn compile(
        &self,
        program: &Program<'_>,
        architecture: Architecture,
        more: &[&str],
    ) -> Result<Compiled, NvrtcError> {
        let owned = |what: &'static str, text: &str| {
            CString::new(text).map_err(|_| NvrtcError::Nul { what, source_name: program.name.to_owned() })
        };
        let (text, name) = (owned("text", program.text)?, owned("name", program.name)?);
        let mut headers = Vec::with_capacity(program.headers.len());
        let mut names = Vec::with_capacity(program.headers.len());
        for (name, text) in program.headers {
            names.push(owned("name of a header", name)?);
            headers.push(owned("header", text)?);
        }
        let options = options(architecture, more);
        let options = options.iter().map(|option| owned("option", option)).collect::<Result<Vec<_>, _>>()?;
        let [header_pointers, name_pointers, option_pointers] = [&headers, &names, &options].map(|list| pointers(list));
        let mut handle: Handle = std::ptr::null_mut();
        // SAFETY: every pointer is to a string that ends with 0 and lives to the end of this function; the two lists have
        // the length that is given. NVRTC copies what it keeps.
        let code = unsafe {
            (self.functions.create)(
                &raw mut handle,
                text.as_ptr(),
                name.as_ptr(),
                c_int::try_from(headers.len()).unwrap_or(c_int::MAX),
                header_pointers.as_ptr(),
                name_pointers.as_ptr(),
            )
        };
        self.check("nvrtcCreateProgram", program.name, code)?;
        let open = Open { nvrtc: self, handle };
        // SAFETY: the handle is open, the options are as many strings as is said.
        let code = unsafe {
            (self.functions.compile)(
                handle,
                c_int::try_from(options.len()).unwrap_or(c_int::MAX),
                option_pointers.as_ptr(),
            )
        };
        let log = open.bytes(program.name, "nvrtcGetProgramLog", self.functions.log_size, self.functions.log)?;
        let log = String::from_utf8_lossy(&log).trim_end_matches('\0').trim().to_owned();
        match code {
            0 => {}
            // NVRTC_ERROR_INVALID_OPTION (an unknown architecture) and NVRTC_ERROR_COMPILATION: the log says what.
            5 | 6 => {
                let log = if log.is_empty() { self.meaning(code) } else { log };
                return Err(NvrtcError::Compile { source_name: program.name.to_owned(), architecture, log });
            }
            // NVRTC_ERROR_BUILTIN_OPERATION_FAILURE, above all: a library that is not where NVRTC looks. The log says which.
            _ => {
                let meaning = [self.meaning(code), log].join(": ").trim_end_matches([':', ' ']).to_owned();
                let source_name = program.name.to_owned();
                return Err(NvrtcError::Call { call: "nvrtcCompileProgram", source_name, meaning, code });
            }
        }
        let cubin = open.bytes(program.name, "nvrtcGetCUBIN", self.functions.cubin_size, self.functions.cubin)?;
        Ok(Compiled { cubin, log })
    }

    fn check(&self, call: &'static str, source_name: &str, code: c_int) -> Result<(), NvrtcError> {
        if code == 0 {
            return Ok(());
        }
        Err(NvrtcError::Call { call, source_name: source_name.to_owned(), meaning: self.meaning(code), code })
    }

    fn meaning(&self, code: c_int) -> String {
        // SAFETY: any number may be given; what comes back is null or a string that NVRTC never frees.
        let text = unsafe { (self.functions.error_string)(code) };
        if text.is_null() {
            return "an error without a name".to_owned();
        }
        // SAFETY: not null, ends with 0, and lives as long as the library.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }
}

/// All options of a compilation: [`OPTIONS`], the architecture, and `more`.
pub fn options(architecture: Architecture, more: &[&str]) -> Vec<String> {
    let fixed = OPTIONS.iter().map(|option| (*option).to_owned());
    let named = std::iter::once(format!("--gpu-architecture={architecture}"));
    fixed.chain(named).chain(more.iter().map(|option| (*option).to_owned())).collect()
}

fn pointers(list: &[CString]) -> Vec<*const c_char> {
    list.iter().map(|text| text.as_ptr()).collect()
}

/// # Safety
/// `F` must be the type of the function pointer `symbol`.
unsafe fn function<F: Copy>(library: &Library, place: &str, symbol: &'static str) -> Result<F, NvrtcError> {
    // SAFETY: the caller vouches for the type.
    match unsafe { library.get::<F>(symbol.as_bytes()) } {
        Ok(found) => Ok(*found),
        Err(_) => Err(NvrtcError::NoSymbol { library: place.to_owned(), symbol }),
    }
}

/// An open program, closed when it goes.
struct Open<'a> {
    nvrtc: &'a Nvrtc,
    handle: Handle,
}

impl Open<'_> {
    /// What a pair of functions gives: the number of bytes, then the bytes.
    fn bytes(
        &self,
        source_name: &str,
        call: &'static str,
        size: unsafe extern "C" fn(Handle, *mut usize) -> c_int,
        read: unsafe extern "C" fn(Handle, *mut c_char) -> c_int,
    ) -> Result<Vec<u8>, NvrtcError> {
        let mut len = 0_usize;
        // SAFETY: the handle is open and `len` is a `size_t`.
        self.nvrtc.check(call, source_name, unsafe { size(self.handle, &raw mut len) })?;
        let mut bytes = vec![0_u8; len];
        if len > 0 {
            // SAFETY: the vector has room for as many bytes as NVRTC has just said it writes.
            self.nvrtc.check(call, source_name, unsafe { read(self.handle, bytes.as_mut_ptr().cast()) })?;
        }
        Ok(bytes)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        // SAFETY: the handle was created, and nothing uses it after this. Nothing can be done about a failure.
        let _ = unsafe { (self.nvrtc.functions.destroy)(&raw mut self.handle) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With a real library: ci/xtask/tests/cuda_check.rs.
    #[test]
    fn what_is_no_nvrtc_is_refused_with_the_command_that_fixes_it() {
        let folder = std::env::temp_dir();
        for at in [Path::new("/nowhere/libnvrtc.so.13"), Path::new(env!("CARGO_MANIFEST_DIR")), &folder.join("no such")]
        {
            let error = Nvrtc::load(Some(at)).unwrap_err();
            assert!(matches!(&error, NvrtcError::NoLibrary { tried } if tried.contains(&at.display().to_string())));
            assert!(error.to_string().contains("to fix it: pip install nvidia-cuda-nvrtc"), "{error}");
        }
        #[cfg(target_os = "linux")]
        {
            let error = Nvrtc::load(Some(Path::new("libc.so.6"))).unwrap_err();
            let want = NvrtcError::NoSymbol { library: "libc.so.6".to_owned(), symbol: "nvrtcGetErrorString" };
            assert_eq!(error, want);
        }
    }

    #[test]
    fn options_hold_the_contract() {
        let options = options("sm_90a".parse().unwrap(), &["--ptxas-options=-v"]);
        for want in ["--fmad=false", "--ftz=false", "--gpu-architecture=sm_90a", "--ptxas-options=-v"] {
            assert!(options.iter().any(|option| option == want), "{options:?}");
        }
        assert!(!options.iter().any(|option| option.contains("fast")), "{options:?}");
    }
}
