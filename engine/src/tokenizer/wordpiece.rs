//! WordPiece from GGUF metadata (`tokenizer.ggml.model = bert`): BERT and the embedding models after it.
//!
//! A GGUF writes a piece that starts a word with `▁` in front, one inside of a word without HuggingFace's `##`, and special
//! tokens (`[CLS]`) as they are. Turned back it is the vocabulary of a tokenizer.json, which the crate `tokenizers` runs:
//! its normaliser is the one that the models were trained with. llama.cpp has no limit of 100 characters for a word, and
//! other tables of accents and cases.

use super::error::TokenizerError;
use super::files;
use super::spm_tables::SPACE;
use super::vocab::{TokenKind, VocabSource, key};
use super::{Loaded, SpecialTokens};
use serde_json::{Map, Value, json};

/// What BERT adds to [`VocabSource`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bert {
    /// Goes behind a text.
    pub(super) sep: Option<u32>,
    /// Whether letters become lower case (if nothing is said, yes), and lose their accents (as the case).
    pub(super) lowercase: Option<bool>,
    pub(super) strip_accents: Option<bool>,
}

/// Builds it.
///
/// # Errors
/// [`TokenizerError::IdOutOfRange`] for a role outside the vocabulary; [`TokenizerError::BadKey`] for tokens that are not
/// UTF-8; what the crate says.
pub(super) fn load(source: &VocabSource<&[u8]>, bert: Bert) -> Result<Loaded, TokenizerError> {
    let n = source.tokens.len();
    super::vocab::check_size(n)?;
    if !source.token_types.is_empty() && source.token_types.len() != n {
        let (key, found) = (key("token_type"), source.token_types.len());
        return Err(TokenizerError::LengthMismatch { key, found, expected: n });
    }
    let role = |name: &str, id: Option<u32>, default: u32| match id {
        Some(u32::MAX) => Ok(None),
        Some(id) if id as usize >= n => Err(TokenizerError::IdOutOfRange { key: key(name), id, last: n as u32 - 1 }),
        Some(id) => Ok(Some(id)),
        None => Ok(Some(default).filter(|id| (*id as usize) < n)),
    };
    let cls = role("bos_token_id", source.bos, 101)?;
    let sep = role("seperator_token_id", bert.sep, 102)?;
    let unk = role("unknown_token_id", source.unk, 100)?;
    let (mut vocab, mut added, mut unknown) = (Map::new(), Vec::new(), None);
    for (id, token) in source.tokens.iter().enumerate() {
        let text = std::str::from_utf8(token)
            .map_err(|_| TokenizerError::BadKey { reason: format!("`{}`: token {id} is not UTF-8", key("tokens")) })?;
        if text.is_empty() {
            continue;
        }
        let id = id as u32;
        let special = text.len() > 2 && text.starts_with('[') && text.ends_with(']');
        let text = match token.strip_prefix(SPACE).and_then(|rest| std::str::from_utf8(rest).ok()) {
            Some(word) => word.to_owned(),
            None if special => text.to_owned(),
            None => format!("##{text}"),
        };
        if Some(id) == unk {
            unknown = Some(text.clone());
        }
        let control = matches!(source.token_types.get(id as usize), Some(TokenKind::Control | TokenKind::Unknown));
        if control || [cls, sep, unk].contains(&Some(id)) {
            added.push(json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
                              "normalized": false, "special": true}));
        }
        vocab.entry(text).or_insert(json!(id));
    }
    let unknown = unknown.ok_or_else(|| TokenizerError::MissingKey { key: key("unknown_token_id") })?;
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                       "strip_accents": bert.strip_accents, "lowercase": bert.lowercase.unwrap_or(true)},
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": null,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": Value::Object(vocab)},
    });
    let roles = SpecialTokens {
        bos: cls,
        eos: sep,
        pad: source.pad,
        add_bos: source.add_bos.unwrap_or(true),
        add_eos: true,
        ..SpecialTokens::default()
    };
    files::by_crate("tokenizer.ggml.tokens", &file, "WordPiece", roles)
}
