//! Everything that reads untrusted input, as functions of bytes, and what feeds them.
//!
//! A [`Target`] is a function that must neither panic, nor compute for more than a second, nor hold more than four times its
//! input and 64 MB. It says in words what it made of the input: the runner keeps inputs that brought new words, so that it gets
//! deeper into a format than blind changes would, without instrumentation and on stable Rust.
//!
//! | module | what |
//! |---|---|
//! | [`targets`] | the targets, a file each, and their seeds |
//! | [`mutate`] | changed inputs |
//! | [`pool`] | the inputs that are changed |
//! | [`limits`] | memory and time of one execution |
//! | [`run`] | the loop |
//!
//! `cargo xtask fuzz TARGET --seconds N` runs it. Inputs that failed once lie in `corpus/TARGET/`, and every run begins with them.

#![allow(missing_docs, reason = "a name that says it all has no comment")]

pub mod limits;
pub mod mutate;
pub mod pool;
pub mod run;
pub mod targets;

/// A reader of untrusted input.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// What reads what.
    pub about: &'static str,
    /// Sound inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Feeds the input, and says what came of it.
    pub run: fn(&[u8]) -> String,
}

/// Exit code of the runner where it found something; errors have 1.
pub const FINDING: u8 = 3;

pub static ALL: &[Target] = &[
    targets::gguf::TARGET,
    targets::gguf::HEADER,
    targets::tokenizers::TOKENIZER_JSON,
    targets::tokenizers::SENTENCEPIECE,
    targets::tokenizers::TIKTOKEN,
    targets::tokenizers::VOCAB_MERGES,
    targets::chat::TARGET,
    targets::hub::TARGET,
    targets::worker::REQUESTS,
    targets::worker::ANSWERS,
    targets::records::TARGET,
    targets::data::TARGET,
    targets::checkpoint::TARGET,
    targets::compiled::TARGET,
];

pub fn by_name(name: &str) -> Option<&'static Target> {
    ALL.iter().find(|target| target.name == name)
}
