//! Writing a model in another weight format.
//!
//! Linear layers are unpacked to f32 and packed again, tensor by tensor, into a file that replaces its target only
//! when it is complete. Ternary formats take only weights that are ternary already, and between them nothing is lost:
//! the codes and the scale are the same (`ternary` says where it goes), so the logits are too. [`set`] changes metadata and
//! nothing else.

mod comparison;
pub mod set;
mod ternary;

use crate::gguf::{GgufError, GgufWriter, MetaValue, TensorView};
use crate::load::{LAYOUT_KEY, LoadError};
use crate::model::{ACTIVATIONS_KEY, Model, TILES_KEY, scale_name};
use crate::ops::{Embed, Linear, Op, Slot};
use bitnet_kernels::quant::{Format, I2sLayout, Storage};
use bitnet_kernels::{Matrix, QuantError, quant};
pub use comparison::Comparison;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use ternary::{Packing, packing};
pub(crate) use ternary::{exact_f16, pack_rows};

/// What to write.
#[derive(Debug, Clone, Copy)]
pub struct ConvertOptions {
    /// Format of the linear layers.
    pub linear: &'static Format,
    /// Format of the embedding and of an output matrix of its own; as they are if absent.
    pub embedding: Option<&'static Format>,
}

/// Where a model is written.
#[derive(Debug, Clone, Copy)]
pub struct Output<'a> {
    /// The file, or the name from which those of the parts are made ([`GgufWriter::write_parts`]).
    pub path: &'a Path,
    /// Most tensors of a part; one file if absent.
    pub max_tensors: Option<usize>,
}

impl<'a, P: AsRef<Path> + ?Sized> From<&'a P> for Output<'a> {
    fn from(path: &'a P) -> Self {
        Self { path: path.as_ref(), max_tensors: None }
    }
}

impl Output<'_> {
    fn write(self, writer: GgufWriter<'_>) -> Result<u64, GgufError> {
        match self.max_tensors {
            None => writer.write_file(self.path),
            Some(most) => writer.write_parts(self.path, most).map(|parts| parts.bytes),
        }
    }
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct ConvertReport {
    /// Tensors in a new format.
    pub converted: usize,
    /// Tensors copied as they were.
    pub copied: usize,
    /// Length of the file.
    pub bytes: u64,
}

/// Why a model cannot be converted.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum ConvertError {
    #[error("tensor `{tensor}` cannot be written as {format}: {source}")]
    Pack {
        tensor: String,
        format: &'static str,
        #[source]
        source: QuantError,
    },
    #[error("the file would hold I2_S tensors in several layouts; choose one for --to and --embedding")]
    MixedLayouts,
    #[error("cancelled; nothing was written")]
    Cancelled,
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error("what was written cannot be loaded and was removed: {0}")]
    Unloadable(#[source] Box<LoadError>),
    #[error("the logits of what was written are not those of the checkpoint, and it was removed: {0}")]
    Different(Comparison),
}

/// Names of the formats that can be written.
pub fn targets() -> Vec<&'static str> {
    Storage::all().map(Storage::name).collect()
}

/// What a file's metadata says of linear layers in this format, but for the layout of I2_S
/// ([`LAYOUT_KEY`]).
pub fn linear_keys(format: Storage) -> Vec<(&'static str, MetaValue)> {
    let cut = matches!(format, Storage::Tiled(tiled) if !std::ptr::eq(tiled, &quant::i2_s_rows4::FORMAT));
    let tiles = cut.then(|| (TILES_KEY, TILES_RULE.into()));
    tiles.into_iter().chain(format.file_type().map(|number| (KEY_FILE_TYPE, number.into()))).collect()
}

const KEY_FILE_TYPE: &str = "general.file_type";
/// The rule of `bitnet_kernels::quant::tiled` for shapes that have no tile of bitnet.cpp's.
const TILES_RULE: &str = "bitnet.rs 1";

/// Writes `model` to `output` in the formats of `options`.
///
/// # Errors
/// A tensor that does not fit its format (it is named, and nothing is left at `output` that was not there before), or an
/// output that cannot be written, or `progress` did not want to go on.
pub fn convert<'o>(
    model: &Model,
    options: &ConvertOptions,
    output: impl Into<Output<'o>>,
    progress: &mut Progress<'_>,
) -> Result<ConvertReport, ConvertError> {
    let embedding = options.embedding.map(Storage::Rows);
    convert_stored(model, Some(options.linear.into()), embedding, output, progress)
}

