//! The tensors of a model: found by name, checked against the hyper-parameters, validated, and used where they lie.

use super::hot::Hot;
use super::keys::Keys;
use super::rounding::Rounding;
use super::{Config, ModelError};
use crate::gguf::{GgufFile, TensorInfo, TensorView};
use crate::ops::{MatrixId, Tensors, VectorId};
use bitnet_kernels::quant::{self, I2sLayout, Storage, TILED};
use bitnet_kernels::{ActKind, Matrix, Pool, QuantError};
use std::collections::HashSet;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that one thread checks at a time.
const PIECE: usize = 8 << 20;
/// Elements of norms and biases beyond this are damage: real ones lie below a few hundred.
const VECTOR_LIMIT: f32 = 1e6;

/// Metadata key under which our own converter records that TL1 and TL2 tensors of shapes that bitnet.cpp has no kernels for
/// are cut by our rule (see `bitnet_kernels::quant::tiled`).
pub(crate) const TILES_KEY: &str = "bitnet.tl.tiles";

/// A matrix in the file.
#[derive(Debug)]
struct Stored {
    name: String,
    storage: Storage,
    /// The bytes that are computed with, where they are not the file's.
    unpacked: Option<Vec<u8>>,
    rows: usize,
    cols: usize,
    /// Index of the tensor in the file.
    tensor: usize,
    /// The bytes of the tensor that are the matrix, where it is one of several.
    part: Option<Range<usize>>,
    offset: u64,
    /// From the tensor [`scale_name`], 1 if there is none.
    multiplier: f32,
    /// What it is multiplied with: the model's [`Rounding`], if it is ternary.
    act: ActKind,
}

/// The tensor that holds a factor of a whole matrix: `blk.0.attn_q.scale` of `blk.0.attn_q.weight`. llama.cpp and
/// bitnet.cpp read it for the architecture `bitnet`; our converter writes it where a ternary scale is not an f16.
pub(crate) fn scale_name(matrix: &str) -> String {
    format!("{}.scale", matrix.strip_suffix(".weight").unwrap_or(matrix))
}

/// The tensors of a model. Matrices stay in the file's mapping, but for TL1 and TL2, whose tiles are unpacked to two-bit rows
/// (a copy of a quarter of a byte a weight, a fifth larger than TL2 itself); norm weights and biases (a few kilobytes a layer) are copied, since they
/// need not be aligned there. Copies in huge pages are made where they are wished for ([`Model::copy_hot`](super::Model::copy_hot)).
#[derive(Debug)]
pub struct Weights {
    file: GgufFile,
    matrices: Vec<Stored>,
    /// Norm weights and biases.
    vectors: Vec<Vec<f32>>,
    /// Copies in huge pages, once somebody made them or found that there is no room.
    pub(super) hot: OnceLock<Option<Hot>>,
}

impl Tensors for Weights {
    fn matrix(&self, id: MatrixId) -> Matrix<'_> {
        Weights::matrix(self, id)
    }

    fn vector(&self, id: VectorId) -> &[f32] {
        &self.vectors[id.0]
    }
}

