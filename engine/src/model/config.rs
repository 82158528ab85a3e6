//! Hyper-parameters of a decoder, read from GGUF metadata and checked before anything is allocated.

use super::ModelError;
use crate::gguf::Metadata;
use bitnet_kernels::Rope;

/// Sizes and constants of a decoder-only transformer.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `general.architecture`.
    pub architecture: String,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Longest context that the model was trained for, in tokens.
    pub context_length: usize,
    /// Width of the residual stream.
    pub embedding_length: usize,
    /// Decoder blocks.
    pub block_count: usize,
    /// Width of the feed-forward block.
    pub feed_forward_length: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Dimensions of a head that are rotated.
    pub rope_dims: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f32,
    /// Positions are divided by this (linear scaling; 1 for none).
    pub rope_scale: f32,
    /// Pairing of the rotated dimensions.
    pub rope_kind: Rope,
    /// Epsilon of every RMS norm.
    pub rms_eps: f32,
}

/// Sizes above these are refused: no known model comes near, and the products of two stay far from overflow.
const MAX_DIM: u64 = 1 << 20;
const MAX_VOCAB: u64 = 1 << 24;

impl Config {
    /// Reads the keys `<architecture>.*`.
    ///
    /// # Errors
    /// A missing key, a value of the wrong type or out of range, sizes that do not fit each other, or a feature of the
    /// architecture that this engine does not compute (experts, unknown rope scaling).
    pub fn from_metadata(meta: &Metadata, rope_kind: Rope) -> Result<Self, ModelError> {
        let architecture =
            meta.str("general.architecture")?.ok_or(ModelError::MissingKey { key: "general.architecture".into() })?;
        let key = |name: &str| format!("{architecture}.{name}");
        let optional = |name: &str, min: u64, max: u64| -> Result<Option<usize>, ModelError> {
            let Some(value) = meta.u64(&key(name))? else { return Ok(None) };
            if !(min..=max).contains(&value) {
                return Err(ModelError::OutOfRange { key: key(name), value: value.to_string(), min, max });
            }
            Ok(Some(value as usize))
        };
        let required = |name: &str, max: u64| -> Result<usize, ModelError> {
            optional(name, 1, max)?.ok_or_else(|| ModelError::MissingKey { key: key(name) })
        };
        let float = |name: &str, min: f32, max: f32| -> Result<Option<f32>, ModelError> {
            let Some(value) = meta.f32(&key(name))? else { return Ok(None) };
            // NaN is in no range.
            if !(min..=max).contains(&value) {
                return Err(ModelError::BadFloat { key: key(name), value, min, max });
            }
            Ok(Some(value))
        };

        let embedding_length = required("embedding_length", MAX_DIM)?;
        let heads = required("attention.head_count", 4096)?;
        let kv_heads = optional("attention.head_count_kv", 1, 4096)?.unwrap_or(heads);
        let head_dim = match optional("attention.key_length", 1, MAX_DIM)? {
            Some(length) => length,
            None if embedding_length % heads == 0 => embedding_length / heads,
            None => {
                return Err(ModelError::Mismatch {
                    what: format!("embedding_length {embedding_length} is not a multiple of head_count {heads}"),
                });
            }
        };
        if let Some(value_length) = optional("attention.value_length", 1, MAX_DIM)?
            && value_length != head_dim
        {
            return Err(ModelError::Unsupported {
                what: format!("value heads of width {value_length} beside key heads of width {head_dim}"),
            });
        }
        if heads % kv_heads != 0 {
            return Err(ModelError::Mismatch {
                what: format!("head_count {heads} is not a multiple of head_count_kv {kv_heads}"),
            });
        }
        let rope_dims = optional("rope.dimension_count", 1, MAX_DIM)?.unwrap_or(head_dim);
        if rope_dims > head_dim || rope_dims % 2 != 0 {
            return Err(ModelError::Mismatch {
                what: format!("rope.dimension_count {rope_dims} does not fit heads of width {head_dim}"),
            });
        }
        if let Some(experts) = optional("expert_count", 0, MAX_DIM)?
            && experts > 0
        {
            return Err(ModelError::Unsupported { what: format!("a mixture of {experts} experts") });
        }
        // As llama.cpp reads them: without a type it is linear, either key may hold the factor, 0 means none.
        let factor = match float("rope.scaling.factor", 0.0, 1e6)? {
            None => float("rope.scale_linear", 0.0, 1e6)?,
            factor => factor,
        };
        let rope_scale = match meta.str(&key("rope.scaling.type"))? {
            Some("none") => 1.0,
            None | Some("linear") => factor.filter(|f| *f != 0.0).unwrap_or(1.0),
            Some(other) => {
                return Err(ModelError::Unsupported { what: format!("rope scaling of type `{other}`") });
            }
        };
        Ok(Self {
            vocab_size: optional("vocab_size", 1, MAX_VOCAB)?.unwrap_or(0),
            context_length: required("context_length", 1 << 31)?,
            embedding_length,
            block_count: required("block_count", 4096)?,
            feed_forward_length: required("feed_forward_length", MAX_DIM)?,
            heads,
            kv_heads,
            head_dim,
            rope_dims,
            rope_theta: float("rope.freq_base", 1.0, 1e12)?.unwrap_or(10_000.0),
            rope_scale,
            rope_kind,
            rms_eps: float("attention.layer_norm_rms_epsilon", 1e-12, 1.0)?
                .ok_or_else(|| ModelError::MissingKey { key: key("attention.layer_norm_rms_epsilon") })?,
            architecture: architecture.to_owned(),
        })
    }

    /// Width of all query heads together.
    #[must_use]
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key (or value) heads together.
    #[must_use]
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}