/// [`convert`] to formats of which some are only stored: TL1 and TL2. What is `None` stays as it is.
pub fn convert_stored<'o>(
    model: &Model,
    linear: Option<Storage>,
    embedding: Option<Storage>,
    output: impl Into<Output<'o>>,
    progress: &mut Progress<'_>,
) -> Result<ConvertReport, ConvertError> {
    let output = output.into();
    write(model, linear, embedding, progress, |writer| output.write(writer))
}

/// [`convert`] into memory.
pub fn convert_to_vec(model: &Model, options: &ConvertOptions) -> Result<Vec<u8>, ConvertError> {
    convert_stored_to_vec(model, options.linear.into(), options.embedding.map(Storage::Rows))
}

/// [`convert_stored`] into memory.
pub fn convert_stored_to_vec(
    model: &Model,
    linear: Storage,
    embedding: Option<Storage>,
) -> Result<Vec<u8>, ConvertError> {
    let mut bytes = Vec::new();
    write(model, Some(linear), embedding, &mut |_, _| ControlFlow::Continue(()), |writer| writer.write_to(&mut bytes))?;
    Ok(bytes)
}

/// Without a format of their own, linear layers stay as they are, and so does what the metadata says of them.
fn write(
    model: &Model,
    linear: Option<Storage>,
    embedding: Option<Storage>,
    progress: &mut Progress<'_>,
    finish: impl FnOnce(GgufWriter<'_>) -> Result<u64, GgufError>,
) -> Result<ConvertReport, ConvertError> {
    let file = model.weights.file();
    let targets = targets_of(model, linear, embedding);
    let layout = layout_of(targets.values().map(|target| target.to))?;
    let ternary = targets.values().any(|target| target.to.is_ternary());
    let metadata = file.metadata();
    let packings: HashMap<&str, Packing<'_>> = targets
        .into_iter()
        .filter(|(_, target)| target.from != target.to)
        .map(|(name, target)| (name, packing(target.matrix, target.to)))
        .collect();
    // Scales beside matrices that are rewritten go with them.
    let replaced: HashSet<String> = packings.keys().map(|name| scale_name(name)).collect();
    let kept: Vec<_> = file.views().filter(|view| !replaced.contains(&view.info.name)).collect();
    let steps = Steps::new(kept.len(), progress);
    // Declared last: it holds closures that borrow what stands above.
    let mut writer = GgufWriter::new(3, file.alignment())?;
    let replaced_keys = [KEY_FILE_TYPE, TILES_KEY];
    writer.copy_all_meta(metadata, |key| key != LAYOUT_KEY && (linear.is_none() || !replaced_keys.contains(&key)))?;
    for (key, value) in linear.into_iter().flat_map(linear_keys) {
        writer.meta(key, value)?;
    }
    // A file in another format would be run with another rounding, and other logits.
    if linear.is_some() && ternary && model.family.trained.is_none() && !metadata.contains(ACTIVATIONS_KEY) {
        writer.meta(ACTIVATIONS_KEY, model.rounding.name())?;
    }
    if let Some(layout) = layout {
        // The format itself does not record it.
        writer.meta(LAYOUT_KEY, layout.name())?;
    }

    let mut converted = 0;
    for view in kept {
        let name = view.info.name.as_str();
        match packings.get(name) {
            Some(&packing) => {
                converted += 1;
                let Packing { matrix, format, beside, .. } = packing;
                let pack_error =
                    move |source| ConvertError::Pack { tensor: name.to_owned(), format: format.name(), source };
                let size = format.matrix_bytes(matrix.rows, matrix.cols).map_err(pack_error)?;
                let steps = &steps;
                writer.tensor_with(name, &view.info.dims, format.ggml_type(), size as u64, move |out| {
                    steps.step()?;
                    steps.packed(repack(&packing, out), pack_error)
                })?;
                if let Some(scale) = beside {
                    floats(&mut writer, &scale_name(name), &[scale])?;
                }
            }
            None => steps.copy(&mut writer, view)?,
        }
    }
    let written = finish(writer);
    steps.report(converted, written)
}

/// Told the tensor that comes next (from 1) and how many there are; `Break` ends the conversion.
pub type Progress<'a> = dyn FnMut(usize, usize) -> ControlFlow<()> + 'a;

/// What the closures that write tensors share. They can only return an I/O error; the real one is kept here.
pub(crate) struct Steps<'p, 'q> {
    total: usize,
    done: RefCell<(usize, &'p mut Progress<'q>)>,
    failure: RefCell<Option<ConvertError>>,
}

impl<'p, 'q> Steps<'p, 'q> {
    pub(crate) fn new(total: usize, progress: &'p mut Progress<'q>) -> Self {
        Self { total, done: RefCell::new((0, progress)), failure: RefCell::new(None) }
    }

    /// Counts a tensor.
    pub(crate) fn step(&self) -> std::io::Result<()> {
        let (count, progress) = &mut *self.done.borrow_mut();
        *count += 1;
        match progress(*count, self.total) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(self.fail(ConvertError::Cancelled)),
        }
    }

    /// Keeps the error.
    pub(crate) fn fail(&self, error: ConvertError) -> std::io::Error {
        let text = error.to_string();
        self.failure.replace(Some(error));
        std::io::Error::other(text)
    }

    /// Keeps the error of packing, as `named` says it.
    pub(crate) fn packed(
        &self,
        packed: Result<(), Failed>,
        named: impl FnOnce(QuantError) -> ConvertError,
    ) -> std::io::Result<()> {
        packed.map_err(|error| match error {
            Failed::Io(error) => error,
            Failed::Quant(error) => self.fail(named(error)),
        })
    }

    /// Adds a tensor as it is.
    fn copy<'a>(&'a self, writer: &mut GgufWriter<'a>, view: TensorView<'a>) -> Result<(), GgufError> {
        let info = view.info;
        writer.tensor_with(&info.name, &info.dims, info.ggml_type, info.size, move |out| {
            self.step()?;
            out.write_all(view.data)
        })?;
        Ok(())
    }

    /// What was written, or the error that was kept.
    pub(crate) fn report(
        self,
        converted: usize,
        written: Result<u64, GgufError>,
    ) -> Result<ConvertReport, ConvertError> {
        match self.failure.into_inner() {
            Some(error) => Err(error),
            None => Ok(ConvertReport { converted, copied: self.total - converted, bytes: written? }),
        }
    }
}

