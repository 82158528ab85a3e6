//! How the tables that several kinds of tokenizers have are written and read. What only one kind has stands with it, beside its fields.

use super::super::error::{Diagnostic, Severity};
use super::super::flat::Texts;
use super::super::merge::PairTable;
use super::super::special::SpecialMatcher;
use super::super::trie::Trie;
use super::super::vocab::{Kinds, MAX_TOKENS, Vocab};
use super::super::words::WordMap;
use super::super::{SpecialTokens, fingerprint};
use super::{Reader, Unusable, Writer};

/// A table that can be written and used where it lies.
pub(in crate::tokenizer) trait Stored: Sized {
    fn store(&self, out: &mut Writer);

    /// # Errors
    /// Where it could not be used without checks.
    fn open(from: &mut Reader<'_>) -> Result<Self, Unusable>;
}

const LENGTH: Unusable = Unusable::Damaged("a table has a length that it cannot have");

impl Stored for WordMap {
    fn store(&self, out: &mut Writer) {
        let (entries, arena) = self.parts();
        out.table(entries);
        out.table(arena);
    }

    fn open(from: &mut Reader<'_>) -> Result<Self, Unusable> {
        Self::of(from.table()?, from.table()?).ok_or(LENGTH)
    }
}

impl Stored for PairTable {
    fn store(&self, out: &mut Writer) {
        let (entries, some) = self.parts();
        out.table(entries);
        out.table(some);
    }

    fn open(from: &mut Reader<'_>) -> Result<Self, Unusable> {
        Self::of(from.table()?, from.table()?).ok_or(LENGTH)
    }
}

impl Stored for Trie {
    fn store(&self, out: &mut Writer) {
        out.table(self.nodes());
    }

    fn open(from: &mut Reader<'_>) -> Result<Self, Unusable> {
        Ok(Self::of(from.table()?))
    }
}

impl Stored for SpecialMatcher {
    fn store(&self, out: &mut Writer) {
        self.trie().store(out);
    }

    fn open(from: &mut Reader<'_>) -> Result<Self, Unusable> {
        Ok(Self::of(Trie::open(from)?))
    }
}

impl Stored for Texts {
    fn store(&self, out: &mut Writer) {
        let (bytes, ends) = self.parts();
        out.table(bytes);
        out.table(ends);
    }

    fn open(from: &mut Reader<'_>) -> Result<Self, Unusable> {
        Ok(Self::of(from.table()?, from.table()?))
    }
}

impl Stored for Vocab {
    fn store(&self, out: &mut Writer) {
        self.tokens.store(out);
        out.table(&self.kinds.0);
        out.table(&self.eog);
        self.user.store(out);
        self.all.store(out);
        let SpecialTokens { bos, eos, eot, eom, unk, pad, add_bos, add_eos } = self.special;
        [bos, eos, eot, eom, unk, pad].into_iter().for_each(|id| out.id(id));
        [add_bos, add_eos].into_iter().for_each(|flag| out.flag(flag));
    }

