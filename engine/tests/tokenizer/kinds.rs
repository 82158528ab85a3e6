//! The kinds of `tokenizer.ggml.model` besides byte-level BPE and SPM, against the crate on the same vocabulary; and
//! names of pre-tokenizers that come with a condition.

use super::files::{llama2_unprefixed, unigram, wordpiece};
use crate::tokenizer_support::*;
use bitnet_engine::gguf::{GgufFile, GgufWriter, MetaValue};
use bitnet_engine::tokenizer::normalize::Normalizing;
use bitnet_engine::tokenizer::unigram::Sums;
use bitnet_engine::tokenizer::{
    EncodeOptions, TokenKind, TokenizerError, VocabSource, byte_alphabet, from_gguf, from_source,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };
const PARSE: EncodeOptions = EncodeOptions { add_special: false, parse_special: true };
const FRAMED: EncodeOptions = EncodeOptions { add_special: true, parse_special: true };

/// Keys behind `tokenizer.ggml.`.
type Keys = Vec<(&'static str, MetaValue)>;

fn gguf(keys: Keys) -> GgufFile {
    let mut writer = GgufWriter::new(3, 32).unwrap();
    for (name, value) in keys {
        writer.meta(&format!("tokenizer.ggml.{name}"), value).unwrap();
    }
    let mut bytes = Vec::new();
    writer.write_to(&mut bytes).unwrap();
    GgufFile::from_vec(bytes).unwrap()
}

fn oracle_ids(oracle: &tokenizers::Tokenizer, text: &str, framed: bool) -> Vec<u32> {
    oracle.encode(text, framed).unwrap().get_ids().to_vec()
}

/// As llama.cpp's converter writes BERT: `▁` where a word starts, nothing inside of one, brackets as they are.
fn bert_keys(file: &Value) -> Keys {
    let mut texts: Vec<(&String, u64)> =
        file["model"]["vocab"].as_object().unwrap().iter().map(|(text, id)| (text, id.as_u64().unwrap())).collect();
    texts.sort_by_key(|text| text.1);
    let phantom = |text: &str| match text.strip_prefix("##") {
        Some(inside) => inside.to_owned(),
        None if text.starts_with('[') && text.ends_with(']') => text.to_owned(),
        None => format!("\u{2581}{text}"),
    };
    let tokens: Vec<String> = texts.iter().map(|(text, _)| phantom(text)).collect();
    let types: Vec<i32> = (0..tokens.len()).map(|id| if id < 3 { 3 } else { 1 }).collect();
    vec![
        ("model", "bert".into()),
        ("tokens", tokens.into()),
        ("token_type", types.into()),
        ("unknown_token_id", 0u32.into()),
        ("bos_token_id", 1u32.into()),
        ("seperator_token_id", 2u32.into()),
    ]
}

#[test]
fn wordpiece_of_a_gguf_is_that_of_its_tokenizer_json() {
    let mut file = wordpiece();
    for lowercase in [true, false] {
        file["normalizer"] = json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": lowercase});
        let mut keys = bert_keys(&file);
        keys.push(("normalizer.lowercase", lowercase.into()));
        let loaded = from_gguf(gguf(keys).metadata()).unwrap();
        let theirs = oracle(&file);
        let mut known = BTreeSet::new();
        for text in nasty() {
            let ids = loaded.tokenizer.encode(&text, FRAMED).unwrap();
            assert_eq!(ids, oracle_ids(&theirs, &text, true), "{text:?}");
            assert_eq!((ids[0], ids[ids.len() - 1]), (1, 2));
            known.extend(ids);
        }
        assert!(known.len() > 200, "the vocabulary is used: {}", known.len());
        let (special, kind) = (loaded.tokenizer.special(), loaded.tokenizer.kind());
        assert_eq!((special.bos, special.eos, kind), (Some(1), Some(2), "huggingface"));
    }
    let keys = |change: &dyn Fn(&mut Keys)| {
        let mut keys = bert_keys(&file);
        change(&mut keys);
        from_gguf(gguf(keys).metadata()).unwrap_err()
    };
    assert!(matches!(keys(&|k| k[5].1 = 99_999u32.into()), TokenizerError::IdOutOfRange { .. }));
    assert!(matches!(keys(&|k| k[3].1 = (-1i32).into()), TokenizerError::MissingKey { .. }));
    assert!(matches!(keys(&|k| k[2].1 = vec![1i32].into()), TokenizerError::LengthMismatch { .. }));
    assert!(matches!(keys(&|k| k[1].1 = Vec::<String>::new().into()), TokenizerError::BadVocabSize { .. }));
}

/// The ids that llama.cpp knows by heart, and what is a special token, a word and the inside of one.
#[test]
fn wordpiece_that_says_little() {
    let tokens = |n: u32| -> Vec<String> {
        let text = |id: u32| match id {
            100 => "[UNK]".to_owned(),
            101 => "[CLS]".to_owned(),
            102 => "[SEP]".to_owned(),
            103 => "[MASK]".to_owned(),
            104 => "a]".to_owned(),
            105 => "[b".to_owned(),
            106 => "[]".to_owned(),
            107 => String::new(),
            108 => "[x]".to_owned(),
            _ => format!("\u{2581}w{id}"),
        };
        (0..n).map(text).collect()
    };
    let load = |n: u32, more: Keys| {
        let keys = [vec![("model", "bert".into()), ("tokens", tokens(n).into())], more].concat();
        from_gguf(gguf(keys).metadata()).map(|loaded| loaded.tokenizer)
    };
    let types: Vec<i32> = (0..110).map(|id| if id == 103 { 3 } else { 1 }).collect();
    let whole = load(110, vec![("token_type", types.into()), ("padding_token_id", 9u32.into())]).unwrap();
    let roles = whole.special();
    assert_eq!([roles.bos, roles.eos, roles.unk, roles.pad], [101, 102, 100, 9].map(Some));
    assert_eq!(whole.encode("W7 zz [MASK]w109", FRAMED).unwrap(), [101, 7, 100, 103, 109, 102]);
    assert!(!whole.encode("[MASK]", PLAIN).unwrap().contains(&103));
    // What starts a word has a space in front of it.
    let texts = [7, 103, 104, 105, 106, 107, 108].map(|id| whole.token_bytes(id, true).unwrap().into_owned());
    assert_eq!(texts.map(|text| String::from_utf8(text).unwrap()), [" w7", "[MASK]", "a]", "[b", "[]", "", " [x]"]);
    let cased = load(110, vec![("normalizer.lowercase", false.into())]).unwrap();
    assert_eq!(cased.encode("W7 w7", PARSE).unwrap(), [100, 7]);
    // Without the ends that are known by heart.
    let short = load(101, Keys::new()).unwrap();
    assert_eq!((short.special().bos, short.special().eos, short.special().unk), (None, None, Some(100)));
    assert_eq!(load(102, Keys::new()).unwrap().special().bos, Some(101));
    assert!(matches!(load(100, Keys::new()), Err(TokenizerError::MissingKey { .. })));
    let outside = |n: u32| load(n, vec![("bos_token_id", n.into())]).err().unwrap();
    let key = "tokenizer.ggml.bos_token_id".to_owned();
    assert_eq!(outside(110), TokenizerError::IdOutOfRange { key, id: 110, last: 109 });
}

#[test]
fn unigram_of_a_gguf_has_the_crates_ids() {
    let mut file = unigram();
    let vocab = file["model"]["vocab"].as_array_mut().unwrap();
    // A GGUF keeps 32 bits.
    for piece in vocab.iter_mut() {
        piece[1] = json!(piece[1].as_f64().unwrap() as f32);
    }
    let tokens: Vec<String> = vocab.iter().map(|p| p[0].as_str().unwrap().to_owned()).collect();
    let scores: Vec<f32> = vocab.iter().map(|p| p[1].as_f64().unwrap() as f32).collect();
    let types: Vec<i32> = (0..tokens.len()).map(|id| [2, 3, 1][id.min(2)]).collect();
    let unk = tokens.iter().position(|t| t == "<unk>").unwrap();
    assert_eq!((unk, tokens[1].as_str()), (0, "</s>"));
    let keys = vec![
        ("model", "t5".into()),
        ("tokens", tokens.into()),
        ("scores", scores.into()),
        ("token_type", types.into()),
        ("unknown_token_id", 0u32.into()),
        ("add_space_prefix", true.into()),
    ];
    let ours = from_gguf(gguf(keys.clone()).metadata()).unwrap().tokenizer;
    let theirs = oracle(&file);
    let mut compared = 0;
    for text in nasty() {
        // The crate puts no space in front of one that is there, and cuts words at every space.
        if text.starts_with([' ', '\u{2581}']) || text.contains("  ") || text.contains("</s>") || text.contains("<unk>")
        {
            continue;
        }
        compared += usize::from(!text.is_empty());
        assert_eq!(ours.encode(&text, PARSE).unwrap(), oracle_ids(&theirs, &text, false), "{text:?}");
    }
    assert!(compared > 150, "{compared}");
    // The default end of a text is id 1, and it is put behind.
    assert_eq!(ours.encode("", FRAMED).unwrap(), [1]);
    assert!(ours.is_eog(1) && ours.kind() == "unigram");
    let mut bad = keys.clone();
    bad.push(("precompiled_charsmap", vec![9u8, 0, 0, 0, 1].into()));
    let error = from_gguf(gguf(bad).metadata()).unwrap_err().to_string();
    assert!(error.contains("precompiled_charsmap") && error.contains("of 9 bytes"), "{error}");
    let mut bad = keys;
    bad[2].1 = vec![f32::NEG_INFINITY; 3].into();
    assert!(from_gguf(gguf(bad).metadata()).is_err());
}

/// The two kinds of sums differ where user-defined pieces do, and in the last bits.
#[test]
fn user_defined_pieces_score_as_each_program_has_it() {
    let source = |sums, inline: Vec<u32>| VocabSource {
        model: "t5".into(),
        tokens: ["<unk>", "</s>", "a", "b", "ab", "aba"].map(|t| t.as_bytes().to_vec()).to_vec(),
        scores: vec![0.0, 0.0, -1.0, -1.0, -0.9, -3.0],
        token_types: [2, 3, 1, 1, 1, 4].map(|n| TokenKind::from_gguf(n).unwrap()).to_vec(),
        normalizing: Some(Normalizing { inline, ..Normalizing::default() }),
        add_eos: Some(false),
        unk: Some(0),
        eos: Some(1),
        sums,
        ..VocabSource::default()
    };
    for sums in [Sums::Narrow, Sums::Wide] {
        for inline in [Vec::new(), vec![5]] {
            let tokenizer = from_source(source(sums, inline)).unwrap().tokenizer;
            assert_eq!(tokenizer.encode("abab", PLAIN).unwrap(), [5, 3], "{sums:?}");
            assert_eq!(tokenizer.encode("xyb", PLAIN).unwrap(), [0, 3], "{sums:?}");
        }
    }
}

#[test]
fn gemmas_pieces_merge_over_the_whole_text() {
    let file = llama2_unprefixed();
    let theirs = oracle(&file);
    for (model, pre) in [("gemma4", None), ("gpt2", Some("gemma4")), ("gpt2", Some("sarvam-moe"))] {
        let source = VocabSource { add_bos: Some(false), ..source_of(&file, model, pre) };
        let loaded = from_source(source).unwrap();
        assert_eq!(loaded.tokenizer.kind(), "spm");
        for text in nasty() {
            assert_eq!(loaded.tokenizer.encode(&text, PARSE).unwrap(), oracle_ids(&theirs, &text, false), "{text:?}");
        }
    }
    let none = VocabSource { merges: Vec::new(), ..source_of(&file, "gemma4", None) };
    assert_eq!(from_source(none).unwrap_err(), TokenizerError::NoMerges);
}

/// Without merges Kimi's ids are ranks.
#[test]
fn kimi_without_merges() {
    let text = |bytes: &[u8]| bytes.iter().map(|b| byte_alphabet::to_char(*b)).collect::<String>().into_bytes();
    let mut tokens: Vec<Vec<u8>> = (0..=255u8).map(|b| text(&[b])).collect();
    tokens.extend(["ab", "bc", "abc", "中"].map(|t| text(t.as_bytes())));
    // The parts of the character, so that ranks lead to it.
    tokens.push(text(&"中".as_bytes()[..2]));
    let source = VocabSource { model: "gpt2".into(), pre: Some("kimi-k2".into()), tokens, ..VocabSource::default() };
    let tokenizer = from_source(source.clone()).unwrap().tokenizer;
    assert_eq!(tokenizer.encode("abcbc中", PLAIN).unwrap(), [258, 257, 259]);
    let other = VocabSource { pre: Some("gpt-2".into()), ..source };
    assert_eq!(from_source(other).unwrap_err(), TokenizerError::NoMerges);
}

#[test]
fn names_with_a_condition() {
    let file = byte_level_json_file(train_byte_level("gpt-2", 500, true), "gpt-2", SPECIALS);
    let source = |pre: &str| source_of(&file, "gpt2", Some(pre));
    let rare = from_source(source("falcon_e")).unwrap();
    let said = rare.diagnostics.iter().find(|d| d.code == "pre_is_a_guess").unwrap();
    assert!(said.message.contains("ik_llama.cpp") && said.hint.contains("tokenizer.json"), "{said}");
    for name in ["mmbert", "whitespace"] {
        let error = from_source(source(name)).unwrap_err();
        assert!(matches!(error, TokenizerError::RefusedPre { .. }) && error.to_string().contains(name), "{error}");
    }
    // GLM has no BOS, whatever token 11 is.
    let mut glm = source("glm4");
    glm.token_types[11] = TokenKind::Control;
    assert_eq!(from_source(glm.clone()).unwrap().tokenizer.special().bos, None);
    glm.pre = Some("gpt-2".into());
    assert_eq!(from_source(glm).unwrap().tokenizer.special().bos, Some(11));
}
