//! Client requests: how a program tells valgrind what to count.
//!
//! A request is a sequence of instructions that does nothing (rotations that add up to a whole turn, then an exchange of a
//! register with itself) and that valgrind recognises. The codes and the sequence are those of `valgrind/valgrind.h` and
//! `valgrind/callgrind.h`. Outside of valgrind a request costs some cycles and answers 0.

use std::ffi::CString;

/// `RUNNING_ON_VALGRIND`.
const RUNNING: usize = 0x1001;
/// `VG_USERREQ_TOOL_BASE('C', 'T')`.
const CALLGRIND: usize = 0x4354_0000;
const ZERO: usize = CALLGRIND + 1;
const DUMP_AT: usize = CALLGRIND + 3;
const START: usize = CALLGRIND + 4;
const STOP: usize = CALLGRIND + 5;

/// Whether requests can be made on this architecture at all.
pub const SUPPORTED: bool = cfg!(target_arch = "x86_64");

#[cfg(target_arch = "x86_64")]
fn request(code: usize, argument: usize) -> usize {
    let block = [code, argument, 0, 0, 0, 0];
    let mut answer = 0usize;
    // SAFETY: the instructions leave every register as it was (rdi is rotated by 128 bits in all) but for the flags, which
    // `asm!` counts as changed; under valgrind rdx is the answer too. `block` outlives the request.
    unsafe {
        std::arch::asm!(
            "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51", "xchg rbx, rbx",
            in("rax") block.as_ptr(), inout("rdx") answer, options(nostack)
        );
    }
    answer
}

#[cfg(not(target_arch = "x86_64"))]
fn request(_code: usize, _argument: usize) -> usize {
    0
}

/// Whether valgrind runs this program.
pub fn under_valgrind() -> bool {
    request(RUNNING, 0) > 0
}

/// Counts the instructions of `work` and has callgrind write them to its file under the name `trigger`.
pub fn count(trigger: &str, work: impl FnOnce()) {
    // No trigger has a zero byte; one would be cut there.
    let name = CString::new(trigger.replace('\0', "")).unwrap_or_default();
    request(ZERO, 0);
    request(START, 0);
    work();
    request(STOP, 0);
    request(DUMP_AT, name.as_ptr() as usize);
}
