//! The crate's Unigram for text that must not become control or byte tokens.
//!
//! A tokenizer.json lists `<s>` and `<0x0A>` among the pieces, and the crate's search takes them like any other where
//! special tokens are not looked for. sentencepiece does not: here the same search runs without them.

use super::super::unigram::{Paths, Sums, UNKNOWN};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tokenizers::models::unigram::{Unigram, UnigramTrainer};
use tokenizers::{Model, Result, Token};

/// A model for the crate.
#[derive(Debug)]
pub(super) struct TextOnly {
    model: Unigram,
    paths: Paths,
    /// `<0xXX>`, where the file falls back to all of them.
    bytes: Option<Box<[u32; 256]>>,
    unk: Option<u32>,
}

impl TextOnly {
    /// `is_text` says which ids text can become.
    pub(super) fn new(model: Unigram, is_text: impl Fn(u32) -> bool) -> Self {
        let pieces = || (0..).zip(model.iter()).map(|(id, (text, score))| (id, text.as_bytes(), *score));
        let worst = pieces().map(|(.., score)| score).fold(f64::INFINITY, f64::min);
        let scores = pieces().map(|(.., score)| score).collect();
        let text = pieces().filter(|(id, ..)| is_text(*id)).map(|(id, text, _)| (id, text));
        let paths = Paths::new(text, scores, worst, Sums::Wide);
        let byte = |b: usize| model.token_to_id(&format!("<0x{b:02X}>"));
        let bytes: [Option<u32>; 256] = std::array::from_fn(byte);
        let all = model.byte_fallback() && bytes.iter().all(Option::is_some);
        let bytes = all.then(|| Box::new(bytes.map(Option::unwrap_or_default)));
        // The field is private, the file's form is not.
        let unk = serde_json::to_value(&model).ok().and_then(|json| json.get("unk_id").and_then(Value::as_u64));
        Self { paths, bytes, unk: unk.and_then(|id| u32::try_from(id).ok()), model }
    }
}

impl Model for TextOnly {
    type Trainer = UnigramTrainer;

    fn tokenize(&self, sequence: &str) -> Result<Vec<Token>> {
        let (mut tokens, mut in_unknown, mut missing) = (Vec::new(), false, false);
        let mut push = |id, place: &std::ops::Range<usize>| {
            tokens.push(Token::new(id, String::new(), (place.start, place.end)));
        };
        self.paths.best(sequence.as_bytes(), |place, id| {
            match (&self.bytes, self.unk) {
                _ if id != UNKNOWN => push(id, &place),
                (Some(bytes), _) => {
                    sequence.as_bytes()[place.clone()].iter().for_each(|&b| push(bytes[usize::from(b)], &place));
                }
                (None, Some(unk)) if !in_unknown => push(unk, &place),
                (None, Some(_)) => {}
                (None, None) => missing = true,
            }
            in_unknown = id == UNKNOWN;
        });
        if missing {
            Err("the text has parts that are not pieces, and there is no unknown token".into())
        } else {
            Ok(tokens)
        }
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        self.model.token_to_id(token)
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        self.model.id_to_token(id)
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        self.model.get_vocab()
    }

    fn get_vocab_size(&self) -> usize {
        self.model.get_vocab_size()
    }

    fn save(&self, folder: &Path, prefix: Option<&str>) -> Result<Vec<PathBuf>> {
        self.model.save(folder, prefix)
    }

    fn get_trainer(&self) -> UnigramTrainer {
        self.model.get_trainer()
    }
}
