//! The emulated CUDA device of tests.

use bitnet_kernels::cuda::emu;
use std::io::Write;

/// Whether this build has the emulation. Where it has not, a test that needs it says so, past the test runner's capture.
pub(crate) fn here() -> bool {
    let available = emu::available();
    if let Err(reason) = &available {
        let _ = writeln!(std::io::stderr(), "unavailable, not run: {reason}");
    }
    available.is_ok()
}
