//! The program `bitnet` as a user runs it, in one test program: each one links everything that it is made of.

mod support;

#[path = "../../../tests/discovery_support/mod.rs"]
mod models;
#[cfg(target_os = "linux")]
#[path = "../../../../kernels/tests/play/mod.rs"]
mod play;
#[path = "../../../tests/model_support/mod.rs"]
mod small;

mod chat;
mod checkpoint;
mod cli;
mod compiled;
mod convert;
#[cfg(target_os = "linux")]
mod cuda;
mod discover;
mod environment;
mod hub;
mod layout;
mod many;
mod model_reference;
mod remedies;
mod shown;
mod split;
mod verify;