impl Weights {
    /// A matrix, ready for a kernel.
    pub fn matrix(&self, id: MatrixId) -> Matrix<'_> {
        let m = &self.matrices[id.0];
        // The index was taken from this file.
        let in_file = || {
            let data = self.file.view_at(m.tensor).map_or(&[][..], |view| view.data);
            m.part.clone().map_or(data, |part| data.get(part).unwrap_or_default())
        };
        let copied = || self.hot.get()?.as_ref()?.get(id.0);
        let data = m.unpacked.as_deref().or_else(copied).unwrap_or_else(in_file);
        let format = m.storage.computed_as();
        Matrix { format, rows: m.rows, cols: m.cols, data, multiplier: m.multiplier, act: m.act }
    }

    /// Multiplies every matrix with activations as they are: another model than the one that was trained, but one whose small
    /// differences are not hidden by roundings.
    pub(crate) fn without_rounding(&mut self) {
        self.matrices.iter_mut().for_each(|m| m.act = ActKind::F32);
    }

    /// Whether the matrix is computed with where it lies in the file.
    pub(super) fn in_file(&self, id: MatrixId) -> bool {
        self.matrices[id.0].unpacked.is_none()
    }

    /// Bytes of the copies in huge pages.
    pub fn copied_bytes(&self) -> usize {
        self.hot.get().and_then(Option::as_ref).map_or(0, Hot::bytes)
    }

    /// Gives the memory of some rows of a matrix back, if they lie in the file; they are read from there again when they are
    /// needed.
    pub(crate) fn release(&self, id: MatrixId, rows: Range<usize>) {
        let matrix = self.matrix(id);
        let row = matrix.data.len() / matrix.rows.max(1);
        if let Some(part) = matrix.data.get(rows.start * row..rows.end * row) {
            self.file.release(part);
        }
    }

    /// What the matrix is in the file.
    pub fn storage(&self, id: MatrixId) -> Storage {
        self.matrices[id.0].storage
    }

    /// What every matrix is in the file, in the order of the plan.
    pub fn storages(&self) -> impl Iterator<Item = (&str, Storage)> {
        self.matrices.iter().map(|m| (m.name.as_str(), m.storage))
    }

    /// Name of a matrix's tensor.
    pub fn matrix_name(&self, id: MatrixId) -> &str {
        &self.matrices[id.0].name
    }

    /// Norm weights and biases, in the order of the plan.
    pub fn vectors(&self) -> impl Iterator<Item = &[f32]> {
        self.vectors.iter().map(Vec::as_slice)
    }

    /// Every matrix with its name, in the order of the plan.
    pub fn matrices(&self) -> impl Iterator<Item = (&str, Matrix<'_>)> {
        self.matrices.iter().enumerate().map(|(i, m)| (m.name.as_str(), self.matrix(MatrixId(i))))
    }

    /// The file that the tensors lie in.
    pub fn file(&self) -> &GgufFile {
        &self.file
    }

    /// Reads every byte once: codes, scales, sizes. Work is split by tensor over the pool, and large ones by rows.
    ///
    /// # Errors
    /// The first invalid tensor, by name and place.
    pub(crate) fn validate(&self, pool: &Pool) -> Result<(), ModelError> {
        let mut pieces = Vec::new();
        for (index, (_, matrix)) in self.matrices().enumerate() {
            let rows = (PIECE * matrix.rows).div_ceil(matrix.data.len().max(1)).max(1);
            let parts = (0..matrix.rows).step_by(rows).map(|row| matrix.part(row..matrix.rows.min(row + rows)));
            match parts.collect::<Option<Vec<_>>>() {
                Some(parts) => pieces.extend(parts.into_iter().map(|part| (index, part))),
                None => pieces.push((index, matrix)),
            }
        }
        let first = AtomicUsize::new(usize::MAX);
        pool.for_chunks(pieces.len(), 1, &|range| {
            for (index, part) in &pieces[range] {
                if part.validate().is_err() {
                    first.fetch_min(*index, Ordering::Relaxed);
                }
            }
        });
        let index = first.into_inner();
        let Some(m) = self.matrices.get(index) else { return Ok(()) };
        // Once more as a whole: a part counts its rows from its own beginning.
        let damaged = |source| ModelError::TensorData { name: m.name.clone(), offset: m.offset, source };
        self.matrix(MatrixId(index)).validate().map_err(damaged)
    }
}

/// Finds tensors while a family builds its plan, and notices what the family did not ask for.
pub struct TensorSource<'a> {
    keys: Keys<'a>,
    config: &'a Config,
    layout: I2sLayout,
    weights: Weights,
    taken: HashSet<String>,
}

