//! Mending the metadata of a model whose vocabulary is known: what `bitnet repair-tokenizer` writes.
//!
//! Only what is certain is written. A pre-tokenizer needs the digest of all ordinary tokens to match; an id needs its
//! token to have the very text that the family has there. What the file says already is left alone, unless it cannot be.

use super::compatibility::Evidence;
use super::discovery::TokenizerDiscovery;
use super::embedded;
use crate::chat::source;
use crate::gguf::{ArrayView, Metadata};
use crate::tokenizer::pretokenize::{self, Pre};

/// One key to write.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Repair {
    /// The key.
    pub key: String,
    /// What it says now.
    pub old: Option<String>,
    /// What it shall say.
    pub new: String,
    /// How that is known.
    pub why: String,
}

impl Repair {
    /// As [`crate::convert::set::parse`] takes it.
    pub fn assignment(&self) -> String {
        format!("{}={}", self.key, self.new)
    }
}

/// What can be repaired with certainty; empty if nothing is to be, or nothing is known of this vocabulary.
pub fn plan(discovery: &TokenizerDiscovery) -> Vec<Repair> {
    let mut out: Vec<Repair> = template(discovery.file.metadata()).into_iter().collect();
    let metadata = discovery.file.metadata();
    let Some(tokens) = metadata.array("tokenizer.ggml.tokens").ok().flatten().filter(|t| t.strings().is_ok()) else {
        return out;
    };
    let byte_level = discovery.model_type() == Some("gpt2");
    let known = byte_level.then(|| embedded::identify(&tokens)).flatten();
    if let Some(known) = known {
        let said = discovery.pre();
        let rule = |name: &str| pretokenize::by_name(name).map(|spec| (spec.pre, spec.ignore_merges));
        // A synonym is as good as the name itself.
        if said.and_then(rule).filter(|(pre, _)| *pre != Pre::Default) != rule(known.pre) {
            out.push(Repair {
                key: "tokenizer.ggml.pre".to_owned(),
                old: said.map(str::to_owned),
                new: known.pre.to_owned(),
                why: format!("the vocabulary is that of {} (sha256 {})", known.name, known.sha256),
            });
        }
    }
    let line = discovery.recognised().filter(|r| r.evidence == Evidence::Tokens).map(|r| r.line);
    let Some(line) = line.filter(|_| known.is_some() || !byte_level) else { return out };
    for role in line.special {
        let key = format!("tokenizer.ggml.{}", role.key);
        let (old, usable) = said(metadata, &key, tokens.len());
        if !usable && text_at(&tokens, role.id as usize) == Some(role.text.as_bytes()) {
            let why = format!("token {} is `{}`, as in {}", role.id, role.text, line.label);
            out.push(Repair { key, old, new: role.id.to_string(), why });
        }
    }
    let key = "tokenizer.ggml.add_bos_token";
    if let Some(add) = line.add_bos.filter(|_| !metadata.contains(key)) {
        let why = format!("{} {} BOS in front of a text", line.label, if add { "puts" } else { "does not put" });
        out.push(Repair { key: key.to_owned(), old: None, new: add.to_string(), why });
    }
    out
}

/// The vocabulary that [`plan`] can vouch for, for people: one whose every token is known, or of a kind without a pre-tokenizer and
/// recognised by its tokens. None where an empty plan says nothing.
pub fn vouched(discovery: &TokenizerDiscovery) -> Option<&'static str> {
    let tokens = discovery.file.metadata().array("tokenizer.ggml.tokens").ok().flatten()?;
    if discovery.model_type() == Some("gpt2") {
        let known = tokens.strings().ok().and_then(|_| embedded::identify(&tokens))?;
        return Some(discovery.recognised().map_or(known.name, |r| r.line.label));
    }
    discovery.recognised().filter(|r| r.evidence == Evidence::Tokens).map(|r| r.line.label)
}

/// The template of BitNet-2B-4T in place of the placeholder.
fn template(metadata: &Metadata) -> Option<Repair> {
    let old = metadata.str(source::KEY).ok().flatten().filter(|text| source::is_placeholder(text))?;
    Some(Repair {
        key: source::KEY.to_owned(),
        old: Some(old.to_owned()),
        new: source::BITNET_2B_4T.to_owned(),
        why:
            "the placeholder of Microsoft's converter; this is the format of BitNet-b1.58-2B-4T's tokenizer_config.json"
                .to_owned(),
    })
}

fn text_at<'a>(tokens: &ArrayView<'a>, id: usize) -> Option<&'a [u8]> {
    tokens.strings().ok()?.nth(id)
}

/// What an id's key says, and whether that is an id of the vocabulary. Keys of other types cannot be written over.
fn said(metadata: &Metadata, key: &str, tokens: usize) -> (Option<String>, bool) {
    match metadata.get(key) {
        None => (None, false),
        Some(value) => match value.as_integer() {
            // A negative number says "none" on purpose.
            Some(number) => (Some(number.to_string()), usize::try_from(number).ok().is_none_or(|n| n < tokens)),
            None => (Some(value.describe()), true),
        },
    }
}
