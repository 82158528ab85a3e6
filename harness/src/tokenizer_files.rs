//! A model's own vocabulary in other clothes: as the files that the hub has.
//!
//! Discovery must find the same tokenizer wherever it lies, so the cells take it out of a GGUF and put it elsewhere. The files
//! are written as HuggingFace's converters write them (`tokenizer.json` of GPT-2, LLaMA-3, SmolLM2 and LLaMA-2), so that what
//! reads them here reads the real ones.

use crate::failure::Failure;
use bitnet_engine::gguf::Metadata;
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// What `tokenizer.ggml.*` says.
#[derive(Debug, Clone)]
pub struct TokenizerFiles {
    spm: bool,
    pre: Option<String>,
    tokens: Vec<String>,
    types: Vec<i32>,
    scores: Vec<f32>,
    merges: Vec<String>,
    bos: Option<u32>,
    unk: Option<u32>,
    add_bos: bool,
}

const PREFIX: &str = "tokenizer.ggml.";
/// LLaMA-3's splitting expression, as its `tokenizer.json` has it.
pub const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// SentencePiece's space.
pub(crate) const SPACE: char = '\u{2581}';

impl TokenizerFiles {
    /// Reads it.
    ///
    /// # Errors
    /// The metadata have none, or one of a kind that is not written here.
    pub fn read(metadata: &Metadata) -> Result<Self, Failure> {
        let key = |name: &str| format!("{PREFIX}{name}");
        let strings = |name: &str| -> Result<Vec<String>, Failure> {
            let Some(array) = metadata.array(&key(name))? else { return Ok(Vec::new()) };
            Ok(array.strs()?.map(|s| s.map(str::to_owned)).collect::<Result<_, _>>()?)
        };
        let model = metadata.str(&key("model"))?.unwrap_or_default();
        if !matches!(model, "llama" | "gpt2") {
            return Err(Failure::new(format_args!("no files are written for a tokenizer of kind `{model}`")));
        }
        let spm = model == "llama";
        let tokens = strings("tokens")?;
        let types = match metadata.array(&key("token_type"))? {
            Some(array) => array.i32s()?.collect(),
            None => vec![1; tokens.len()],
        };
        let scores = match metadata.array(&key("scores"))? {
            Some(array) if spm => array.f32s()?.collect(),
            _ => Vec::new(),
        };
        Ok(Self {
            pre: metadata.str(&key("pre"))?.map(str::to_owned),
            merges: strings("merges")?,
            bos: metadata.u32(&key("bos_token_id"))?,
            unk: metadata.u32(&key("unknown_token_id"))?,
            // LLaMA's SPM models want it unless they say otherwise.
            add_bos: metadata.bool(&key("add_bos_token"))?.unwrap_or(spm),
            spm,
            tokens,
            types,
            scores,
        })
    }

    /// Whether it is SentencePiece's kind; else a byte-level BPE.
    pub fn is_spm(&self) -> bool {
        self.spm
    }

    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The same with two merges (or the scores of two pieces) swapped: one size, other ids.
    pub fn spoiled(&self) -> Self {
        let mut other = self.clone();
        let last = other.merges.len().saturating_sub(1);
        if last > 0 {
            other.merges.reverse();
        }
        other.scores.reverse();
        other
    }

    /// `tokenizer.json` with `size` tokens: what is missing is filled up with tokens that no text can reach.
    ///
    /// # Errors
    /// A pre-tokenizer that is not written here, or more tokens than `size`.
    pub fn tokenizer_json(&self, size: usize) -> Result<Vec<u8>, Failure> {
        let filler = size.checked_sub(self.tokens.len());
        let filler =
            filler.ok_or_else(|| Failure::new(format_args!("{} tokens do not fit into {size}", self.len())))?;
        let names = self.tokens.iter().cloned().chain((0..filler).map(|i| format!("\u{e000}filler {i}")));
        let vocab: Map<String, Value> = names.enumerate().map(|(id, text)| (text, json!(id))).collect();
        let tokens = self.tokens.iter().zip(&self.types).enumerate();
        let added = tokens.filter_map(|(id, (text, kind))| match kind {
            2 | 3 => Some(added(id, text, true)),
            4 => Some(added(id, text, false)),
            _ => None,
        });
        let added = added.collect();
        let mut file = if self.spm {
            let merges = merges_of_scores(&self.tokens, &self.scores);
            spm_file(vocab, json!(merges), added, json!(self.text(self.unk)))
        } else {
            bpe_file(self.pre.as_deref().unwrap_or_default(), vocab.into(), json!(self.merges), added)?
        };
        file["post_processor"] = self.post_processor();
        Ok(serde_json::to_vec(&file)?)
    }

