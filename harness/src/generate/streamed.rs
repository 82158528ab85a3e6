//! Random models of a real one's shape, written piece by piece: what speed is measured on where the real one cannot be had.
//!
//! A model's speed depends on its shape and formats, not on what it learned. Weights are -s, 0 and +s in equal parts with one
//! `s` a matrix, near `sqrt(1.5 / inputs)` so that activations keep their size and logits stay finite; `s` is an f16, so
//! that every ternary format holds the very same model. Each row has noise of its own, drawn from the seed, the tensor's name
//! and the row's number: the bytes depend on nothing else, not on threads either. Never more than some rows of a matrix are in
//! memory (a whole matrix for formats in tiles).
//!
//! The tokenizer is a byte-level BPE with as many tokens as the shape says ([`super::pieces`]).

use super::header::{header, microsoft};
use super::pieces::MICROSOFT;
use super::{Noise, Pieces, families};
use crate::models::layout;
use bitnet_engine::convert::linear_keys;
use bitnet_engine::gguf::{GgufError, GgufFile, GgufWriter};
use bitnet_engine::load::LAYOUT_KEY;
use bitnet_golden::matrix::Shape;
use bitnet_kernels::QuantError;
use bitnet_kernels::numerics::{f16_to_f32, f32_to_f16};
use bitnet_kernels::quant::{self, Storage};
use std::io::{self, Write};
use std::path::Path;

/// Weights that one thread draws and packs at a time: 1 MiB as f32.
const BAND: usize = 1 << 18;

#[derive(Debug)]
pub struct NamedShape {
    pub name: &'static str,
    /// What has this shape.
    pub about: &'static str,
    /// `general.architecture` of that.
    pub architecture: &'static str,
    /// The base of its rotary embedding.
    pub rope_base: f32,
    pub shape: Shape,
}

pub static SHAPES: &[NamedShape] = &[
    NamedShape {
        name: "tiny",
        about: "two layers that fit every format; for tests",
        architecture: "bitnet-b1.58",
        rope_base: 10_000.0,
        shape: Shape {
            layers: 2,
            hidden: 256,
            ffn: 768,
            heads: 4,
            kv_heads: 2,
            vocab: 512,
            context: 1024,
            ..Shape::PLAIN
        },
    },
    NamedShape {
        name: "100m",
        about: "a tenth of the smallest real one",
        architecture: "bitnet-b1.58",
        rope_base: 500_000.0,
        shape: Shape {
            layers: 12,
            hidden: 768,
            ffn: 2048,
            heads: 12,
            kv_heads: 4,
            vocab: 32_000,
            context: 4096,
            ..Shape::PLAIN
        },
    },
    NamedShape {
        name: "700m",
        about: "bitnet_b1_58-large of 1bitLLM",
        architecture: "bitnet",
        rope_base: 10_000.0,
        shape: Shape {
            layers: 24,
            hidden: 1536,
            ffn: 4096,
            heads: 16,
            kv_heads: 16,
            vocab: 32_002,
            context: 2048,
            ..Shape::PLAIN
        },
    },
    NamedShape {
        name: "2b4t",
        about: "BitNet-b1.58-2B-4T of Microsoft",
        architecture: "bitnet-b1.58",
        rope_base: 500_000.0,
        shape: Shape {
            layers: 30,
            hidden: 2560,
            ffn: 6912,
            heads: 20,
            kv_heads: 5,
            vocab: 128_256,
            context: 4096,
            ..Shape::PLAIN
        },
    },
];

/// Architectures that can be written: squared ReLU (ours and bitnet.cpp's worker), SiLU (llama.cpp too).
pub const ARCHITECTURES: [&str; 2] = ["bitnet-b1.58", "bitnet"];

