//! A folder as HuggingFace has it: config.json, a safetensors file, tokenizer.json; opened, and written as a GGUF.

use super::{folder, golden, joined, parts, put};
use crate::Target;
use bitnet_engine::checkpoint::{ToGguf, open};
use bitnet_golden::checkpoint::{BACKENDS, names, read};
use bitnet_kernels::quant::Storage;
use bitnet_kernels::{Pool, best};
use serde_json::{Map, Value, json};
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

/// The target.
pub const TARGET: Target = Target {
    name: "checkpoint",
    about: "config.json, model.safetensors and tokenizer.json of a folder, converted",
    seeds,
    run,
};

const FILES: [&str; 3] = ["config.json", "model.safetensors", "tokenizer.json"];

fn run(bytes: &[u8]) -> String {
    let folder = folder().join("checkpoint");
    for file in FILES {
        let _ = std::fs::remove_file(folder.join(file));
    }
    for (file, part) in FILES.iter().zip(parts(bytes)) {
        put(&folder.join(file), part);
    }
    let plain = |text: String| text.replace(folder.to_string_lossy().as_ref(), "");
    let checkpoint = match open(&folder) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return plain(error.to_string()),
    };
    static POOL: OnceLock<Option<Arc<Pool>>> = OnceLock::new();
    let pool = POOL.get_or_init(|| Pool::new(1).ok().map(Arc::new));
    let (Some(pool), Ok(linear)) = (pool, Storage::by_name("f16")) else { return "no pool".to_owned() };
    let options = ToGguf { linear, embedding: None, verify: false, context: Some(16), kernels: best(), pool };
    match checkpoint.to_gguf(&options, &folder.join("out.gguf"), &mut |_, _| ControlFlow::Continue(())) {
        Ok(_) => checkpoint.architecture().to_owned(),
        Err(error) => plain(error.to_string()),
    }
}

/// The recorded checkpoints with zeros for weights.
fn seeds() -> Vec<Vec<u8>> {
    let tokenizer = crate::targets::tokenizers::TOKENIZER_JSON;
    let tokenizer = (tokenizer.seeds)().into_iter().next().unwrap_or_default();
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
        weights.resize(weights.len() + end, 0);
        if weights.len() <= 200_000 {
            seeds.push(joined(&[recorded.config.to_string().as_bytes(), &weights, &tokenizer]));
        }
    }
    seeds
}
