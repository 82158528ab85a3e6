//! A model's weights on a device: uploaded once, shared by all sessions there.

use crate::inference::InferenceError;
use crate::model::Model;
use crate::ops::{MatrixId, VectorId};
use bitnet_kernels::cuda::device::{Buffer, CudaError, Device};
use bitnet_kernels::quant::{self, Format, Storage};
use bitnet_kernels::{ActKind, Matrix};
use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The weights.
#[derive(Debug)]
pub(super) struct Uploaded {
    /// Whose they are. A weak reference keeps the address from being another model's.
    model: Weak<Model>,
    device: Arc<dyn Device>,
    matrices: Vec<OnDevice>,
    vectors: Vec<Buffer>,
}

/// A matrix on the device: I2_S rows and scale, or f16.
#[derive(Debug)]
pub(super) struct OnDevice {
    pub(super) buffer: Buffer,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) multiplier: f32,
}

/// Every upload that somebody uses.
static UPLOADS: Mutex<Vec<Weak<Uploaded>>> = Mutex::new(Vec::new());

/// The format that ternary products are computed from.
fn rows_format() -> &'static Format {
    &quant::i2_s::FORMAT
}

/// Bytes that a matrix takes on a device.
fn bytes(matrix: &Matrix<'_>) -> usize {
    match matrix.act {
        ActKind::I8 => rows_format().row_bytes(matrix.cols) * matrix.rows + quant::I2S_TRAILER,
        _ => 2 * matrix.rows * matrix.cols,
    }
}

/// Bytes that a model's weights take on a device.
pub(super) fn needed(model: &Model) -> usize {
    let vectors: usize = model.weights.vectors().map(|vector| 4 * vector.len()).sum();
    model.weights.matrices().map(|(_, matrix)| bytes(&matrix)).sum::<usize>() + vectors
}

impl Uploaded {
    /// The upload of a model that is on a device already.
    pub(super) fn find(model: &Arc<Model>, device: &Arc<dyn Device>) -> Option<Arc<Self>> {
        find(&UPLOADS.lock().unwrap_or_else(PoisonError::into_inner), model, device)
    }

    /// A model on a device: the upload that is there, or a new one. Others wait for it meanwhile.
    pub(super) fn of(model: &Arc<Model>, device: &Arc<dyn Device>) -> Result<Arc<Self>, InferenceError> {
        let mut uploads = UPLOADS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = find(&uploads, model, device) {
            return Ok(found);
        }
        let made = Arc::new(Self::new(model, device)?);
        uploads.retain(|upload| upload.strong_count() > 0);
        uploads.push(Arc::downgrade(&made));
        Ok(made)
    }

    fn new(model: &Arc<Model>, device: &Arc<dyn Device>) -> Result<Self, InferenceError> {
        let mut matrices = Vec::new();
        for (name, matrix) in model.weights.matrices() {
            let bytes = repacked(&matrix).map_err(|what| refused(&**device, format!("the matrix {name} {what}")))?;
            matrices.push(OnDevice {
                buffer: Buffer::of(device, &bytes, name)?,
                rows: matrix.rows,
                cols: matrix.cols,
                multiplier: matrix.multiplier,
            });
        }
        let vectors = model.weights.vectors().map(|vector| Buffer::of(device, vector, "norms"));
        let vectors = vectors.collect::<Result<_, CudaError>>()?;
        Ok(Self { model: Arc::downgrade(model), device: Arc::clone(device), matrices, vectors })
    }

    pub(super) fn matrix(&self, id: MatrixId) -> &OnDevice {
        &self.matrices[id.0]
    }

    pub(super) fn vector(&self, id: VectorId) -> &Buffer {
        &self.vectors[id.0]
    }
}

fn find(uploads: &[Weak<Uploaded>], model: &Arc<Model>, device: &Arc<dyn Device>) -> Option<Arc<Uploaded>> {
    uploads
        .iter()
        .filter_map(Weak::upgrade)
        .find(|upload| std::ptr::eq(upload.model.as_ptr(), Arc::as_ptr(model)) && Arc::ptr_eq(&upload.device, device))
}

/// What a device cannot do.
pub(super) fn refused(device: &dyn Device, what: String) -> InferenceError {
    InferenceError::NotOnDevice { device: device.name().to_owned(), what }
}

/// The bytes of a matrix as the kernels read them: ternary ones as I2_S, others as f16. Nothing is rounded.
fn repacked<'m>(matrix: &Matrix<'m>) -> Result<Cow<'m, [u8]>, String> {
    let (rows, cols) = (matrix.rows, matrix.cols);
    let format = match matrix.act {
        ActKind::I8 => rows_format(),
        _ => &quant::f16::FORMAT,
    };
    if matrix.format.name == format.name {
        return Ok(Cow::Borrowed(matrix.data));
    }
    if matrix.act != ActKind::I8 {
        if Storage::from(matrix.format).is_ternary() {
            let name = matrix.format.name;
            return Err(format!("is {name} for activations that are not one int8 scale a token; take --device cpu"));
        }
        return Err(format!(
            "is stored as {}: the CUDA kernels read f16 and ternary matrices; `bitnet convert` can write them, or take --device cpu",
            matrix.format.name
        ));
    }
    // The factor beside the bytes stays there.
    let matrix = Matrix { multiplier: 1.0, ..*matrix };
    let mut weights = vec![0.0; rows * cols];
    for (row, out) in weights.chunks_exact_mut(cols.max(1)).enumerate() {
        matrix.unpack_row(row, out);
    }
    (format.pack)(&weights, rows, cols)
        .map(Cow::Owned)
        .map_err(|error| format!("cannot be repacked for the CUDA kernels ({error}); take --device cpu"))
}
