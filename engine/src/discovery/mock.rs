//! The mock: bytes as ids. It lets the plumbing of a program be tried on a model without a tokenizer and is good for
//! nothing else. Nothing makes one but `TokenizerStrategy::Mock`, which the caller must have allowed.

use crate::tokenizer::{Diagnostic, EncodeOptions, SpecialTokens, Tokenizer, TokenizerError};
use std::borrow::Cow;

/// Every byte is the id of its value.
#[derive(Debug, Default)]
pub struct MockTokenizer {
    special: SpecialTokens,
}

/// Said whenever one is made.
pub(super) fn warning() -> Diagnostic {
    let message = "MOCK TOKENIZER: bytes are taken for ids. Whatever comes out is nonsense";
    Diagnostic::warning("mock_tokenizer", message.to_owned(), "for real text: bitnet infer --tokenizer FILE")
}

impl Tokenizer for MockTokenizer {
    fn encode_bytes(&self, bytes: &[u8], _: EncodeOptions) -> Result<Vec<u32>, TokenizerError> {
        Ok(bytes.iter().map(|&byte| u32::from(byte)).collect())
    }

    fn token_bytes(&self, id: u32, _: bool) -> Option<Cow<'_, [u8]>> {
        u8::try_from(id).ok().map(|byte| Cow::Owned(vec![byte]))
    }

    fn vocab_size(&self) -> usize {
        256
    }

    fn special(&self) -> &SpecialTokens {
        &self.special
    }

    fn is_eog(&self, _: u32) -> bool {
        false
    }

    fn kind(&self) -> &'static str {
        "mock"
    }

    fn pre(&self) -> Option<&str> {
        None
    }
}
