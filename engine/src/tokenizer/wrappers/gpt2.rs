//! GPT-2.

use super::{Core, check, wrapper};
use crate::tokenizer::error::{Diagnostic, TokenizerError};
use crate::tokenizer::pretokenize::{self, Pre};
use crate::tokenizer::{SpecialTokens, Tokenizer};
use std::sync::Arc;

const FAMILY: &str = "GPT-2";
const END_OF_TEXT: u32 = 50_256;

/// GPT-2's tokenizer: one token, `<|endoftext|>` (50256), has every role; nothing is put around a text, and no space
/// in front of it.
#[derive(Clone)]
pub struct Gpt2TokenizerWrapper {
    core: Core,
}

wrapper!(Gpt2TokenizerWrapper);

impl Gpt2TokenizerWrapper {
    /// Wraps `inner`.
    ///
    /// # Errors
    /// [`TokenizerError::WrongFamily`] saying what does not fit.
    pub fn new(inner: Arc<dyn Tokenizer>) -> Result<Self, TokenizerError> {
        let wrong = |reason: String| TokenizerError::WrongFamily { family: FAMILY, reason };
        if !matches!(inner.kind(), "bpe" | "huggingface") {
            return Err(wrong(format!("it is of kind `{}`, not byte-level BPE", inner.kind())));
        }
        if inner.adds_prefix_space() {
            return Err(wrong("it puts a space in front of the text".to_owned()));
        }
        check(FAMILY, &*inner, &[(0, "!"), (1000, "ale"), (50_255, " gazed"), (END_OF_TEXT, "<|endoftext|>")])?;
        let end = Some(END_OF_TEXT);
        let pre = inner.pre().unwrap_or_default().to_owned();
        let right_pre = inner.pre().and_then(pretokenize::by_name).is_none_or(|s| s.pre == Pre::Gpt2);
        // Markers of an end of turn include `<|endoftext|>`, so that it has this role too.
        let roles = SpecialTokens {
            bos: end,
            eos: end,
            eot: end,
            eom: None,
            unk: end,
            pad: end,
            add_bos: false,
            add_eos: false,
        };
        let mut core = Core::new(FAMILY, inner, roles);
        if !right_pre {
            core.diagnostics.push(Diagnostic::warning(
                "family_pre_differs",
                format!("text is split by `{pre}`, which is not how {FAMILY} was trained"),
                "bitnet repair-tokenizer MODEL -o FIXED",
            ));
        }
        Ok(Self { core })
    }
}
