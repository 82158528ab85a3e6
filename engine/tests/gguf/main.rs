//! GGUF containers: read, written, damaged. (`gguf_fuzz` counts its own memory and is a program apart.)

#[path = "../gguf_support/mod.rs"]
mod gguf_support;

mod malformed;
mod meanings;
mod open;
mod roundtrip;
mod small;
mod split;
mod truncated;
mod write;
