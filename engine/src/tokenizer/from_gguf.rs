//! The tokenizer that a GGUF carries in its metadata (`tokenizer.ggml.*`, keys as in the GGUF specification).

use super::error::{Diagnostic, TokenizerError};
use super::normalize::Normalizing;
use super::unigram::Sums;
use super::vocab::{MAX_TOKENS, MergeRule, TokenKind, VocabSource, key};
use super::wordpiece::{self, Bert};
use super::{Loaded, from_slices};
use crate::gguf::{ArrayView, GgufError, Metadata, Value};

/// An id that says "none": ids of the vocabulary stay below.
pub(crate) const NO_ID: u32 = u32::MAX;

fn bad(error: GgufError) -> TokenizerError {
    TokenizerError::BadKey { reason: error.to_string() }
}

/// Builds the tokenizer of a model file.
///
/// # Errors
/// [`TokenizerError`]: a key that is missing, of a wrong type or inconsistent, or a tokenizer of an unknown kind.
pub fn from_gguf(metadata: &Metadata) -> Result<Loaded, TokenizerError> {
    let mut diagnostics = Vec::new();
    let source = source(metadata, &mut diagnostics)?;
    let mut loaded = match source.model.as_str() {
        "bert" => wordpiece::load(&source, bert(metadata)?)?,
        _ => from_slices(source)?,
    };
    diagnostics.append(&mut loaded.diagnostics);
    loaded.diagnostics = diagnostics;
    Ok(loaded)
}

/// What the metadata says, unchecked but for types. The texts stay in the file.
///
/// # Errors
/// [`TokenizerError::MissingKey`] without `model` or `tokens`; [`TokenizerError::BadKey`] for wrong types.
pub fn source<'a>(
    metadata: &'a Metadata,
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<VocabSource<&'a [u8]>, TokenizerError> {
    let model =
        metadata.str(&key("model")).map_err(bad)?.ok_or_else(|| TokenizerError::MissingKey { key: key("model") })?;
    // Before the lists are read: the message about an unknown kind is the useful one.
    if !matches!(model, "gpt2" | "llama" | "gemma4" | "t5" | "bert") {
        return Err(TokenizerError::UnsupportedModel { found: model.to_owned() });
    }
    let tokens = list(metadata, "tokens")?.ok_or_else(|| TokenizerError::MissingKey { key: key("tokens") })?;
    let text = |name: &str| metadata.str(&key(name)).map_err(bad).map(|s| s.map(str::to_owned));
    let flag = |name: &str| metadata.bool(&key(name)).map_err(bad);
    Ok(VocabSource {
        model: model.to_owned(),
        pre: text("pre")?,
        tokens: strings(&tokens)?,
        scores: match list(metadata, "scores")? {
            Some(scores) => scores.f32s().map_err(bad)?.collect(),
            None => Vec::new(),
        },
        token_types: match list(metadata, "token_type")? {
            Some(types) => kinds(&types, diagnostics)?,
            None => Vec::new(),
        },
        merges: match list(metadata, "merges")? {
            Some(merges) => strings(&merges)?,
            None => Vec::new(),
        },
        merge_rule: MergeRule::Usual,
        ignore_merges: None,
        lists_specials: false,
        bos: id(metadata, "bos_token_id")?,
        eos: id(metadata, "eos_token_id")?,
        eot: id(metadata, "eot_token_id")?,
        eom: id(metadata, "eom_token_id")?,
        unk: id(metadata, "unknown_token_id")?,
        pad: id(metadata, "padding_token_id")?,
        add_bos: flag("add_bos_token")?,
        add_eos: flag("add_eos_token")?,
        add_space_prefix: flag("add_space_prefix")?,
        normalizing: if model == "t5" { Some(normalizing(metadata)?) } else { None },
        sums: Sums::Wide,
    })
}

/// What `t5` does to text; llama.cpp's values where the file says nothing.
fn normalizing(metadata: &Metadata) -> Result<Normalizing, TokenizerError> {
    let flag = |name: &str| metadata.bool(&key(name)).map_err(bad).map(Option::unwrap_or_default);
    let name = "precompiled_charsmap";
    let byte = |value: Value<'_>| match value.as_integer() {
        // An i8 or a u8, as converters have it.
        Some(number @ -128..=255) => Ok(number as u8),
        _ => Err(TokenizerError::BadKey { reason: format!("`{}` holds {}, not bytes", key(name), value.describe()) }),
    };
    let charsmap = metadata.array(&key(name)).map_err(bad)?;
    Ok(Normalizing {
        charsmap: charsmap.iter().flat_map(|bytes| bytes.iter()).map(byte).collect::<Result<_, _>>()?,
        dummy_prefix: flag("add_space_prefix")?,
        remove_extra: flag("remove_extra_whitespaces")?,
        inline: Vec::new(),
    })
}

fn bert(metadata: &Metadata) -> Result<Bert, TokenizerError> {
    let flag = |name: &str| metadata.bool(&key(name)).map_err(bad);
    Ok(Bert {
        sep: id(metadata, "seperator_token_id")?,
        lowercase: flag("normalizer.lowercase")?,
        strip_accents: flag("normalizer.strip_accents")?,
    })
}

fn list<'a>(metadata: &'a Metadata, name: &str) -> Result<Option<ArrayView<'a>>, TokenizerError> {
    let list = metadata.array(&key(name)).map_err(bad)?;
    match list {
        // Merges may be more than tokens, but not without measure.
        Some(list) if list.len() > 4 * MAX_TOKENS => {
            Err(TokenizerError::BadVocabSize { found: list.len(), limit: MAX_TOKENS })
        }
        list => Ok(list),
    }
}

fn strings<'a>(list: &ArrayView<'a>) -> Result<Vec<&'a [u8]>, TokenizerError> {
    Ok(list.strings().map_err(bad)?.collect())
}

fn kinds(list: &ArrayView<'_>, diagnostics: &mut Vec<Diagnostic>) -> Result<Vec<TokenKind>, TokenizerError> {
    let (mut unknown, mut example) = (0usize, None);
    let mut kinds = Vec::with_capacity(list.len().min(MAX_TOKENS));
    for (id, value) in list.iter().enumerate() {
        let number = value.as_integer().ok_or_else(|| TokenizerError::BadKey {
            reason: format!("`{}` holds {}, not integers", key("token_type"), value.describe()),
        })?;
        kinds.push(i64::try_from(number).ok().and_then(TokenKind::from_gguf).unwrap_or_else(|| {
            unknown += 1;
            example.get_or_insert((id, number));
            TokenKind::Normal
        }));
    }
    if let Some((id, number)) = example {
        diagnostics.push(Diagnostic::warning(
            "unknown_token_type",
            format!("{unknown} tokens have a type without meaning (token {id}: {number}; 1 to 6 are known) and count as ordinary text"),
            "convert the model again with its tokenizer",
        ));
    }
    Ok(kinds)
}

/// An id; negative numbers are how some converters write "none".
pub(crate) fn id(metadata: &Metadata, name: &str) -> Result<Option<u32>, TokenizerError> {
    let key = key(name);
    match metadata.get(&key) {
        Some(value @ (Value::I8(_) | Value::I16(_) | Value::I32(_) | Value::I64(_)))
            if value.as_integer().is_some_and(|n| n < 0) =>
        {
            Ok(Some(NO_ID))
        }
        _ => metadata.u32(&key).map_err(bad),
    }
}
