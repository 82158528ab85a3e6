//! Loading: what files get wrong is repaired and told, or refused with a message that helps; nothing panics.

use crate::tokenizer_support::*;
use bitnet_engine::gguf::{GgufFile, GgufWriter, MetaValue};
use bitnet_engine::tokenizer::fingerprint::{self, Fingerprint, digest, identify};
use bitnet_engine::tokenizer::{
    Diagnostic, EncodeOptions, Loaded, Severity, TokenKind, TokenizerError, VocabSource, from_gguf, from_source,
};
use proptest::prelude::*;
use std::sync::OnceLock;

/// Keys behind `tokenizer.ggml.`; `None` is left out.
type Keys = Vec<(&'static str, Option<MetaValue>)>;

const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };
const PARSE: EncodeOptions = EncodeOptions { add_special: true, parse_special: true };

fn source() -> VocabSource {
    static SOURCE: OnceLock<VocabSource> = OnceLock::new();
    let make = || {
        let file = byte_level_json_file(train_byte_level("llama-bpe", 500, true), "llama-bpe", SPECIALS);
        let mut source = source_of(&file, "gpt2", Some("llama-bpe"));
        let n = source.tokens.len() as u32;
        (source.bos, source.eos) = (Some(n - 5), Some(n - 4));
        source
    };
    SOURCE.get_or_init(make).clone()
}

fn codes(diagnostics: &[Diagnostic]) -> Vec<&'static str> {
    diagnostics.iter().map(|d| d.code).collect()
}

fn load(change: impl FnOnce(&mut VocabSource)) -> Result<Loaded, TokenizerError> {
    let mut source = source();
    change(&mut source);
    from_source(source)
}

fn gguf(source: &VocabSource, change: impl FnOnce(&mut Keys)) -> GgufFile {
    let text =
        |list: &[Vec<u8>]| -> Vec<String> { list.iter().map(|t| String::from_utf8(t.clone()).unwrap()).collect() };
    let kinds: Vec<i32> = source
        .token_types
        .iter()
        .map(|k| match k {
            TokenKind::Normal => 1,
            TokenKind::Unknown => 2,
            TokenKind::Control => 3,
            TokenKind::UserDefined => 4,
            TokenKind::Unused => 5,
            TokenKind::Byte => 6,
        })
        .collect();
    let mut keys: Keys = vec![
        ("model", Some(source.model.as_str().into())),
        ("pre", source.pre.as_deref().map(Into::into)),
        ("tokens", Some(text(&source.tokens).into())),
        ("token_type", Some(kinds.into())),
        ("merges", Some(text(&source.merges).into())),
        ("bos_token_id", source.bos.map(Into::into)),
        ("eos_token_id", source.eos.map(Into::into)),
    ];
    change(&mut keys);
    let mut writer = GgufWriter::new(3, 32).unwrap();
    for (key, value) in keys {
        if let Some(value) = value {
            writer.meta(&format!("tokenizer.ggml.{key}"), value).unwrap();
        }
    }
    let mut bytes = Vec::new();
    writer.write_to(&mut bytes).unwrap();
    GgufFile::from_vec(bytes).unwrap()
}

fn set(keys: &mut Keys, key: &'static str, value: impl Into<MetaValue>) {
    keys.retain(|k| k.0 != key);
    keys.push((key, Some(value.into())));
}

#[test]
fn a_gguf_gives_the_tokenizer_it_was_made_from() {
    let direct = from_source(source()).unwrap();
    assert_eq!(direct.diagnostics, []);
    let file = gguf(&source(), |keys| set(keys, "add_eos_token", true));
    let loaded = from_gguf(file.metadata()).unwrap();
    assert_eq!(loaded.diagnostics, []);
    assert_eq!((loaded.tokenizer.kind(), loaded.tokenizer.pre()), ("bpe", Some("llama-bpe")));
    assert_eq!(loaded.tokenizer.vocab_size(), source().tokens.len());
    let special = loaded.tokenizer.special();
    assert_eq!((special.bos, special.eos, special.add_bos, special.add_eos), (source().bos, source().eos, true, true));
    let eot = special.eot.unwrap();
    assert_eq!(loaded.tokenizer.token_bytes(eot, true).unwrap().as_ref(), b"<|eot_id|>");
    assert_eq!(loaded.tokenizer.token_bytes(eot, false).unwrap().as_ref(), b"");
    assert!(loaded.tokenizer.is_eog(eot) && loaded.tokenizer.is_eog(special.eos.unwrap()));
    for text in nasty() {
        let (ours, wanted) =
            (loaded.tokenizer.encode(&text, PLAIN).unwrap(), direct.tokenizer.encode(&text, PLAIN).unwrap());
        assert_eq!(ours, wanted);
    }
}

