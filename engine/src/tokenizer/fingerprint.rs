//! Naming the pre-tokenizer where a file does not.
//!
//! Microsoft's converter writes BitNet-2B-4T without `tokenizer.ggml.pre`. A reader that then takes the fallback
//! splits every document differently from training (8 to 20 % more tokens, and garbage from the model). The
//! vocabulary itself says which tokenizer it is: the digest of its ordinary tokens, in order. Special tokens are
//! left out because fine-tunes rename them.

use super::error::{Diagnostic, TokenizerError};
use super::pretokenize::{self, PreSpec};
use sha2::{Digest, Sha256};
use std::ops::Range;

/// A vocabulary that is known.
#[derive(Debug, Clone)]
pub struct Fingerprint {
    /// For people.
    pub name: &'static str,
    /// Its pre-tokenizer, a name of [`pretokenize::KNOWN`].
    pub pre: &'static str,
    /// Ids of its ordinary tokens; the vocabulary may be larger.
    pub ids: Range<usize>,
    /// Some (id, text) that are checked before anything is hashed.
    pub probes: &'static [(usize, &'static str)],
    /// [`digest`] over `ids`, hex.
    pub sha256: &'static str,
}

/// The known vocabularies. To add one: its digest is in the message that names an unknown one.
pub static KNOWN: &[Fingerprint] = &[
    Fingerprint {
        name: "LLaMA-3 (128,000 ordinary tokens)",
        pre: "llama-bpe",
        ids: 0..128_000,
        probes: &[(0, "!"), (1000, "indow"), (100_769, "Ġviá»ĩc")],
        sha256: "221f7beaa2e926e8f6cd5788d0a7fddb57fd702b5f52067cc18f134aa84b1e43",
    },
    Fingerprint {
        name: "GPT-2 (50,256 ordinary tokens)",
        pre: "gpt-2",
        ids: 0..50_256,
        probes: &[(0, "!"), (1000, "ale"), (50_255, "Ġgazed")],
        sha256: "9e4a30fc5f988c8a9bc7935b2d11b5f715b6f1f4ffcd65cba056e00037b5cff1",
    },
    Fingerprint {
        name: "SmolLM2 (49,135 ordinary tokens)",
        pre: "smollm",
        ids: 17..49_152,
        probes: &[(17, "!"), (1000, "()"), (49_151, "ectable")],
        sha256: "9c8a4d349b520a8eb814f1707f171204b949b1a0e8f42278a2300f7d2d6bb1bf",
    },
];

/// SHA-256 over every token's length (u32, little endian) and bytes, in order; hex.
#[must_use]
pub fn digest<T: AsRef<[u8]>>(tokens: &[T]) -> String {
    digest_of(tokens.iter().map(AsRef::as_ref))
}

/// As [`digest`], of tokens wherever they lie.
pub(crate) fn digest_of<'a>(tokens: impl Iterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    // One update a token would cost more than the hash.
    let mut buffer = Vec::with_capacity(1 << 14);
    for token in tokens {
        buffer.extend_from_slice(&(token.len() as u32).to_le_bytes());
        buffer.extend_from_slice(token);
        if buffer.len() >= 1 << 13 {
            hash.update(&buffer);
            buffer.clear();
        }
    }
    hash.update(&buffer);
    hex::encode(hash.finalize())
}

/// Which of `known` the vocabulary is.
#[must_use]
pub fn identify<'a, T: AsRef<[u8]>>(tokens: &[T], known: &'a [Fingerprint]) -> Option<&'a Fingerprint> {
    known.iter().find(|f| {
        f.probes.iter().all(|&(id, text)| tokens.get(id).is_some_and(|t| t.as_ref() == text.as_bytes()))
            && tokens.get(f.ids.clone()).is_some_and(|part| digest(part) == f.sha256)
    })
}

/// A name whose rule only one program knows; a tokenizer file beside the model is better than it.
pub(crate) const FALCON_E: &str = "falcon_e";

const PRE_KEY: &str = "tokenizer.ggml.pre";

/// Where the vocabulary is known.
const REMEDY: &str = "bitnet repair-tokenizer FILE -o FIXED";

fn set(name: &str) -> String {
    format!("bitnet convert FILE --set {PRE_KEY}={name} -o FIXED")
}

