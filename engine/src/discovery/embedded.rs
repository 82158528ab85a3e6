//! A look at the tokenizer inside a GGUF without building it.
//!
//! Building LLaMA-3's tables takes tens of milliseconds; whether they *can* be built is seen in one pass over the lists
//! where they lie in the file. The rules are those of `tokenizer::from_gguf`, and a test holds the two together. What only building can
//! find ends the build with an error, and the chain goes on.

use crate::gguf::{ArrayView, GgufError, Metadata, Value, ValueType};
use crate::tokenizer::fingerprint::{self, Fingerprint};
use crate::tokenizer::vocab::MAX_TOKENS;
use crate::tokenizer::{TokenKind, TokenizerError, bpe, pretokenize};
use std::collections::HashSet;

/// What the metadata has of a tokenizer.
#[derive(Debug)]
pub(super) enum Embedded {
    /// Nothing, and why that can be said.
    Absent(String),
    /// One of a kind that this engine does not compute from GGUF metadata.
    Unsupported(TokenizerError),
    /// One that cannot work.
    Broken(TokenizerError),
    /// Something of a kind that can be built; nobody has looked closer yet.
    Unseen,
    /// One that can be built.
    Sound {
        /// As [`Tokenizer::kind`](crate::tokenizer::Tokenizer::kind).
        kind: &'static str,
        /// Tokens.
        tokens: usize,
        /// How text is split before the merges.
        pre: Pre,
    },
}

/// What is known of the pre-tokenizer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pre {
    /// The kind has none.
    None,
    /// The file names it.
    Named(&'static str),
    /// The file does not (or wrongly), its vocabulary does.
    Fingerprint(&'static Fingerprint),
    /// The file names it, but only one program knows the name.
    Rare(&'static str),
    /// Neither: llama.cpp's fallback would be a guess.
    Unknown,
}

const PREFIX: &str = "tokenizer.ggml.";

fn key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

fn bad(error: GgufError) -> TokenizerError {
    TokenizerError::BadKey { reason: error.to_string() }
}

/// What there is, by its first key alone.
pub(super) fn head(metadata: &Metadata) -> Embedded {
    let model = match metadata.str(&key("model")) {
        Ok(model) => model,
        Err(error) => return Embedded::Broken(bad(error)),
    };
    match model {
        None if !metadata.contains(&key("tokens")) => {
            Embedded::Absent("neither tokenizer.ggml.model nor tokenizer.ggml.tokens is there".to_owned())
        }
        None => Embedded::Broken(TokenizerError::MissingKey { key: key("model") }),
        Some(name @ ("none" | "no_vocab")) => Embedded::Absent(format!("tokenizer.ggml.model is `{name}`")),
        Some("gpt2" | "llama" | "gemma4" | "t5" | "bert") => Embedded::Unseen,
        Some(other) => Embedded::Unsupported(TokenizerError::UnsupportedModel { found: other.to_owned() }),
    }
}

/// What there is, and whether it can be built.
pub(super) fn look(metadata: &Metadata) -> Embedded {
    match head(metadata) {
        Embedded::Unseen => check(metadata).unwrap_or_else(Embedded::Broken),
        other => other,
    }
}

fn list<'a>(metadata: &'a Metadata, name: &str) -> Result<Option<ArrayView<'a>>, TokenizerError> {
    metadata.array(&key(name)).map_err(bad)
}