#[test]
fn what_a_gguf_lacks_or_mistypes_is_an_error_that_names_it() {
    let fail = |change: &dyn Fn(&mut Keys)| from_gguf(gguf(&source(), |keys| change(keys)).metadata()).unwrap_err();
    let missing = |key: &str| TokenizerError::MissingKey { key: format!("tokenizer.ggml.{key}") };
    assert_eq!(fail(&|k| k.retain(|k| k.0 != "model")), missing("model"));
    assert_eq!(fail(&|k| k.retain(|k| k.0 != "tokens")), missing("tokens"));
    assert_eq!(fail(&|k| k.retain(|k| k.0 != "merges")), TokenizerError::NoMerges);
    for model in ["plamo2", "hybriddna", "rwkv", "no_vocab", "none", ""] {
        assert_eq!(fail(&|k| set(k, "model", model)), TokenizerError::UnsupportedModel { found: model.into() });
    }
    for (key, value) in [
        ("model", MetaValue::from(7u32)),
        ("tokens", MetaValue::from("text")),
        ("tokens", MetaValue::from(vec![1i32, 2])),
        ("token_type", MetaValue::from(vec!["a"])),
        ("scores", MetaValue::from(vec![1i32])),
        ("bos_token_id", MetaValue::from("one")),
        ("add_bos_token", MetaValue::from(1u32)),
        ("pre", MetaValue::from(false)),
    ] {
        let error = fail(&|k| set(k, key, value.clone()));
        let TokenizerError::BadKey { reason } = &error else { panic!("{key}: {error}") };
        assert!(reason.contains(&format!("tokenizer.ggml.{key}")), "{error}");
    }
    assert_eq!(
        from_gguf(gguf(&VocabSource { model: "llama".into(), ..source() }, |k| k.retain(|k| k.0 != "pre")).metadata())
            .unwrap_err(),
        missing("scores")
    );
}

#[test]
fn negative_ids_mean_none_and_odd_types_are_told() {
    let file = gguf(&source(), |keys| {
        set(keys, "bos_token_id", -1i32);
        set(keys, "padding_token_id", 1_000_000u32);
        set(keys, "token_type", vec![9i32; source().tokens.len()]);
    });
    let loaded = from_gguf(file.metadata()).unwrap();
    assert_eq!((loaded.tokenizer.special().bos, loaded.tokenizer.special().pad), (None, None));
    assert_eq!(codes(&loaded.diagnostics), ["unknown_token_type", "id_out_of_range", "control_type_corrected"]);
    // Specials that were typed as text (as some converters do) are found again.
    assert_eq!(loaded.tokenizer.encode("<|eot_id|>", PARSE).unwrap(), [loaded.tokenizer.special().eot.unwrap()]);
}

#[test]
fn inconsistent_vocabularies_are_refused() {
    let n = source().tokens.len();
    let fail = |change: &dyn Fn(&mut VocabSource)| load(|s| change(s)).unwrap_err();
    assert!(matches!(fail(&|s| s.tokens.clear()), TokenizerError::BadVocabSize { found: 0, .. }));
    assert!(matches!(fail(&|s| s.tokens = vec![Vec::new(); (1 << 24) + 1]), TokenizerError::BadVocabSize { .. }));
    assert!(
        matches!(fail(&|s| s.token_types.truncate(3)), TokenizerError::LengthMismatch { found: 3, expected, .. } if expected == n)
    );
    assert!(matches!(fail(&|s| s.scores = vec![0.0; 2]), TokenizerError::LengthMismatch { found: 2, .. }));
    assert!(
        matches!(fail(&|s| s.bos = Some(n as u32)), TokenizerError::IdOutOfRange { last, .. } if last as usize == n - 1)
    );
    assert!(matches!(fail(&|s| s.eos = Some(u32::MAX - 1)), TokenizerError::IdOutOfRange { .. }));
    assert!(matches!(fail(&|s| s.merges.clear()), TokenizerError::NoMerges));
    for bad in ["", " ", "ab", " a", "a ", "a", "  "] {
        let error = fail(&|s| s.merges.push(bad.into()));
        assert!(matches!(error, TokenizerError::BadMerge { .. }), "{bad:?}: {error}");
    }
    let useless = fail(&|s| s.merges = vec![b"nobody knows".to_vec()]);
    assert!(
        matches!(&useless, TokenizerError::UselessMerges { what } if what.contains("1, the first is `nobody knows`"))
    );
    assert!(matches!(fail(&|s| s.model = "wordpiece".into()), TokenizerError::UnsupportedModel { .. }));
    let spm = |s: &mut VocabSource| {
        s.model = "llama".into();
        s.scores = vec![0.0; n];
        s.scores[7] = f32::NAN;
    };
    assert_eq!(fail(&spm), TokenizerError::BadScore { id: 7 });
}

