//! The engine of BitNet.rs: a GGUF in, text out.
//!
//! ```text
//! gguf ──> discovery ──> tokenizer ──┐
//!   └────> model ────────────────────┴─> load ──> inference ──> text
//!            plan, weights            executor, KV cache, sampler
//! ```
//!
//! | module | owns |
//! |---|---|
//! | [`gguf`] | the container: reading with validation before use, writing without half-written files |
//! | [`tokenizer`] | text to ids and back |
//! | [`discovery`] | which tokenizer a model needs and where it is: in the file, beside it, in a cache, on the hub |
//! | [`ops`] | the operations of a forward pass, one file each |
//! | [`model`] | families: a plan of named steps, and the weights where they lie in the file |
//! | [`load`] | all of these checked against each other |
//! | [`inference`] | running a plan: sessions, sampling, generation, perplexity |
//! | [`chat`] | prompt templates |
//! | [`checkpoint`] | a folder as HuggingFace has it, read as a model and written as a GGUF |
//! | [`convert`] | a model in another weight format |
//! | [`device`] | kernel sets by name |
//! | [`hub`] | files from the HuggingFace hub: verified, resumed, cached, fetched once |
//! | [`memory`] | what Linux says of it |
//! | [`random`] | numbers from a seed |
//! | [`settings`] | the environment, read in one place |
//!
//! The engine knows nothing of its tests: the harness looks at it from outside, through the same interfaces as
//! everybody else.

pub mod chat;
pub mod checkpoint;
pub mod convert;
pub mod device;
pub mod discovery;
pub mod gguf;
pub mod hub;
pub mod inference;
pub mod load;
pub mod memory;
pub mod model;
mod named;
pub mod ops;
pub mod random;
pub mod settings;
mod shell;
pub mod tokenizer;
