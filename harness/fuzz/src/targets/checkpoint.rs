//! A folder as HuggingFace has it: config.json, a safetensors file, tokenizer.json; opened, and written as a GGUF.
//!
//! What the weights are makes no difference to how they are read: a safetensors file that ends with its header gets as many bytes
//! as the header wants, so that inputs stay small.

use super::{folder, golden, joined, parts, put, unable};
use crate::Target;
use bitnet_engine::checkpoint::{ToGguf, open};
use bitnet_golden::checkpoint::{BACKENDS, names, read};
use bitnet_kernels::quant::Storage;
use bitnet_kernels::{Pool, best};
use serde_json::{Map, Value, json};
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

pub const TARGET: Target = Target {
    name: "checkpoint",
    about: "config.json, model.safetensors and tokenizer.json of a folder, converted",
    seeds,
    run,
};

/// Bytes of weights.
const MOST_WEIGHTS: u64 = 400 << 10;
const FILES: [&str; 3] = ["config.json", "model.safetensors", "tokenizer.json"];

fn run(bytes: &[u8]) -> String {
    let folder = folder().join("checkpoint");
    for file in FILES {
        let _ = std::fs::remove_file(folder.join(file));
    }
    for (i, (file, part)) in FILES.iter().zip(parts(bytes)).enumerate() {
        let filled = if i == 1 { filled(part) } else { None };
        put(&folder.join(file), filled.as_deref().unwrap_or(part));
    }
    let plain = |text: String| text.replace(folder.to_string_lossy().as_ref(), "");
    let checkpoint = match open(&folder) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return plain(error.to_string()),
    };
    static POOL: OnceLock<Option<Arc<Pool>>> = OnceLock::new();
    let pool = POOL.get_or_init(|| Pool::new(1).ok().map(Arc::new));
    let (Some(pool), Ok(linear)) = (pool, Storage::by_name("f16")) else { unable("no thread for its kernels") };
    let options = ToGguf { linear, embedding: None, verify: false, context: Some(16), kernels: best(), pool };
    match checkpoint.to_gguf(&options, &folder.join("out.gguf"), &mut |_, _| ControlFlow::Continue(())) {
        Ok(_) => checkpoint.architecture().to_owned(),
        Err(error) => plain(error.to_string()),
    }
}

/// A file that is a header and nothing else, made as long as the header says.
fn filled(bytes: &[u8]) -> Option<Vec<u8>> {
    let (length, header) = bytes.split_first_chunk::<8>()?;
    if u64::from_le_bytes(*length) != header.len() as u64 {
        return None;
    }
    let Ok(Value::Object(tensors)) = serde_json::from_slice::<Value>(header) else { return None };
    let end = tensors.values().filter_map(|tensor| tensor["data_offsets"][1].as_u64()).max().unwrap_or(0);
    // Small numbers of every type, codes that a packed ternary matrix has.
    let weights = usize::try_from(end.min(MOST_WEIGHTS)).unwrap_or_default();
    let mut file = bytes.to_vec();
    file.resize(bytes.len() + weights, 0x11);
    Some(file)
}

/// The recorded checkpoints without their weights.
fn seeds() -> Vec<Vec<u8>> {
    let mut vocab: Map<String, Value> = (0..96).map(|id| (format!("filler {id}"), id.into())).collect();
    for (id, token) in ["<unk>", "\u{2581}", "H", "e", "He"].into_iter().enumerate() {
        vocab.remove(&format!("filler {id}"));
        vocab.insert(token.to_owned(), id.into());
    }
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [], "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u{2581}"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"}]},
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true, "vocab": vocab, "merges": ["H e"]},
    });
    let tokenizer = tokenizer.to_string().into_bytes();
    let mut seeds = Vec::new();
    for name in names(&golden(), BACKENDS[0]).unwrap_or_default() {
        let Ok(recorded) = read(&golden(), BACKENDS[0], &name) else { continue };
        let (mut header, mut end) = (Map::new(), 0_usize);
        for (tensor, dtype, shape) in &recorded.tensors {
            let width = match dtype.as_str() {
                "F32" => 4,
                "F16" | "BF16" => 2,
                _ => 1,
            };
            let start = end;
            end += shape.iter().product::<usize>() * width;
            header.insert(tensor.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]}));
        }
        let header = Value::Object(header).to_string();
        let mut weights = (header.len() as u64).to_le_bytes().to_vec();
        weights.extend(header.as_bytes());
        if end as u64 <= MOST_WEIGHTS {
            seeds.push(joined(&[recorded.config.to_string().as_bytes(), &weights, &tokenizer]));
        }
    }
    seeds
}
