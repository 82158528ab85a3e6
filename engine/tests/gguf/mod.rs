//! GGUF containers: read, written, damaged.

mod malformed;
mod meanings;
mod open;
mod roundtrip;
mod split;
mod truncated;
mod write;
