//! The engine, in one program: each test program links all of it. (`hub` and `hub_processes` wait for the clock, and
//! `gguf_fuzz` counts its own memory: they are programs apart.)

#[cfg(feature = "cuda-emu")]
mod emulated;

mod chat;
mod discovery;
mod discovery_support;
mod gguf;
mod gguf_support;
mod infer;
mod model_support;
mod tokenizer;
mod tokenizer_support;
