//! Models and sessions: what must never change a bit, and what must be refused.

mod bad_models;
mod bad_requests;
#[cfg(feature = "cuda-emu")]
mod cuda;
mod families;
mod invariants;
mod layout;
mod memory;
mod positions;
mod read;
mod screened;
mod small;
mod speculate;
mod weights;
