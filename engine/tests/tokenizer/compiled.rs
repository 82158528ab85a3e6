//! A compiled tokenizer is the built one, or an error with the reason.

use super::{files_forms, spm};
use crate::tokenizer_support::sentencepiece::{Spec, model};
use crate::tokenizer_support::*;
use bitnet_engine::tokenizer::compiled::{self, Unusable, VERSION, compile};
use bitnet_engine::tokenizer::files::{FileSet, Hints, load, load_path};
use bitnet_engine::tokenizer::{
    EncodeOptions, Loaded, MergeRule, TokenKind, TokenizerError, VocabSource, byte_alphabet, from_source,
};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

const OPTIONS: [EncodeOptions; 3] = [
    EncodeOptions { add_special: false, parse_special: false },
    EncodeOptions { add_special: false, parse_special: true },
    EncodeOptions { add_special: true, parse_special: true },
];

pub(crate) fn small_bpe() -> VocabSource {
    let file = byte_level_json_file(train_byte_level("gpt-2", 400, true), "gpt-2", SPECIALS);
    source_of(&file, "gpt2", Some("gpt-2"))
}

fn sentencepiece(spec: &Spec) -> Loaded {
    let mut set = FileSet::new();
    set.add("tokenizer.model", model(&files_forms::pieces(), spec));
    load(&set, &Hints::default()).unwrap()
}

fn opened(bytes: &[u8]) -> Result<Loaded, TokenizerError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tokenizer");
    std::fs::write(&path, bytes).unwrap();
    assert!(compiled::is_compiled(&path) || !bytes.starts_with(b"\x89BNTOK\r\n"));
    compiled::open(&path)
}

