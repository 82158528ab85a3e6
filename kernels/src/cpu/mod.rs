//! Kernel sets for CPUs: [`scalar`], the oracle, and one module per instruction set.
//!
//! What a set must do is the trait [`crate::Kernels`]; how sets are listed and chosen is [`crate::dispatch`].

#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
pub mod scalar;
#[cfg(target_arch = "x86_64")]
mod stored;