/// Why a model cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    #[error("there is no shape `{name}`; there are {known}")]
    Shape { name: String, known: String },
    #[error("no generator for the architecture `{name}`; there are {}", ARCHITECTURES.join(", "))]
    Architecture { name: String },
    /// Not what Microsoft's file is.
    #[error("Microsoft's file is of the architecture bitnet-b1.58 in i2_s, not {architecture} in {quant}")]
    Microsoft { architecture: String, quant: &'static str },
    #[error(transparent)]
    Quant(#[from] QuantError),
    /// The shape does not fit the format.
    #[error("`{tensor}` of the shape `{shape}` cannot be {quant}: {source}; choose another --quant or --shape")]
    Fit {
        tensor: String,
        shape: &'static str,
        quant: &'static str,
        #[source]
        source: Box<QuantError>,
    },
    /// The metadata cannot be made; above all the vocabulary that tokens are taken from is not one.
    #[error("the metadata, with the vocabulary that the tokens are taken from: {0}")]
    Vocabulary(String),
    /// The file cannot be written; what was there before is as it was.
    #[error("nothing was written, {} would have {bytes} bytes: {source}", path.display())]
    Write {
        path: std::path::PathBuf,
        bytes: u64,
        #[source]
        source: Box<GgufError>,
    },
}

/// Whose metadata a model has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Writer {
    /// What our own converter writes: the layout of I2_S and the rule of the tokenizer among it.
    #[default]
    Ours,
    /// Exactly the keys of Microsoft's GGUF of BitNet-2B-4T, with its placeholder of a chat template.
    Microsoft,
}

/// The chat template of Microsoft's file.
const PLACEHOLDER: &str = include_str!("../../../golden/chat/templates/bitnet-placeholder.jinja");

/// What to write.
#[derive(Debug)]
pub struct Recipe {
    named: &'static NamedShape,
    architecture: String,
    storage: Storage,
    seed: u64,
    writer: Writer,
}

/// A matrix of the model.
struct Planned {
    name: String,
    rows: usize,
    cols: usize,
    storage: Storage,
    bytes: u64,
}

impl Recipe {
    /// A model of a named shape with its linear layers in the format `quant` (any that `bitnet convert` writes), of the
    /// shape's own architecture if none is said.
    ///
    /// # Errors
    /// A name that means nothing, or a format that does not take the shape.
    pub fn new(shape: &str, quant: &str, seed: u64, architecture: Option<&str>) -> Result<Self, MakeError> {
        let named = SHAPES.iter().find(|s| s.name == shape).ok_or_else(|| MakeError::Shape {
            name: shape.to_owned(),
            known: SHAPES.iter().map(|s| format!("{} ({})", s.name, s.about)).collect::<Vec<_>>().join(", "),
        })?;
        let architecture = architecture.unwrap_or(named.architecture).to_owned();
        if !ARCHITECTURES.contains(&architecture.as_str()) {
            return Err(MakeError::Architecture { name: architecture });
        }
        let recipe = Self { named, architecture, storage: Storage::by_name(quant)?, seed, writer: Writer::Ours };
        recipe.matrices()?;
        Ok(recipe)
    }

    /// The same model with the metadata of another writer.
    ///
    /// # Errors
    /// A model that Microsoft's file cannot be: of another architecture or format.
    pub fn written_as(self, writer: Writer) -> Result<Self, MakeError> {
        if writer == Writer::Microsoft && (self.architecture.as_str(), self.storage.name()) != ("bitnet-b1.58", "i2_s")
        {
            return Err(MakeError::Microsoft { architecture: self.architecture, quant: self.storage.name() });
        }
        Ok(Self { writer, ..self })
    }

    /// What to call the file: everything that its bytes depend on.
    pub fn file_name(&self) -> String {
        let own = if self.architecture == self.named.architecture { "" } else { &format!("-{}", self.architecture) };
        let writer = if self.writer == Writer::Microsoft { "-microsoft" } else { "" };
        format!("{}{own}-{}-seed{}{writer}.gguf", self.named.name, self.storage.name(), self.seed)
    }

    /// Parameters in matrices.
    pub fn parameters(&self) -> Result<u64, MakeError> {
        Ok(self.matrices()?.iter().map(|m| (m.rows * m.cols) as u64).sum())
    }

