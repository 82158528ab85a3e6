//! The GGUF of a checkpoint: announced as a whole, then written tensor by tensor, some rows at a time.
//!
//! The file is loaded under a temporary name, every byte of it, before it gets its own: what cannot be used never appears.

use super::forward;
use super::tokens::{self, Tokens};
use super::{Checkpoint, CheckpointError, Content, Role, Source};
use crate::convert::{
    Comparison, ConvertError, ConvertReport, Failed, Progress, Steps, exact_f16, floats, layout_of, linear_keys,
    pack_rows,
};
use crate::discovery::quantization as sizes;
use crate::gguf::{GgufFile, GgufWriter, is_gguf, same_file};
use crate::load::{LAYOUT_KEY, LoadError};
use crate::model::{ACTIVATIONS_KEY, FAMILIES, Model, ModelError, Rounding, scale_name};
use crate::ops::MatrixId;
use crate::tokenizer::{Diagnostic, from_gguf};
use bitnet_kernels::numerics::{f16_to_f32, f32_to_f16};
use bitnet_kernels::quant::{self, I2sLayout, Storage};
use bitnet_kernels::{ActKind, Kernels, Pool, QuantError};
use std::cell::RefCell;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// What to write, and with what to check it.
pub struct ToGguf<'a> {
    /// Format of the linear layers.
    pub linear: Storage,
    /// Format of the embedding and of a head of its own; the one that they have if absent.
    pub embedding: Option<Storage>,
    /// Whether the logits of the checkpoint are compared with those of the GGUF.
    pub verify: bool,
    /// Most positions that are compared; the comparison's own number if absent.
    pub context: Option<usize>,
    /// What computes the logits of the GGUF.
    pub kernels: &'static dyn Kernels,
    /// Threads.
    pub pool: &'a Arc<Pool>,
}

/// What was written.
#[derive(Debug, Clone)]
pub struct Written {
    /// Sizes.
    pub report: ConvertReport,
    /// What the user should know.
    pub diagnostics: Vec<Diagnostic>,
    /// How far the logits are from those of the checkpoint, if that was asked for.
    pub comparison: Option<Comparison>,
}

/// Rows that are read and packed at a time.
const ROWS: usize = 256;

impl Checkpoint {
    /// Writes the checkpoint as a GGUF to `output`, which is replaced only once the new file was loaded.
    ///
    /// # Errors
    /// A tensor that does not fit its format, a tokenizer of another model, an output that cannot be written or loaded, logits that
    /// are not the checkpoint's; or `progress` did not want to go on. What was at `output` stays then.
    pub fn to_gguf(
        &self,
        options: &ToGguf<'_>,
        output: &Path,
        progress: &mut Progress<'_>,
    ) -> Result<Written, CheckpointError> {
        self.not_an_input(output)?;
        let mut diagnostics = self.warnings.clone();
        let tokens = tokens::read(&self.folder, self.sizes.vocab, &mut diagnostics)?;
        let templates = tokens::templates(&self.folder)?;
        diagnostics.extend(tokens::oddities(&self.folder, &templates, self.sizes.vocab));
        let steps = Steps::new(self.planned.len(), progress);
        let mut writer = GgufWriter::new(3, 32)?;
        self.header(&mut writer, options, &tokens, &templates)?;
        let mut converted = 0;
        for planned in &self.planned {
            match &planned.content {
                Content::Vector(values) => {
                    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                    let (dims, steps) = ([values.len() as u64], &steps);
                    writer.tensor_with(
                        &planned.name,
                        &dims,
                        quant::f32::FORMAT.ggml_type,
                        data.len() as u64,
                        move |out| {
                            steps.step()?;
                            out.write_all(&data)
                        },
                    )?;
                }
                Content::Matrix(source, role) => {
                    let format = self.format(source, *role, options)?;
                    let kept = kept_format(source)?;
                    converted += usize::from(kept != Some(format));
                    self.add_matrix(&mut writer, &planned.name, source, format, &steps)?;
                }
            }
        }
        for (name, factors) in &self.graph.tensors {
            floats(&mut writer, name, factors)?;
        }
        let checked = RefCell::new((Vec::new(), None));
        let written = writer.write_file_checked(output, |unnamed| {
            let check = || -> Result<(), ConvertError> {
                let (found, model) =
                    load(unnamed, tokens.is_some()).map_err(|e| ConvertError::Unloadable(Box::new(e)))?;
                let comparison = if options.verify { Some(forward::compare(self, model, options)?) } else { None };
                checked.replace((found, comparison));
                Ok(())
            };
            check().map_err(|error| steps.fail(error))
        });
        let report = steps.report(converted, written)?;
        let (found, comparison) = checked.into_inner();
        diagnostics.extend(found);
        Ok(Written { report, diagnostics, comparison })
    }

