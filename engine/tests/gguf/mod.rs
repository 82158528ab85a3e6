//! GGUF containers: read, written, damaged.

mod malformed;
mod meanings;
mod open;
mod roundtrip;
mod small;
mod split;
mod truncated;
mod write;
