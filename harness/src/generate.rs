//! Small models of every family, made from a seed: noise for weights, a real (if short) tokenizer.
//!
//! Their texts are nonsense, but every number in them is exact, and they come in shapes and formats in which no small
//! trained model exists. The vocabulary is the beginning of the trained tiny model's: the first merges of a BPE are a
//! BPE. Models of the size of real ones, written piece by piece, are in [`streamed`].

#[cfg(test)]
mod bad;
mod families;
mod header;
mod pieces;
mod rotary;
pub mod streamed;

use crate::failure::Failure;
use bitnet_engine::gguf::{GgufFile, GgufWriter};
pub use bitnet_engine::random::SplitMix64 as Noise;
use bitnet_golden::matrix::{Shape, Weights};
use bitnet_kernels::numerics::{f16_to_f32, f32_to_f16};
use bitnet_kernels::quant::{self, Format};
use families::{Dim, Part};
use pieces::Pieces;

/// The GGUF of a model.
///
/// # Errors
/// A family, quant or tokenizer that is unknown here, or a shape that the format does not take.
pub fn model(
    family: &str,
    quant: &str,
    seed: u64,
    tokenizer: &str,
    shape: &Shape,
    weights: Weights,
    vocabulary: &GgufFile,
) -> Result<Vec<u8>, Failure> {
    let format = quant::by_name(quant)?;
    let family = families::by_name(family)?;
    let mut writer = GgufWriter::new(3, 32)?;
    header::header(&mut writer, family, format!("generated from seed {seed}"), shape, family.rope_base)?;
    let pieces = Pieces::read(vocabulary)?;
    match tokenizer {
        "bpe" => pieces.write_bpe(&mut writer, shape.vocab, family.pre)?,
        "spm" => pieces.write_spm(&mut writer, shape.vocab)?,
        _ => return Err(Failure::new(format_args!("no generator for the tokenizer `{tokenizer}`"))),
    }

    let mut tensors = Tensors { writer: &mut writer, noise: Noise(seed), shape, weights };
    // What is only looked up is exact in f16; what is a matrix of the head too is f32 in an f32 model.
    let f32 = &quant::f32::FORMAT;
    let embedding = if family.tied && format.ggml_type == f32.ggml_type { f32 } else { &quant::f16::FORMAT };
    tensors.matrix("token_embd.weight", embedding, shape.vocab, shape.hidden)?;
    if family.rope_base.is_none() {
        tensors.matrix("position_embd.weight", embedding, shape.context, shape.hidden)?;
    }
    for block in 0..shape.layers {
        for part in family.block.iter().copied().flatten() {
            tensors.part(&format!("blk.{block}."), part, format)?;
        }
    }
    tensors.part("", &Part::Norm("output_norm", Dim::Hidden), format)?;
    if family.layer_norm {
        tensors.part("", &Part::Bias("output_norm", Dim::Hidden), format)?;
    }
    if !family.tied {
        // Files of I2_S keep it in f16.
        let head = if format.ggml_type == quant::i2_s::FORMAT.ggml_type { &quant::f16::FORMAT } else { format };
        tensors.matrix("output.weight", head, shape.vocab, shape.hidden)?;
    }
    if let (Some(rope), Some(base)) = (shape.rope, family.rope_base) {
        for (name, factors) in rotary::factors(rope, base, shape.head_width(), &mut tensors.noise) {
            tensors.vector(name, factors)?;
        }
    }
    let mut bytes = Vec::new();
    writer.write_to(&mut bytes)?;
    Ok(bytes)
}

/// The tensors of a model as they are drawn, one after the other, from one sequence of noise.
struct Tensors<'w, 'a> {
    writer: &'w mut GgufWriter<'a>,
    noise: Noise,
    shape: &'w Shape,
    weights: Weights,
}

