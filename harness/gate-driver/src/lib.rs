//! Fixed pieces of the engine's work, run so that they can be counted or timed: what `cargo xtask gate` measures.
//!
//! The program `gate-driver` has two ways:
//!
//! * `count`, under `valgrind --tool=callgrind --instr-atstart=no`: each case runs [`CALLS`] times between two client
//!   requests, so that callgrind counts its instructions and nothing else. Exact, and the same on every machine, as far as
//!   valgrind knows the instructions: 3.19 knows AVX2, and hides AVX-512.
//! * `pairs`: wall time of a kernel set and of a plainer one, in turns on the same work; the ratio is the result.
//!
//! Both take `--plant PERCENT`, which does so much of the work once more: how the gate shows that it can be red.
//!
//! The driver measures and judges nothing. `bitnet_harness::gate` runs it and holds the figures against `golden/gates/`. It is a
//! program of its own, below the harness, so that the kernels alone are built in the release profile, as they are shipped.

#![allow(missing_docs, reason = "a name that says it all has no comment")]

pub mod cases;
pub mod pairs;
mod random;
pub mod requests;

use serde::{Deserialize, Serialize};

/// How often a case runs while it is counted: a planted slowdown of 10 % is one call more.
pub const CALLS: u32 = 10;

/// The name, in place of a kernel set's, of what no kernel set computes.
pub const ANY: &str = "any";

/// A line of the driver's answer, as JSON on stdout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case", deny_unknown_fields)]
pub enum Line {
    Build(Build),
    /// A kernel set that was asked for and cannot run here.
    Unavailable {
        set: String,
        reason: String,
    },
    /// A case was counted. How many instructions it took stands in callgrind's dump with the trigger [`trigger`].
    Counted {
        set: String,
        case: String,
    },
    /// A case was timed.
    Paired(Paired),
}

/// What the driver is, and where it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// The compiler, as `rustc -V` names it.
    pub rustc: String,
    /// `release` or `debug`.
    pub profile: String,
    /// RUSTFLAGS.
    pub flags: String,
    pub arch: String,
    /// The C library, whose `malloc` and `memcpy` are counted where something allocates.
    pub libc: String,
    /// The processor: vendor, family, model.
    pub cpu: String,
    /// Every kernel set of the table that is for this architecture, runnable or not.
    pub sets: Vec<String>,
}

/// A case of two kernel sets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paired {
    /// The set under test.
    pub set: String,
    /// The plainer one.
    pub against: String,
    pub case: String,
    pub rounds: usize,
    /// (Time of `against` / time of `set`), the median of the faster half of the pairs of each place of the stack, and of those the geometric mean:
    /// so many times faster is `set`.
    pub ratio: f64,
    /// The quarter of these pairs that are lowest lies below.
    pub lower: f64,
    /// The quarter that are highest lies above.
    pub upper: f64,
    /// What a call takes at least, of `set` and of `against`.
    pub nanoseconds: [f64; 2],
}

/// The text that marks the dump of a case.
pub fn trigger(set: &str, case: &str) -> String {
    format!("{set} {case}")
}

impl Build {
    /// Of this program, on this machine.
    pub fn here() -> Self {
        Self {
            rustc: env!("GATE_RUSTC").to_owned(),
            profile: env!("GATE_PROFILE").to_owned(),
            flags: env!("GATE_FLAGS").to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            libc: libc(),
            cpu: cpu().unwrap_or_else(|| "unknown".to_owned()),
            sets: bitnet_kernels::kernel_sets()
                .iter()
                .filter(|set| set.arch.is_none_or(|arch| arch == std::env::consts::ARCH))
                .map(|set| set.name.to_owned())
                .collect(),
        }
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn libc() -> String {
    unsafe extern "C" {
        fn gnu_get_libc_version() -> *const std::ffi::c_char;
    }
    // SAFETY: glibc's own function; it returns a static string.
    let version = unsafe { std::ffi::CStr::from_ptr(gnu_get_libc_version()) };
    format!("glibc {}", version.to_string_lossy())
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn libc() -> String {
    "unknown".to_owned()
}

/// Linux says; the marketing name is left out, since virtual machines invent it.
fn cpu() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let field = |name: &str| {
        let line = text.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
        Some(line.split(':').nth(1)?.trim().to_owned())
    };
    Some(format!("{} family {} model {}", field("vendor_id")?, field("cpu family")?, field("model")?))
}
