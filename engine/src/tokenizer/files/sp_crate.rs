//! A SentencePiece model as a tokenizer.json for the crate, where our engine does not have its kind.
//!
//! The steps are SentencePiece's own order: map characters, take extra spaces away, put one in front, write spaces as
//! `▁`; then one best path (Unigram) or all merges (BPE) over the whole text.

use super::super::error::TokenizerError;
use super::super::vocab::{TokenKind, VocabSource};
use super::sentencepiece::Model;
use super::{bad, base64};
use serde_json::{Value, json};
use std::collections::HashMap;

/// The tokenizer.json. The pieces are in `source` already.
///
/// # Errors
/// [`TokenizerError::BadFile`] for pieces that are not UTF-8 or scores that are no numbers.
pub(super) fn json(name: &str, model: &Model, source: &VocabSource) -> Result<Value, TokenizerError> {
    let mut pieces = Vec::with_capacity(source.tokens.len());
    for (id, (text, score)) in source.tokens.iter().zip(&source.scores).enumerate() {
        let text = std::str::from_utf8(text).map_err(|_| bad(name, format!("piece {id} is not UTF-8")))?;
        if !score.is_finite() {
            return Err(TokenizerError::BadScore { id: id as u32 });
        }
        pieces.push((text, *score));
    }
    let space = json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"});
    let mut normalizers = Vec::new();
    if !model.charsmap.is_empty() {
        normalizers.push(json!({"type": "Precompiled", "precompiled_charsmap": base64::encode(&model.charsmap)}));
    }
    if model.remove_extra {
        normalizers.push(json!({"type": "Strip", "strip_left": true, "strip_right": true}));
        normalizers.push(json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}));
    }
    if model.dummy_prefix {
        normalizers.push(json!({"type": "Prepend", "prepend": "\u{2581}"}));
    }
    normalizers.push(space);
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if model.dummy_prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let special = |kind: &TokenKind| matches!(kind, TokenKind::Control | TokenKind::Unknown);
    let added: Vec<Value> = pieces
        .iter()
        .zip(&source.token_types)
        .enumerate()
        .filter(|(_, (piece, kind))| !piece.0.is_empty() && (special(kind) || **kind == TokenKind::UserDefined))
        .map(|(id, (piece, kind))| {
            json!({"id": id, "content": piece.0, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": special(kind)})
        })
        .collect();
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": normalizers}, "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": if model.model_type == 1 { unigram(model, source, &pieces) } else { bpe(model, source, &pieces) },
    }))
}

fn unigram(model: &Model, source: &VocabSource, pieces: &[(&str, f32)]) -> Value {
    let unk = source.unk.filter(|&id| (id as usize) < pieces.len());
    json!({"type": "Unigram", "unk_id": unk, "byte_fallback": model.byte_fallback, "vocab": pieces})
}

/// Merges are every way to make a piece from two, best score first.
fn bpe(model: &Model, source: &VocabSource, pieces: &[(&str, f32)]) -> Value {
    let mut ids: HashMap<&str, usize> = HashMap::with_capacity(pieces.len());
    for (id, (text, _)) in pieces.iter().enumerate() {
        ids.entry(text).or_insert(id);
    }
    let mergeable = |id: usize| source.token_types.get(id).is_some_and(|k| k.is_text());
    let part = |text: &str| ids.get(text).copied().filter(|&id| mergeable(id));
    let mut merges: Vec<(f32, usize, &str, &str)> = Vec::new();
    for (id, (text, score)) in pieces.iter().enumerate().filter(|(id, _)| mergeable(*id)) {
        for (at, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(at);
            if part(left).is_some() && part(right).is_some() {
                merges.push((*score, id, left, right));
            }
        }
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let merges: Vec<_> = merges.into_iter().map(|(_, _, left, right)| (left, right)).collect();
    let unk = source.unk.and_then(|id| pieces.get(id as usize)).map(|p| p.0);
    json!({"type": "BPE", "dropout": null, "unk_token": unk, "continuing_subword_prefix": null,
           "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": model.byte_fallback,
           "ignore_merges": false, "vocab": ids, "merges": merges})
}