impl Tensors<'_, '_> {
    /// One tensor of a block, or of no block with an empty `prefix`.
    fn part(&mut self, prefix: &str, part: &Part, format: &'static Format) -> Result<(), Failure> {
        let shape = self.shape;
        match *part {
            Part::Matrix(name, rows, cols) => {
                let (rows, cols) = (rows.of(shape), cols.of(shape));
                let values = match (self.weights, name) {
                    (Weights::LargestSums, "ffn_gate" | "ffn_up") => self.values(format, 1, cols).repeat(rows),
                    (Weights::LargestSums, "ffn_down") => self.largest_sums(format, rows, cols),
                    _ => self.values(format, rows, cols),
                };
                self.packed(&format!("{prefix}{name}.weight"), format, &[rows, cols], &values)?;
                if shape.norm_in { self.norm(&format!("{prefix}{name}_norm_in.weight"), cols) } else { Ok(()) }
            }
            Part::Expert(name, rows, cols) => {
                let (experts, rows, cols) = (Dim::Experts.of(shape), rows.of(shape), cols.of(shape));
                let values = self.values(format, experts * rows, cols);
                self.packed(&format!("{prefix}{name}.weight"), format, &[experts, rows, cols], &values)
            }
            Part::Router(name, rows, cols) => {
                self.matrix(&format!("{prefix}{name}.weight"), &quant::f32::FORMAT, rows.of(shape), cols.of(shape))
            }
            Part::Norm("ffn_sub_norm", width) if self.weights == Weights::LargestSums => {
                self.vector(&format!("{prefix}ffn_sub_norm.weight"), vec![1.0; width.of(shape)])
            }
            Part::Norm(name, width) => self.norm(&format!("{prefix}{name}.weight"), width.of(shape)),
            Part::Bias(name, width) => {
                let values = (0..width.of(shape)).map(|_| 0.1 * self.noise.next()).collect();
                self.vector(&format!("{prefix}{name}.bias"), values)
            }
        }
    }

    fn matrix(&mut self, name: &str, format: &'static Format, rows: usize, cols: usize) -> Result<(), Failure> {
        let values = self.values(format, rows, cols);
        self.packed(name, format, &[rows, cols], &values)
    }

    fn norm(&mut self, name: &str, width: usize) -> Result<(), Failure> {
        let values = (0..width).map(|_| 1.0 + 0.25 * self.noise.next()).collect();
        self.vector(name, values)
    }

    /// Noise with variance 1 / cols, so that activations keep their size from layer to layer: uniform, or a scale times -1,
    /// 0 and +1 (a third each), or times -1 and +1, whichever the format holds.
    fn values(&mut self, format: &Format, rows: usize, cols: usize) -> Vec<f32> {
        let size = (3.0 / cols as f32).sqrt();
        // Values below `zero` become 0, the others `scale`.
        let Some((zero, scale)) = GRIDS.iter().find(|grid| grid.0.contains(&format.ggml_type)).map(|grid| grid.1)
        else {
            return (0..rows * cols).map(|_| self.noise.next() * size).collect();
        };
        let value = |_| {
            let x = self.noise.next();
            if x.abs() < zero { 0.0 } else { (size * scale).copysign(x) }
        };
        let mut values: Vec<f32> = (0..rows * cols).map(value).collect();
        if format.trailer_bytes == 0 {
            // Each block has a scale of its own, an f16.
            for block in values.chunks_mut(format.block_len) {
                let own = f16_to_f32(f32_to_f16(size * scale * (1.0 + 0.25 * self.noise.next())));
                block.iter_mut().filter(|value| **value != 0.0).for_each(|value| *value = own.copysign(*value));
            }
        }
        values
    }

    /// Every second row is +1 (times the scale) everywhere, the others are noise.
    fn largest_sums(&mut self, format: &Format, rows: usize, cols: usize) -> Vec<f32> {
        let mut all = self.values(format, rows, cols);
        let largest = all.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        all.chunks_exact_mut(cols).step_by(2).for_each(|row| row.fill(largest));
        all
    }

    /// `shape` is the tensor's, slowest dimension first.
    fn packed(&mut self, name: &str, format: &'static Format, shape: &[usize], values: &[f32]) -> Result<(), Failure> {
        let cols = shape.last().copied().unwrap_or_default();
        let data = (format.pack)(values, values.len() / cols.max(1), cols)?;
        let dims: Vec<u64> = shape.iter().rev().map(|&n| n as u64).collect();
        self.writer.tensor(name, &dims, format.ggml_type, data)?;
        Ok(())
    }

    fn vector(&mut self, name: &str, values: Vec<f32>) -> Result<(), Failure> {
        let width = values.len() as u64;
        let data: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
        self.writer.tensor(name, &[width], quant::f32::FORMAT.ggml_type, data)?;
        Ok(())
    }
}

/// ggml's ids of the formats that hold a scale times few values, with the part of the noise that becomes zero and the scale:
/// TQ1_0, TQ2_0, I2_S and Q2_0 of three values, Q1_0 of two.
const GRIDS: [(&[u32], (f32, f32)); 2] = [(&[34, 35, 36, 42], (1.0 / 3.0, 0.7)), (&[41], (0.0, 0.577))];