    fn open(from: &mut Reader<'_>) -> Result<Self, Unusable> {
        let tokens = Texts::open(from)?;
        let vocab = Self {
            kinds: Kinds(from.table()?),
            eog: from.table()?,
            user: SpecialMatcher::open(from)?,
            all: SpecialMatcher::open(from)?,
            special: SpecialTokens {
                bos: from.id()?,
                eos: from.id()?,
                eot: from.id()?,
                eom: from.id()?,
                unk: from.id()?,
                pad: from.id()?,
                add_bos: from.flag()?,
                add_eos: from.flag()?,
            },
            tokens,
        };
        let n = vocab.tokens.len();
        if n == 0 || n > MAX_TOKENS || vocab.kinds.0.len() != n {
            return Err(LENGTH);
        }
        let SpecialTokens { bos, eos, eot, eom, unk, pad, .. } = vocab.special;
        if [bos, eos, eot, eom, unk, pad].into_iter().flatten().any(|id| id as usize >= n) {
            return Err(Unusable::Damaged("a special token is not in the vocabulary"));
        }
        Ok(vocab)
    }
}

/// Most diagnostics that a file may have.
const MOST: u32 = 1000;

/// What was noticed when the tokenizer was built. `false` if one has a code that [`CODES`] lacks.
pub(super) fn store_diagnostics(diagnostics: &[Diagnostic], out: &mut Writer) -> bool {
    out.number(diagnostics.len() as u32);
    for Diagnostic { severity, code, message, hint } in diagnostics {
        out.flag(*severity == Severity::Warning);
        out.text(code);
        out.text(message);
        out.text(hint);
    }
    diagnostics.iter().all(|diagnostic| CODES.contains(&diagnostic.code))
}

pub(super) fn open_diagnostics(from: &mut Reader<'_>) -> Result<Vec<Diagnostic>, Unusable> {
    let count = from.number()?;
    if count > MOST {
        return Err(LENGTH);
    }
    let mut one = || {
        let severity = if from.flag()? { Severity::Warning } else { Severity::Info };
        let code = from.text()?;
        let code = CODES.iter().find(|known| **known == code).copied();
        Ok(Diagnostic {
            severity,
            code: code.ok_or(Unusable::Damaged("it has a diagnostic of no known kind"))?,
            message: from.text()?.to_owned(),
            hint: from.text()?.to_owned(),
        })
    };
    (0..count).map(|_| one()).collect()
}

/// Codes of what can be noticed while a tokenizer is built. A test compares them with the code.
pub(super) const CODES: &[&str] = &[
    fingerprint::UNKNOWN,
    "added_tokens_do_not_fit",
    "added_tokens_only_in_companions",
    "added_tokens_unreadable",
    "byte_type_corrected",
    "bytes_without_token",
    "companion_unreadable",
    "control_type_corrected",
    "dropout_ignored",
    "duplicate_merges",
    "duplicate_tokens",
    "empty_tokens",
    "end_token_left_out",
    "family_ids_set",
    "family_pre_differs",
    "file_skipped",
    "frame_from_config",
    "huggingface_engine",
    "id_out_of_range",
    "long_special_tokens",
    "merges_outside_vocabulary",
    "no_byte_fallback",
    "no_end_token",
    "no_special_tokens",
    "no_token_types",
    "not_normalised",
    "pre_assumed",
    "pre_contradicts_vocabulary",
    "pre_from_checksum",
    "pre_from_fingerprint",
    "pre_is_a_guess",
    "roles_by_text",
    "special_not_in_vocabulary",
    "specials_of_family",
    "tokens_outside_byte_alphabet",
    "unknown_token_type",
    "vocab_size_unexpected",
];

#[cfg(test)]
mod tests {
    use super::CODES;
    use std::path::Path;

    fn sources(folder: &Path, texts: &mut String) {
        for entry in std::fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                sources(&path, texts);
            } else if path.extension().is_some_and(|end| end == "rs") {
                texts.push_str(&std::fs::read_to_string(&path).expect("a source"));
            }
        }
    }

    /// A code that is missing here would keep a tokenizer from being compiled.
    #[test]
    fn every_code_is_known() {
        let mut texts = String::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tokenizer"), &mut texts);
        let mut found = 0;
        for call in ["Diagnostic::warning(", "Diagnostic::info("] {
            for (at, _) in texts.match_indices(call) {
                let argument = texts[at + call.len()..].trim_start();
                // The search itself, and codes that are constants.
                let Some(code) = argument.strip_prefix('"').and_then(|rest| rest.split('"').next()) else { continue };
                if !code.starts_with([',', ']']) {
                    found += 1;
                    let ours = ["tokenizer_compiled", "tokenizer_not_kept"].contains(&code);
                    assert!(ours || CODES.contains(&code), "{code} is missing in CODES");
                }
            }
        }
        assert!(found >= CODES.len() - 1, "{found}");
    }
}
