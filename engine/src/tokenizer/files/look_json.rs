//! Counting the tokens of JSON vocabularies in one pass that keeps nothing but the added tokens.
//!
//! HuggingFace numbers those added tokens that the vocabulary lacks itself, behind it and in their order
//! (`tokenizers`, `AddedVocabulary::add_tokens`), whatever ids the file writes. So which of them the vocabulary has must
//! be known: they are looked up while it goes by.

use super::companions::AddedToken;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

/// Tokens that the tokenizer of a tokenizer.json has; `None` if only building can tell.
pub(super) fn tokens(json: &[u8]) -> Option<usize> {
    let mut seen = Seen::default();
    // Where everything is known the reading ends early, with an error of our own.
    let read = File(&mut seen).deserialize(&mut serde_json::Deserializer::from_slice(json));
    if read.is_err() && !seen.enough {
        return None;
    }
    let lacking = seen.added.values().filter(|found| !**found).count();
    Some(seen.ids?.whole()? + lacking)
}

/// What was read so far.
#[derive(Default)]
struct Seen {
    added: Added,
    /// Whether the added tokens were there.
    listed: bool,
    ids: Option<Ids>,
    /// Both were there: half of the file is merges, which need not be read.
    enough: bool,
}

/// Texts of added tokens, and whether the vocabulary has them.
type Added = HashMap<String, bool>;

/// What a vocabulary came to.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Ids {
    entries: usize,
    /// One more than the largest id.
    end: usize,
}

impl Ids {
    /// Tokens of a vocabulary without gaps or repetitions.
    pub(super) fn whole(&self) -> Option<usize> {
        (self.entries == self.end).then_some(self.end)
    }
}

impl<'de> Deserialize<'de> for Ids {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vocab(&mut Added::new()).deserialize(deserializer)
    }
}

/// A text, borrowed where it has no escapes.
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl<'de> Visitor<'de> for Seen {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Seen)
    }
}

/// `{text: id}`, or the list of a Unigram model (`[[text, score], ...]`).
struct Vocab<'a>(&'a mut Added);

impl<'de> DeserializeSeed<'de> for Vocab<'_> {
    type Value = Ids;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Ids, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Vocab<'_> {
    type Value = Ids;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a vocabulary (`{text: id}` or a list)")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ids, A::Error> {
        // Added tokens begin with one of a few characters (`<`, `[`): most texts need no look into the table.
        let mut first = [false; 256];
        self.0.keys().filter_map(|text| text.as_bytes().first()).for_each(|&byte| first[usize::from(byte)] = true);
        let mut ids = Ids::default();
        while let Some((Text(text), id)) = map.next_entry::<Text<'_>, u32>()? {
            ids.entries += 1;
            ids.end = ids.end.max(id as usize + 1);
            if text.as_bytes().first().is_some_and(|&byte| first[usize::from(byte)])
                && let Some(found) = self.0.get_mut(&*text)
            {
                *found = true;
            }
        }
        Ok(ids)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Ids, A::Error> {
        let mut ids = Ids::default();
        while let Some((Text(text), _)) = seq.next_element::<(Text<'_>, IgnoredAny)>()? {
            ids.entries += 1;
            if let Some(found) = self.0.get_mut(&*text) {
                *found = true;
            }
        }
        ids.end = ids.entries;
        Ok(ids)
    }
}

/// `model`, of which the vocabulary counts.
struct Model<'a>(&'a mut Seen);

impl<'de> DeserializeSeed<'de> for Model<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Model<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a model with a vocabulary")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(key)) = map.next_key::<Text<'_>>()? {
            if key == "vocab" {
                self.0.ids = Some(map.next_value_seed(Vocab(&mut self.0.added))?);
                if self.0.listed {
                    self.0.enough = true;
                    return Err(de::Error::custom("enough"));
                }
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// The file. Added tokens stand before the model, as every writer has it; other files are built to be counted.
struct File<'a>(&'a mut Seen);

impl<'de> DeserializeSeed<'de> for File<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for File<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tokenizer.json")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(key)) = map.next_key::<Text<'_>>()? {
            match &*key {
                "added_tokens" if self.0.ids.is_some() => {
                    return Err(de::Error::custom("added tokens behind the model"));
                }
                "added_tokens" => {
                    let list: Vec<AddedToken> = map.next_value()?;
                    let texts = list.into_iter().filter(|t| !t.content.is_empty()).map(|t| (t.content, false));
                    (self.0.added, self.0.listed) = (texts.collect(), true);
                }
                "model" => map.next_value_seed(Model(self.0))?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}
