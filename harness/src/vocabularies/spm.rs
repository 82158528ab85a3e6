//! Vocabularies of SentencePiece BPE.
//!
//! HuggingFace has no scores, only an ordered list of merges, which its converter makes of the scores. Meta's own list (in
//! LLaMA-2's file) has the same 61,249 merges in a slightly other order among equals.

use super::byte_level::source;
use super::{Vocabulary, odd, read, read_json};
use crate::failure::Failure;
use crate::tokenizer_files::{SPACE, added, merges_of_scores, spm_file};
use bitnet_engine::tokenizer::{TokenKind, VocabSource};
use serde_json::{Map, json};
use std::path::PathBuf;

/// Score of the pieces of spaces only, which were added to the trained ones.
const SPACES_SCORE: f32 = -1e9;

struct Piece {
    text: String,
    score: f32,
    kind: TokenKind,
}

/// `tokenizer.model`.
pub(super) fn mistral(paths: &[PathBuf]) -> Result<Vocabulary, Failure> {
    let [path] = paths else { return Err(odd("one file")) };
    let bytes = read(path)?;
    let pieces = pieces(&bytes)?;
    let mut vocab = Map::new();
    let mut specials = Vec::new();
    for (id, piece) in pieces.iter().enumerate() {
        vocab.insert(piece.text.clone(), json!(id));
        if matches!(piece.kind, TokenKind::Control | TokenKind::Unknown) {
            specials.push(added(id, &piece.text, true));
        }
    }
    let token_types = pieces.iter().map(|piece| piece.kind).collect();
    let (tokens, scores): (Vec<String>, Vec<f32>) = pieces.into_iter().map(|piece| (piece.text, piece.score)).unzip();
    let merges = json!(merges_of_scores(&tokens, &scores));
    let json = spm_file(vocab, merges, specials, json!("<unk>"));
    let source = VocabSource {
        model: "llama".into(),
        scores,
        token_types,
        tokens: tokens.into_iter().map(String::into_bytes).collect(),
        add_bos: Some(true),
        ..VocabSource::default()
    };
    let files = vec![
        ("tokenizer-model", vec![("tokenizer.model", bytes)]),
        ("tokenizer-json", vec![("tokenizer.json", json.to_string().into_bytes())]),
    ];
    Ok(Vocabulary { name: "mistral-v1", json, source, files })
}

/// `tokenizer.json`. The scores, which it does not hold, are those of `tokenizer.model`: trained pieces count down from
/// 0 in order of their ids, pieces of spaces only come last.
pub(super) fn llama2(paths: &[PathBuf]) -> Result<Vocabulary, Failure> {
    /// `<unk>`, `<s>`, `</s>` and 256 bytes.
    const FIRST_TRAINED: usize = 259;
    let [path] = paths else { return Err(odd("one file")) };
    let json = read_json(path)?;
    let VocabSource { tokens, mut token_types, .. } = source(&json, "")?;
    let mut scores = Vec::with_capacity(tokens.len());
    for (id, (text, kind)) in tokens.iter().zip(&mut token_types).enumerate() {
        let only_spaces = std::str::from_utf8(text)?.chars().all(|c| c == SPACE);
        scores.push(match id {
            0 => {
                *kind = TokenKind::Unknown;
                0.0
            }
            1 | 2 => 0.0,
            3..FIRST_TRAINED => {
                *kind = TokenKind::Byte;
                0.0
            }
            _ if only_spaces => SPACES_SCORE,
            _ => FIRST_TRAINED as f32 - id as f32,
        });
    }
    let source = VocabSource {
        model: "llama".into(),
        tokens,
        scores,
        token_types,
        add_bos: Some(true),
        ..VocabSource::default()
    };
    let files = vec![("tokenizer-json", vec![("tokenizer.json", read(path)?)])];
    Ok(Vocabulary { name: "llama2", json, source, files })
}

/// The pieces of a `ModelProto`: field 1, each with text (1), score (2, float) and type (3, numbers as in a GGUF).
fn pieces(bytes: &[u8]) -> Result<Vec<Piece>, Failure> {
    let mut pieces = Vec::new();
    let mut at = bytes;
    while !at.is_empty() {
        let (field, value) = field(&mut at)?;
        let (1, Wire::Bytes(mut at)) = (field, value) else { continue };
        let mut piece = Piece { text: String::new(), score: 0.0, kind: TokenKind::Normal };
        while !at.is_empty() {
            match self::field(&mut at)? {
                (1, Wire::Bytes(text)) => piece.text = std::str::from_utf8(text)?.to_owned(),
                (2, Wire::Four(bits)) => piece.score = f32::from_le_bytes(bits),
                (3, Wire::Number(n)) => {
                    piece.kind = TokenKind::from_gguf(i64::try_from(n)?).ok_or_else(|| odd("type of a piece"))?;
                }
                _ => {}
            }
        }
        pieces.push(piece);
    }
    Ok(pieces)
}

enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Four([u8; 4]),
    Eight,
}

fn field<'a>(at: &mut &'a [u8]) -> Result<(u64, Wire<'a>), Failure> {
    let end = || odd("end of a field");
    let tag = varint(at)?;
    let value = match tag & 7 {
        0 => Wire::Number(varint(at)?),
        1 => {
            *at = at.get(8..).ok_or_else(end)?;
            Wire::Eight
        }
        2 => {
            let len = usize::try_from(varint(at)?)?;
            let (value, rest) = at.split_at_checked(len).ok_or_else(end)?;
            *at = rest;
            Wire::Bytes(value)
        }
        5 => {
            let (value, rest) = at.split_first_chunk().ok_or_else(end)?;
            *at = rest;
            Wire::Four(*value)
        }
        other => return Err(odd(&format!("known wire type ({other})"))),
    };
    Ok((tag >> 3, value))
}

fn varint(at: &mut &[u8]) -> Result<u64, Failure> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = at.split_first().ok_or_else(|| odd("end of a number"))?;
        *at = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(odd("number of 64 bits"))
}