impl<'a> TensorSource<'a> {
    pub(crate) fn new(file: &GgufFile, keys: Keys<'a>, config: &'a Config, layout: I2sLayout) -> Self {
        let weights = Weights { file: file.clone(), matrices: Vec::new(), vectors: Vec::new(), hot: OnceLock::new() };
        Self { keys, config, layout, weights, taken: HashSet::new() }
    }

    /// The file's keys.
    pub fn keys(&self) -> Keys<'a> {
        self.keys
    }

    /// The sizes.
    pub fn config(&self) -> &'a Config {
        self.config
    }

    /// Whether the file has a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        self.weights.file.tensor(name).is_some()
    }

    /// Takes the matrix `name`, `[rows][cols]` (outputs, inputs).
    ///
    /// # Errors
    /// The tensor is missing, of another shape, of a type without kernels, or of the wrong size.
    pub fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<MatrixId, ModelError> {
        let file = self.weights.file.clone();
        let view = take(&file, &mut self.taken, name)?;
        check_shape(&view, &[cols as u64, rows as u64])?;
        let info = view.info;
        let storage = self.storage(info)?;
        let unpacked = match storage {
            Storage::Rows(format) => {
                Matrix::new(format, rows, cols, view.data).map_err(|source| damaged(info, source))?;
                None
            }
            Storage::Tiled(format) => {
                let size = (format.matrix_bytes)(rows, cols).map_err(|source| damaged(info, source))?;
                if !(format.preset)(rows, cols) && !file.metadata().contains(TILES_KEY) {
                    return Err(ModelError::Tiles { name: name.to_owned(), format: format.name, rows, cols });
                }
                // The container counts the padding to the next tensor.
                let padding = view.data.len().saturating_sub(size) as u64;
                let data = view.data.get(..size).filter(|_| padding < file.alignment()).unwrap_or(view.data);
                Some((format.unpack)(data, rows, cols).map_err(|source| damaged(info, source))?)
            }
        };
        let multiplier = self.multiplier(&scale_name(name))?;
        let tensor = index_of(&file, info)?;
        self.weights.matrices.push(Stored {
            name: name.to_owned(),
            storage,
            unpacked,
            rows,
            cols,
            tensor,
            part: None,
            offset: info.file_offset,
            multiplier,
            act: storage.computed_as().act,
        });
        Ok(MatrixId(self.weights.matrices.len() - 1))
    }

    /// Takes the matrices of the tensor `name`, `[count][rows][cols]`: one for each expert.
    ///
    /// # Errors
    /// As [`TensorSource::matrix`], or a format whose matrices cannot be told apart.
    pub fn stack(&mut self, name: &str, count: usize, rows: usize, cols: usize) -> Result<Vec<MatrixId>, ModelError> {
        let file = self.weights.file.clone();
        let view = take(&file, &mut self.taken, name)?;
        check_shape(&view, &[cols as u64, rows as u64, count as u64])?;
        let info = view.info;
        let storage = self.storage(info)?;
        let Storage::Rows(format) = storage else { return Err(self.no_stack(info, storage)) };
        if !storage.rows_are_independent() {
            return Err(self.no_stack(info, storage));
        }
        Matrix::new(format, rows * count, cols, view.data).map_err(|source| damaged(info, source))?;
        let tensor = index_of(&file, info)?;
        let bytes = format.row_bytes(cols) * rows;
        let first = self.weights.matrices.len();
        self.weights.matrices.extend((0..count).map(|i| Stored {
            name: name.to_owned(),
            storage,
            unpacked: None,
            rows,
            cols,
            tensor,
            part: Some(i * bytes..(i + 1) * bytes),
            offset: info.file_offset + (i * bytes) as u64,
            multiplier: 1.0,
            act: format.act,
        }));
        Ok((first..first + count).map(MatrixId).collect())
    }

    fn no_stack(&self, info: &TensorInfo, storage: Storage) -> ModelError {
        let known = Storage::all().filter(|s| s.rows_are_independent()).map(Storage::name).collect::<Vec<_>>();
        let mut error = self.unknown_type(info, known.join(", "));
        if let ModelError::TensorType { type_name, .. } = &mut error {
            *type_name = format!("{} (one scale for all experts)", storage.name());
        }
        error
    }

    fn multiplier(&mut self, name: &str) -> Result<f32, ModelError> {
        if !self.has(name) {
            return Ok(1.0);
        }
        match self.values(name, 1).map(|values| values[0]) {
            Ok(value) if value > 0.0 => Ok(value),
            Ok(value) | Err(ModelError::VectorValue { value, .. }) => {
                let offset = self.weights.file.tensor(name).map_or(0, |view| view.info.file_offset);
                Err(ModelError::ScaleValue { name: name.to_owned(), offset, value })
            }
            Err(error) => Err(error),
        }
    }

    fn storage(&self, info: &TensorInfo) -> Result<Storage, ModelError> {
        if self.layout == I2sLayout::Rows4 && info.ggml_type == quant::i2_s::FORMAT.ggml_type {
            return Ok(Storage::Tiled(&quant::i2_s_rows4::FORMAT));
        }
        // By name: some numbers have two meanings.
        let type_name = self.weights.file.type_name(info);
        if let Some(format) = TILED.iter().find(|f| f.ggml_type == info.ggml_type && f.name == type_name) {
            return Ok(Storage::Tiled(format));
        }
        let format = match info.ggml_type == quant::i2_s::FORMAT.ggml_type {
            true => quant::by_ggml_type(info.ggml_type, self.layout),
            false => quant::by_name(type_name),
        };
        format.map(Storage::Rows).map_err(|_| {
            let known = Storage::all().map(Storage::name).collect::<Vec<_>>().join(", ");
            self.unknown_type(info, known)
        })
    }

    fn unknown_type(&self, info: &TensorInfo, known: String) -> ModelError {
        ModelError::TensorType {
            name: info.name.clone(),
            offset: info.file_offset,
            ggml_type: info.ggml_type,
            type_name: self.weights.file.type_name(info).to_owned(),
            known,
        }
    }

    /// Takes the norm weight or bias `name` of `width` elements; F32, F16 and BF16 are read.
    ///
    /// # Errors
    /// As [`TensorSource::matrix`], or a value that cannot be one.
    pub fn vector(&mut self, name: &str, width: usize) -> Result<VectorId, ModelError> {
        let values = self.values(name, width)?;
        self.weights.vectors.push(values);
        Ok(VectorId(self.weights.vectors.len() - 1))
    }

    /// Takes divisors of rotary frequencies, if the file has them.
    ///
    /// # Errors
    /// As [`TensorSource::vector`], or one that is not positive.
    pub fn divisors(&mut self, name: &str, count: usize) -> Result<Option<Vec<f32>>, ModelError> {
        if !self.has(name) {
            return Ok(None);
        }
        let divisors = self.values(name, count)?;
        match divisors.iter().position(|f| *f < 1e-6) {
            None => Ok(Some(divisors)),
            Some(index) => Err(ModelError::RopeFactor { name: name.to_owned(), index, value: divisors[index] }),
        }
    }

    fn values(&mut self, name: &str, width: usize) -> Result<Vec<f32>, ModelError> {
        let file = self.weights.file.clone();
        let view = take(&file, &mut self.taken, name)?;
        check_shape(&view, &[width as u64])?;
        let info = view.info;
        let known = [&quant::f32::FORMAT, &quant::f16::FORMAT, &quant::bf16::FORMAT];
        let format = known
            .into_iter()
            .find(|f| f.ggml_type == info.ggml_type)
            .ok_or_else(|| self.unknown_type(info, known.map(|f| f.name).join(", ")))?;
        let matrix = Matrix::new(format, 1, width, view.data).map_err(|source| damaged(info, source))?;
        let mut values = vec![0.0; width];
        matrix.unpack_row(0, &mut values);
        if let Some(index) = values.iter().position(|v| !v.is_finite() || v.abs() > VECTOR_LIMIT) {
            return Err(ModelError::VectorValue {
                name: name.to_owned(),
                offset: info.file_offset,
                index,
                value: values[index],
                limit: VECTOR_LIMIT,
            });
        }
        Ok(values)
    }

    /// Ends the search: refuses tensors that nobody asked for, and settles how activations are rounded for ternary matrices; `trained` is
    /// what the family says of it.
    pub(crate) fn finish(mut self, trained: Option<ActKind>) -> Result<(Weights, Rounding), ModelError> {
        let unknown = self.weights.file.tensors().iter().find(|t| {
            // Precomputed frequencies that old converters wrote; every reader computes them itself.
            !self.taken.contains(&t.name) && !t.name.ends_with(".attn_rot_embd") && t.name != "rope_freqs"
        });
        if let Some(tensor) = unknown {
            return Err(ModelError::UnknownTensor {
                name: tensor.name.clone(),
                architecture: self.config.architecture.clone(),
            });
        }
        let rounding = Rounding::decide(self.keys, trained, self.weights.matrices.iter().map(|m| m.storage))?;
        for matrix in self.weights.matrices.iter_mut().filter(|m| m.storage.is_ternary()) {
            matrix.act = rounding.act;
        }
        Ok((self.weights, rounding))
    }
}

