//! The hub client against a hub that serves and lies. (`hub_processes` are several programs, and so apart.)

#[path = "../hub_common/mod.rs"]
mod hub_common;

mod cache;
mod down;
mod download;
mod faults;
mod moved;
mod snapshot;