fn check(metadata: &Metadata) -> Result<Embedded, TokenizerError> {
    let model = metadata.str(&key("model")).map_err(bad)?.unwrap_or_default();
    let tokens = list(metadata, "tokens")?.ok_or_else(|| TokenizerError::MissingKey { key: key("tokens") })?;
    tokens.strings().map_err(bad)?;
    let n = tokens.len();
    if n == 0 || n > MAX_TOKENS {
        return Err(TokenizerError::BadVocabSize { found: n, limit: MAX_TOKENS });
    }
    let scores = list(metadata, "scores")?;
    let types = list(metadata, "token_type")?;
    for (name, list) in [("scores", &scores), ("token_type", &types)] {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty() && list.len() != n) {
            return Err(TokenizerError::LengthMismatch { key: key(name), found: list.len(), expected: n });
        }
    }
    if let Some(types) = &types
        && matches!(
            types.element_type(),
            ValueType::String | ValueType::Array | ValueType::Bool | ValueType::F32 | ValueType::F64
        )
        && !types.is_empty()
    {
        return Err(TokenizerError::BadKey { reason: format!("`{}` holds no integers", key("token_type")) });
    }
    let last = n as u32 - 1;
    for name in ["bos_token_id", "eos_token_id"] {
        if let Some(id) = id(metadata, name)?.filter(|&id| id > last) {
            return Err(TokenizerError::IdOutOfRange { key: key(name), id, last });
        }
    }
    for name in ["eot_token_id", "eom_token_id", "unknown_token_id", "padding_token_id"] {
        id(metadata, name)?;
    }
    for name in ["add_bos_token", "add_eos_token", "add_space_prefix"] {
        metadata.bool(&key(name)).map_err(bad)?;
    }
    let scores = scores.map(|scores| scores.f32s().map_err(bad)).transpose()?.filter(|scores| scores.len() > 0);
    let merges = list(metadata, "merges")?;
    let merges = merges.map(|merges| merges.strings().map_err(bad)).transpose()?.filter(|merges| merges.len() > 0);
    let said = metadata.str(&key("pre")).map_err(bad)?;
    if model == "bert" {
        return Ok(Embedded::Sound { kind: "huggingface", tokens: n, pre: Pre::None });
    }
    if matches!(model, "llama" | "t5") {
        let mut scores = scores.ok_or_else(|| TokenizerError::MissingKey { key: key("scores") })?;
        let bad = |score: f32| if model == "t5" { !score.is_finite() } else { score.is_nan() };
        if let Some(id) = scores.position(bad) {
            return Err(TokenizerError::BadScore { id: id as u32 });
        }
        let kind = if model == "t5" { "unigram" } else { "spm" };
        return Ok(Embedded::Sound { kind, tokens: n, pre: Pre::None });
    }
    let pieces = said.and_then(pretokenize::by_name).is_some_and(|spec| spec.pre == pretokenize::Pre::Pieces);
    let pieces = pieces || model == "gemma4";
    if said == Some("kimi-k2") && merges.is_none() {
        return Ok(Embedded::Sound { kind: "bpe", tokens: n, pre: pre(said, &tokens)? });
    }
    let merges = merges.ok_or(TokenizerError::NoMerges)?;
    for (index, merge) in merges.clone().enumerate() {
        // A space after the first byte, and something behind it.
        let space = merge.iter().skip(1).position(|&b| b == b' ').map(|at| at + 1);
        if space.is_none_or(|at| at + 1 >= merge.len()) {
            let merge = String::from_utf8_lossy(merge).chars().take(40).collect();
            return Err(TokenizerError::BadMerge { index, merge });
        }
    }
    let first = merges.clone().next().unwrap_or_default();
    if !joins(&tokens, types.as_ref(), merges.clone().take(1))? && !joins(&tokens, types.as_ref(), merges.clone())? {
        return Err(bpe::useless(merges.len(), first));
    }
    if pieces {
        return Ok(Embedded::Sound { kind: "spm", tokens: n, pre: Pre::None });
    }
    Ok(Embedded::Sound { kind: "bpe", tokens: n, pre: pre(said, &tokens)? })
}