    /// Writes the model to `path` on so many threads, through a temporary file beside it that is renamed when it is
    /// complete. The first tokens are those of `vocabulary`. Returns the length.
    ///
    /// # Errors
    /// The disk is full, or whatever else the system says: nothing is left, and what was at `path` stays.
    pub fn write(&self, vocabulary: &GgufFile, path: &Path, threads: usize) -> Result<u64, MakeError> {
        let matrices = self.matrices()?;
        let bytes = matrices.iter().map(|m| m.bytes).sum();
        let failed = |source| MakeError::Write { path: path.to_owned(), bytes, source: Box::new(source) };
        let mut writer = GgufWriter::new(3, 32).map_err(failed)?;
        let mut pieces = Pieces::read(vocabulary).map_err(|failure| MakeError::Vocabulary(failure.message))?;
        self.metadata(&mut writer, &mut pieces).map_err(|failure| MakeError::Vocabulary(failure.message))?;
        for matrix in &matrices {
            let dims = [matrix.cols as u64, matrix.rows as u64];
            writer
                .tensor_with(&matrix.name, &dims, matrix.storage.ggml_type(), matrix.bytes, move |out| {
                    self.write_matrix(matrix, threads.max(1), out)
                })
                .map_err(failed)?;
        }
        for (name, width) in self.norms() {
            let mut noise = self.noise(&name, 0);
            let values: Vec<u8> = (0..width).flat_map(|_| (1.0 + 0.25 * noise.next()).to_le_bytes()).collect();
            writer.tensor(&name, &[width as u64], quant::f32::FORMAT.ggml_type, values).map_err(failed)?;
        }
        writer.write_file(path).map_err(failed)
    }

    fn metadata(&self, writer: &mut GgufWriter<'_>, pieces: &mut Pieces) -> Result<(), crate::Failure> {
        let NamedShape { name, rope_base, shape, .. } = self.named;
        let mut noise = self.noise("tokenizer", 0);
        if self.writer == Writer::Microsoft {
            microsoft(writer, &self.architecture, shape, *rope_base)?;
            // One token of the trained vocabulary is not taken.
            pieces.grow(shape.vocab - MICROSOFT.specials(shape.vocab) + 1, &mut noise);
            pieces.write_microsoft(writer, shape.vocab)?;
            writer.meta("tokenizer.chat_template", PLACEHOLDER.trim_end().to_owned())?;
            writer.meta("general.quantization_version", 2u32)?;
            return Ok(());
        }
        let title = format!("{name} of random weights, seed {}", self.seed);
        header(writer, families::by_name(&self.architecture)?, title, shape, Some(*rope_base))?;
        for (key, value) in linear_keys(self.storage) {
            writer.meta(key, value)?;
        }
        if self.storage.ggml_type() == quant::i2_s::FORMAT.ggml_type {
            // Nobody can find out by the sense of what the model says.
            writer.meta(LAYOUT_KEY, layout(self.storage.name()).name())?;
        }
        pieces.grow(shape.vocab, &mut noise);
        pieces.write_bpe(writer, shape.vocab, "gpt-2")
    }

    fn matrices(&self) -> Result<Vec<Planned>, MakeError> {
        let Shape { layers, hidden, ffn, heads, kv_heads, vocab, .. } = self.named.shape;
        let kv = hidden / heads * kv_heads;
        let mut all = vec![("token_embd.weight".to_owned(), vocab, hidden, Storage::Rows(&quant::f16::FORMAT))];
        for layer in 0..layers {
            for (part, rows, cols) in [
                ("attn_q", hidden, hidden),
                ("attn_k", kv, hidden),
                ("attn_v", kv, hidden),
                ("attn_output", hidden, hidden),
                ("ffn_gate", ffn, hidden),
                ("ffn_up", ffn, hidden),
                ("ffn_down", hidden, ffn),
            ] {
                all.push((format!("blk.{layer}.{part}.weight"), rows, cols, self.storage));
            }
        }
        let fits = |(name, rows, cols, storage): (String, usize, usize, Storage)| match storage.matrix_bytes(rows, cols)
        {
            Ok(bytes) => Ok(Planned { name, rows, cols, storage, bytes: bytes as u64 }),
            Err(source) => {
                let (shape, quant, source) = (self.named.name, storage.name(), Box::new(source));
                Err(MakeError::Fit { tensor: name, shape, quant, source })
            }
        };
        all.into_iter().map(fits).collect()
    }

