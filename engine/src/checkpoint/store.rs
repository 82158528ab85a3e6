//! The tensors of a folder: `model.safetensors`, or where there is no such file the parts that `model.safetensors.index.json` names.
//!
//! Files are mapped and nothing is copied. The header of each is checked by the crate `safetensors` (offsets without gaps or
//! overlaps, sizes that fit types and shapes, the end of the file); here names are checked: an index names files of the
//! folder only, and no tensor stands in two files. Source: github.com/huggingface/safetensors, and `weight_map` of
//! `transformers`.

use super::CheckpointError;
use super::error::tensor;
use crate::gguf::{FileBytes, read_regular};
use crate::tokenizer::Diagnostic;
use bitnet_kernels::numerics::f16_to_f32;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

const WHOLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Most bytes of config.json and of an index.
const MAX_JSON: u64 = 64 << 20;

/// Every tensor of a checkpoint.
#[derive(Clone)]
pub(super) struct Store {
    files: Vec<FileBytes>,
    tensors: BTreeMap<String, Stored>,
}

/// Where a tensor lies.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    file: usize,
    range: Range<usize>,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
}

fn wrong(path: &Path, why: impl Into<String>) -> CheckpointError {
    CheckpointError::File { path: path.to_owned(), why: why.into() }
}

/// A JSON file of the folder.
pub(super) fn json(path: &Path) -> Result<Value, CheckpointError> {
    let length = std::fs::metadata(path).map_err(|error| wrong(path, error.to_string()))?.len();
    if length > MAX_JSON {
        return Err(wrong(path, format!("it has {length} bytes, more than {MAX_JSON}")));
    }
    let bytes = read_regular(path).map_err(|error| wrong(path, error.to_string()))?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| wrong(path, error.to_string()))?;
    if value.is_object() { Ok(value) } else { Err(wrong(path, "it is not a JSON object")) }
}

impl Store {
    /// Maps the files of a folder.
    ///
    /// # Errors
    /// No such files, a damaged header, a name that leaves the folder, a tensor that is missing or stands twice.
    pub(super) fn open(folder: &Path, warnings: &mut Vec<Diagnostic>) -> Result<Self, CheckpointError> {
        let (index, whole) = (folder.join(INDEX), folder.join(WHOLE));
        let mut store = Self { files: Vec::new(), tensors: BTreeMap::new() };
        if whole.is_file() || !index.is_file() {
            if index.is_file() {
                // As `from_pretrained` of transformers does.
                warnings.push(Diagnostic::warning(
                    "two_sets_of_weights",
                    format!("the folder has {WHOLE} and {INDEX}; {WHOLE} is read, as transformers does"),
                    "remove the one that is not the model",
                ));
            }
            if !whole.is_file() {
                let pickled = folder.join("pytorch_model.bin").is_file();
                let remedy = if pickled {
                    "; pytorch_model.bin is not read: save the model with safe_serialization=True"
                } else {
                    ""
                };
                return Err(wrong(folder, format!("it has neither {WHOLE} nor {INDEX}{remedy}")));
            }
            store.add(&whole)?;
            return Ok(store);
        }
        let json = json(&index)?;
        let map = json.get("weight_map").and_then(Value::as_object);
        let map = map.ok_or_else(|| wrong(&index, "it has no `weight_map`"))?;
        let mut names = BTreeSet::new();
        for (name, file) in map {
            let file = file.as_str().filter(|file| is_part(file));
            names.insert(
                file.ok_or_else(|| wrong(&index, format!("`{name}` is not in a .safetensors file of this folder")))?,
            );
        }
        for name in names {
            store.add(&folder.join(name))?;
        }
        match map.keys().find(|name| !store.tensors.contains_key(*name)) {
            Some(name) => Err(wrong(&index, format!("it lists `{name}`, which is in none of the files"))),
            None => Ok(store),
        }
    }

    fn add(&mut self, path: &Path) -> Result<(), CheckpointError> {
        let bytes = FileBytes::map(path).map_err(|error| wrong(path, error.to_string()))?;
        let (header, metadata) =
            SafeTensors::read_metadata(bytes.as_slice()).map_err(|error| wrong(path, error.to_string()))?;
        // The eight bytes in front of the header are its length; both lie in the file.
        let start = header + 8;
        for (name, info) in metadata.tensors() {
            let (from, to) = info.data_offsets;
            let range = start + from..start + to;
            let stored = Stored { file: self.files.len(), range, dtype: info.dtype, shape: info.shape.clone() };
            if self.tensors.insert(name.clone(), stored).is_some() {
                return Err(wrong(path, format!("tensor `{name}` is in another file of the checkpoint too")));
            }
        }
        self.files.push(bytes);
        Ok(())
    }

    pub(super) fn get(&self, name: &str) -> Option<&Stored> {
        self.tensors.get(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The bytes of a tensor.
    pub(super) fn bytes(&self, stored: &Stored) -> &[u8] {
        self.files.get(stored.file).and_then(|file| file.as_slice().get(stored.range.clone())).unwrap_or_default()
    }

    /// Gives the memory of a tensor's bytes back until they are read again.
    pub(super) fn release(&self, stored: &Stored) {
        if let Some(file) = self.files.get(stored.file) {
            file.release(stored.range.clone());
        }
    }

    /// All elements of a small tensor.
    ///
    /// # Errors
    /// It is not of a floating-point type.
    pub(super) fn floats(&self, name: &str, stored: &Stored) -> Result<Vec<f32>, CheckpointError> {
        let float = Float::of(name, stored.dtype)?;
        let mut values = vec![0.0; stored.shape.iter().product()];
        float.read(self.bytes(stored), 0, 1, &mut values);
        Ok(values)
    }
}

/// Whether a name is that of a file in the folder itself.
fn is_part(name: &str) -> bool {
    name.ends_with(".safetensors") && !name.contains(['/', '\\', '\0', ':']) && !name.starts_with('.')
}

/// The floating-point types of checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Float {
    F32,
    F16,
    Bf16,
}

impl Float {
    /// That of the tensor `name`.
    pub(super) fn of(name: &str, dtype: Dtype) -> Result<Self, CheckpointError> {
        Ok(match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::BF16 => Self::Bf16,
            _ => return Err(tensor(name, format!("is of type {dtype}; F32, F16 and BF16 are read"))),
        })
    }

    /// The name of the weight format that holds it exactly.
    pub(super) fn format(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// Reads elements `first`, `first + step`, ... of a tensor that has them.
    pub(super) fn read(self, bytes: &[u8], first: usize, step: usize, out: &mut [f32]) {
        match self {
            Self::F32 => each(bytes, first, step, out, f32::from_le_bytes),
            Self::F16 => each(bytes, first, step, out, |b| f16_to_f32(u16::from_le_bytes(b))),
            Self::Bf16 => each(bytes, first, step, out, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)),
        }
    }
}

fn each<const N: usize>(bytes: &[u8], first: usize, step: usize, out: &mut [f32], value: impl Fn([u8; N]) -> f32) {
    let (elements, _) = bytes.as_chunks::<N>();
    for (out, element) in out.iter_mut().zip(elements[first..].iter().step_by(step)) {
        *out = value(*element);
    }
}
