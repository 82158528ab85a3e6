//! What can be wrong with a model file whose container is sound.

use crate::gguf::{GgufError, GgufFile};
use bitnet_kernels::QuantError;

/// Why a GGUF cannot be run as a model.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum ModelError {
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error("{}: {error}", path.display())]
    InPart {
        path: std::path::PathBuf,
        /// What is wrong with it; never `InPart` itself.
        #[source]
        error: Box<ModelError>,
    },
    #[error(
        "the metadata lacks `{key}`: the file is incomplete or was not written for inference; \
         convert the model again, or look at what is there with `bitnet inspect`"
    )]
    MissingKey { key: String },
    #[error("`{key}` is {value}, expected {min} to {max}")]
    OutOfRange { key: String, value: String, min: u64, max: u64 },
    #[error("`{key}` is {value}, expected a number from {min} to {max}")]
    BadFloat { key: String, value: f32, min: f32, max: f32 },
    #[error("tensor `{name}`: element {index} is {value}, expected a positive number. The file is damaged")]
    RopeFactor { name: String, index: usize, value: f32 },
    #[error("`{key}` is `{value}`, expected one of: {known}", key = super::ACTIVATIONS_KEY)]
    Activations { value: String, known: String },
    #[error(transparent)]
    Plan(#[from] crate::ops::ShapeError),
    #[error("sizes do not fit: {what}")]
    Mismatch { what: String },
    #[error(
        "architecture `{architecture}` is not supported; supported are {known}. \
         `bitnet inspect` shows what the file holds"
    )]
    UnknownArchitecture { architecture: String, known: String },
    #[error("the model uses {what}, which this engine does not compute")]
    Unsupported { what: String },
    #[error("tensor `{name}` is missing: the file is incomplete, convert or download it again")]
    MissingTensor { name: String },
    #[error(
        "tensor `{name}` is not part of architecture `{architecture}`: ignoring it would compute something else \
         than the model's author meant"
    )]
    UnknownTensor { name: String, architecture: String },
    #[error("tensor `{name}` has dimensions {found:?}, the metadata asks for {expected:?} (inner dimension first)")]
    Shape { name: String, expected: Vec<u64>, found: Vec<u64> },
    #[error(
        "tensor `{name}` at byte {offset} is stored as {type_name} (ggml type {ggml_type}), which this engine cannot \
         compute; supported are {known}"
    )]
    TensorType { name: String, offset: u64, ggml_type: u32, type_name: String, known: String },
    #[error("tensor `{name}` at byte {offset}: {source}. The file is damaged; download or convert it again")]
    TensorData {
        name: String,
        offset: u64,
        #[source]
        source: QuantError,
    },
    #[error(
        "tensor `{name}` at byte {offset}: element {index} is {value}, expected a finite number below {limit} in size. \
         The file is damaged; download or convert it again"
    )]
    VectorValue { name: String, offset: u64, index: usize, value: f32, limit: f32 },
    #[error(
        "tensor `{name}` at byte {offset} is {value}, expected a positive number. The file is damaged; download or \
         convert it again"
    )]
    ScaleValue { name: String, offset: u64, value: f32 },
    #[error(
        "tensor `{name}` is {format}, which is cut into tiles whose size is not in the file, and {rows} x {cols} is no \
         shape that bitnet.cpp's set-up generates kernels for; get the model as i2_s or f16"
    )]
    Tiles { name: String, format: &'static str, rows: usize, cols: usize },
}

impl ModelError {
    /// The tensor whose bytes are meant.
    fn tensor(&self) -> Option<&str> {
        match self {
            Self::TensorType { name, .. }
            | Self::TensorData { name, .. }
            | Self::VectorValue { name, .. }
            | Self::ScaleValue { name, .. } => Some(name),
            _ => None,
        }
    }

    /// Names the file of a split model that holds the tensor, whose place is counted from the start of that file.
    pub(super) fn in_part(self, file: &GgufFile) -> Self {
        let part = self.tensor().and_then(|name| file.tensor(name)).and_then(|view| file.part_of(view.info));
        match part {
            Some(path) => Self::InPart { path: path.to_owned(), error: Box::new(self) },
            None => self,
        }
    }
}
