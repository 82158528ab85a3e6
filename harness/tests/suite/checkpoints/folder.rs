//! Folders as HuggingFace has them, written by code that shares nothing with the engine.

use bitnet_golden::checkpoint::Checkpoint;
use bitnet_harness::Failure;
use bitnet_harness::strings::Random;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// A tensor: type, shape, bytes.
#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    pub(crate) dtype: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Vec<u8>,
}

/// Name and tensor, in the order in which they are written.
pub(crate) type Tensors = Vec<(String, Tensor)>;

/// A tensor of floats.
pub(crate) fn floats(dtype: &str, shape: &[usize], values: &[f32]) -> Tensor {
    let data = match dtype {
        "F32" => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        "F16" => values.iter().flat_map(|v| bitnet_kernels::numerics::f32_to_f16(*v).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect(),
    };
    Tensor { dtype: dtype.to_owned(), shape: shape.to_vec(), data }
}

/// Codes -1, 0, 1 `[rows][cols]`, four rows to a byte.
pub(crate) fn packed(codes: &[i8], rows: usize, cols: usize) -> Tensor {
    let quarter = rows / 4;
    let code = |row: usize, col: usize| (codes[row * cols + col] + 1) as u8;
    let byte = |at: usize| (0..4).map(|i| code(i * quarter + at / cols, at % cols) << (2 * i)).sum();
    Tensor { dtype: "U8".into(), shape: vec![quarter, cols], data: (0..quarter * cols).map(byte).collect() }
}

/// The tensors of a recorded checkpoint, made from their names once more.
pub(crate) fn tensors(recorded: &Checkpoint) -> Result<Tensors, Failure> {
    let multiplies = recorded.config["quantization_config"]["linear_class"] == "autobitlinear";
    let gemma = recorded.config["model_type"] == "gemma3_text";
    let mut scales: BTreeMap<String, f32> = BTreeMap::new();
    let mut out = Vec::new();
    for (name, dtype, shape) in &recorded.tensors {
        let tensor = if dtype == "U8" {
            let (rows, cols) = (shape[0] * 4, shape[1]);
            let master = draw(name, rows * cols, true, gemma);
            let mean = (master.iter().map(|w| f64::from(w.abs())).sum::<f64>() / master.len() as f64) as f32;
            scales.insert(format!("{name}_scale"), if multiplies { mean } else { 1.0 / mean });
            let codes: Vec<i8> = master.iter().map(|w| (w / mean).round_ties_even().clamp(-1.0, 1.0) as i8).collect();
            packed(&codes, rows, cols)
        } else if let Some(scale) = scales.get(name) {
            floats(dtype, shape, &[*scale])
        } else {
            floats(dtype, shape, &draw(name, shape.iter().product(), shape.len() > 1, gemma))
        };
        out.push((name.clone(), tensor));
    }
    let found = digest(&out);
    if found == recorded.digest {
        return Ok(out);
    }
    Err(Failure::new(format_args!("the tensors made here have the digest {found}, those of numpy {}", recorded.digest)))
}

/// Values of seven bits, as `draw` of checkpoints.py has them.
fn draw(name: &str, count: usize, matrix: bool, gemma: bool) -> Vec<f32> {
    let mut random = Random::new(name);
    let mut next = || (random.bits() >> 57) as f32 - 64.0;
    let value = |k: f32| match () {
        () if matrix || name.ends_with("bias") => k / 512.0,
        () if gemma => (k + 0.5) / 256.0,
        () => 1.0 + k / 128.0,
    };
    (0..count).map(|_| value(next())).collect()
}

fn digest(tensors: &Tensors) -> String {
    let mut hash = Sha256::new();
    let sorted: BTreeMap<&String, &Tensor> = tensors.iter().map(|(name, tensor)| (name, tensor)).collect();
    for (name, tensor) in sorted {
        let shape: Vec<String> = tensor.shape.iter().map(usize::to_string).collect();
        hash.update(format!("{name} {} {}\n", tensor.dtype, shape.join("x")));
        hash.update(&tensor.data);
    }
    hex::encode(hash.finalize())
}

/// A safetensors file: the length of a JSON header, the header, the bytes.
pub(crate) fn safetensors(tensors: &[(String, Tensor)]) -> Vec<u8> {
    let (mut header, mut at) = (Map::new(), 0);
    for (name, tensor) in tensors {
        let end = at + tensor.data.len();
        header.insert(name.clone(), json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [at, end]}));
        at = end;
    }
    let header = Value::Object(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    tensors.iter().for_each(|(_, tensor)| bytes.extend(&tensor.data));
    bytes
}

/// Writes a folder; with `files` above 1 the tensors lie in parts.
pub(crate) fn write(folder: &Path, config: &Value, tensors: &Tensors, files: usize) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("config.json"), config.to_string())?;
    if files == 1 {
        std::fs::write(folder.join("model.safetensors"), safetensors(tensors))?;
        return Ok(());
    }
    let mut map = Map::new();
    for (index, part) in tensors.chunks(tensors.len().div_ceil(files)).enumerate() {
        let name = format!("model-{:05}-of-{files:05}.safetensors", index + 1);
        map.extend(part.iter().map(|(tensor, _)| (tensor.clone(), json!(name))));
        std::fs::write(folder.join(&name), safetensors(part))?;
    }
    let index = json!({ "metadata": {}, "weight_map": map });
    std::fs::write(folder.join("model.safetensors.index.json"), index.to_string())?;
    Ok(())
}
