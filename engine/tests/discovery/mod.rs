//! Tokenizer discovery: where it looks, in which order, and what it says.

mod chain;
mod fingerprint;
mod hub;
mod metadata;
mod padding;
mod pins;
mod quantization;
mod small;
mod words;
