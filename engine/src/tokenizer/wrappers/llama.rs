//! LLaMA-2, CodeLlama and LLaMA-3.

use super::{Core, check, reads, wrapper};
use crate::tokenizer::error::{Diagnostic, TokenizerError};
use crate::tokenizer::pretokenize::{self, Pre};
use crate::tokenizer::{SpecialTokens, Tokenizer};
use std::sync::Arc;

/// Which LLaMA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LlamaVariant {
    /// SentencePiece, 32,000 tokens and what a fine-tune added (Mistral v1 has the same ids).
    Llama2,
    /// LLaMA-2's and 16 more for infilling.
    CodeLlama,
    /// Byte-level BPE, 128,256 tokens (3, 3.1, 3.2, 3.3).
    Llama3,
}

/// The tokens that mark where CodeLlama fills in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Infill {
    /// `<PRE>`: the text before.
    pub prefix: u32,
    /// `<SUF>`: the text behind.
    pub suffix: u32,
    /// `<MID>`: what is asked for starts here.
    pub middle: u32,
    /// `<EOT>`: and ends here.
    pub eot: u32,
}

const INFILL: Infill = Infill { prefix: 32_007, suffix: 32_008, middle: 32_009, eot: 32_010 };

/// A LLaMA tokenizer with LLaMA's ids.
#[derive(Clone)]
pub struct LlamaTokenizerWrapper {
    core: Core,
    variant: LlamaVariant,
}

wrapper!(LlamaTokenizerWrapper);

impl LlamaTokenizerWrapper {
    /// Wraps `inner`, whichever LLaMA it is.
    ///
    /// # Errors
    /// [`TokenizerError::WrongFamily`] saying which token does not fit.
    pub fn new(inner: Arc<dyn Tokenizer>) -> Result<Self, TokenizerError> {
        let variant = match inner.vocab_size() {
            128_000.. => LlamaVariant::Llama3,
            32_016 if is_code_llama(&*inner) => LlamaVariant::CodeLlama,
            _ => LlamaVariant::Llama2,
        };
        Self::with_variant(inner, variant)
    }

    /// Wraps `inner` as this one.
    ///
    /// # Errors
    /// [`TokenizerError::WrongFamily`] saying which token does not fit.
    pub fn with_variant(inner: Arc<dyn Tokenizer>, variant: LlamaVariant) -> Result<Self, TokenizerError> {
        let core = match variant {
            LlamaVariant::Llama2 => llama2("LLaMA-2", inner)?,
            LlamaVariant::CodeLlama => code_llama(inner)?,
            LlamaVariant::Llama3 => llama3("LLaMA-3", inner)?,
        };
        Ok(Self { core, variant })
    }

    /// Which LLaMA it is.
    #[must_use]
    pub fn variant(&self) -> LlamaVariant {
        self.variant
    }

    /// CodeLlama's tokens for infilling.
    #[must_use]
    pub fn infill(&self) -> Option<Infill> {
        (self.variant == LlamaVariant::CodeLlama).then_some(INFILL)
    }
}

fn infill_texts() -> [(u32, &'static str); 4] {
    [(INFILL.prefix, "<PRE>"), (INFILL.suffix, "<SUF>"), (INFILL.middle, "<MID>"), (INFILL.eot, "<EOT>")]
}

fn is_code_llama(inner: &dyn Tokenizer) -> bool {
    infill_texts().iter().all(|&(id, text)| reads(inner, id, text, true))
}

const LLAMA2_ROLES: SpecialTokens = SpecialTokens {
    bos: Some(1),
    eos: Some(2),
    eot: None,
    eom: None,
    unk: Some(0),
    pad: None,
    add_bos: true,
    add_eos: false,
};

fn check_llama2(family: &'static str, inner: &dyn Tokenizer) -> Result<(), TokenizerError> {
    let wrong = |reason: String| Err(TokenizerError::WrongFamily { family, reason });
    if !matches!(inner.kind(), "spm" | "huggingface") {
        return wrong(format!("it is of kind `{}`, not SentencePiece", inner.kind()));
    }
    let size = inner.vocab_size();
    if !(32_000..=65_536).contains(&size) {
        return wrong(format!("it has {size} tokens, not 32000 or somewhat more"));
    }
    check(family, inner, &[(0, "<unk>"), (1, "<s>"), (2, "</s>")])?;
    match (0..=u8::MAX).find(|&b| inner.token_bytes(3 + u32::from(b), true).as_deref() != Some(&[b])) {
        Some(byte) => wrong(format!("token {} is not the byte {byte:#04x}", 3 + u32::from(byte))),
        None => Ok(()),
    }
}

/// Keeps the padding that a file names: the family has none.
pub(super) fn llama2(family: &'static str, inner: Arc<dyn Tokenizer>) -> Result<Core, TokenizerError> {
    check_llama2(family, &*inner)?;
    let pad = inner.special().pad;
    // A fine-tune may have added an end of turn behind the family's tokens.
    let eot = inner.special().eot.filter(|&id| id >= 32_000);
    Ok(Core::new(family, inner, SpecialTokens { pad, eot, ..LLAMA2_ROLES }))
}

fn code_llama(inner: Arc<dyn Tokenizer>) -> Result<Core, TokenizerError> {
    const FAMILY: &str = "CodeLlama";
    check_llama2(FAMILY, &*inner)?;
    if let Some((id, text)) = infill_texts().into_iter().find(|&(id, text)| !reads(&*inner, id, text, true)) {
        return Err(TokenizerError::WrongFamily { family: FAMILY, reason: format!("token {id} is not `{text}`") });
    }
    let pad = inner.special().pad;
    Ok(Core::new(FAMILY, inner, SpecialTokens { pad, eot: Some(INFILL.eot), ..LLAMA2_ROLES }))
}

/// Keeps the padding that a file names: LLaMA-3 has none, its fine-tunes use several.
pub(super) fn llama3(family: &'static str, inner: Arc<dyn Tokenizer>) -> Result<Core, TokenizerError> {
    if !matches!(inner.kind(), "bpe" | "huggingface") {
        let reason = format!("it is of kind `{}`, not byte-level BPE", inner.kind());
        return Err(TokenizerError::WrongFamily { family, reason });
    }
    let texts = [
        (0, "!"),
        (1000, "indow"),
        (100_769, " vi\u{1ec7}c"),
        (128_000, "<|begin_of_text|>"),
        (128_001, "<|end_of_text|>"),
        (128_009, "<|eot_id|>"),
    ];
    check(family, &*inner, &texts)?;
    let right_pre = inner.pre().and_then(pretokenize::by_name).is_none_or(|s| s.pre == Pre::Llama3);
    let pre = inner.pre().unwrap_or_default().to_owned();
    let roles = SpecialTokens {
        bos: Some(128_000),
        eos: Some(128_001),
        eot: Some(128_009),
        eom: reads(&*inner, 128_008, "<|eom_id|>", false).then_some(128_008),
        unk: None,
        pad: inner.special().pad,
        add_bos: true,
        add_eos: false,
    };
    let mut core = Core::new(family, inner, roles);
    if !right_pre {
        core.diagnostics.push(Diagnostic::warning(
            "family_pre_differs",
            format!("text is split by `{pre}`, which is not how {family} was trained"),
            "bitnet repair-tokenizer MODEL -o FIXED",
        ));
    }
    Ok(core)
}
