//! The C++ side, or its absence.

#[cfg(cuda_emu)]
pub(super) use here::*;
#[cfg(not(cuda_emu))]
pub(super) use missing::*;

#[cfg(cuda_emu)]
mod here {
    use std::ffi::{CStr, c_char, c_int, c_void};

    use super::super::Launch;

    pub(in super::super) const AVAILABLE: Result<(), &str> = Ok(());

    unsafe extern "C" {
        fn bitnet_emu_alloc(bytes: usize) -> *mut c_void;
        fn bitnet_emu_free(data: *mut c_void);
        fn bitnet_emu_entry(i: usize) -> *const c_char;
        fn bitnet_emu_launch(
            name: *const c_char,
            grid: *const u32,
            block: *const u32,
            shared: u32,
            args: *mut *mut c_void,
            kinds: *const c_char,
            order: u32,
            skip: u32,
            overlaps: u32,
            early: u64,
            text: *mut c_char,
            len: usize,
        ) -> c_int;
    }

    fn early_bit(argument: usize) -> u64 {
        u32::try_from(argument).ok().and_then(|i| 1_u64.checked_shl(i)).unwrap_or(0)
    }

    pub(in super::super) fn alloc(bytes: usize) -> *mut u8 {
        // SAFETY: the call has no preconditions.
        unsafe { bitnet_emu_alloc(bytes) }.cast()
    }

    pub(in super::super) fn free(data: *mut u8) {
        // SAFETY: a pointer that `alloc` did not give, or that was freed, is passed over.
        unsafe { bitnet_emu_free(data.cast()) }
    }

    pub(in super::super) fn entry(i: usize) -> Option<String> {
        // SAFETY: the call has no preconditions.
        let name = unsafe { bitnet_emu_entry(i) };
        // SAFETY: what is not null is a literal of the C++ side.
        (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
    }

    /// `kinds` ends with a zero and has a letter for each of `args`.
    pub(in super::super) fn launch(
        launch: &Launch<'_>,
        entry: &CStr,
        args: &mut [*mut c_void],
        kinds: &[u8],
    ) -> Result<(), String> {
        assert!(kinds.len() == args.len() + 1 && kinds.last() == Some(&0), "one kind for each argument");
        let mut text = [0u8; 400];
        let early = launch.overlap.unwrap_or_default().iter().fold(0, |bits, &i| bits | early_bit(i));
        // SAFETY: the strings end with a zero; every element of `args` points to eight readable bytes, and the other side
        // reads as many elements as `kinds` has letters, each by its letter, which it compares with the kernel's own; it
        // writes at most `text.len()` bytes, a zero among them. Pointers to memory that no buffer holds are refused, and
        // the kernels (the crate's own sources, no others) that leave a buffer are caught at the pages around it; only a
        // jump over a whole page could land elsewhere.
        let code = unsafe {
            bitnet_emu_launch(
                entry.as_ptr(),
                launch.grid.as_ptr(),
                launch.block.as_ptr(),
                launch.shared,
                args.as_mut_ptr(),
                kinds.as_ptr().cast(),
                launch.order,
                launch.skip_barrier,
                u32::from(launch.overlap.is_some()),
                early,
                text.as_mut_ptr().cast(),
                text.len(),
            )
        };
        if code == 0 {
            return Ok(());
        }
        let end = text.iter().position(|&b| b == 0).unwrap_or(text.len());
        Err(String::from_utf8_lossy(&text[..end]).into_owned())
    }
}

#[cfg(not(cuda_emu))]
mod missing {
    use std::ffi::{CStr, c_void};

    use super::super::Launch;

    const REASON: &str = match option_env!("BITNET_CUDA_EMU") {
        Some(reason) => reason,
        None => "the build script did not run",
    };

    pub(in super::super) const AVAILABLE: Result<(), &str> = Err(REASON);

    pub(in super::super) fn alloc(_: usize) -> *mut u8 {
        std::ptr::null_mut()
    }

    pub(in super::super) fn free(_: *mut u8) {}

    pub(in super::super) fn entry(_: usize) -> Option<String> {
        None
    }

    pub(in super::super) fn launch(_: &Launch<'_>, _: &CStr, _: &mut [*mut c_void], _: &[u8]) -> Result<(), String> {
        Err(REASON.to_owned())
    }
}
