//! The sizes of a decoder, read from GGUF metadata and checked before anything is allocated.

use super::ModelError;
use super::keys::{Keys, MAX_DIM};

/// Sizes of a decoder-only transformer. What only some families have, they read themselves.
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
}

const MAX_VOCAB: u64 = 1 << 24;

impl Config {
    /// Reads the keys that every family has.
    ///
    /// # Errors
    /// A missing key, a value of the wrong type or out of range, sizes that do not fit each other.
    pub fn read(keys: Keys<'_>) -> Result<Self, ModelError> {
        let embedding_length = keys.required("embedding_length", MAX_DIM)?;
        let heads = keys.required("attention.head_count", 4096)?;
        let kv_heads = keys.count("attention.head_count_kv", 1, 4096)?.unwrap_or(heads);
        let head_dim = match keys.count("attention.key_length", 1, MAX_DIM)? {
            Some(length) => length,
            None if embedding_length % heads == 0 => embedding_length / heads,
            None => {
                return Err(ModelError::Mismatch {
                    what: format!(
                        "embedding_length {embedding_length} is not a multiple of head_count {heads}, and \
                         `{}` does not say how wide a head is",
                        keys.name("attention.key_length")
                    ),
                });
            }
        };
        if let Some(value_length) = keys.count("attention.value_length", 1, MAX_DIM)?
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
        Ok(Self {
            vocab_size: keys.count("vocab_size", 1, MAX_VOCAB)?.unwrap_or(0),
            context_length: keys.required("context_length", 1 << 31)?,
            embedding_length,
            block_count: keys.required("block_count", 4096)?,
            feed_forward_length: keys.required("feed_forward_length", MAX_DIM)?,
            heads,
            kv_heads,
            head_dim,
            architecture: keys.architecture().to_owned(),
        })
    }

    /// Width of all query heads together.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key (or value) heads together.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}
