//! Kernel sets for CPUs: [`scalar`], the oracle, and one module per instruction set.
//!
//! What a set must do is the trait [`crate::Kernels`]; how sets are listed and chosen is [`crate::dispatch`]. `stored`,
//! `ternary` and `blocks` are what the vector sets share: where a format has its numbers, codes and scales. `strips` is how
//! wide ones multiply several tokens.

#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
pub mod amx;
#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
mod blocks;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
pub mod neon;
pub mod scalar;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
mod stored;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
mod strips;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
mod ternary;