fn take<'f>(file: &'f GgufFile, taken: &mut HashSet<String>, name: &str) -> Result<TensorView<'f>, ModelError> {
    let view = file.tensor(name).ok_or_else(|| ModelError::MissingTensor { name: name.to_owned() })?;
    taken.insert(name.to_owned());
    Ok(view)
}

/// Where a tensor stands in the list of its file.
fn index_of(file: &GgufFile, info: &TensorInfo) -> Result<usize, ModelError> {
    let index = file.tensors().iter().position(|t| std::ptr::eq(t, info));
    index.ok_or_else(|| ModelError::MissingTensor { name: info.name.clone() })
}

fn damaged(info: &TensorInfo, source: QuantError) -> ModelError {
    ModelError::TensorData { name: info.name.clone(), offset: info.file_offset, source }
}

/// Trailing dimensions of 1 are written by some converters and mean nothing.
fn check_shape(view: &TensorView<'_>, expected: &[u64]) -> Result<(), ModelError> {
    let found = &view.info.dims;
    let fits = found.len() >= expected.len()
        && found[..expected.len()] == *expected
        && found[expected.len()..].iter().all(|&d| d == 1);
    if fits {
        return Ok(());
    }
    Err(ModelError::Shape { name: view.info.name.clone(), expected: expected.to_vec(), found: found.clone() })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::gguf::resident;
    use crate::model::Model;

    /// The pages of the embedding's rows, and no others.
    #[test]
    fn rows_are_given_back() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/models/tiny-bitnet.gguf");
        let model = Model::open(&GgufFile::open(path).unwrap(), I2sLayout::X86).unwrap();
        let table = model.weights.matrix(MatrixId(0));
        let row = table.data.len() / table.rows;
        let rows = table.rows / 4..table.rows / 2;
        assert!(row * rows.len() >= 64 << 10, "enough to be told from the pages at both ends");
        let touch = || model.weights.file().views().flat_map(|view| view.data).map(|b| u64::from(*b)).sum::<u64>();
        let sum = touch();
        let freed = || {
            touch();
            let before = resident(table.data);
            model.weights.release(MatrixId(0), rows.clone());
            before.saturating_sub(resident(table.data)) << 10
        };
        // The system may take pages back by itself.
        let freed: Vec<usize> = (0..10).map(|_| freed()).collect();
        let near = |freed: &usize| freed.abs_diff(row * rows.len()) <= 8 << 10;
        assert!(freed.iter().any(near), "{freed:?} bytes of rows of {row}");
        assert_eq!(touch(), sum);
    }
}