fn reason(bytes: &[u8]) -> Unusable {
    match opened(bytes) {
        Err(TokenizerError::Compiled { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn same(built: &Loaded, other: &Loaded, what: &str) {
    let (a, b) = (&*built.tokenizer, &*other.tokenizer);
    let about = |t: &dyn bitnet_engine::tokenizer::Tokenizer| {
        (t.kind(), t.pre().map(str::to_owned), t.vocab_size(), *t.special(), t.adds_prefix_space())
    };
    assert_eq!(about(a), about(b), "{what}");
    for id in 0..a.vocab_size() as u32 + 2 {
        assert_eq!(a.is_eog(id), b.is_eog(id), "{what} {id}");
        for special in [false, true] {
            assert_eq!(a.token_bytes(id, special), b.token_bytes(id, special), "{what} {id}");
        }
    }
    // Long enough to repeat itself, too.
    let long = CORPUS.repeat(2);
    for text in nasty().iter().map(String::as_str).chain([CORPUS, &long]) {
        for options in OPTIONS {
            let ids = a.encode(text, options);
            assert_eq!(ids, b.encode(text, options), "{what} {text:?} {options:?}");
            let ids = ids.unwrap_or_default();
            assert_eq!(a.decode(&ids, true), b.decode(&ids, true), "{what} {text:?}");
        }
    }
}

/// Byte-level BPE with and without what merges do not reach and by ranks, SPM with and without a normalizer, Unigram.
fn kinds() -> Vec<(&'static str, Loaded)> {
    let bpe = |pre: &str, ignore: bool| {
        let mut source = small_bpe();
        (source.pre, source.ignore_merges) = (Some(pre.into()), Some(ignore));
        from_source(source).unwrap()
    };
    let ranks = VocabSource {
        merge_rule: MergeRule::Ranks,
        tokens: (0..=255u8)
            .map(|b| vec![b])
            .chain([b"th".to_vec(), b"he".to_vec(), b"the".to_vec(), b" the".to_vec()])
            .map(|text| byte_alphabet::encode(&text).into_bytes())
            .collect(),
        ..VocabSource { model: "gpt2".into(), pre: Some("llama-bpe".into()), ..VocabSource::default() }
    };
    vec![
        ("gpt-2", bpe("gpt-2", false)),
        ("llama-bpe", bpe("llama-bpe", true)),
        ("deepseek-llm", bpe("deepseek-llm", false)),
        ("a guess", bpe("default", false)),
        ("ranks", from_source(ranks).unwrap()),
        ("spm", from_source(spm::source()).unwrap()),
        ("sentencepiece", sentencepiece(&Spec::default())),
        ("sentencepiece that removes spaces", sentencepiece(&Spec { remove_extra: true, ..Spec::default() })),
        ("unigram", sentencepiece(&Spec { model_type: 1, ..Spec::default() })),
    ]
}

#[test]
fn a_compiled_tokenizer_is_the_built_one() {
    for (what, built) in kinds() {
        let back = opened(&compile(&built).unwrap()).unwrap();
        assert_eq!(built.diagnostics, back.diagnostics, "{what}");
        same(&built, &back, what);
        // What was opened can be compiled again, to the same bytes.
        assert_eq!(compile(&back).unwrap(), compile(&built).unwrap(), "{what}");
    }
}

#[test]
fn real_vocabularies_are_the_same_compiled() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/vocab");
    for path in ["gpt2", "mistral-v1/tokenizer.model"] {
        let built = load_path(&golden.join(path), &Hints::default()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("compiled");
        let bytes = compiled::write(&built, &file).unwrap();
        assert_eq!(bytes as u64, std::fs::metadata(&file).unwrap().len());
        let back = load_path(&file, &Hints::default()).unwrap();
        assert_eq!(built.diagnostics, back.diagnostics, "{path}");
        same(&built, &back, path);
    }
}

#[test]
fn what_another_crate_runs_is_refused_by_name() {
    let file = json!({"version": "1.0", "added_tokens": [],
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "normalizer": null, "post_processor": null,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "a": 1, "##b": 2}}});
    let mut set = FileSet::new();
    set.add("tokenizer.json", file.to_string().into_bytes());
    let loaded = load(&set, &Hints::default()).unwrap();
    let error = compile(&loaded).unwrap_err();
    assert_eq!(error, TokenizerError::NotCompilable { kind: "huggingface" });
    assert!(error.to_string().contains("huggingface"), "{error}");
}

/// Head, tables, values, and what lies between them.
#[test]
fn damage_anywhere_is_noticed() {
    let bytes = compile(&from_source(spm::source()).unwrap()).unwrap();
    let step = bytes.len() / 400 + 1;
    for at in (0..1100).step_by(7).chain((0..bytes.len()).step_by(step)).chain(bytes.len() - 300..bytes.len()) {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        assert!(opened(&bad).is_err(), "byte {at} of {}", bytes.len());
    }
    for len in [0, 1, 7, 8, 63, 64, 1023, 1024, 1025, bytes.len() / 2, bytes.len() - 64, bytes.len() - 1] {
        assert!(opened(&bytes[..len]).is_err(), "cut to {len}");
    }
    assert_eq!(reason(&[&bytes[..], &[0; 64]].concat()).to_string(), "it is longer than its header says");
    assert_eq!(reason(&bytes[..bytes.len() - 1]).to_string(), "it is cut off");
    assert_eq!(reason(b"#!/bin/sh"), Unusable::NotCompiled);
}

#[test]
fn other_versions_rules_and_orders_are_named() {
    let bytes = compile(&from_source(spm::source()).unwrap()).unwrap();
    let with = |at: usize, field: [u8; 4]| {
        let mut bad = bytes.clone();
        bad[at..at + 4].copy_from_slice(&field);
        reason(&bad)
    };
    assert_eq!(with(12, (VERSION + 1).to_ne_bytes()), Unusable::Version { found: VERSION + 1 });
    assert_eq!(with(16, [1, 2, 3, 4]), Unusable::Version { found: VERSION });
    let mut order: [u8; 4] = bytes[8..12].try_into().unwrap();
    order.reverse();
    assert_eq!(with(8, order), Unusable::ByteOrder);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tokenizer");
    std::fs::write(&path, [&bytes[..12], &[9, 0, 0, 0], &bytes[16..]].concat()).unwrap();
    let text = compiled::open(&path).unwrap_err().to_string();
    assert!(text.contains("a.tokenizer") && text.contains("bitnet tokenizer compile"), "{text}");
}

#[test]
fn where_nothing_can_be_written_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let loaded = from_source(spm::source()).unwrap();
    let taken: PathBuf = dir.path().join("folder");
    std::fs::create_dir(&taken).unwrap();
    let error = compiled::write(&loaded, &taken).unwrap_err();
    assert!(matches!(error, TokenizerError::Unwritten { .. }) && error.to_string().contains("folder"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// Three vocabularies that depend on nothing else.
fn fixed() -> [VocabSource; 3] {
    let texts = |list: &[&str]| list.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
    let kinds = |list: &[i64]| list.iter().map(|n| TokenKind::from_gguf(*n).unwrap()).collect::<Vec<_>>();
    let bpe = VocabSource {
        model: "gpt2".into(),
        pre: Some("gpt-2".into()),
        tokens: texts(&["a", "b", "c", "Ġ", "ab", "abc", "Ġab", "abcabcabc", "<|end|>", "<x>"]),
        token_types: kinds(&[1, 1, 1, 1, 1, 1, 1, 1, 3, 4]),
        merges: texts(&["a b", "ab c", "Ġ ab"]),
        eos: Some(8),
        ..VocabSource::default()
    };
    let spm = VocabSource {
        model: "llama".into(),
        tokens: texts(&["<unk>", "<s>", "</s>", "<0x0A>", "▁", "a", "b", "▁a", "ab", "▁ab", "aabbaabbaa"]),
        token_types: kinds(&[2, 3, 3, 6, 1, 1, 1, 1, 1, 1, 1]),
        scores: (0..11).map(|n| -(n as f32)).collect(),
        ..VocabSource::default()
    };
    let unigram = VocabSource { model: "t5".into(), unk: Some(0), eos: Some(2), ..spm.clone() };
    [bpe, spm, unigram]
}

/// The bytes of compiled vocabularies, without what only says which rules the program knows. If this fails, the form or the meaning of
/// the tables has changed: raise `VERSION` in engine/src/tokenizer/compiled/mod.rs, and write down the new digest with it.
#[cfg(target_endian = "little")]
#[test]
fn what_a_version_means_does_not_change() {
    const DIGESTS: (u32, &str) = (2, "4f95eb7a789f231f6bb250ed4a0c033545d446525cbbd277f1c6c0d1fad15e1e");
    let mut hash = Sha256::new();
    for source in fixed() {
        let mut bytes = compile(&from_source(source).unwrap()).unwrap();
        bytes[16..20].fill(0);
        bytes[32..40].fill(0);
        hash.update(&bytes);
    }
    assert_eq!((VERSION, hex::encode(hash.finalize()).as_str()), DIGESTS);
}