    fn norms(&self) -> Vec<(String, usize)> {
        let Shape { layers, hidden, ffn, .. } = self.named.shape;
        let of_layer = |layer: usize| {
            [("attn_norm", hidden), ("attn_sub_norm", hidden), ("ffn_norm", hidden), ("ffn_sub_norm", ffn)]
                .map(|(part, width)| (format!("blk.{layer}.{part}.weight"), width))
        };
        (0..layers).flat_map(of_layer).chain([("output_norm.weight".to_owned(), hidden)]).collect()
    }

    /// The noise of one row of a tensor.
    fn noise(&self, tensor: &str, row: usize) -> Noise {
        let mix = |state: u64, with: u64| Noise(state ^ with).bits();
        let named = tensor.bytes().fold(Noise(self.seed).bits(), |state, byte| mix(state, u64::from(byte)));
        Noise(mix(named, row as u64))
    }

    fn write_matrix(&self, matrix: &Planned, threads: usize, out: &mut dyn Write) -> io::Result<()> {
        let Planned { name, rows, cols, storage, .. } = matrix;
        let (rows, cols) = (*rows, *cols);
        let ternary = !name.starts_with("token_embd");
        let fill = |row: usize, values: &mut [f32]| {
            let mut noise = self.noise(name, row);
            if ternary { thirds(&mut noise, values) } else { uniform(&mut noise, values) }
        };
        let trailer = match storage {
            Storage::Rows(format) => format.trailer_bytes,
            Storage::Tiled(_) => 0,
        };
        let band = match storage {
            Storage::Rows(_) => (BAND / cols).max(1),
            Storage::Tiled(_) => rows,
        };
        let pack = |first: usize| {
            let count = band.min(rows - first);
            let mut values = vec![0.0; count * cols];
            values.chunks_exact_mut(cols).enumerate().for_each(|(i, row)| fill(first + i, row));
            storage.pack(&values, count, cols).map_err(|error| io::Error::other(error.below(first)))
        };
        // The scale of a matrix: the same behind every band.
        let mut end: Option<Vec<u8>> = None;
        let starts: Vec<usize> = (0..rows).step_by(band).collect();
        for group in starts.chunks(threads) {
            let pack = &pack;
            let packed: Vec<_> = std::thread::scope(|scope| {
                let running: Vec<_> = group.iter().map(|&first| scope.spawn(move || pack(first))).collect();
                running.into_iter().map(|thread| thread.join()).collect()
            });
            for bytes in packed {
                let bytes = bytes.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                let (codes, scale) = bytes.split_at(bytes.len() - trailer);
                out.write_all(codes)?;
                if end.get_or_insert_with(|| scale.to_vec()).as_slice() != scale {
                    return Err(io::Error::other("a band of rows without any weight but zero"));
                }
            }
        }
        out.write_all(&end.unwrap_or_default())
    }
}

/// -s, 0 and +s, a third each: the variance of `2/3 s^2` is one by the number of columns.
fn thirds(noise: &mut Noise, values: &mut [f32]) {
    let scale = f16_to_f32(f32_to_f16((1.5 / values.len() as f32).sqrt()));
    let table = [-scale, 0.0, scale];
    for four in values.chunks_mut(4) {
        let mut bits = noise.bits();
        for value in four {
            // Of 65,536 numbers 21,846, 21,845 and 21,845.
            *value = table[(((bits & 0xFFFF) * 3) >> 16) as usize];
            bits >>= 16;
        }
    }
}

/// Uniform with the same variance.
fn uniform(noise: &mut Noise, values: &mut [f32]) {
    let size = (3.0 / values.len() as f32).sqrt();
    values.iter_mut().for_each(|value| *value = noise.next() * size);
}

#[cfg(test)]
mod tests;