/// Code of the warning that the rule is a guess.
pub(super) const UNKNOWN: &str = "pre_unknown";

fn said(pre: Option<&str>) -> String {
    match pre {
        None => format!("the file has no `{PRE_KEY}`"),
        Some(pre) => format!("`{PRE_KEY}` says `{pre}`"),
    }
}

/// What is told of a rule that the vocabulary's ids of a text vouch for.
pub(super) fn by_checksum(pre: Option<&str>, found: &PreSpec) -> Diagnostic {
    let (said, name) = (said(pre), found.name);
    Diagnostic::warning(
        "pre_from_checksum",
        format!(
            "{said}, but the vocabulary's ids of llama.cpp's check text are those of `{name}`, which is used. Programs that trust the file split text wrongly"
        ),
        set(name),
    )
}

/// The pre-tokenizer of a byte-level BPE: what the file says, or what its vocabulary says where the file is silent,
/// says `default`, or says a name that nobody knows.
///
/// # Errors
/// [`TokenizerError::UnknownPre`] where neither is known.
pub fn resolve<T: AsRef<[u8]>>(
    pre: Option<&str>,
    tokens: &[T],
    known: &[Fingerprint],
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<&'static PreSpec, TokenizerError> {
    let named = pre.and_then(pretokenize::by_name);
    let found = identify(tokens, known);
    let right = found.and_then(|f| pretokenize::by_name(f.pre).map(|spec| (f, spec)));
    match (pre, named, right) {
        (Some(pre), Some(spec), right) if spec.pre != pretokenize::Pre::Default => {
            if let Some((f, other)) = right
                && (other.pre, other.ignore_merges) != (spec.pre, spec.ignore_merges)
            {
                diagnostics.push(Diagnostic::warning(
                    "pre_contradicts_vocabulary",
                    format!("`{PRE_KEY}` says `{pre}`, which is used, but the vocabulary is that of {}, whose pre-tokenizer is `{}`", f.name, f.pre),
                    REMEDY,
                ));
            }
            if spec.name == FALCON_E {
                diagnostics.push(Diagnostic::warning(
                    "pre_is_a_guess",
                    format!("`{PRE_KEY}` says `{pre}`, which llama.cpp does not know; text is split as ik_llama.cpp does it: Falcon's rule, every digit apart"),
                    "put the checkpoint's tokenizer.json beside the model: it is followed then",
                ));
            }
            Ok(spec)
        }
        (_, _, Some((f, spec))) => {
            let said = said(pre);
            diagnostics.push(Diagnostic::warning(
                "pre_from_fingerprint",
                format!("{said}, but the vocabulary is that of {} (sha256 {}): `{}` is used. Programs that trust the file split text wrongly", f.name, f.sha256, f.pre),
                REMEDY,
            ));
            Ok(spec)
        }
        (Some(pre), None, None) if pretokenize::REFUSED.iter().any(|refused| refused.0 == pre) => {
            let why = pretokenize::REFUSED.iter().find(|refused| refused.0 == pre).map_or("", |refused| refused.1);
            Err(TokenizerError::RefusedPre { found: pre.to_owned(), why })
        }
        (Some(pre), None, None) => Err(TokenizerError::UnknownPre {
            found: pre.to_owned(),
            known: pretokenize::known_names(),
            vocab_size: tokens.len(),
            digest: digest(tokens),
        }),
        (pre, _, None) => {
            let said = if pre.is_some() { "says `default`" } else { "is missing" };
            diagnostics.push(Diagnostic::warning(
                UNKNOWN,
                format!(
                    "`{PRE_KEY}` {said} and the vocabulary of {} tokens (sha256 {}) is not a known one: text is split by llama.cpp's fallback, \
                     which is probably NOT how the model was trained; expect worse output",
                    tokens.len(),
                    digest(tokens)
                ),
                format!(
                    "find out the model's pre-tokenizer and write it into the file: {} (often llama-bpe, qwen2, gpt-2 or tekken; `bitnet convert --help` lists all)",
                    set("NAME")
                ),
            ));
            // Always there: it is the first line of the table, and a test holds it.
            pretokenize::by_name("default").ok_or_else(|| TokenizerError::UnknownPre {
                found: "default".into(),
                known: pretokenize::known_names(),
                vocab_size: tokens.len(),
                digest: digest(tokens),
            })
        }
    }
}
