//! A look at the tokenizer inside a GGUF without building it.
//!
//! Building LLaMA-3's tables takes tens of milliseconds; whether they *can* be built is seen in one pass over the lists
//! that `tokenizer::from_gguf` reads. A test holds the look and the build together. What only building can find ends the build with an
//! error, and the chain goes on.

use crate::gguf::{ArrayView, Metadata};
use crate::tokenizer::fingerprint::{self, Fingerprint};
use crate::tokenizer::from_gguf::{NO_ID, source};
use crate::tokenizer::vocab::{VocabSource, check_size, key};
use crate::tokenizer::{TokenizerError, bpe, pretokenize};
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

/// What there is, by its first key alone.
pub(super) fn head(metadata: &Metadata) -> Embedded {
    let model = match metadata.str(&key("model")) {
        Ok(model) => model,
        Err(error) => return Embedded::Broken(TokenizerError::BadKey { reason: error.to_string() }),
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
        Embedded::Unseen => {
            source(metadata, &mut Vec::new()).and_then(|source| check(&source)).unwrap_or_else(Embedded::Broken)
        }
        other => other,
    }
}

fn check(source: &VocabSource<&[u8]>) -> Result<Embedded, TokenizerError> {
    let (model, said) = (source.model.as_str(), source.pre.as_deref());
    let VocabSource { tokens, scores, merges, .. } = source;
    let n = tokens.len();
    check_size(n)?;
    for (name, found) in [("scores", scores.len()), ("token_type", source.token_types.len())] {
        if found != 0 && found != n {
            return Err(TokenizerError::LengthMismatch { key: key(name), found, expected: n });
        }
    }
    let last = n as u32 - 1;
    for (name, id) in [("bos_token_id", source.bos), ("eos_token_id", source.eos)] {
        if let Some(id) = id.filter(|&id| id > last && id != NO_ID) {
            return Err(TokenizerError::IdOutOfRange { key: key(name), id, last });
        }
    }
    let sound = |kind, pre| Ok(Embedded::Sound { kind, tokens: n, pre });
    if model == "bert" {
        return sound("huggingface", Pre::None);
    }
    if matches!(model, "llama" | "t5") {
        if scores.is_empty() {
            return Err(TokenizerError::MissingKey { key: key("scores") });
        }
        let bad = |score: &f32| if model == "t5" { !score.is_finite() } else { score.is_nan() };
        return match scores.iter().position(bad) {
            Some(id) => Err(TokenizerError::BadScore { id: id as u32 }),
            None => sound(if model == "t5" { "unigram" } else { "spm" }, Pre::None),
        };
    }
    let pieces = said.and_then(pretokenize::by_name).is_some_and(|spec| spec.pre == pretokenize::Pre::Pieces);
    if said == Some("kimi-k2") && merges.is_empty() {
        return if pairs(source) { sound("bpe", pre(said, tokens)?) } else { Err(bpe::no_pairs()) };
    }
    let first = merges.first().ok_or(TokenizerError::NoMerges)?;
    for (index, merge) in merges.iter().enumerate() {
        // A space after the first byte, and something behind it.
        let space = merge.iter().skip(1).position(|&b| b == b' ').map(|at| at + 1);
        if space.is_none_or(|at| at + 1 >= merge.len()) {
            let merge = String::from_utf8_lossy(merge).chars().take(40).collect();
            return Err(TokenizerError::BadMerge { index, merge });
        }
    }
    if !joins(source, &merges[..1]) && !joins(source, merges) {
        return Err(bpe::useless(merges.len(), first));
    }
    if pieces || model == "gemma4" { sound("spm", Pre::None) } else { sound("bpe", pre(said, tokens)?) }
}