#[test]
fn what_can_be_repaired_is_repaired_and_reported() {
    let told = |change: &dyn Fn(&mut VocabSource)| codes(&load(|s| change(s)).unwrap().diagnostics);
    assert_eq!(told(&|s| s.tokens[400] = s.tokens[300].clone()), ["duplicate_tokens", "merges_outside_vocabulary"]);
    let an_empty_token = |s: &mut VocabSource| {
        s.tokens.push(Vec::new());
        s.token_types.push(TokenKind::Unused);
    };
    assert_eq!(told(&an_empty_token), ["empty_tokens"]);
    assert_eq!(told(&|s| s.merges.push(s.merges[0].clone())), ["duplicate_merges"]);
    assert_eq!(told(&|s| s.merges.push(b"zzz qqq".to_vec())), ["merges_outside_vocabulary"]);
    assert_eq!(told(&|s| s.eom = Some(1 << 20)), ["id_out_of_range"]);
    assert_eq!(told(&|s| s.tokens[499] = "日".into()), ["merges_outside_vocabulary", "tokens_outside_byte_alphabet"]);
    let untyped = load(|s| s.token_types.clear()).unwrap();
    assert_eq!(codes(&untyped.diagnostics), ["no_token_types", "control_type_corrected"]);
    assert_eq!(untyped.tokenizer.encode("<|eot_id|>", PARSE).unwrap().len(), 2, "BOS and the token");
}

#[test]
fn default_ids_are_not_taken_from_ordinary_text() {
    // llama.cpp takes 11 for a gpt2 model without ids: a comma, at which every text would end.
    let loaded = load(|s| {
        (s.bos, s.eos) = (None, None);
        for token in s.tokens.iter_mut().filter(|t| t.starts_with(b"<|")) {
            *token = [b"odd", token.as_slice()].concat();
        }
    })
    .unwrap();
    assert_eq!((loaded.tokenizer.special().bos, loaded.tokenizer.special().eos), (None, None));
    assert_eq!(codes(&loaded.diagnostics), ["no_end_token"]);
    assert!((0..loaded.tokenizer.vocab_size() as u32).all(|id| !loaded.tokenizer.is_eog(id)));
}

fn planted(tokens: &[Vec<u8>]) -> Fingerprint {
    Fingerprint {
        name: "planted",
        pre: "llama-bpe",
        ids: 0..490,
        probes: &[(0, "!")],
        sha256: Box::leak(digest(&tokens[..490]).into_boxed_str()),
    }
}