/// Whether one of the merges makes one ordinary token of two. The first does in every sound file, so that looking for its
/// three texts settles it; a table of all tokens is for the others.
fn joins<'a>(
    tokens: &ArrayView<'a>,
    types: Option<&ArrayView<'a>>,
    merges: impl ExactSizeIterator<Item = &'a [u8]>,
) -> Result<bool, TokenizerError> {
    let split = |merge: &'a [u8]| {
        let at = merge.iter().skip(1).position(|&b| b == b' ').map_or(merge.len(), |at| at + 1);
        (&merge[..at], merge.get(at + 1..).unwrap_or_default())
    };
    let one = merges.len() == 1;
    let pairs: Vec<_> = merges.map(split).map(|(left, right)| (left, right, [left, right].concat())).collect();
    let wanted = |text: &[u8]| !one || pairs.iter().any(|(l, r, both)| text == *l || text == *r || text == *both);
    let mut kinds = types.filter(|types| !types.is_empty()).map(|types| types.iter());
    let mut ordinary = HashSet::new();
    for text in tokens.strings().map_err(bad)? {
        let kind = kinds.as_mut().and_then(Iterator::next).and_then(|kind| kind.as_integer());
        let kind = kind.and_then(|kind| i64::try_from(kind).ok()).and_then(TokenKind::from_gguf);
        if kind.is_none_or(TokenKind::is_text) && wanted(text) {
            ordinary.insert(text);
        }
    }
    Ok(pairs.iter().any(|(l, r, both)| [*l, *r, both.as_slice()].iter().all(|text| ordinary.contains(text))))
}

/// The rule of `fingerprint::resolve`.
fn pre(said: Option<&str>, tokens: &ArrayView<'_>) -> Result<Pre, TokenizerError> {
    if let Some(spec) = said.and_then(pretokenize::by_name).filter(|spec| spec.pre != pretokenize::Pre::Default) {
        return Ok(if spec.name == fingerprint::FALCON_E { Pre::Rare(spec.name) } else { Pre::Named(spec.name) });
    }
    if let Some((name, why)) = pretokenize::REFUSED.iter().find(|refused| said == Some(refused.0))
        && identify(tokens).is_none()
    {
        return Err(TokenizerError::RefusedPre { found: (*name).to_owned(), why });
    }
    match (identify(tokens), said) {
        (Some(known), _) => Ok(Pre::Fingerprint(known)),
        (None, Some(name)) if pretokenize::by_name(name).is_none() => Err(TokenizerError::UnknownPre {
            found: name.to_owned(),
            known: pretokenize::known_names(),
            vocab_size: tokens.len(),
            digest: digest(tokens, 0, tokens.len()),
        }),
        (None, _) => Ok(Pre::Unknown),
    }
}