    /// `merges.txt`, without which `vocab.json` is not a tokenizer, and the other way round.
    pub fn merges_txt(&self) -> String {
        let lines = std::iter::once("#version: 0.2").chain(self.merges.iter().map(String::as_str));
        lines.collect::<Vec<_>>().join("\n") + "\n"
    }

    fn text(&self, id: Option<u32>) -> Option<&String> {
        id.and_then(|id| self.tokens.get(id as usize))
    }

    /// BOS in front of the text, where the model wants it.
    fn post_processor(&self) -> Value {
        let Some((id, text)) = self.bos.filter(|_| self.add_bos).and_then(|id| Some((id, self.text(Some(id))?))) else {
            return Value::Null;
        };
        let bos = json!({"SpecialToken": {"id": text, "type_id": 0}});
        let sequence = |id: &str, type_id: u32| json!({"Sequence": {"id": id, "type_id": type_id}});
        json!({
            "type": "TemplateProcessing",
            "single": [bos, sequence("A", 0)],
            "pair": [bos, sequence("A", 0), bos, sequence("B", 1)],
            "special_tokens": {text: {"id": text, "ids": [id], "tokens": [text]}},
        })
    }
}

/// One entry of `added_tokens`.
pub(crate) fn added(id: usize, text: &str, special: bool) -> Value {
    json!({
        "id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": special,
    })
}

/// A `tokenizer.json` of byte-level BPE.
///
/// # Errors
/// A pre-tokenizer that is not written here.
pub(crate) fn bpe_file(pre: &str, vocab: Value, merges: Value, added: Vec<Value>) -> Result<Value, Failure> {
    let bytes =
        |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
    let sequence = |first: Value, regex: bool| json!({"type": "Sequence", "pretokenizers": [first, bytes(regex)]});
    let split = match pre {
        "gpt-2" => bytes(true),
        "llama-bpe" => {
            let pattern = json!({"Regex": LLAMA3});
            sequence(json!({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false}), false)
        }
        "smollm" => sequence(json!({"type": "Digits", "individual_digits": true}), true),
        _ => {
            return Err(Failure::new(format_args!("no tokenizer.json is written for the pre-tokenizer `{pre}`")));
        }
    };
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": split, "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": pre == "llama-bpe",
            "vocab": vocab, "merges": merges,
        },
    }))
}

/// A `tokenizer.json` of SentencePiece's BPE.
pub(crate) fn spm_file(vocab: Map<String, Value>, merges: Value, added: Vec<Value>, unknown: Value) -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": SPACE}, {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        ]},
        "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocab, "merges": merges,
        },
    })
}

/// The merges that HuggingFace's converter makes of SentencePiece's scores: every cut of a piece into two pieces, the best score
/// first, of equal scores the longer left half first.
pub(crate) fn merges_of_scores(tokens: &[String], scores: &[f32]) -> Vec<String> {
    let ids: HashMap<&str, usize> = tokens.iter().enumerate().map(|(id, text)| (text.as_str(), id)).collect();
    let mut found: Vec<(f32, usize, usize, &str, &str)> = Vec::new();
    for (piece, score) in tokens.iter().zip(scores) {
        let mut local = Vec::new();
        for (at, _) in piece.char_indices().skip(1) {
            let (left, right) = piece.split_at(at);
            if let (Some(l), Some(r)) = (ids.get(left), ids.get(right)) {
                local.push((*l, *r, left, right));
            }
        }
        local.sort_unstable();
        found.extend(local.iter().map(|(_, _, l, r)| (*score, l.chars().count(), r.chars().count(), *l, *r)));
    }
    // Stable: of what is equal in all three the order above stays.
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then((b.1, b.2).cmp(&(a.1, a.2))));
    found.iter().map(|(.., left, right)| format!("{left} {right}")).collect()
}
