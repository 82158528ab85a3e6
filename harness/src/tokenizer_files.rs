//! A model's own vocabulary in other clothes: as the files that the hub has.
//!
//! Discovery must find the same tokenizer wherever it lies, so the cells take it out of a GGUF and put it elsewhere. The files
//! are written as HuggingFace's converters write them (`tokenizer.json` of GPT-2, LLaMA-3, SmolLM2 and LLaMA-2), so that what
//! reads them here reads the real ones.

use crate::check::Failure;
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
/// LLaMA-3's expression, as its `tokenizer.json` has it.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const CONTROL: i32 = 3;
const UNKNOWN: i32 = 2;

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
        let special = |id: usize| matches!(self.types.get(id), Some(&(CONTROL | UNKNOWN)));
        let added: Vec<Value> = self.tokens.iter().enumerate().filter(|(id, _)| special(*id)).map(added).collect();
        let byte_level = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
        let file = if self.spm {
            json!({
                "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
                "normalizer": {"type": "Sequence", "normalizers": [
                    {"type": "Prepend", "prepend": "\u{2581}"},
                    {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
                ]},
                "pre_tokenizer": null,
                "post_processor": self.post_processor(),
                "decoder": {"type": "Sequence", "decoders": [
                    {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
                    {"type": "ByteFallback"},
                    {"type": "Fuse"},
                    {"type": "Strip", "content": " ", "start": 1, "stop": 0},
                ]},
                "model": {
                    "type": "BPE", "dropout": null, "unk_token": self.text(self.unk), "continuing_subword_prefix": null,
                    "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
                    "vocab": vocab, "merges": self.merges_of_scores(),
                },
            })
        } else {
            let pre = self.pre.as_deref().unwrap_or_default();
            let split = match pre {
                "gpt-2" => byte_level(true),
                "llama-bpe" => json!({"type": "Sequence", "pretokenizers": [
                    {"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Isolated", "invert": false},
                    byte_level(false),
                ]}),
                "smollm" => json!({"type": "Sequence", "pretokenizers": [
                    {"type": "Digits", "individual_digits": true},
                    byte_level(true),
                ]}),
                _ => {
                    return Err(Failure::new(format_args!(
                        "no tokenizer.json is written for the pre-tokenizer `{pre}`"
                    )));
                }
            };
            json!({
                "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
                "pre_tokenizer": split,
                "post_processor": self.post_processor(),
                "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
                "model": {
                    "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                    "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": pre == "llama-bpe",
                    "vocab": vocab, "merges": self.merges,
                },
            })
        };
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

    /// The merges that HuggingFace's converter makes of SentencePiece's scores: every way to put a piece together, the piece of
    /// the highest score first.
    fn merges_of_scores(&self) -> Vec<String> {
        let ids: HashMap<&str, usize> = self.tokens.iter().enumerate().map(|(id, t)| (t.as_str(), id)).collect();
        let mut merges: Vec<(f32, usize, usize)> = Vec::new();
        for (piece, id) in &ids {
            if self.types.get(*id) != Some(&1) {
                continue;
            }
            let score = self.scores.get(*id).copied().unwrap_or_default();
            for (at, _) in piece.char_indices().skip(1) {
                let (left, right) = piece.split_at(at);
                if let (Some(&left), Some(&right)) = (ids.get(left), ids.get(right)) {
                    merges.push((score, left, right));
                }
            }
        }
        merges.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        merges.iter().map(|(_, left, right)| format!("{} {}", self.tokens[*left], self.tokens[*right])).collect()
    }
}

fn added((id, text): (usize, &String)) -> Value {
    json!({
        "id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true
    })
}
