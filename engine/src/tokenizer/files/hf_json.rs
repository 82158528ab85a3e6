//! The data of a tokenizer.json, parsed with its limits and nothing decided.

use super::super::error::TokenizerError;
use super::super::words::{WordMap, WordMapBuilder};
use super::companions::AddedToken;
use super::look_json::Text;
use super::{MAX_TOKEN_BYTES, bad};
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

/// A tokenizer.json.
#[derive(Debug, Deserialize)]
pub(super) struct HfFile<'a> {
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
    #[serde(borrow)]
    pub(super) model: Model<'a>,
}

/// Its `model`, any kind; what only BPE has is optional.
#[derive(Debug, Deserialize)]
pub(super) struct Model<'a> {
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
    #[serde(borrow, default)]
    pub(super) vocab: Vocab<'a>,
    #[serde(borrow, default)]
    pub(super) merges: Option<Vec<Merge<'a>>>,
}

/// `{text: id}`, or the list of a Unigram model.
#[derive(Debug, Default)]
pub(super) enum Vocab<'a> {
    #[default]
    None,
    Map(Ids<'a>),
    List,
}

/// Ids by text. Texts stay in the file where they have no escapes.
#[derive(Debug)]
pub(super) struct Ids<'a> {
    list: Vec<(Cow<'a, str>, u32)>,
    ids: WordMap,
}

impl<'a> Ids<'a> {
    /// Of one text given twice the last counts, as for HuggingFace.
    fn new(mut list: Vec<(Cow<'a, str>, u32)>) -> Self {
        let index = |list: &[(Cow<'a, str>, u32)]| {
            let mut ids = WordMapBuilder::with_capacity(list.len());
            // Of a map's words the first counts.
            list.iter().rev().for_each(|(text, id)| ids.add(text.as_bytes(), *id));
            ids.finish_with_duplicates()
        };
        let (ids, twice) = index(&list);
        if !twice.is_empty() {
            let mut seen = HashSet::new();
            list.reverse();
            list.retain(|(text, _)| seen.insert(text.clone()));
            list.reverse();
        }
        Self { list, ids }
    }

    pub(super) fn get(&self, text: &str) -> Option<u32> {
        self.ids.get(text.as_bytes())
    }

    pub(super) fn contains(&self, text: &str) -> bool {
        self.get(text).is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Texts with their ids, in the order of the file.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (&Cow<'a, str>, u32)> {
        self.list.iter().map(|(text, id)| (text, *id))
    }

    pub(super) fn map(&self) -> &WordMap {
        &self.ids
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Vocab<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl<'de> Visitor<'de> for Seen {
            type Value = Vocab<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a vocabulary (`{text: id}` or a list)")
            }

            fn visit_unit<E: Error>(self) -> Result<Vocab<'de>, E> {
                Ok(Vocab::None)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocab<'de>, A::Error> {
                let mut list = Vec::new();
                while let Some((Text(text), id)) = map.next_entry::<Text<'de>, u32>()? {
                    list.push((text, id));
                }
                Ok(Vocab::Map(Ids::new(list)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vocab<'de>, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Vocab::List)
            }
        }
        deserializer.deserialize_any(Seen)
    }
}

/// `"left right"` or `["left", "right"]`.
#[derive(Debug)]
pub(super) enum Merge<'a> {
    Pair(Cow<'a, str>, Cow<'a, str>),
    Text(Cow<'a, str>),
}

impl<'de: 'a, 'a> Deserialize<'de> for Merge<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl<'de> Visitor<'de> for Seen {
            type Value = Merge<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a merge (`\"left right\"` or `[\"left\", \"right\"]`)")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Merge<'de>, E> {
                Ok(Merge::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Merge<'de>, E> {
                Ok(Merge::Text(Cow::Owned(text.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merge<'de>, A::Error> {
                match (seq.next_element()?, seq.next_element()?, seq.next_element::<IgnoredAny>()?) {
                    (Some(Text(left)), Some(Text(right)), None) => Ok(Merge::Pair(left, right)),
                    (Some(_), Some(_), Some(_)) => Err(A::Error::invalid_length(3, &self)),
                    _ => Err(A::Error::invalid_length(1, &self)),
                }
            }
        }
        deserializer.deserialize_any(Seen)
    }
}

impl Merge<'_> {
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
pub(super) fn parse<'a>(file: &str, bytes: &'a [u8]) -> Result<HfFile<'a>, TokenizerError> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let parsed: HfFile<'_> = serde_json::from_slice(bytes).map_err(|e| bad(file, e.to_string()))?;
    if let Some(token) = parsed.added_tokens.iter().find(|t| t.content.len() > MAX_TOKEN_BYTES) {
        let len = token.content.len();
        return Err(bad(file, format!("added token {} has {len} bytes; {MAX_TOKEN_BYTES} are the limit", token.id)));
    }
    Ok(parsed)
}
