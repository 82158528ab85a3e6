//! SentencePiece's `tokenizer.model`: a protobuf of pieces, what they were trained with, and how text is normalised.
//!
//! Field numbers are those of sentencepiece_model.proto: `ModelProto` pieces 1 (piece 1, score 2, type 3),
//! trainer_spec 2 (model_type 3: 1 unigram, 2 BPE; treat_whitespace_as_suffix 24, byte_fallback 35, unk_id 40, bos_id
//! 41, eos_id 42, pad_id 43), normalizer_spec 3 (precompiled_charsmap 2, add_dummy_prefix 3, remove_extra_whitespaces 4,
//! escape_whitespaces 5). The types of pieces have the numbers that GGUF took over.
//!
//! The ids are sentencepiece's own, whatever `transformers` makes of the file: user-defined pieces are found while the
//! text is normalised and cut, and only the front of a text gets the space. The file itself says nothing about framing: BOS goes in front unless tokenizer_config.json says otherwise, as
//! all known users of the BPE kind have it.

use super::super::error::{Diagnostic, TokenizerError};
use super::super::normalize::Normalizing;
use super::super::vocab::{MAX_TOKENS, TokenKind, VocabSource, key};
use super::super::{Loaded, from_source};
use super::companions::{AddedToken, Companions};
use super::protobuf::{Reader, Value};
use super::{MAX_TOKEN_BYTES, bad, unsupported};

/// A model file, with the proto's defaults where it says nothing.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) pieces: Vec<Vec<u8>>,
    pub(super) scores: Vec<f32>,
    pub(super) kinds: Vec<TokenKind>,
    /// 1 unigram, 2 BPE.
    pub(super) model_type: u64,
    pub(super) byte_fallback: bool,
    pub(super) suffix: bool,
    pub(super) unk: i64,
    pub(super) bos: i64,
    pub(super) eos: i64,
    pub(super) pad: i64,
    pub(super) charsmap: Vec<u8>,
    pub(super) dummy_prefix: bool,
    pub(super) remove_extra: bool,
    pub(super) escape: bool,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            pieces: Vec::new(),
            scores: Vec::new(),
            kinds: Vec::new(),
            model_type: 1,
            byte_fallback: false,
            suffix: false,
            unk: 0,
            bos: 1,
            eos: 2,
            pad: -1,
            charsmap: Vec::new(),
            dummy_prefix: true,
            remove_extra: true,
            escape: true,
        }
    }
}

/// Parses a model file.
///
/// # Errors
/// What is wrong and where.
pub(super) fn parse(bytes: &[u8]) -> Result<Model, String> {
    let mut model = Model::default();
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        match (number, value) {
            (1, Value::Bytes(piece)) => parse_piece(&mut model, reader.inner(piece))?,
            (2, Value::Bytes(spec)) => parse_trainer(&mut model, reader.inner(spec))?,
            (3, Value::Bytes(spec)) => parse_normalizer(&mut model, reader.inner(spec))?,
            (1..=3, _) => return Err(format!("field {number} is not a message")),
            _ => {}
        }
    }
    Ok(model)
}

fn parse_piece(model: &mut Model, mut reader: Reader<'_>) -> Result<(), String> {
    let id = model.pieces.len();
    let (mut text, mut score, mut kind) = (None, 0.0, TokenKind::Normal);
    while let Some((number, value)) = reader.field()? {
        match (number, value) {
            (1, Value::Bytes(piece)) => text = Some(piece),
            (2, Value::Fixed32(bytes)) => score = f32::from_le_bytes(bytes),
            (3, Value::Varint(number)) => {
                kind = i64::try_from(number)
                    .ok()
                    .and_then(TokenKind::from_gguf)
                    .ok_or_else(|| format!("piece {id} has type {number}; 1 to 6 are known"))?;
            }
            (1..=3, _) => return Err(format!("field {number} of piece {id} has the wrong type")),
            _ => {}
        }
    }
    let text = text.ok_or_else(|| format!("piece {id} has no text"))?;
    if text.len() > MAX_TOKEN_BYTES {
        return Err(format!("piece {id} has {} bytes; {MAX_TOKEN_BYTES} are the limit", text.len()));
    }
    if id >= MAX_TOKENS {
        return Err(format!("it has more than {MAX_TOKENS} pieces"));
    }
    model.pieces.push(text.to_vec());
    model.scores.push(score);
    model.kinds.push(kind);
    Ok(())
}

fn parse_trainer(model: &mut Model, mut reader: Reader<'_>) -> Result<(), String> {
    while let Some((number, value)) = reader.field()? {
        let Value::Varint(value) = value else { continue };
        // An int32: negative numbers are sign-extended to 64 bits.
        let id = value as i64;
        match number {
            3 => model.model_type = value,
            24 => model.suffix = value != 0,
            35 => model.byte_fallback = value != 0,
            40 => model.unk = id,
            41 => model.bos = id,
            42 => model.eos = id,
            43 => model.pad = id,
            _ => {}
        }
    }
    Ok(())
}

fn parse_normalizer(model: &mut Model, mut reader: Reader<'_>) -> Result<(), String> {
    while let Some((number, value)) = reader.field()? {
        match (number, value) {
            (2, Value::Bytes(map)) => model.charsmap = map.to_vec(),
            (3, Value::Varint(on)) => model.dummy_prefix = on != 0,
            (4, Value::Varint(on)) => model.remove_extra = on != 0,
            (5, Value::Varint(on)) => model.escape = on != 0,
            (2..=5, _) => return Err(format!("field {number} of the normaliser has the wrong type")),
            _ => {}
        }
    }
    Ok(())
}