/// `fingerprint::identify` of a list that stays in the file.
pub(super) fn identify(tokens: &ArrayView<'_>) -> Option<&'static Fingerprint> {
    fingerprint::KNOWN.iter().find(|known| {
        known.ids.end <= tokens.len()
            && known
                .probes
                .iter()
                .all(|&(id, text)| tokens.strings().ok().and_then(|mut t| t.nth(id)) == Some(text.as_bytes()))
            && digest(tokens, known.ids.start, known.ids.len()) == known.sha256
    })
}

/// As `fingerprint::digest`.
fn digest(tokens: &ArrayView<'_>, skip: usize, take: usize) -> String {
    fingerprint::digest_of(tokens.strings().into_iter().flatten().skip(skip).take(take))
}

/// An id; a negative number means none.
pub(super) fn id(metadata: &Metadata, name: &str) -> Result<Option<u32>, TokenizerError> {
    match metadata.get(&key(name)) {
        Some(value @ (Value::I8(_) | Value::I16(_) | Value::I32(_) | Value::I64(_)))
            if value.as_integer().is_some_and(|n| n < 0) =>
        {
            Ok(None)
        }
        _ => metadata.u32(&key(name)).map_err(bad),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::{GgufFile, GgufWriter, MetaValue};

    fn file(keys: &[(&str, MetaValue)]) -> GgufFile {
        let mut writer = GgufWriter::new(3, 32).unwrap();
        for (name, value) in keys {
            writer.meta(&key(name), value.clone()).unwrap();
        }
        let mut bytes = Vec::new();
        writer.write_to(&mut bytes).unwrap();
        GgufFile::from_vec(bytes).unwrap()
    }

    fn texts(list: &[&str]) -> MetaValue {
        list.iter().map(|t| (*t).to_owned()).collect::<Vec<String>>().into()
    }

    /// Every spoiled list must be seen by the look as by the build, with the same error.
    #[test]
    fn the_look_and_the_build_agree() {
        let bpe = || {
            vec![
                ("model", MetaValue::from("gpt2")),
                ("pre", "gpt-2".into()),
                ("tokens", texts(&["a", "b", "ab", "<|endoftext|>"])),
                ("token_type", vec![1i32, 1, 1, 3].into()),
                ("merges", texts(&["a b"])),
                ("eos_token_id", 3u32.into()),
            ]
        };
        let spm = || {
            vec![
                ("model", MetaValue::from("llama")),
                ("tokens", texts(&["<unk>", "<s>", "</s>", "a"])),
                ("scores", vec![0f32, 0.0, 0.0, -1.0].into()),
                ("token_type", vec![2i32, 3, 3, 1].into()),
            ]
        };
        let spoils: Vec<(&str, Option<MetaValue>)> = vec![
            ("model", None),
            ("model", Some(7u32.into())),
            ("model", Some("t5".into())),
            ("tokens", None),
            ("tokens", Some(vec![1u32].into())),
            ("tokens", Some(texts(&[]))),
            ("scores", Some(vec![0f32].into())),
            ("scores", Some(vec![0f32, f32::NAN, 0.0, 0.0].into())),
            ("scores", Some(vec![1u32, 2, 3, 4].into())),
            ("token_type", Some(vec![1i32].into())),
            ("token_type", Some(texts(&["a", "b", "c", "d"]))),
            ("merges", None),
            ("merges", Some(texts(&[]))),
            ("merges", Some(texts(&["ab"]))),
            ("merges", Some(texts(&["x y"]))),
            ("merges", Some(texts(&["x y", "a b"]))),
            ("merges", Some(texts(&["b a"]))),
            ("token_type", Some(vec![3i32, 1, 1, 3].into())),
            ("merges", Some(texts(&["a "]))),
            ("merges", Some(texts(&[" b"]))),
            ("merges", Some(5u32.into())),
            ("eos_token_id", Some(4u32.into())),
            ("bos_token_id", Some(99u64.into())),
            ("bos_token_id", Some((-1i32).into())),
            ("eos_token_id", Some("two".into())),
            ("pre", Some("nobody-knows".into())),
            ("pre", Some("mmbert".into())),
            ("pre", Some("gemma4".into())),
            ("pre", Some("falcon_e".into())),
            ("pre", Some("default".into())),
            ("pre", None),
            ("pre", Some(3u32.into())),
            ("eot_token_id", Some("three".into())),
            ("padding_token_id", Some(70_000u32.into())),
            ("add_bos_token", Some(1u32.into())),
        ];
        let mut errors = 0;
        let unigram = || [vec![("model", "t5".into())], spm().split_off(1)].concat();
        let pieces = || [vec![("model", "gemma4".into())], bpe().split_off(2)].concat();
        for base in [bpe(), spm(), unigram(), pieces()] {
            let mut cases = vec![("nothing".to_owned(), base.clone())];
            for (name, value) in &spoils {
                let mut keys = base.clone();
                keys.retain(|(other, _)| other != name);
                keys.extend(value.clone().map(|value| (*name, value)));
                cases.push((format!("{name} = {value:?}"), keys));
            }
            for (what, keys) in cases {
                let file = file(&keys);
                let built = crate::tokenizer::from_gguf(file.metadata());
                match (look(file.metadata()), built) {
                    (Embedded::Sound { kind, tokens, pre }, Ok(built)) => {
                        assert_eq!((kind, tokens), (built.tokenizer.kind(), built.tokenizer.vocab_size()), "{what}");
                        let guessed = built.diagnostics.iter().any(|d| d.code == "pre_unknown");
                        assert_eq!(matches!(pre, Pre::Unknown), guessed, "{what}");
                    }
                    (Embedded::Broken(look) | Embedded::Unsupported(look), Err(build)) => {
                        errors += 1;
                        let same = std::mem::discriminant(&look) == std::mem::discriminant(&build);
                        assert!(same, "{what}: {look} / {build}");
                    }
                    (look, build) => panic!("{what}: {look:?} / {build:?}"),
                }
            }
        }
        assert!(errors > 25, "{errors}");
    }
}
