//! Tokenizer discovery: where it looks, in which order, and what it says.

#[path = "../discovery_support/mod.rs"]
mod discovery_support;
#[path = "../model_support/mod.rs"]
mod model_support;

mod chain;
mod fingerprint;
mod hub;
mod metadata;
mod padding;
mod pins;
mod quantization;
