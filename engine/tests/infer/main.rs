//! Models and sessions: what must never change a bit, and what must be refused.

#[cfg(feature = "cuda-emu")]
#[path = "../emulated/mod.rs"]
mod emulated;
#[path = "../model_support/mod.rs"]
mod model_support;

mod bad_models;
mod bad_requests;
#[cfg(feature = "cuda-emu")]
mod cuda;
mod invariants;
mod layout;
mod memory;
mod positions;
mod screened;
mod speculate;
