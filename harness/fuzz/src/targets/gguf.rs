//! A GGUF. Small ones: opened, and every key and tensor looked at. Models: loaded too, and asked for four tokens.

use super::{golden, said, unable};
use crate::Target;
use bitnet_engine::gguf::{ArrayView, GgufError, GgufFile, GgufWriter, Value};
use bitnet_engine::inference::{GenerateOptions, Session, SessionOptions, generate};
use bitnet_engine::load::load;
use bitnet_golden::matrix::{Shape, Weights};
use bitnet_harness::generate::model;
use bitnet_kernels::{Pool, best};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

pub const TARGET: Target =
    Target { name: "gguf", about: "a GGUF: metadata, tensors, the model, four tokens", seeds, run };

/// What begins every model. Its inputs are short, so that there are many.
pub const HEADER: Target = Target {
    name: "gguf-header",
    about: "a GGUF's metadata and descriptions of tensors",
    seeds: || (0..HEADERS).filter_map(|kind| header(kind).ok()).collect(),
    run: |bytes| match GgufFile::from_vec(bytes.to_vec()) {
        Ok(file) => looked_at(&file),
        Err(error) => error.to_string(),
    },
};

const HEADERS: u64 = 6;

/// Small files with keys of some of the types, and tensors of several.
fn header(kind: u64) -> Result<Vec<u8>, GgufError> {
    let mut file = GgufWriter::new(2 + (kind % 2) as u32, 32 << (kind % 3))?;
    file.meta("general.architecture", "llama")?;
    match kind {
        0 => file.meta("a", 1_u8)?.meta("b", -1_i8)?.meta("c", 2_u16)?.meta("d", -2_i16)?.meta("e", true)?,
        1 => file.meta("a", 1_u32)?.meta("b", -1_i32)?.meta("c", 2_u64)?.meta("d", -2_i64)?.meta("e", 0.5_f64)?,
        2 => file.meta("names", vec!["a", "", "\u{2581}b"])?.meta("scores", vec![0.5_f32, -1.0, 0.0])?,
        3 => file.tensor("a", &[4], 0, vec![0; 16])?.tensor("b", &[32, 2], 8, vec![1; 68])?,
        4 => file.tensor("blk.0.a", &[2, 1, 2, 1], 1, vec![2; 8])?.meta("text", "a longer text, of some words")?,
        _ => file.meta("types", vec![1_i32, 3, 6])?.tensor("b", &[256], 12, vec![3; 144])?,
    };
    file.into_vec()
}

/// Reads every key, every element and every tensor of a file that was opened; says of what kinds they are.
fn looked_at(file: &GgufFile) -> String {
    let mut kinds = String::from("accepted");
    for (_, value) in file.metadata().iter() {
        std::hint::black_box(value.describe());
        match value {
            Value::Array(array) => {
                kinds.push_str(if elements(&array) == array.len() { " list" } else { " short list" });
            }
            _ => kinds.push_str(" value"),
        }
    }
    for view in file.views() {
        std::hint::black_box((view.data.last(), view.info.rows(), view.info.cols(), file.type_note(view.info)));
        kinds.push(' ');
        kinds.push_str(file.type_name(view.info));
    }
    kinds
}

/// Elements of an array that can be read, with those of arrays in it.
fn elements(array: &ArrayView<'_>) -> usize {
    array.iter().map(|value| if let Value::Array(inner) = value { elements(&inner).min(1) } else { 1 }).sum()
}

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
    std::hint::black_box(looked_at(&file));
    let Some(pool) = pool() else { unable("no thread for its kernels") };
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
