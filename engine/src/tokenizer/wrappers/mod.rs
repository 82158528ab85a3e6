//! Tokenizers of one family, with that family's ids.
//!
//! Files get roles wrong: converters take llama.cpp's defaults (BOS 1 and EOS 2 in a LLaMA-3 vocabulary, 11 in GPT-2's),
//! or leave them out. A family's ids are known, so a wrapper looks whether a tokenizer is of its family (by the texts of
//! the tokens that matter, never by a name), sets what is missing or wrong, and says so in a diagnostic.
//!
//! | wrapper | vocabulary | BOS / EOS / end of turn |
//! |---|---|---|
//! | [`LlamaTokenizerWrapper`] | LLaMA-2 (32,000 and up), Mistral v1 | 1 / 2 / - |
//! | | CodeLlama (32,016) | 1 / 2 / 32010, and 32007, 32008, 32009 for infilling |
//! | | LLaMA-3 (128,256) | 128000 / 128001 / 128009 |
//! | [`Gpt2TokenizerWrapper`] | GPT-2 (50,257 and up) | 50256 for all, nothing is put around a text |
//! | [`BitNetTokenizerWrapper`] | BitNet-2B-4T (128,256), bitnet_b1_58 (32,000 to 32,002) | as LLaMA-3, LLaMA-2 |

mod bitnet;
mod gpt2;
mod llama;

pub use bitnet::{BitNetTokenizerWrapper, BitNetVariant};
pub use gpt2::Gpt2TokenizerWrapper;
pub use llama::{Infill, LlamaTokenizerWrapper, LlamaVariant};

use super::error::{Diagnostic, TokenizerError};
use super::{EncodeOptions, SpecialTokens, Tokenizer};
use std::borrow::Cow;
use std::sync::Arc;

/// What every wrapper is: a tokenizer and the roles that count instead of its own.
#[derive(Clone)]
struct Core {
    inner: Arc<dyn Tokenizer>,
    special: SpecialTokens,
    /// Ids that end a generation only because the wrapped tokenizer has them in a role that they do not have.
    not_ends: Vec<u32>,
    diagnostics: Vec<Diagnostic>,
}

impl Core {
    /// `special` has the family's roles; end of message is the wrapped tokenizer's own.
    fn new(family: &'static str, inner: Arc<dyn Tokenizer>, special: SpecialTokens) -> Self {
        let own = *inner.special();
        let special = SpecialTokens { eom: special.eom.or(own.eom), ..special };
        let mut diagnostics = Vec::new();
        let roles = [
            ("BOS", own.bos, special.bos),
            ("EOS", own.eos, special.eos),
            ("end of turn", own.eot, special.eot),
            ("unknown", own.unk, special.unk),
            ("padding", own.pad, special.pad),
        ];
        let show = |id: Option<u32>| id.map_or("none".to_owned(), |id| id.to_string());
        let mut changed: Vec<String> = roles
            .iter()
            .filter(|(_, own, right)| own != right)
            .map(|(role, own, right)| format!("{role} was {}, is {}", show(*own), show(*right)))
            .collect();
        for (what, own, right) in [("BOS", own.add_bos, special.add_bos), ("EOS", own.add_eos, special.add_eos)] {
            if own != right {
                changed.push(format!("{what} is {}put around a text", if right { "" } else { "not " }));
            }
        }
        if !changed.is_empty() {
            // A role that was missing, or one of the family's ends in place of another, misled nobody.
            let ends = [special.eos, special.eot, special.eom];
            let harmless = |own: Option<u32>, right: Option<u32>| own == right || own.is_none() || ends.contains(&own);
            let frame = (own.add_bos, own.add_eos) == (special.add_bos, special.add_eos);
            let message =
                format!("the tokenizer's roles are not those of {family} and were set right: {}", changed.join("; "));
            if frame && roles.iter().all(|(_, own, right)| harmless(*own, *right)) {
                diagnostics.push(Diagnostic::info("family_ids_set", message, ""));
            } else {
                let hint = "repair the file, so that other programs read it right too";
                diagnostics.push(Diagnostic::warning("family_ids_set", message, hint));
            }
        }
        let right = [special.eos, special.eot, special.eom];
        let not_ends = [own.eos, own.eot].into_iter().filter(|id| id.is_some() && !right.contains(id)).flatten();
        Self { not_ends: not_ends.collect(), inner, special, diagnostics }
    }

    fn is_role(&self, id: u32) -> bool {
        let s = &self.special;
        [s.bos, s.eos, s.eot, s.eom, s.unk, s.pad].contains(&Some(id))
    }

    fn encode_bytes(&self, bytes: &[u8], opts: EncodeOptions) -> Result<Vec<u32>, TokenizerError> {
        let text = self.inner.encode_bytes(bytes, EncodeOptions { add_special: false, ..opts })?;
        Ok(self.special.front(opts).into_iter().chain(text).chain(self.special.back(opts)).collect())
    }

