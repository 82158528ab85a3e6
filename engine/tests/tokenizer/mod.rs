//! Tokenizers: their algorithms, the files that they come in, and what is wrong with such files.

mod bpe;
mod compiled;
mod compiled_cache;
mod files;
mod files_bad;
mod files_forms;
#[cfg(feature = "cuda-emu")]
mod gpu;
mod kinds;
mod load;
mod pre;
mod sentencepiece;
mod spm;
mod stream;
mod unicode;
mod wrappers;
