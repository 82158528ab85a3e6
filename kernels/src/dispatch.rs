//! Which kernel sets exist, which can run here, and which is taken.
//!
//! * The sets are a table, [`kernel_sets`], from the plainest to the fastest. It is the same on every host: a set
//!   that this build or machine lacks is listed and answers [`Unavailable`] with the reason, so that a test matrix can
//!   show it instead of forgetting it.
//! * Detection is at run time, by the CPU's own answer, never by compile flags: one binary runs everywhere. Each set's
//!   `detect` is the only way to an instance of it, so holding one proves that its instructions exist.
//! * The choice happens once per program ([`best`], or [`by_name`] for a user's wish), not per call: what a caller keeps
//!   is a `&'static dyn Kernels`, and one virtual call per operation is the whole cost.
//! * Inside a set the formats are matched by the address of their [`crate::Format`]; a format that the set has no kernel
//!   for is computed by its naive `dot`, slow and right.
//!
//! All sets give the same bits, so the choice is about speed only.

use std::sync::OnceLock;

use crate::cpu::scalar::Scalar;
use crate::{KernelError, Kernels, Unavailable};

/// One line of the table of kernel sets.
#[derive(Debug, Clone, Copy)]
pub struct KernelSetInfo {
    /// Stable name, the device axis of the test matrix, e.g. `avx2`.
    pub name: &'static str,
    /// The instructions that it uses.
    pub isa: &'static str,
    /// The architecture that it is for, as [`std::env::consts::ARCH`] names it; `None` for every one.
    pub arch: Option<&'static str>,
    /// The set, or why it cannot run here.
    pub detect: fn() -> Result<&'static dyn Kernels, Unavailable>,
}

static SETS: &[KernelSetInfo] = &[
    KernelSetInfo { name: "scalar", isa: "plain Rust, any CPU (the oracle)", arch: None, detect: || Ok(&Scalar) },
    KernelSetInfo { name: "avx2", isa: "x86-64 with AVX2, FMA and F16C", arch: X86, detect: avx2 },
    KernelSetInfo { name: "avx512", isa: "x86-64 with AVX-512 (F, BW, DQ, VL) and VNNI", arch: X86, detect: avx512 },
    KernelSetInfo { name: "amx", isa: "x86-64 with AMX (TILE, INT8) and what avx512 has", arch: X86, detect: amx },
    KernelSetInfo { name: "neon", isa: "aarch64 with NEON", arch: ARM, detect: neon },
    KernelSetInfo {
        name: "neon-dotprod",
        isa: "aarch64 with NEON and its dot product",
        arch: ARM,
        detect: neon_dotprod,
    },
];

const X86: Option<&str> = Some("x86_64");
const ARM: Option<&str> = Some("aarch64");

#[cfg(target_arch = "x86_64")]
fn avx2() -> Result<&'static dyn Kernels, Unavailable> {
    found("avx2", crate::cpu::avx2::Avx2::detect())
}

#[cfg(target_arch = "x86_64")]
fn avx512() -> Result<&'static dyn Kernels, Unavailable> {
    found("avx512", crate::cpu::avx512::Avx512::detect())
}

#[cfg(target_arch = "x86_64")]
fn amx() -> Result<&'static dyn Kernels, Unavailable> {
    crate::cpu::amx::detect().map_err(|reason| Unavailable { name: "amx", reason })
}

#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
fn neon() -> Result<&'static dyn Kernels, Unavailable> {
    Ok(crate::cpu::neon::Neon::plain())
}

#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
fn neon_dotprod() -> Result<&'static dyn Kernels, Unavailable> {
    found("neon-dotprod", crate::cpu::neon::Neon::detect())
}

#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
fn found<K: Kernels>(
    name: &'static str,
    set: Result<&'static K, &'static str>,
) -> Result<&'static dyn Kernels, Unavailable> {
    match set {
        Ok(set) => Ok(set),
        Err(missing) => Err(Unavailable { name, reason: format!("this CPU has no {missing}") }),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn avx2() -> Result<&'static dyn Kernels, Unavailable> {
    elsewhere("avx2", "x86_64")
}

#[cfg(not(target_arch = "x86_64"))]
fn avx512() -> Result<&'static dyn Kernels, Unavailable> {
    elsewhere("avx512", "x86_64")
}

#[cfg(not(target_arch = "x86_64"))]
fn amx() -> Result<&'static dyn Kernels, Unavailable> {
    elsewhere("amx", "x86_64")
}

#[cfg(not(all(target_arch = "aarch64", target_endian = "little")))]
fn neon() -> Result<&'static dyn Kernels, Unavailable> {
    elsewhere("neon", "little-endian aarch64")
}

#[cfg(not(all(target_arch = "aarch64", target_endian = "little")))]
fn neon_dotprod() -> Result<&'static dyn Kernels, Unavailable> {
    elsewhere("neon-dotprod", "little-endian aarch64")
}

fn elsewhere(name: &'static str, wanted: &str) -> Result<&'static dyn Kernels, Unavailable> {
    Err(Unavailable { name, reason: format!("this build is for {}, not {wanted}", std::env::consts::ARCH) })
}

/// Every kernel set, runnable here or not, the fastest last.
pub fn kernel_sets() -> &'static [KernelSetInfo] {
    SETS
}

/// The fastest set that can run here.
pub fn best() -> &'static dyn Kernels {
    static BEST: OnceLock<&'static dyn Kernels> = OnceLock::new();
    *BEST.get_or_init(|| SETS.iter().rev().find_map(|set| (set.detect)().ok()).unwrap_or(&Scalar))
}

/// The set of this name.
pub fn by_name(name: &str) -> Result<&'static dyn Kernels, KernelError> {
    match SETS.iter().find(|set| set.name == name) {
        Some(set) => Ok((set.detect)()?),
        None => Err(KernelError::Unknown {
            name: name.to_owned(),
            known: SETS.iter().map(|set| set.name).collect::<Vec<_>>().join(", "),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_sets() {
        for set in kernel_sets() {
            match (set.detect)() {
                Ok(kernels) => assert_eq!(kernels.name(), set.name),
                Err(unavailable) => assert_eq!(unavailable.name, set.name),
            }
        }
        assert!(by_name("scalar").is_ok());
        let error = by_name("mmx").err().map(|e| e.to_string());
        assert_eq!(
            error.as_deref(),
            Some("no kernel set is named `mmx`; the sets are: scalar, avx2, avx512, amx, neon, neon-dotprod")
        );
    }
}
