//! The data of a tokenizer.json, parsed with its limits and nothing decided.

use super::super::error::TokenizerError;
use super::companions::AddedToken;
use super::{MAX_TOKEN_BYTES, bad};
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::collections::HashMap;
use std::fmt;

/// A tokenizer.json.
#[derive(Debug, Deserialize)]
pub(super) struct HfFile {
    #[serde(default)]
    pub(super) added_tokens: Vec<AddedToken>,
    #[serde(default)]
    pub(super) normalizer: Value,
    #[serde(default)]
    pub(super) pre_tokenizer: Value,
    #[serde(default)]
    pub(super) post_processor: Value,
    #[serde(default)]
    pub(super) decoder: Value,
    pub(super) model: Model,
}

/// Its `model`, any kind; what only BPE has is optional.
#[derive(Debug, Deserialize)]
pub(super) struct Model {
    /// `BPE`, `Unigram`, `WordPiece`, `WordLevel`; old files have none.
    #[serde(rename = "type", default)]
    pub(super) kind: Option<String>,
    #[serde(default)]
    pub(super) dropout: Option<f32>,
    #[serde(default)]
    pub(super) unk_token: Option<String>,
    #[serde(default)]
    pub(super) continuing_subword_prefix: Option<String>,
    #[serde(default)]
    pub(super) end_of_word_suffix: Option<String>,
    #[serde(default)]
    pub(super) byte_fallback: Option<bool>,
    #[serde(default)]
    pub(super) ignore_merges: Option<bool>,
    #[serde(default)]
    pub(super) vocab: Vocab,
    #[serde(default)]
    pub(super) merges: Option<Vec<Merge>>,
}

/// `{text: id}`, or the list of a Unigram model.
#[derive(Debug, Default)]
pub(super) enum Vocab {
    #[default]
    None,
    Map(HashMap<String, u32>),
    List,
}

impl<'de> Deserialize<'de> for Vocab {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl<'de> Visitor<'de> for Seen {
            type Value = Vocab;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a vocabulary (`{text: id}` or a list)")
            }

            fn visit_unit<E: Error>(self) -> Result<Vocab, E> {
                Ok(Vocab::None)
            }

            // Of one text given twice the last counts, as for HuggingFace.
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocab, A::Error> {
                let mut vocab = HashMap::new();
                while let Some((text, id)) = map.next_entry::<String, u32>()? {
                    vocab.insert(text, id);
                }
                Ok(Vocab::Map(vocab))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vocab, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Vocab::List)
            }
        }
        deserializer.deserialize_any(Seen)
    }
}

/// `"left right"` or `["left", "right"]`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Merge {
    Pair(String, String),
    Text(String),
}

impl Merge {
    /// Both pieces, as HuggingFace splits them.
    pub(super) fn pieces(&self) -> Option<(&str, &str)> {
        match self {
            Self::Pair(left, right) => Some((left, right)),
            Self::Text(text) => text.split_once(' ').filter(|(_, right)| !right.contains(' ')),
        }
    }
}

/// Parses a tokenizer.json.
///
/// # Errors
/// [`TokenizerError::BadFile`] with line and column.
pub(super) fn parse(file: &str, bytes: &[u8]) -> Result<HfFile, TokenizerError> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let parsed: HfFile = serde_json::from_slice(bytes).map_err(|e| bad(file, e.to_string()))?;
    if let Some(token) = parsed.added_tokens.iter().find(|t| t.content.len() > MAX_TOKEN_BYTES) {
        let len = token.content.len();
        return Err(bad(file, format!("added token {} has {len} bytes; {MAX_TOKEN_BYTES} are the limit", token.id)));
    }
    Ok(parsed)
}