    /// Refuses an output that is a file of the folder, by whatever name, unless that is a GGUF: no checkpoint has one.
    fn not_an_input(&self, output: &Path) -> Result<(), CheckpointError> {
        if !output.is_file() || is_gguf(output) {
            return Ok(());
        }
        let why = "it is a file of the checkpoint, which is never overwritten; choose another name";
        let theirs = |path: &Path| path.extension().is_none_or(|name| name != "gguf") && same_file(path, output);
        match in_folder(&self.folder, 2, &theirs) {
            true => Err(CheckpointError::File { path: output.to_owned(), why: why.to_owned() }),
            false => Ok(()),
        }
    }

    fn header(
        &self,
        writer: &mut GgufWriter<'_>,
        options: &ToGguf<'_>,
        tokens: &Option<Tokens>,
        templates: &[(String, String)],
    ) -> Result<(), CheckpointError> {
        let architecture = self.form.architecture;
        writer.meta("general.architecture", architecture)?;
        writer.meta("general.name", name_of(&self.folder).unwrap_or_else(|| architecture.to_owned()))?;
        for (key, value) in linear_keys(options.linear) {
            writer.meta(key, value)?;
        }
        for (key, value) in &self.graph.keys {
            writer.meta(&format!("{architecture}.{key}"), value.clone())?;
        }
        if let Some(pooling) = tokens::pooling(&self.folder)? {
            writer.meta(&format!("{architecture}.pooling_type"), pooling)?;
        }
        // Where nothing else would tell how activations were rounded in training.
        let family = FAMILIES.iter().find(|family| family.architectures.contains(&architecture));
        if family.is_some_and(|family| family.trained.is_none()) && (self.is_bitnet() || options.linear.is_ternary()) {
            let act = if self.is_bitnet() { ActKind::I8 } else { ActKind::Q8 };
            writer.meta(ACTIVATIONS_KEY, Rounding::name_of(act))?;
        }
        let formats = self.planned.iter().filter_map(|planned| match &planned.content {
            Content::Matrix(source, role) => Some(self.format(source, *role, options)),
            Content::Vector(_) => None,
        });
        let formats = formats.collect::<Result<Vec<_>, _>>()?;
        if let Some(layout) = layout_of(formats.into_iter())? {
            writer.meta(LAYOUT_KEY, layout.name())?;
        }
        if let Some(tokens) = tokens {
            for (key, value) in tokens {
                writer.meta(key, value.clone())?;
            }
        }
        for (key, template) in templates {
            writer.meta(key, template.as_str())?;
        }
        Ok(())
    }

    /// The format of a matrix.
    fn format(&self, source: &Source, role: Role, options: &ToGguf<'_>) -> Result<Storage, CheckpointError> {
        let asked = match role {
            Role::Linear => Some(options.linear),
            Role::Embedding => options.embedding,
            Role::Kept => None,
        };
        match (asked, kept_format(source)?) {
            (Some(format), _) | (None, Some(format)) => Ok(format),
            (None, None) => Ok(options.linear),
        }
    }

    fn add_matrix<'a>(
        &'a self,
        writer: &mut GgufWriter<'a>,
        name: &'a str,
        source: &'a Source,
        format: Storage,
        steps: &'a Steps<'_, '_>,
    ) -> Result<(), CheckpointError> {
        let pack_error =
            move |error| ConvertError::Pack { tensor: name.to_owned(), format: format.name(), source: error };
        let size = format.matrix_bytes(source.rows, source.cols).map_err(pack_error)?;
        // A magnitude that is not an f16 stands beside signs, where blocks have f16 scales.
        let mut beside = None;
        if source.is_ternary() && exact_f16(format) {
            let magnitude = source.magnitude(&self.store).map_err(pack_error)?;
            beside = Some(magnitude).filter(|scale| f16_to_f32(f32_to_f16(*scale)) != *scale);
        }
        let dims = [source.cols as u64, source.rows as u64];
        writer.tensor_with(name, &dims, format.ggml_type(), size as u64, move |out| {
            steps.step()?;
            let packed = self.pack(source, format, beside.is_some(), out);
            self.store.release(&source.stored);
            steps.packed(packed, pack_error)
        })?;
        if let Some(scale) = beside {
            floats(writer, &scale_name(name), &[scale])?;
        }
        Ok(())
    }

    fn pack(&self, source: &Source, format: Storage, signs: bool, out: &mut dyn Write) -> Result<(), Failed> {
        // Tiles of TL1 and TL2 span all rows.
        let step = if matches!(format, Storage::Rows(_)) { ROWS } else { source.rows };
        let mut values = vec![0.0; step.min(source.rows) * source.cols];
        let mut trailer: Option<Trailer> = None;
        for first in (0..source.rows).step_by(step) {
            let rows = step.min(source.rows - first);
            let part = &mut values[..rows * source.cols];
            for (row, target) in part.chunks_exact_mut(source.cols).enumerate() {
                source.gguf_row(&self.store, first + row, target)?;
            }
            if signs {
                part.iter_mut().filter(|value| **value != 0.0).for_each(|value| *value = value.signum());
            }
            let bytes = pack_rows(format, part, rows, source.cols).map_err(|error| error.below(first))?;
            match format {
                Storage::Rows(format) if format.trailer_bytes > 0 => {
                    let (codes, end) = bytes.split_at(bytes.len() - format.trailer_bytes);
                    out.write_all(codes)?;
                    Trailer::join(&mut trailer, end, part, (first, source.cols), format.name)?;
                }
                _ => out.write_all(&bytes)?,
            }
        }
        if let Some(trailer) = trailer {
            out.write_all(&trailer.bytes)?;
        }
        Ok(())
    }
}

