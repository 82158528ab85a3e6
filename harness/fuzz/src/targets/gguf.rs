//! A GGUF: opened, every key and tensor looked at, loaded as a model, and asked for four tokens.

use super::{golden, said};
use crate::Target;
use bitnet_engine::gguf::GgufFile;
use bitnet_engine::inference::{GenerateOptions, Session, SessionOptions, generate};
use bitnet_engine::load::load;
use bitnet_golden::matrix::{Shape, Weights};
use bitnet_harness::generate::model;
use bitnet_kernels::{Pool, best};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

pub const TARGET: Target =
    Target { name: "gguf", about: "a GGUF: metadata, tensors, the model, four tokens", seeds, run };

const SHAPE: Shape =
    Shape { layers: 1, hidden: 64, ffn: 64, heads: 2, kv_heads: 1, vocab: 270, context: 32, ..Shape::PLAIN };
const FAMILIES: [(&str, &str, &str); 6] = [
    ("llama", "q8_0", "bpe"),
    ("llama", "q4_0", "spm"),
    ("gpt2", "f16", "bpe"),
    ("qwen3", "f32", "bpe"),
    ("bitnet", "i2_s", "bpe"),
    ("bitnet-b1.58", "i2_s", "spm"),
];

fn seeds() -> Vec<Vec<u8>> {
    let Ok(vocabulary) = GgufFile::open(golden().join("models/tiny-bitnet.gguf")) else { return Vec::new() };
    let make = |(family, quant, tokenizer): &(&str, &str, &str)| {
        let shape = if *quant == "i2_s" { Shape { hidden: 128, ffn: 128, ..SHAPE } } else { SHAPE };
        model(family, quant, 7, tokenizer, &shape, Weights::Noise, &vocabulary).ok()
    };
    FAMILIES.iter().filter_map(make).collect()
}

fn pool() -> Option<Arc<Pool>> {
    static POOL: OnceLock<Option<Arc<Pool>>> = OnceLock::new();
    POOL.get_or_init(|| Pool::new(1).ok().map(Arc::new)).clone()
}

fn run(bytes: &[u8]) -> String {
    let file = match GgufFile::from_vec(bytes.to_vec()) {
        Ok(file) => file,
        Err(error) => return error.to_string(),
    };
    for (_, value) in file.metadata().iter() {
        std::hint::black_box(value.describe());
    }
    let Some(pool) = pool() else { return "no pool".to_owned() };
    let loaded = match load(file, None, best(), &pool) {
        Ok(loaded) => loaded,
        Err(error) => return error.to_string(),
    };
    // A cache for the context that a file claims is refused or not by its caller: here it is small.
    let options = SessionOptions { context: Some(16), ..SessionOptions::new(best(), pool) };
    let mut session = match Session::new(Arc::clone(&loaded.model), options) {
        Ok(session) => session,
        Err(error) => return error.to_string(),
    };
    let tokenizer = loaded.tokenizer.as_ref();
    let prompt = match bitnet_engine::chat::prompt::encode(tokenizer, "To be", false) {
        Ok(ids) if !ids.is_empty() => ids.into_iter().take(4).collect(),
        Ok(_) => vec![0],
        Err(error) => return error.to_string(),
    };
    let ask = GenerateOptions { max_tokens: Some(4), ..GenerateOptions::default() };
    said(generate(&mut session, tokenizer, &prompt, &ask, &AtomicBool::new(false), &mut |_| ()))
}
