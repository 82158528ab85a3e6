//! Placeholder while the rooms are being built.
pub mod gguf;
pub mod tokenizer;