    fn token_bytes(&self, id: u32, special: bool) -> Option<Cow<'_, [u8]>> {
        let bytes = self.inner.token_bytes(id, special)?;
        Some(if !special && self.is_role(id) { Cow::Borrowed(&[]) } else { bytes })
    }

    fn decode(&self, ids: &[u32], skip_special: bool) -> Vec<u8> {
        if !skip_special {
            return self.inner.decode(ids, false);
        }
        let ids: Vec<u32> = ids.iter().copied().filter(|&id| !self.is_role(id)).collect();
        self.inner.decode(&ids, true)
    }

    fn is_eog(&self, id: u32) -> bool {
        let s = &self.special;
        [s.eos, s.eot, s.eom].contains(&Some(id)) || (self.inner.is_eog(id) && !self.not_ends.contains(&id))
    }
}

/// A tokenizer behind its wrapper, and what was set right.
pub type Dressed = (Arc<dyn Tokenizer>, Vec<Diagnostic>);

/// What the wrappers have in common, and [`Tokenizer`] for them.
macro_rules! wrapper {
    ($name:ty) => {
        impl $name {
            /// [`Self::new`] for a table of families.
            ///
            /// # Errors
            /// As [`Self::new`].
            pub fn dress(
                inner: std::sync::Arc<dyn crate::tokenizer::Tokenizer>,
            ) -> Result<super::Dressed, crate::tokenizer::TokenizerError> {
                let wrapper = Self::new(inner)?;
                let told = wrapper.core.diagnostics.clone();
                Ok((std::sync::Arc::new(wrapper), told))
            }

            /// What was set right.
            #[must_use]
            pub fn diagnostics(&self) -> &[crate::tokenizer::Diagnostic] {
                &self.core.diagnostics
            }

            /// The tokenizer inside.
            #[must_use]
            pub fn inner(&self) -> &std::sync::Arc<dyn crate::tokenizer::Tokenizer> {
                &self.core.inner
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name))
                    .field("kind", &self.core.inner.kind())
                    .field("special", &self.core.special)
                    .field("diagnostics", &self.core.diagnostics)
                    .finish()
            }
        }

        impl crate::tokenizer::Tokenizer for $name {
            fn encode_bytes(
                &self,
                bytes: &[u8],
                opts: crate::tokenizer::EncodeOptions,
            ) -> Result<Vec<u32>, crate::tokenizer::TokenizerError> {
                self.core.encode_bytes(bytes, opts)
            }

            fn token_bytes(&self, id: u32, special: bool) -> Option<std::borrow::Cow<'_, [u8]>> {
                self.core.token_bytes(id, special)
            }

            fn decode(&self, ids: &[u32], skip_special: bool) -> Vec<u8> {
                self.core.decode(ids, skip_special)
            }

            fn vocab_size(&self) -> usize {
                self.core.inner.vocab_size()
            }

            fn special(&self) -> &crate::tokenizer::SpecialTokens {
                &self.core.special
            }

            fn is_eog(&self, id: u32) -> bool {
                self.core.is_eog(id)
            }

            fn kind(&self) -> &'static str {
                self.core.inner.kind()
            }

            fn pre(&self) -> Option<&str> {
                self.core.inner.pre()
            }

            fn byte_level(&self) -> Option<&crate::tokenizer::bpe::BpeTokenizer> {
                self.core.inner.byte_level()
            }

            fn adds_prefix_space(&self) -> bool {
                self.core.inner.adds_prefix_space()
            }
        }
    };
}
use wrapper;

/// Whether token `id` reads `text`, with `▁` or a space in front or not where `loose`.
fn reads(inner: &dyn Tokenizer, id: u32, text: &str, loose: bool) -> bool {
    let Some(bytes) = inner.token_bytes(id, true) else {
        return false;
    };
    let bare = bytes.strip_prefix("\u{2581}".as_bytes()).or_else(|| bytes.strip_prefix(b" "));
    *bytes == *text.as_bytes() || (loose && bare == Some(text.as_bytes()))
}

/// Checks that every token has its text.
fn check(family: &'static str, inner: &dyn Tokenizer, texts: &[(u32, &str)]) -> Result<(), TokenizerError> {
    let size = inner.vocab_size();
    for &(id, text) in texts {
        if reads(inner, id, text, false) {
            continue;
        }
        let found = inner.token_bytes(id, true).map(|t| String::from_utf8_lossy(&t).into_owned());
        let reason = match found {
            Some(found) => format!("token {id} is `{found}`, not `{text}`"),
            None => format!("it has {size} tokens and needs token {id} (`{text}`)"),
        };
        return Err(TokenizerError::WrongFamily { family, reason });
    }
    Ok(())
}
