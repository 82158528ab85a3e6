//! Files that are damaged, lie, or are something else: an error that names it, never a panic.

use crate::tokenizer_support::sentencepiece::{Spec, bytes, model, number};
use crate::tokenizer_support::*;
use bitnet_engine::tokenizer::files::{FileKind, FileSet, Hints, load, recognise};
use bitnet_engine::tokenizer::{EncodeOptions, Loaded, TokenKind, TokenizerError, VocabSource};
use proptest::prelude::*;
use serde_json::{Value, json};

fn open(name: &str, bytes: impl Into<Vec<u8>>) -> Result<Loaded, TokenizerError> {
    let mut set = FileSet::new();
    set.add(name, bytes.into());
    load(&set, &Hints { pre: Some("gpt-2".into()), ..Hints::default() })
}

fn small_json() -> Value {
    byte_level_json_file(train_byte_level("gpt-2", 300, true), "gpt-2", &["<|x|>"])
}

fn small_spm() -> VocabSource {
    let texts = ["<unk>", "<s>", "</s>", "<0x41>", "▁", "a", "b", "ab", "▁ab"];
    let mut token_types = vec![TokenKind::Normal; texts.len()];
    token_types[0] = TokenKind::Unknown;
    token_types[1..3].fill(TokenKind::Control);
    token_types[3] = TokenKind::Byte;
    VocabSource {
        model: "llama".into(),
        tokens: texts.map(|t| t.as_bytes().to_vec()).to_vec(),
        scores: (0..texts.len()).map(|i| -(i as f32)).collect(),
        token_types,
        ..VocabSource::default()
    }
}