#[test]
fn the_fingerprint_names_the_pre_tokenizer_and_says_so() {
    let tokens = source().tokens;
    let known = [planted(&tokens)];
    let resolve = |pre: Option<&str>, tokens: &[Vec<u8>]| {
        let mut told = Vec::new();
        let spec = fingerprint::resolve(pre, tokens, &known, &mut told);
        (spec.map(|s| s.name), told)
    };
    for pre in [None, Some("default"), Some("made-up")] {
        let (name, told) = resolve(pre, &tokens);
        assert_eq!(name, Ok("llama-bpe"));
        assert_eq!(codes(&told), ["pre_from_fingerprint"]);
        assert_eq!(told[0].severity, Severity::Warning);
        assert!(told[0].to_string().contains("bitnet repair-tokenizer FILE -o FIXED"), "{}", told[0]);
        assert!(told[0].message.contains(pre.unwrap_or("no `tokenizer.ggml.pre`")), "{}", told[0]);
    }
    assert_eq!(
        resolve(Some("llama3"), &tokens),
        (Ok("llama3"), vec![]),
        "another name of the same rule is not a contradiction"
    );
    let (name, told) = resolve(Some("gpt-2"), &tokens);
    assert_eq!((name, codes(&told)), (Ok("gpt-2"), vec!["pre_contradicts_vocabulary"]), "what a file says is used");

    // Renamed special tokens leave the fingerprint alone; one changed ordinary token does not.
    let mut renamed = tokens.clone();
    *renamed.last_mut().unwrap() = b"<|other|>".to_vec();
    assert_eq!(resolve(None, &renamed).0, Ok("llama-bpe"));
    let mut changed = tokens.clone();
    changed[489].push(b'x');
    assert!(identify(&changed, &known).is_none());
    assert!(identify(&tokens[..489], &known).is_none());
    let mut swapped = tokens.clone();
    swapped.swap(300, 301);
    assert!(identify(&swapped, &known).is_none(), "the order counts");

    for pre in [None, Some("default")] {
        let (name, told) = resolve(pre, &changed);
        assert_eq!((name, codes(&told)), (Ok("default"), vec!["pre_unknown"]));
        assert!(told[0].message.contains(&digest(&changed)), "the message has what a new line of the table needs");
    }
    let (error, _) = resolve(Some("made-up"), &changed);
    let text = error.unwrap_err().to_string();
    assert!(text.contains("made-up") && text.contains("llama-bpe, ") && text.contains("--set"), "{text}");
}

#[test]
fn the_digest_keeps_tokens_apart() {
    let of = |tokens: &[&str]| digest(&tokens.iter().map(|t| t.as_bytes().to_vec()).collect::<Vec<_>>());
    assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
    assert_ne!(of(&["a"]), of(&["a", ""]));
    // sha256 of 01 00 00 00 61
    assert_eq!(of(&["a"]), "f9f2eff042fb3ba78744d4688e6cd19f9055d8d08fb3d72170e8aa9e6c5b7592");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_source_panics(
        model in prop::sample::select(vec!["gpt2", "llama"]),
        tokens in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..4),
            prop::sample::select(vec!["<s>", "</s>", "<unk>", "<0x41>", "<|eot_id|>", "▁", "▁a", "a", "b", "ab", "Ġ", "日"]).prop_map(|s| s.as_bytes().to_vec()),
        ], 0..40),
        scores in prop::collection::vec(any::<f32>(), 0..41),
        same_length in any::<bool>(),
        kinds in prop::collection::vec(0i64..8, 0..41),
        merges in prop::collection::vec(prop_oneof![Just(b"a b".to_vec()), prop::collection::vec(any::<u8>(), 0..5)], 0..6),
        ids in prop::collection::vec(prop::option::of(prop_oneof![0u32..45, any::<u32>()]), 6),
        pre in prop::option::of(prop::sample::select(vec!["default", "gpt-2", "llama3", "what"])),
        text in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let n = tokens.len();
        let fit = |len: usize| if same_length { n } else { len };
        let source = VocabSource {
            model: model.into(),
            pre: pre.map(Into::into),
            scores: scores.iter().copied().cycle().take(if scores.is_empty() { 0 } else { fit(scores.len()) }).collect(),
            token_types: kinds.iter().map(|&k| TokenKind::from_gguf(k).unwrap_or_default()).cycle().take(if kinds.is_empty() { 0 } else { fit(kinds.len()) }).collect(),
            tokens, merges,
            bos: ids[0], eos: ids[1], eot: ids[2], eom: ids[3], unk: ids[4], pad: ids[5],
            ..VocabSource::default()
        };
        match from_source(source) {
            Err(error) => prop_assert!(!error.to_string().is_empty()),
            Ok(loaded) => {
                for opts in [PLAIN, PARSE] {
                    if let Ok(out) = loaded.tokenizer.encode_bytes(&text, opts) {
                        prop_assert!(out.iter().all(|&id| (id as usize) < n));
                        loaded.tokenizer.decode(&out, false);
                    }
                }
            }
        }
    }
}
