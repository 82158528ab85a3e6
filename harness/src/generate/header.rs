//! The metadata of a generated model, but for its tokenizer.

use super::Failure;
use super::families::Family;
use bitnet_engine::gguf::GgufWriter;
use bitnet_golden::matrix::{RopeScaling, Shape};

/// `A.pooling_type` of a model whose embedding is that of the last token.
const POOL_LAST: u32 = 3;

/// The keys of a family that say its shape.
pub(super) fn header(
    writer: &mut GgufWriter<'_>,
    family: &Family,
    name: String,
    shape: &Shape,
    rope_base: Option<f32>,
) -> Result<(), Failure> {
    let a = family.name;
    writer.meta("general.architecture", a.to_owned())?;
    writer.meta("general.name", name)?;
    sizes(writer, a, shape, rope_base.is_some())?;
    if let Some(base) = rope_base {
        writer.meta(&format!("{a}.rope.freq_base"), base)?;
    }
    let epsilon = if family.layer_norm { "layer_norm_epsilon" } else { "layer_norm_rms_epsilon" };
    writer.meta(&format!("{a}.attention.{epsilon}"), 1e-5f32)?;
    optional(writer, family, shape)
}

/// The sizes, as keys of architecture `a`; that of the rotation only if it `rotates`.
fn sizes(writer: &mut GgufWriter<'_>, a: &str, shape: &Shape, rotates: bool) -> Result<(), Failure> {
    for (key, value) in [
        ("vocab_size", shape.vocab),
        ("context_length", shape.context),
        ("embedding_length", shape.hidden),
        ("block_count", shape.layers),
        ("feed_forward_length", shape.ffn),
        ("rope.dimension_count", shape.head_width()),
        ("attention.head_count", shape.heads),
        ("attention.head_count_kv", shape.kv_heads),
    ] {
        if rotates || !key.starts_with("rope.") {
            writer.meta(&format!("{a}.{key}"), u32::try_from(value)?)?;
        }
    }
    Ok(())
}

/// The keys before the tokenizer's that Microsoft's file of BitNet-2B-4T has, in its order, and no others: no layout of I2_S among
/// them. Sizes are the shape's.
pub(super) fn microsoft(writer: &mut GgufWriter<'_>, a: &str, shape: &Shape, rope_base: f32) -> Result<(), Failure> {
    writer.meta("general.architecture", a.to_owned())?;
    writer.meta("general.name", "bitnet2b_2501".to_owned())?;
    sizes(writer, a, shape, true)?;
    writer.meta("tokenizer.ggml.add_bos_token", true)?;
    writer.meta(&format!("{a}.attention.layer_norm_rms_epsilon"), 1e-5f32)?;
    writer.meta(&format!("{a}.rope.freq_base"), rope_base)?;
    writer.meta("general.file_type", 40u32)?;
    Ok(())
}

/// The keys of what a shape has beside its dimensions.
fn optional(writer: &mut GgufWriter<'_>, family: &Family, shape: &Shape) -> Result<(), Failure> {
    let a = family.name;
    let mut number = |key: &str, value: usize| -> Result<(), Failure> {
        writer.meta(&format!("{a}.{key}"), u32::try_from(value)?)?;
        Ok(())
    };
    if let Some(width) = shape.key_length {
        number("attention.key_length", width)?;
        number("attention.value_length", width)?;
    }
    if let Some(experts) = shape.experts {
        number("expert_count", experts.count)?;
        number("expert_used_count", experts.used)?;
        number("expert_feed_forward_length", experts.ffn)?;
        writer.meta(&format!("{a}.swiglu_clamp_exp"), vec![experts.clamp; shape.layers])?;
    }
    if let Some(window) = shape.window {
        let (size, pattern) = (u32::try_from(window.size)?, u32::try_from(window.pattern)?);
        writer.meta(&format!("{a}.attention.sliding_window"), size)?;
        let key = format!("{a}.attention.sliding_window_pattern");
        if family.window_list {
            let local = |block: usize| !(block + 1).is_multiple_of(window.pattern);
            writer.meta(&key, (0..shape.layers).map(local).collect::<Vec<bool>>())?;
        } else {
            writer.meta(&key, pattern)?;
        }
        if let Some(base) = window.rope_base {
            writer.meta(&format!("{a}.rope.freq_base_swa"), base)?;
        }
    }
    if let Some(scales) = shape.scales {
        for (key, value) in
            [("embedding_scale", scales.embedding), ("residual_scale", scales.residual), ("logit_scale", scales.logit)]
        {
            writer.meta(&format!("{a}.{key}"), value)?;
        }
    }
    if let Some(rope) = shape.rope {
        scaling(writer, a, rope)?;
    }
    if shape.norm_in {
        writer.meta(&format!("{a}.pooling_type"), POOL_LAST)?;
        writer.meta("tokenizer.ggml.add_eos_token", true)?;
    }
    Ok(())
}

fn scaling(writer: &mut GgufWriter<'_>, a: &str, rope: RopeScaling) -> Result<(), Failure> {
    let (kind, factor, original, attn_factor) = match rope {
        RopeScaling::Linear { factor } => ("linear", Some(factor), None, None),
        RopeScaling::Yarn { factor, original, attn_factor } => {
            ("yarn", Some(factor), Some(original), Some(attn_factor))
        }
        RopeScaling::Longrope { original, attn_factor } => ("longrope", None, Some(original), Some(attn_factor)),
        // A tensor says it all.
        RopeScaling::Llama3 { .. } => return Ok(()),
    };
    writer.meta(&format!("{a}.rope.scaling.type"), kind.to_owned())?;
    if let Some(factor) = factor {
        writer.meta(&format!("{a}.rope.scaling.factor"), factor)?;
    }
    if let Some(original) = original {
        writer.meta(&format!("{a}.rope.scaling.original_context_length"), u32::try_from(original)?)?;
    }
    if let Some(attn_factor) = attn_factor {
        writer.meta(&format!("{a}.rope.scaling.attn_factor"), attn_factor)?;
    }
    Ok(())
}
