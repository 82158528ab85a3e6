//! The hub client against a hub that serves and lies. (`hub_processes` kills by the clock, and is a program apart.)

mod answers;
mod cache;
mod common;
mod down;
mod download;
mod faults;
mod moved;
mod small;
mod snapshot;
