//! BitNet models, which took over the vocabularies of others.

use super::llama::{llama2, llama3};
use super::{Core, wrapper};
use crate::tokenizer::Tokenizer;
use crate::tokenizer::error::TokenizerError;
use std::sync::Arc;

/// Whose vocabulary a BitNet model has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BitNetVariant {
    /// LLaMA-3's: BitNet-b1.58-2B-4T and the conversions of LLaMA-3 models (`bitnet-b1.58`, `bitnet-25`).
    Llama3,
    /// LLaMA-2's, with up to two tokens more: bitnet_b1_58-large, -xl, -3B (`bitnet`).
    Llama2,
}

/// A BitNet model's tokenizer with the ids of the vocabulary it took over.
#[derive(Clone)]
pub struct BitNetTokenizerWrapper {
    core: Core,
    variant: BitNetVariant,
}

wrapper!(BitNetTokenizerWrapper);

impl BitNetTokenizerWrapper {
    /// Wraps `inner`.
    ///
    /// # Errors
    /// [`TokenizerError::WrongFamily`] saying what does not fit.
    pub fn new(inner: Arc<dyn Tokenizer>) -> Result<Self, TokenizerError> {
        const FAMILY: &str = "BitNet";
        match inner.vocab_size() {
            128_256 => Ok(Self { core: llama3(FAMILY, inner)?, variant: BitNetVariant::Llama3 }),
            32_000..=32_002 => Ok(Self { core: llama2(FAMILY, inner)?, variant: BitNetVariant::Llama2 }),
            size => Err(TokenizerError::WrongFamily {
                family: FAMILY,
                reason: format!("it has {size} tokens; 128256 (as LLaMA-3) or 32000 to 32002 (as LLaMA-2) are known"),
            }),
        }
    }

    /// Whose vocabulary it is.
    #[must_use]
    pub fn variant(&self) -> BitNetVariant {
        self.variant
    }
}