/// A matrix, what it is in the file, and what it is to be.
struct Target<'m> {
    matrix: Matrix<'m>,
    from: Storage,
    to: Storage,
}

/// What each matrix is to be, by tensor name.
fn targets_of(model: &Model, linear: Option<Storage>, embedding: Option<Storage>) -> HashMap<&str, Target<'_>> {
    let mut targets = HashMap::new();
    for step in &model.plan {
        let (id, format) = match step.op {
            Op::Embed(Embed { table, .. }) => (table, embedding),
            Op::Linear(Linear { weight, dst: Slot::Logits, .. }) => (weight, embedding),
            Op::Linear(Linear { weight, .. }) => (weight, linear),
            _ => continue,
        };
        let (matrix, from) = (model.weights.matrix(id), model.weights.storage(id));
        let is_i2s = |format: Storage| format.ggml_type() == quant::i2_s::FORMAT.ggml_type;
        // A file has one layout: what is not asked for follows what is.
        let kept = linear.filter(|linear| is_i2s(*linear) && is_i2s(from)).unwrap_or(from);
        targets.insert(model.weights.matrix_name(id), Target { matrix, from, to: format.unwrap_or(kept) });
    }
    targets
}

/// The layout of the I2_S tensors of a file, if it has any.
pub(crate) fn layout_of(formats: impl Iterator<Item = Storage>) -> Result<Option<I2sLayout>, ConvertError> {
    let mut found = None;
    for format in formats {
        let Some(layout) = I2sLayout::of_format(format.name()) else { continue };
        if *found.get_or_insert(layout) != layout {
            return Err(ConvertError::MixedLayouts);
        }
    }
    Ok(found)
}

/// Why a matrix was not packed and written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Quant(#[from] QuantError),
}

/// Adds a vector.
pub(crate) fn floats(writer: &mut GgufWriter<'_>, name: &str, values: &[f32]) -> Result<(), GgufError> {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    writer.tensor(name, &[values.len() as u64], quant::f32::FORMAT.ggml_type, data)?;
    Ok(())
}

/// Rows that are unpacked at a time where rows are independent of each other.
const ROWS: usize = 256;

fn repack(packing: &Packing<'_>, out: &mut dyn Write) -> Result<(), Failed> {
    let Packing { matrix, format, .. } = packing;
    // A format with a trailer has one scale for all rows.
    let step = if format.rows_are_independent() { ROWS } else { matrix.rows };
    let mut values = vec![0.0; step.min(matrix.rows) * matrix.cols];
    for first in (0..matrix.rows).step_by(step) {
        let rows = step.min(matrix.rows - first);
        out.write_all(&packing.pack(first, rows, &mut values[..rows * matrix.cols])?)?;
    }
    Ok(())
}
