//! The hub client against a hub that serves and lies, in one process and in several.

mod cache;
mod common;
mod down;
mod download;
mod faults;
mod moved;
mod processes;
mod snapshot;