/// Reads the vocabulary of a tokenizer.model.
///
/// # Errors
/// [`TokenizerError::BadFile`] and [`TokenizerError::UnsupportedFile`].
pub(super) fn read(
    name: &str,
    bytes: &[u8],
    companions: &Companions,
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<VocabSource, TokenizerError> {
    let mut model = parse(bytes).map_err(|reason| bad(name, reason))?;
    if model.pieces.is_empty() {
        return Err(bad(name, "it has no pieces"));
    }
    if model.suffix || !model.escape {
        return Err(unsupported(name, "it writes spaces behind words or not as `▁`; use the model's tokenizer.json"));
    }
    let kinds = (0..).zip(&model.kinds).filter(|(_, kind)| **kind == TokenKind::UserDefined);
    let inline: Vec<u32> = kinds.map(|(id, _)| id).collect();
    add(&mut model, &companions.added, diagnostics);
    let kind = match model.model_type {
        1 => "t5",
        2 => "llama",
        other => {
            return Err(unsupported(
                name,
                format!(
                    "its pieces are of SentencePiece's kind {other} (words or characters); only unigram (1) and BPE (2) are known"
                ),
            ));
        }
    };
    if let Some(id) = model.pieces.iter().position(|piece| std::str::from_utf8(piece).is_err()) {
        return Err(bad(name, format!("piece {id} is not UTF-8")));
    }
    // LLaMA-2 and Mistral change nothing but spaces, which the engine does by itself.
    let plain = model.model_type == 2 && model.charsmap.is_empty() && !model.remove_extra && inline.is_empty();
    let plain = plain && model.byte_fallback;
    let mut source = VocabSource {
        model: kind.into(),
        tokens: std::mem::take(&mut model.pieces),
        scores: std::mem::take(&mut model.scores),
        token_types: std::mem::take(&mut model.kinds),
        lists_specials: true,
        add_bos: companions.add_bos,
        // Nothing is put around a text of Unigram unless the companions say so.
        add_eos: companions.add_eos.or(Some(false)),
        add_space_prefix: Some(model.dummy_prefix),
        normalizing: (!plain).then(|| Normalizing {
            charsmap: std::mem::take(&mut model.charsmap),
            dummy_prefix: model.dummy_prefix,
            remove_extra: model.remove_extra,
            inline,
        }),
        ..VocabSource::default()
    };
    roles(name, &model, &mut source)?;
    let mut ids = std::collections::HashMap::new();
    for (id, text) in source.tokens.iter().enumerate() {
        ids.entry(text.clone()).or_insert(id as u32);
    }
    let find = |text: &str| ids.get(text.as_bytes()).copied();
    companions.apply(&mut source, &find, diagnostics);
    Ok(source)
}

/// Builds the tokenizer of a tokenizer.model.
///
/// # Errors
/// As [`read`], and what the engines say.
pub(super) fn load(name: &str, bytes: &[u8], companions: &Companions) -> Result<Loaded, TokenizerError> {
    let mut diagnostics = Vec::new();
    let mut loaded = from_source(read(name, bytes, companions, &mut diagnostics)?)?;
    diagnostics.append(&mut loaded.diagnostics);
    Ok(Loaded { tokenizer: loaded.tokenizer, diagnostics })
}

/// Ids of roles; -1 is how the trainer writes "none".
fn roles(name: &str, model: &Model, source: &mut VocabSource) -> Result<(), TokenizerError> {
    let last = source.tokens.len() as u32 - 1;
    let id = |key_name: &str, id: i64| match u32::try_from(id) {
        Ok(id) if id <= last => Ok(Some(id)),
        Ok(id) => Err(bad(name, format!("its {} is {id}, but its pieces end at {last}", key(key_name)))),
        Err(_) => Ok(Some(u32::MAX)),
    };
    source.unk = id("unknown_token_id", model.unk)?;
    source.bos = id("bos_token_id", model.bos)?;
    source.eos = id("eos_token_id", model.eos)?;
    source.pad = id("padding_token_id", model.pad)?;
    Ok(())
}

/// Tokens that the companions add behind the pieces, or that they name among them.
fn add(model: &mut Model, added: &[AddedToken], diagnostics: &mut Vec<Diagnostic>) {
    let mut refused = Vec::new();
    for token in added {
        let kind = if token.special { TokenKind::Control } else { TokenKind::UserDefined };
        let at = token.id as usize;
        let text = token.content.as_bytes();
        if at == model.pieces.len() && !text.is_empty() && text.len() <= MAX_TOKEN_BYTES {
            model.pieces.push(text.to_vec());
            model.scores.push(0.0);
            model.kinds.push(kind);
        } else if model.pieces.get(at).is_none_or(|piece| piece != text) {
            refused.push(format!("{} `{}`", token.id, token.content));
        } else if let Some(slot) = model.kinds.get_mut(at).filter(|k| **k == TokenKind::Normal) {
            *slot = kind;
        }
    }
    if let Some(first) = refused.first() {
        diagnostics.push(Diagnostic::warning(
            "added_tokens_do_not_fit",
            format!("{} added tokens contradict the pieces or leave a gap behind them and are left out; the first is {first}", refused.len()),
            "use the companions that were published with the tokenizer",
        ));
    }
}
