//! What can be wrong with a model file whose container is sound.

use crate::gguf::{GgufError, GgufFile};
use bitnet_kernels::QuantError;

/// Why a GGUF cannot be run as a model.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum ModelError {
    /// The container or a metadata value is broken.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// What is wrong is in one of the several files of a split model.
    #[error("{}: {error}", path.display())]
    InPart {
        path: std::path::PathBuf,
        /// What is wrong with it; never `InPart` itself.
        #[source]
        error: Box<ModelError>,
    },
    /// A metadata key that every model needs is absent.
    #[error(
        "the metadata lacks `{key}`: the file is incomplete or was not written for inference; \
         convert the model again, or look at what is there with `bitnet inspect`"
    )]
    MissingKey { key: String },
    /// A count outside of what can be.
    #[error("`{key}` is {value}, expected {min} to {max}")]
    OutOfRange { key: String, value: String, min: u64, max: u64 },
    /// A constant outside of what can be.
    #[error("`{key}` is {value}, expected a number from {min} to {max}")]
    BadFloat { key: String, value: f32, min: f32, max: f32 },
    /// A divisor of the rotary frequencies that is not a positive number.
    #[error("tensor `{name}`: element {index} is {value}, expected a positive number. The file is damaged")]
    RopeFactor { name: String, index: usize, value: f32 },
    /// A rounding of activations that is none.
    #[error("`{key}` is `{value}`, expected one of: {known}", key = super::ACTIVATIONS_KEY)]
    Activations { value: String, known: String },
    /// The steps of a plan do not fit each other.
    #[error(transparent)]
    Plan(#[from] crate::ops::ShapeError),
    /// Two sizes contradict each other.
    #[error("sizes do not fit: {what}")]
    Mismatch { what: String },
    /// The architecture is not one that this engine computes.
    #[error(
        "architecture `{architecture}` is not supported; supported are {known}. \
         `bitnet inspect` shows what the file holds"
    )]
    UnknownArchitecture {
        /// `general.architecture`.
        architecture: String,
        known: String,
    },
    /// A known architecture uses a feature that this engine does not compute.
    #[error("the model uses {what}, which this engine does not compute")]
    Unsupported { what: String },
    /// A tensor of the architecture is absent.
    #[error("tensor `{name}` is missing: the file is incomplete, convert or download it again")]
    MissingTensor { name: String },
    /// A tensor that the architecture does not know, which would change the result if it were ignored.
    #[error(
        "tensor `{name}` is not part of architecture `{architecture}`: ignoring it would compute something else \
         than the model's author meant"
    )]
    UnknownTensor { name: String, architecture: String },
    /// A tensor has other dimensions than the hyper-parameters ask for.
    #[error("tensor `{name}` has dimensions {found:?}, the metadata asks for {expected:?} (inner dimension first)")]
    Shape { name: String, expected: Vec<u64>, found: Vec<u64> },
    /// A tensor's type has no kernel.
    #[error(
        "tensor `{name}` at byte {offset} is stored as {type_name} (ggml type {ggml_type}), which this engine cannot \
         compute; supported are {known}"
    )]
    TensorType { name: String, offset: u64, ggml_type: u32, type_name: String, known: String },
    /// A tensor's bytes are invalid in its format.
    #[error("tensor `{name}` at byte {offset}: {source}. The file is damaged; download or convert it again")]
    TensorData {
        name: String,
        offset: u64,
        #[source]
        source: QuantError,
    },
    /// An element of a norm or a bias is not a finite number of sensible size.
    #[error(
        "tensor `{name}` at byte {offset}: element {index} is {value}, expected a finite number below {limit} in size. \
         The file is damaged; download or convert it again"
    )]
    VectorValue { name: String, offset: u64, index: usize, value: f32, limit: f32 },
    /// The factor of a matrix is not a positive number.
    #[error(
        "tensor `{name}` at byte {offset} is {value}, expected a positive number. The file is damaged; download or \
         convert it again"
    )]
    ScaleValue { name: String, offset: u64, value: f32 },
    /// Tiles of a size that nothing tells.
    #[error(
        "tensor `{name}` is {format}, which is cut into tiles whose size is not in the file, and {rows} x {cols} is no \
         shape that bitnet.cpp's set-up generates kernels for; get the model as i2_s or f16"
    )]
    Tiles {
        name: String,
        /// `tl1` or `tl2`.
        format: &'static str,
        rows: usize,
        cols: usize,
    },
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