/// Whether one of the merges makes one ordinary token of two. The first does in every sound file, so that looking for its
/// three texts settles it; a table of all tokens is for the others.
fn joins(source: &VocabSource<&[u8]>, merges: &[&[u8]]) -> bool {
    let split = |merge: &&[u8]| {
        let at = merge.iter().skip(1).position(|&b| b == b' ').map_or(merge.len(), |at| at + 1);
        let (left, right) = (&merge[..at], merge.get(at + 1..).unwrap_or_default());
        [left.to_vec(), right.to_vec(), [left, right].concat()]
    };
    let triples: Vec<_> = merges.iter().map(split).collect();
    let wanted = |text: &[u8]| triples.len() > 1 || triples.iter().flatten().any(|part| text == part.as_slice());
    let ordinary: HashSet<&[u8]> = ordinary(source).filter(|text| wanted(text)).collect();
    triples.iter().any(|parts| parts.iter().all(|part| ordinary.contains(part.as_slice())))
}

/// Whether an ordinary token is made of two others, where ids are the ranks of merges.
fn pairs(source: &VocabSource<&[u8]>) -> bool {
    let all: HashSet<&[u8]> = ordinary(source).collect();
    // Texts are in GPT-2's alphabet: a character is a byte.
    let starts = |text: &[u8]| (1..text.len()).filter(|&at| text[at] & 0xC0 != 0x80).collect::<Vec<_>>();
    all.iter().any(|text| starts(text).into_iter().any(|at| all.contains(&text[..at]) && all.contains(&text[at..])))
}

/// The texts of the tokens that text can become.
fn ordinary<'a>(source: &VocabSource<&'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    let is_text = |id: usize| source.token_types.get(id).is_none_or(|kind| kind.is_text());
    source.tokens.iter().enumerate().filter(move |(id, _)| is_text(*id)).map(|(_, text)| *text)
}

/// What [`fingerprint::resolve`] comes to.
fn pre(said: Option<&str>, tokens: &[&[u8]]) -> Result<Pre, TokenizerError> {
    if let Some(spec) = said.and_then(pretokenize::by_name).filter(|spec| spec.pre != pretokenize::Pre::Default) {
        return Ok(if spec.name == fingerprint::FALCON_E { Pre::Rare(spec.name) } else { Pre::Named(spec.name) });
    }
    fingerprint::resolve(said, tokens, fingerprint::KNOWN, &mut Vec::new())?;
    Ok(fingerprint::identify(tokens, fingerprint::KNOWN).map_or(Pre::Unknown, Pre::Fingerprint))
}

/// The known vocabulary that a list is.
pub(super) fn identify(tokens: &ArrayView<'_>) -> Option<&'static Fingerprint> {
    let tokens: Vec<&[u8]> = tokens.strings().ok()?.collect();
    fingerprint::identify(&tokens, fingerprint::KNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::{GgufFile, GgufWriter, MetaValue};
    use crate::tokenizer::vocab::MAX_TOKENS;

    fn file(keys: &[(&str, MetaValue)]) -> GgufFile {
        let mut writer = GgufWriter::new(3, 32).unwrap();
        for (name, value) in keys {
            writer.meta(&key(name), value.clone()).unwrap();
        }
        GgufFile::from_vec(writer.into_vec().unwrap()).unwrap()
    }

    fn texts(list: &[&str]) -> MetaValue {
        list.iter().map(|t| (*t).to_owned()).collect::<Vec<String>>().into()
    }

    #[test]
    fn a_vocabulary_has_a_token_and_not_too_many() {
        for (tokens, sound) in [(0, false), (1, true), (MAX_TOKENS, true), (MAX_TOKENS + 1, false)] {
            assert_eq!(check_size(tokens).is_ok(), sound, "{tokens}");
        }
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
            ("scores", Some(vec![0f32, f32::INFINITY, 0.0, 0.0].into())),
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
            ("pre", Some("kimi-k2".into())),
            ("pre", None),
            ("pre", Some(3u32.into())),
            ("eot_token_id", Some("three".into())),
            ("padding_token_id", Some(70_000u32.into())),
            ("add_bos_token", Some(1u32.into())),
        ];
        let mut errors = 0;
        let unigram = || [vec![("model", "t5".into())], spm().split_off(1)].concat();
        let pieces = || [vec![("model", "gemma4".into())], bpe().split_off(2)].concat();
        let kimi = || {
            let mut keys = bpe();
            keys.retain(|(name, _)| !["pre", "merges"].contains(name));
            [keys, vec![("pre", "kimi-k2".into())]].concat()
        };
        for base in [bpe(), spm(), unigram(), pieces(), kimi()] {
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