/// Whether a file of a folder, or of its folders to a depth, is what is looked for.
fn in_folder(folder: &Path, depth: usize, found: &dyn Fn(&Path) -> bool) -> bool {
    let mut paths = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    paths.any(|path| if path.is_dir() { depth > 0 && in_folder(&path, depth - 1, found) } else { found(&path) })
}

/// The name of a model: that of its folder, or of the repository where it lies in HuggingFace's cache
/// (`models--ORG--NAME/snapshots/COMMIT`).
fn name_of(folder: &Path) -> Option<String> {
    let full = std::fs::canonicalize(folder).ok()?;
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let snapshots = full.parent().filter(|parent| parent.ends_with("snapshots"));
    match snapshots.and_then(Path::parent).and_then(name).as_deref().and_then(|name| name.rsplit("--").next()) {
        Some(repository) => Some(repository.to_owned()),
        None => name(&full),
    }
}

/// The format in which a matrix of floats is stored already.
fn kept_format(source: &Source) -> Result<Option<Storage>, CheckpointError> {
    use super::matrix::Values;
    let Values::Float(float) = source.values else { return Ok(None) };
    let format = quant::by_name(float.format());
    let named = |error| ConvertError::Pack { tensor: source.name.clone(), format: float.format(), source: error };
    Ok(Some(format.map_err(named)?.into()))
}

/// What stands behind the rows: the scale of all of them, which every part that is not zero must give alike.
struct Trailer {
    bytes: Vec<u8>,
    scale: Option<f32>,
}

impl Trailer {
    fn join(
        all: &mut Option<Self>,
        end: &[u8],
        part: &[f32],
        (first, cols): (usize, usize),
        format: &'static str,
    ) -> Result<(), QuantError> {
        let Some(at) = part.iter().position(|value| *value != 0.0) else {
            all.get_or_insert_with(|| Self { bytes: end.to_vec(), scale: None });
            return Ok(());
        };
        let value = part[at];
        match all.as_ref().and_then(|all| all.scale) {
            Some(scale) if scale != value.abs() => {
                let (row, col, unit) = (first + at / cols, at % cols, "the whole matrix");
                Err(QuantError::NotTernary { format, unit, row, col, value, scale })
            }
            Some(_) => Ok(()),
            None => {
                *all = Some(Self { bytes: end.to_vec(), scale: Some(value.abs()) });
                Ok(())
            }
        }
    }
}

/// Loads what was written: the tokenizer is built, and every byte of the weights is read, some at a time.
fn load(path: &Path, with_tokenizer: bool) -> Result<(Vec<Diagnostic>, Model), LoadError> {
    let file = GgufFile::open(path)?;
    let mut diagnostics = Vec::new();
    if with_tokenizer {
        let loaded = from_gguf(file.metadata())?;
        sizes::check(&file, loaded.tokenizer.vocab_size())?;
        diagnostics = loaded.diagnostics;
    }
    let layout = file.metadata().str(LAYOUT_KEY)?.and_then(I2sLayout::from_name).unwrap_or_default();
    let model = Model::open(&file, layout)?;
    for (index, (name, matrix)) in model.weights.matrices().enumerate() {
        let id = MatrixId(index);
        let damaged = |source| ModelError::TensorData {
            name: name.to_owned(),
            offset: file.tensor(name).map_or(0, |view| view.info.file_offset),
            source,
        };
        let step = ROWS * 16;
        for first in (0..matrix.rows).step_by(step) {
            let rows = first..matrix.rows.min(first + step);
            let Some(part) = matrix.part(rows.clone()) else { break };
            part.validate().map_err(|error| damaged(error.below(first)))?;
            model.weights.release(id, rows);
        }
        if matrix.part(0..1).is_none() {
            matrix.validate().map_err(damaged)?;
            model.weights.release(id, 0..matrix.rows);
        }
    }
    Ok((diagnostics, model))
}
