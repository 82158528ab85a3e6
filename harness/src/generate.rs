//! Small models of every family, made from a seed: noise for weights, a real (if short) tokenizer.
//!
//! Their texts are nonsense, but every number in them is exact, and they come in shapes and formats in which no small
//! trained model exists. The vocabulary is the beginning of the trained tiny model's: the first merges of a BPE are a
//! BPE. Models of the size of real ones, written piece by piece, are in [`streamed`].

mod pieces;
pub mod streamed;

use crate::check::Failure;
use bitnet_engine::gguf::{GgufFile, GgufWriter};
use bitnet_golden::matrix::{Shape, Weights};
use bitnet_kernels::quant::{self, Format};
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
    let mut writer = GgufWriter::new(3, 32)?;
    let bitnet = match family {
        "llama" => false,
        "bitnet" | "bitnet-b1.58" => true,
        _ => return Err(Failure::new(format_args!("no generator for the family `{family}`"))),
    };
    header(&mut writer, family, format!("generated from seed {seed}"), shape, 10_000.0)?;
    let head_dim = shape.hidden / shape.heads;
    let pieces = Pieces::read(vocabulary)?;
    match tokenizer {
        "bpe" => pieces.write_bpe(&mut writer, shape.vocab, if bitnet { "gpt-2" } else { "llama-bpe" })?,
        "spm" => pieces.write_spm(&mut writer, shape.vocab)?,
        _ => return Err(Failure::new(format_args!("no generator for the tokenizer `{tokenizer}`"))),
    }

    let mut noise = Noise(seed);
    let f16 = quant::by_name("f16")?;
    let (kv, width) = (shape.kv_heads * head_dim, shape.hidden);
    matrix(&mut writer, &mut noise, "token_embd.weight", f16, shape.vocab, width)?;
    for layer in 0..shape.layers {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        for (part, rows, cols) in [
            ("attn_q", width, width),
            ("attn_k", kv, width),
            ("attn_v", kv, width),
            ("attn_output", width, width),
            ("ffn_gate", shape.ffn, width),
            ("ffn_up", shape.ffn, width),
            ("ffn_down", width, shape.ffn),
        ] {
            let values = match (weights, part) {
                (Weights::LargestSums, "ffn_gate" | "ffn_up") => values(&mut noise, format, 1, cols).repeat(rows),
                (Weights::LargestSums, "ffn_down") => largest_sums(&mut noise, format, rows, cols),
                _ => values(&mut noise, format, rows, cols),
            };
            tensor(&mut writer, &name(part), format, rows, cols, &values)?;
        }
        norm(&mut writer, &mut noise, &name("attn_norm"), width)?;
        norm(&mut writer, &mut noise, &name("ffn_norm"), width)?;
        if bitnet {
            norm(&mut writer, &mut noise, &name("attn_sub_norm"), width)?;
            match weights {
                Weights::Noise => norm(&mut writer, &mut noise, &name("ffn_sub_norm"), shape.ffn)?,
                Weights::LargestSums => flat(&mut writer, &name("ffn_sub_norm"), shape.ffn)?,
            }
        }
    }
    norm(&mut writer, &mut noise, "output_norm.weight", width)?;
    if !bitnet {
        // An output matrix of its own, where the other family ties it to the embedding.
        matrix(&mut writer, &mut noise, "output.weight", format, shape.vocab, width)?;
    }
    let mut bytes = Vec::new();
    writer.write_to(&mut bytes)?;
    Ok(bytes)
}

/// The keys of a family that say its shape.
fn header(
    writer: &mut GgufWriter<'_>,
    family: &str,
    name: String,
    shape: &Shape,
    rope_base: f32,
) -> Result<(), Failure> {
    writer.meta("general.architecture", family.to_owned())?;
    writer.meta("general.name", name)?;
    for (key, value) in [
        ("vocab_size", shape.vocab),
        ("context_length", shape.context),
        ("embedding_length", shape.hidden),
        ("block_count", shape.layers),
        ("feed_forward_length", shape.ffn),
        ("rope.dimension_count", shape.hidden / shape.heads),
        ("attention.head_count", shape.heads),
        ("attention.head_count_kv", shape.kv_heads),
    ] {
        writer.meta(&format!("{family}.{key}"), u32::try_from(value)?)?;
    }
    writer.meta(&format!("{family}.rope.freq_base"), rope_base)?;
    writer.meta(&format!("{family}.attention.layer_norm_rms_epsilon"), 1e-5f32)?;
    Ok(())
}

fn matrix(
    writer: &mut GgufWriter<'_>,
    noise: &mut Noise,
    name: &str,
    format: &'static Format,
    rows: usize,
    cols: usize,
) -> Result<(), Failure> {
    let values = values(noise, format, rows, cols);
    tensor(writer, name, format, rows, cols, &values)
}

/// Uniform with variance 1 / cols, so that activations keep their size from layer to layer.
fn values(noise: &mut Noise, format: &Format, rows: usize, cols: usize) -> Vec<f32> {
    let size = (3.0 / cols as f32).sqrt();
    let ternary = is_ternary(format);
    let value = |_| {
        let x = noise.next();
        if !ternary {
            x * size
        } else if x.abs() < 1.0 / 3.0 {
            0.0
        } else {
            (size * 0.7).copysign(x)
        }
    };
    (0..rows * cols).map(value).collect()
}

/// Every second row is +1 (times the scale) everywhere, the others are noise.
fn largest_sums(noise: &mut Noise, format: &Format, rows: usize, cols: usize) -> Vec<f32> {
    let mut all = values(noise, format, rows, cols);
    let largest = all.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    all.chunks_exact_mut(cols).step_by(2).for_each(|row| row.fill(largest));
    all
}

/// A format whose weights are -1, 0 or +1 times a scale.
fn is_ternary(format: &Format) -> bool {
    format.ggml_type == quant::i2_s::FORMAT.ggml_type
}

fn tensor(
    writer: &mut GgufWriter<'_>,
    name: &str,
    format: &'static Format,
    rows: usize,
    cols: usize,
    values: &[f32],
) -> Result<(), Failure> {
    let data = (format.pack)(values, rows, cols)?;
    writer.tensor(name, &[cols as u64, rows as u64], format.ggml_type, data)?;
    Ok(())
}

fn norm(writer: &mut GgufWriter<'_>, noise: &mut Noise, name: &str, width: usize) -> Result<(), Failure> {
    let values: Vec<u8> = (0..width).flat_map(|_| (1.0 + 0.25 * noise.next()).to_le_bytes()).collect();
    writer.tensor(name, &[width as u64], quant::f32::FORMAT.ggml_type, values)?;
    Ok(())
}

fn flat(writer: &mut GgufWriter<'_>, name: &str, width: usize) -> Result<(), Failure> {
    let values: Vec<u8> = std::iter::repeat_n(1f32.to_le_bytes(), width).flatten().collect();
    writer.tensor(name, &[width as u64], quant::f32::FORMAT.ggml_type, values)?;
    Ok(())
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers everywhere from a seed of 64 bits.
#[derive(Debug, Clone)]
pub struct Noise(pub u64);

impl Noise {
    /// Uniform in -1..1, in steps of 2^-23: exact in f32.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / 8_388_608.0 - 1.0
    }

    /// Uniform in `0..n`, for small `n`.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// Sixty-four random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