#[test]
fn what_is_no_tokenizer_is_named() {
    let cases: &[(&[u8], &str)] = &[
        (b"", "the file is empty"),
        (b" \n\n", "white space"),
        (b"<!DOCTYPE html>\n<html><body>404</body></html>", "this is an HTML page"),
        (b"\n  <html lang=en>", "this is an HTML page"),
        (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", "this is an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "this is a Git LFS pointer"),
        (br#"{"error": "Repository not found"}"#, "JSON error answer of a server (Repository not found)"),
        (br#"{"message": {"code": 5}}"#, "JSON error answer"),
        (b"GGUF\x03\0\0\0", "this is a GGUF model"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"PK\x03\x04..", "zip"),
        (b"\x28\xb5\x2f\xfd..", "zstd"),
        (b"{}", "neither a tokenizer.json"),
        (b"[1, 2, 3]", "neither a tokenizer.json"),
        (br#"{"a": "b"}"#, "neither a tokenizer.json"),
        (b"\x00\x01\x02\x03", "00010203"),
        (b"Entry not found", "first bytes"),
    ];
    for name in ["tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt"] {
        for (bytes, part) in cases {
            let error = open(name, *bytes).unwrap_err();
            assert!(matches!(&error, TokenizerError::NotATokenizer { file, .. } if file == name), "{name}: {error:?}");
            assert!(error.to_string().contains(part), "{name}: `{error}` does not say `{part}`");
        }
    }
    let none = load(&FileSet::new(), &Hints::default()).unwrap_err();
    assert!(none.to_string().contains("found: nothing"), "{none}");
    let only = open("tokenizer_config.json", *b"{}").unwrap_err();
    assert!(matches!(only, TokenizerError::NoTokenizerFile { .. }), "{only}");
}

#[test]
fn content_counts_more_than_the_name() {
    let json = small_json().to_string().into_bytes();
    let spm = model(&small_spm(), &Spec::default());
    let cases: &[(&[u8], Option<FileKind>)] = &[
        (&json, Some(FileKind::HuggingFaceJson)),
        (b"\xEF\xBB\xBF {\n \"version\": \"1.0\", \"model\": {}}", Some(FileKind::HuggingFaceJson)),
        (&spm, Some(FileKind::SentencePiece)),
        (b"IQ== 0\nIg== 1\n", Some(FileKind::Tiktoken)),
        (b"IQ== 0\r\nIg== 1", Some(FileKind::Tiktoken)),
        (br#"{"!": 0, "a": 1}"#, Some(FileKind::VocabJson)),
        (br#"{ "\"" : 0}"#, Some(FileKind::VocabJson)),
        (b"#version: 0.2\n\xC4\xA0 t\n", Some(FileKind::Merges)),
        (br#"{"a"#, None),
        (br#"{"a\"#, None),
        (b"{", None),
        (b"\n", None),
        (b"\n\x05", None),
        (b"\n\xFF\xFF", None),
    ];
    for name in ["tokenizer.json", "tokenizer.model", "x"] {
        for (bytes, kind) in cases {
            assert_eq!(
                recognise(name, bytes),
                *kind,
                "{name}: {:?}",
                String::from_utf8_lossy(&bytes[..bytes.len().min(30)])
            );
        }
    }
    assert_eq!(recognise("merges.txt", b"a b\nc d\n"), Some(FileKind::Merges));
    assert_eq!(recognise("notes.txt", b"a b\nc d\n"), None, "two words on a line are not merges by themselves");
    assert_eq!(recognise("tokenizer_config.json", &json), None);
    assert_eq!(open("tokenizer.model", json).unwrap().tokenizer.kind(), "bpe");
}

#[test]
fn a_sentencepiece_file_cut_anywhere_is_an_error_or_whole() {
    let file = model(&small_spm(), &Spec::default());
    assert_eq!(open("tokenizer.model", file.clone()).unwrap().tokenizer.vocab_size(), 9);
    let mut whole = 0;
    for len in 0..file.len() {
        match open("tokenizer.model", &file[..len]) {
            // Cut between fields it is a smaller file, whose trainer says unigram.
            Ok(loaded) => {
                whole += 1;
                assert!(loaded.tokenizer.vocab_size() <= 9);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    assert!(whole <= 12, "{whole} of {} cuts were taken for whole files", file.len());
}

#[test]
fn lying_sentencepiece_files() {
    let good = model(&small_spm(), &Spec::default());
    let with = |tail: &[u8]| [&good[..], tail].concat();
    let piece = |build: &dyn Fn(&mut Vec<u8>)| {
        let mut inner = Vec::new();
        build(&mut inner);
        let mut out = good.clone();
        bytes(&mut out, 1, &inner);
        out
    };
    let trainer = |field, n| {
        let mut inner = Vec::new();
        number(&mut inner, field, n);
        let mut out = good.clone();
        bytes(&mut out, 2, &inner);
        out
    };
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (with(b"\x0A\xFF\xFF\xFF\xFF\x0F"), "4294967295 bytes and 0 are left"),
        (with(b"\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01"), "are left"),
        (with(b"\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F"), "too long"),
        (with(b"\x0A"), "ends inside of a number"),
        (with(b"\x0B"), "wire type 3"),
        (with(b"\x0F"), "wire type 7"),
        (with(b"\x02\x00"), "number 0"),
        (with(b"\x08\x01"), "field 1 is not a message"),
        (with(b"\x0A\x00"), "piece 9 has no text"),
        (piece(&|p| number(p, 1, 5)), "field 1 of piece 9 has the wrong type"),
        (
            piece(&|p| {
                bytes(p, 1, b"x");
                number(p, 3, 9)
            }),
            "piece 9 has type 9",
        ),
        (piece(&|p| bytes(p, 1, &[b'x'; 5000])), "5000 bytes"),
        (piece(&|p| p.extend(b"\x0A\x05abc")), "says 5 bytes and 3 are left"),
        (trainer(41, 9), "bos_token_id is 9, but its pieces end at 8"),
        (trainer(42, i64::from(i32::MAX)), "eos_token_id"),
        (trainer(3, 99), "kind 99"),
    ];
    for (file, part) in cases {
        let error = open("tokenizer.model", file).unwrap_err();
        assert!(error.to_string().contains(part), "`{error}` does not say `{part}`");
    }
    let mut source = small_spm();
    source.scores[7] = f32::NAN;
    assert_eq!(open("m.model", model(&source, &Spec::default())).unwrap_err(), TokenizerError::BadScore { id: 7 });
    let unigram = Spec { model_type: 1, ..Spec::default() };
    assert_eq!(open("m.model", model(&source, &unigram)).unwrap_err(), TokenizerError::BadScore { id: 7 });
    source.scores[7] = 0.0;
    source.tokens[7] = vec![0xFF];
    assert!(open("m.model", model(&source, &unigram)).unwrap_err().to_string().contains("piece 7 is not UTF-8"));
}

#[test]
fn damaged_tokenizer_json() {
    type Change = fn(&mut Value);
    let cases: &[(Change, &str)] = &[
        (|f| f["model"]["vocab"]["a"] = json!(-1), "invalid value"),
        (|f| f["model"]["vocab"]["a"] = json!("x"), "invalid type"),
        (|f| f["model"]["vocab"]["a"] = json!(1.5), "invalid"),
        (|f| f["model"]["vocab"]["a"] = json!(5_000_000_000u64), "invalid value"),
        (|f| f["model"]["vocab"]["a"] = json!(4_000_000_000u32), "ids are expected below"),
        (|f| f["model"]["vocab"]["a"] = json!(1), "id 1 is given to"),
        (|f| f["model"]["vocab"] = json!("x"), "a vocabulary"),
        (|f| f["model"]["merges"] = json!(3), "invalid type"),
        (|f| f["model"]["merges"][0] = json!("ab"), "merge 0 is not two pieces"),
        (|f| f["model"]["merges"][0] = json!("a b c"), "merge 0 is not two pieces"),
        (|f| f["model"]["merges"][0] = json!(["a"]), "invalid length 1, expected a merge"),
        (|f| f["model"]["merges"][2] = json!(["q", "∞"]), "merge 2 has `∞`, which is not a token"),
        (|f| f["model"]["merges"][2] = json!(["", "a"]), "merge 2"),
        (|f| f["model"] = json!({"type": "Nonsense"}), "damaged"),
        (
            |f| {
                let step =
                    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
                f["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": vec![step; 33]});
            },
            "times as long",
        ),
        (|f| f["model"] = json!(null), "invalid type"),
        (|f| f["model"] = json!({"type": "Unigram", "vocab": [["a", "b"]]}), "damaged"),
        (|f| f["model"] = json!({"type": "WordPiece", "vocab": {"a": 0}, "unk_token": 5}), "damaged"),
        (
            |f| {
                f["pre_tokenizer"] =
                    json!({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": false})
            },
            "damaged",
        ),
        (|f| f["added_tokens"] = json!([{"id": "x", "content": "y"}]), "invalid type"),
        (|f| f["added_tokens"][0]["content"] = json!("y".repeat(5000)), "5000 bytes"),
        // The crate's builder computes lengths from this and would panic.
        (|f| f["model"]["continuing_subword_prefix"] = json!("looong"), "damaged"),
    ];
    for (change, part) in cases {
        let mut file = small_json();
        change(&mut file);
        let error = open("tokenizer.json", file.to_string()).unwrap_err();
        assert!(matches!(error, TokenizerError::BadFile { .. }), "{error:?}");
        assert!(error.to_string().contains(part), "`{error}` does not say `{part}`");
    }
    let text = small_json().to_string();
    for len in (0..text.len()).step_by(97) {
        assert!(open("tokenizer.json", &text.as_bytes()[..len]).is_err(), "cut at {len}");
    }
    let mut not_utf8 = text.into_bytes();
    let at = not_utf8.windows(5).position(|w| w == b"<|x|>").unwrap();
    not_utf8[at] = 0xFF;
    assert!(open("tokenizer.json", not_utf8).is_err());
    let deep = format!("{{\"normalizer\": {}", "[".repeat(100_000));
    assert!(open("tokenizer.json", deep).unwrap_err().to_string().contains("recursion"));
}

#[test]
fn gaps_between_ids_are_told_and_unused() {
    let mut file = small_json();
    let n = file["model"]["vocab"].as_object().unwrap().len();
    file["added_tokens"] = json!([]);
    file["model"]["vocab"]["far away"] = json!(n + 10);
    let loaded = open("tokenizer.json", file.to_string()).unwrap();
    assert_eq!((loaded.tokenizer.kind(), loaded.tokenizer.vocab_size()), ("bpe", n + 11));
    assert!(loaded.diagnostics.iter().any(|d| d.code == "empty_tokens"), "{:?}", loaded.diagnostics);
    assert_eq!(loaded.tokenizer.token_bytes(n as u32 + 3, true).unwrap().as_ref(), b"");
}

#[test]
fn damaged_rank_files_and_pairs() {
    let cases: &[(&str, &str)] = &[
        ("IQ== 0\nIg== x\n", "first bytes"),
        ("IQ== 0\nIg== 0\n", "id 0 is given to `!` and to `\"`"),
        ("IQ== 4000000000\n", "ids are expected below"),
        ("IQ== 99999999999999999999\n", "line 1 has a rank that is not a number"),
        ("IQ== 0\nIQ== 1\n", "no two of its tokens make a third"),
        ("IQ== 0\n", "no two of its tokens make a third"),
    ];
    for (text, part) in cases {
        let error = open("tokenizer.model", *text).unwrap_err();
        assert!(error.to_string().contains(part), "`{error}` does not say `{part}`");
    }
    let many: String = "ISE= 0\nIg== 1\nIw== 2\nJA== 3\nJQ== 4\nJg== 5\nKA== 6\nKQ== 7\n".to_owned();
    for (line, part) in [
        ("IR== 8", "line 9 has a token that is not base64"),
        ("I 8", "line 9"),
        ("IQ==8", "line 9 is not"),
        ("IQ== -8", "line 9"),
    ] {
        let error = open("tokenizer.model", format!("{many}{line}\n")).unwrap_err();
        assert!(error.to_string().contains(part), "`{error}` does not say `{part}`");
    }
    let pair = |vocab: &[u8], merges: &[u8]| {
        let mut set = FileSet::new();
        set.add("vocab.json", vocab.to_vec());
        set.add("merges.txt", merges.to_vec());
        load(&set, &Hints::default()).unwrap_err().to_string()
    };
    let vocab = br#"{"a": 0, "b": 1, "ab": 2}"#;
    let cases: &[(&[u8], &[u8], &str)] = &[
        (br#"{"a": 0, "b": 0}"#, b"#version\na b\n", "`vocab.json` is damaged: id 0 is given to"),
        (br#"{"a": 0, "b"#, b"#version\na b\n", "`vocab.json` is damaged: EOF"),
        (br#"{"a": 0, "b": []}"#, b"#version\na b\n", "invalid type"),
        (vocab, b"#version: 0.2\na b\nab\n", "`merges.txt` is damaged: line 3 (`ab`) is not two pieces"),
        (vocab, b"#version: 0.2\na  b\n", "line 2"),
        (vocab, b"#version: 0.2\na c\n", "line 2 (`a c`) has `c`, which is not a token"),
        (vocab, b"#version: 0.2\n", "no merges"),
        (vocab, b"#version: 0.2\na b\n\xFF\n", "byte 18 is not UTF-8"),
        (br#"{"a": 0, "b</w>": 1, "ab</w>": 2}"#, b"#version: 0.2\na b</w>\n", "not byte-level BPE"),
    ];
    for (vocab, merges, part) in cases {
        let error = pair(vocab, merges);
        assert!(error.contains(part), "`{error}` does not say `{part}`");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changed_bytes_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), more in prop::collection::vec(any::<u8>(), 0..40)) {
        let opts = EncodeOptions { add_special: true, parse_special: true };
        for good in [model(&small_spm(), &Spec::default()), b"IQ== 0\nIg== 1\nISI= 2\n".to_vec()] {
            let mut file = good.clone();
            let at = at.index(file.len());
            file[at] = byte;
            if let Ok(loaded) = open("tokenizer.model", file.clone()) {
                let _ids = loaded.tokenizer.encode_bytes(&more, opts);
            }
            file.truncate(at);
            file.extend(&more);
            if let Ok(loaded) = open("tokenizer.model", file) {
                let _ids = loaded.tokenizer.encode_bytes(&more, opts);
            }
        }
    }

    #[test]
    fn any_bytes_are_recognised_without_panic(head in prop::collection::vec(any::<u8>(), 0..60), name in "[a-z.]{0,12}") {
        let _kind = recognise(&name, &head);
        prop_assert!(open("tokenizer.json", head.clone()).is_err() || recognise("tokenizer.json", &head).is_some());
    }
}
