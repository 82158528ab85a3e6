//! The other forms of tokenizer files: SentencePiece, tiktoken ranks, vocab.json + merges.txt; and which file counts.

use crate::tokenizer_support::sentencepiece::{Spec, model};
use crate::tokenizer_support::*;
use bitnet_engine::tokenizer::files::{FileKind, FileSet, Hints, load, load_path, look, recognise};
use bitnet_engine::tokenizer::pretokenize::Pre;
use bitnet_engine::tokenizer::{
    EncodeOptions, Loaded, TokenKind, TokenizerError, VocabSource, byte_alphabet, from_source,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::OnceLock;

const PARSE: EncodeOptions = EncodeOptions { add_special: false, parse_special: true };
const FRAMED: EncodeOptions = EncodeOptions { add_special: true, parse_special: true };

fn open(files: &[(&str, Vec<u8>)], hints: &Hints) -> Result<Loaded, TokenizerError> {
    let mut set = FileSet::new();
    for (name, bytes) in files {
        set.add(*name, bytes.clone());
    }
    let loaded = load(&set, hints);
    if let Ok(loaded) = &loaded
        && !has(loaded, "file_skipped")
    {
        let seen = look(&set).expect("what can be built can be looked at");
        assert_eq!(seen.tokens, loaded.tokenizer.vocab_size(), "{seen:?}");
    }
    loaded
}

fn named(pre: &str) -> Hints {
    Hints { pre: Some(pre.into()), ..Hints::default() }
}

fn has(loaded: &Loaded, code: &str) -> bool {
    loaded.diagnostics.iter().any(|d| d.code == code)
}

/// Trained pieces with falling scores, as a SentencePiece trainer leaves them.
pub(crate) fn pieces() -> VocabSource {
    let trained = train_byte_level("gpt-2", 700, true);
    let mut texts: Vec<(String, u64)> =
        trained["vocab"].as_object().unwrap().iter().map(|(t, id)| (t.clone(), id.as_u64().unwrap())).collect();
    texts.sort_by_key(|t| t.1);
    let words = texts
        .iter()
        .skip(256)
        .filter(|t| t.0.is_ascii() || t.0.trim_start_matches('Ġ').is_ascii())
        .map(|t| t.0.replace('Ġ', "▁"));
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).to_vec();
    tokens.extend((0..256).map(|b| format!("<0x{b:02X}>")));
    tokens.push("<|x|>".into());
    tokens.extend(words);
    // Every character is a piece, as a trainer leaves it: then the crate and SentencePiece agree.
    let mut chars: Vec<char> = tokens[260..].concat().chars().chain('a'..='z').collect();
    chars.sort_unstable();
    chars.dedup();
    tokens.extend(chars.into_iter().map(String::from));
    let n = tokens.len();
    let mut token_types = vec![TokenKind::Normal; n];
    token_types[0] = TokenKind::Unknown;
    token_types[1..3].fill(TokenKind::Control);
    token_types[3..259].fill(TokenKind::Byte);
    token_types[259] = TokenKind::UserDefined;
    VocabSource {
        model: "llama".into(),
        scores: (0..n).map(|i| if i < 259 { 0.0 } else { -(i as f32) }).collect(),
        tokens: tokens.into_iter().map(String::into_bytes).collect(),
        token_types,
        ..VocabSource::default()
    }
}

#[test]
fn sentencepiece_bpe_has_the_ids_of_its_source() {
    let source = pieces();
    let file = model(&source, &Spec::default());
    assert_eq!(recognise("tokenizer.model", &file), Some(FileKind::SentencePiece));
    let loaded = open(&[("tokenizer.model", file)], &Hints::default()).unwrap();
    let same = from_source(source).unwrap().tokenizer;
    assert_eq!((loaded.tokenizer.kind(), loaded.diagnostics.len()), ("spm", 0), "{:?}", loaded.diagnostics);
    // The file's own user-defined piece gets no space in front; that of a GGUF is cut out, as llama.cpp does it.
    for text in nasty().iter().filter(|text| !text.contains("<|x|>")) {
        assert_eq!(loaded.tokenizer.encode(text, FRAMED).unwrap(), same.encode(text, FRAMED).unwrap(), "{text:?}");
    }
    let special = loaded.tokenizer.special();
    assert_eq!((special.bos, special.eos, special.unk, special.pad), (Some(1), Some(2), Some(0), None));
    assert_eq!(loaded.tokenizer.encode("", FRAMED).unwrap(), [1]);
}

#[test]
fn sentencepiece_says_its_ids_prefix_and_frame() {
    let source = pieces();
    let spec = Spec { dummy_prefix: false, bos: -1, eos: 1, pad: 2, ..Spec::default() };
    let loaded = open(&[("m.model", model(&source, &spec))], &Hints::default()).unwrap();
    let special = loaded.tokenizer.special();
    assert_eq!((special.bos, special.eos, special.pad), (None, Some(1), Some(2)));
    assert!(!loaded.tokenizer.adds_prefix_space());
    let n = source.tokens.len() as u32;
    let config = json!({"add_bos_token": false, "add_eos_token": true, "added_tokens_decoder": {
        n.to_string(): {"content": "<|im_end|>", "special": true},
        (n + 1).to_string(): {"content": "<|pad|>", "special": false},
        (n + 7).to_string(): {"content": "<|far|>", "special": true}}});
    let files = [
        ("tokenizer.model", model(&source, &Spec::default())),
        ("tokenizer_config.json", config.to_string().into_bytes()),
    ];
    let loaded = open(&files, &Hints { expected_vocab: Some(1), ..Hints::default() }).unwrap();
    assert_eq!(loaded.tokenizer.encode("<|im_end|><|pad|>", FRAMED).unwrap(), [n, n + 1, 2]);
    assert_eq!(loaded.tokenizer.vocab_size(), n as usize + 2);
    assert!(loaded.tokenizer.is_eog(n));
    assert!(
        has(&loaded, "added_tokens_do_not_fit") && has(&loaded, "vocab_size_unexpected"),
        "{:?}",
        loaded.diagnostics
    );
}

#[test]
fn sentencepiece_normalises_as_its_file_says() {
    let source = pieces();
    let unigram = model(&source, &Spec { model_type: 1, remove_extra: true, ..Spec::default() });
    let loaded = open(&[("spiece.model", unigram)], &Hints::default()).unwrap();
    assert_eq!((loaded.tokenizer.kind(), loaded.diagnostics.len()), ("unigram", 0), "{:?}", loaded.diagnostics);
    // The best path by hand: of all pieces that cover the text the sum of scores decides, and scores fall with the id.
    let id = |text: &str| source.tokens.iter().position(|t| t == text.as_bytes()).unwrap() as u32;
    let ids = loaded.tokenizer.encode("  the   the ", PARSE).unwrap();
    assert_eq!(ids, [id("▁the"), id("▁the")], "extra spaces are removed");
    assert_eq!(loaded.tokenizer.decode(&ids, true), b"the the");
    assert_eq!(loaded.tokenizer.encode("the\u{1}", PARSE).unwrap(), [id("▁the"), 4], "byte fallback");
    assert_eq!(loaded.tokenizer.encode("the</s><|x|>", PARSE).unwrap(), [id("▁the"), 2, id("▁"), 259]);

    // BPE that removes spaces: as our engine on the text with the spaces removed.
    let bpe = model(&source, &Spec { remove_extra: true, ..Spec::default() });
    let loaded = open(&[("tokenizer.model", bpe)], &Hints::default()).unwrap();
    assert_eq!(loaded.tokenizer.kind(), "spm");
    let ours = from_source(source.clone()).unwrap().tokenizer;
    for text in CORPUS.lines().filter(|l| l.is_ascii() && !l.contains('\t')) {
        let clean = text.split(' ').filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ");
        assert_eq!(loaded.tokenizer.encode(text, PARSE).unwrap(), ours.encode(&clean, PARSE).unwrap(), "{text:?}");
    }
    for (spec, part) in [
        (Spec { model_type: 3, ..Spec::default() }, "kind 3"),
        (Spec { suffix: true, ..Spec::default() }, "behind words"),
    ] {
        let error = open(&[("tokenizer.model", model(&source, &spec))], &Hints::default()).unwrap_err();
        assert!(matches!(error, TokenizerError::UnsupportedFile { .. }) && error.to_string().contains(part), "{error}");
    }
}

/// Text of a rank file, and its ranks.
type Ranks = (Vec<u8>, HashMap<Vec<u8>, u32>);

/// A rank file from a trained vocabulary.
fn rank_file() -> &'static Ranks {
    static FILE: OnceLock<Ranks> = OnceLock::new();
    FILE.get_or_init(|| {
        let trained = train_byte_level("llama-bpe", 1100, true);
        let mut ranks = HashMap::new();
        for (text, id) in trained["vocab"].as_object().unwrap() {
            ranks.insert(byte_alphabet::decode(text.as_bytes()).unwrap(), id.as_u64().unwrap() as u32);
        }
        let mut lines: Vec<(&Vec<u8>, &u32)> = ranks.iter().collect();
        lines.sort_by_key(|l| l.1);
        let text: String = lines.iter().map(|(token, rank)| format!("{} {rank}\n", base64(token))).collect();
        (text.into_bytes(), ranks)
    })
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: Vec<u8> = bytes.iter().flat_map(|b| (0..8).rev().map(move |i| b >> i & 1)).collect();
    let digits: String = bits
        .chunks(6)
        .map(|c| ALPHABET[c.iter().fold(0, |n, b| n * 2 + usize::from(*b)) << (6 - c.len())] as char)
        .collect();
    let pad = (4 - digits.len() % 4) % 4;
    digits + &"=".repeat(pad)
}

/// tiktoken's algorithm, as naive as can be: the whole piece, else the lowest rank of two neighbours, leftmost.
fn naive_ranks(text: &str) -> Vec<u32> {
    let ranks = &rank_file().1;
    let mut out = Vec::new();
    for range in Pre::Llama3.split(text.as_bytes()) {
        let piece = &text.as_bytes()[range];
        if let Some(id) = ranks.get(piece) {
            out.push(*id);
            continue;
        }
        let mut parts: Vec<Vec<u8>> = piece.iter().map(|b| vec![*b]).collect();
        loop {
            let best = (1..parts.len())
                .filter_map(|i| Some((*ranks.get(&[&parts[i - 1][..], &parts[i][..]].concat())?, i)))
                .min();
            let Some((_, at)) = best else { break };
            let right = parts.remove(at);
            parts[at - 1].extend(right);
        }
        out.extend(parts.iter().map(|p| ranks[p]));
    }
    out
}

#[test]
fn tiktoken_ranks_decide_what_merges() {
    let (file, ranks) = rank_file();
    assert_eq!(recognise("tokenizer.model", file), Some(FileKind::Tiktoken));
    let loaded = open(&[("tokenizer.model", file.clone())], &named("llama-bpe")).unwrap();
    assert_eq!((loaded.tokenizer.kind(), loaded.tokenizer.vocab_size()), ("bpe", ranks.len()));
    assert!(has(&loaded, "no_special_tokens"));
    for text in nasty() {
        if text.len() < 2500 {
            assert_eq!(loaded.tokenizer.encode(&text, PARSE).unwrap(), naive_ranks(&text), "{text:?}");
        }
        assert_eq!(loaded.tokenizer.decode(&loaded.tokenizer.encode(&text, PARSE).unwrap(), true), text.as_bytes());
    }
    let error = open(&[("tokenizer.model", file.clone())], &Hints::default()).unwrap_err();
    assert!(error.to_string().contains("does not say how text is split"), "{error}");
    // Special tokens come from the companions.
    let n = ranks.len();
    let config = json!({"bos_token": "<|b|>", "added_tokens_decoder": {n.to_string(): {"content": "<|b|>", "special": true}}, "add_bos_token": true});
    let files = [("tokenizer.model", file.clone()), ("tokenizer_config.json", config.to_string().into_bytes())];
    let loaded = open(&files, &named("llama-bpe")).unwrap();
    assert_eq!(loaded.tokenizer.encode("<|b|>", FRAMED).unwrap(), [n as u32; 2]);
    assert!(!has(&loaded, "no_special_tokens"));
}

fn pair() -> (Value, Vec<(&'static str, Vec<u8>)>) {
    let file = byte_level_json_file(train_byte_level("gpt-2", 800, true), "gpt-2", &["<|endoftext|>"]);
    let mut vocab = file["model"]["vocab"].clone();
    vocab["<|endoftext|>"] = file["added_tokens"][0]["id"].clone();
    let lines: String = file["model"]["merges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| format!("{} {}\n", m[0].as_str().unwrap(), m[1].as_str().unwrap()))
        .collect();
    let merges = format!("#version: 0.2\n{lines}");
    (file, vec![("vocab.json", vocab.to_string().into_bytes()), ("merges.txt", merges.into_bytes())])
}

#[test]
fn vocab_and_merges_have_the_ids_of_the_tokenizer_json() {
    let (file, pair) = pair();
    let end = file["added_tokens"][0]["id"].as_u64().unwrap() as u32;
    let theirs = oracle(&file);
    let loaded = open(&pair, &Hints::default()).unwrap();
    assert!(has(&loaded, "pre_assumed"));
    let special = *loaded.tokenizer.special();
    assert_eq!((special.bos, special.eos, special.unk, special.add_bos), (Some(end), Some(end), Some(end), false));
    for text in nasty().iter().filter(|t| t.len() < 2500) {
        assert_eq!(loaded.tokenizer.encode(text, FRAMED).unwrap(), oracle_ids(&theirs, text), "{text:?}");
    }
    let config = json!({"tokenizer_class": "GPT2Tokenizer"});
    let mut files = vec![("encoder.json", pair[0].1.clone()), ("vocab.bpe", pair[1].1.clone())];
    files.push(("tokenizer_config.json", config.to_string().into_bytes()));
    let loaded = open(&files, &Hints::default()).unwrap();
    assert_eq!((loaded.tokenizer.pre(), loaded.diagnostics.len()), (Some("gpt-2"), 0), "{:?}", loaded.diagnostics);
    assert_eq!(loaded.tokenizer.encode("a<|endoftext|>", PARSE).unwrap().last(), Some(&end));
    for (half, missing) in [(&pair[..1], "merges.txt"), (&pair[1..], "vocab.json")] {
        let error = open(half, &Hints::default()).unwrap_err();
        assert!(matches!(&error, TokenizerError::Incomplete { .. }) && error.to_string().contains(missing), "{error}");
    }
}

#[test]
fn the_best_file_that_works_is_taken() {
    let (json, pair) = pair();
    let json = json.to_string().into_bytes();
    let spm = model(&pieces(), &Spec::default());
    let mut all = pair.clone();
    all.push(("tokenizer.model", spm.clone()));
    all.push(("tokenizer.json", json));
    let kind = |files: &[(&str, Vec<u8>)]| open(files, &named("gpt-2")).unwrap();
    let first = kind(&all);
    assert!(first.tokenizer.kind() == "bpe" && !has(&first, "file_skipped"), "{:?}", first.diagnostics);
    all[3].1 = b"<!DOCTYPE html><html>404</html>".to_vec();
    let second = kind(&all);
    assert_eq!(second.tokenizer.kind(), "spm");
    let said = second.diagnostics.iter().find(|d| d.code == "file_skipped").unwrap();
    assert!(said.message.contains("`tokenizer.json` is not a tokenizer: this is an HTML page"), "{said}");
    all[2].1.truncate(1000);
    let third = kind(&all);
    assert_eq!(third.tokenizer.kind(), "bpe");
    assert_eq!(third.diagnostics.iter().filter(|d| d.code == "file_skipped").count(), 2);
}

#[test]
fn paths_bring_their_companions() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let empty = load_path(dir.path(), &Hints::default()).unwrap_err();
    assert!(matches!(&empty, TokenizerError::NoTokenizerFile { found, .. } if found == "nothing"), "{empty}");
    let (json, pair) = pair();
    for (name, bytes) in &pair {
        std::fs::write(path(name), bytes).unwrap();
    }
    std::fs::write(path("tokenizer_config.json"), r#"{"tokenizer_class": "GPT2Tokenizer"}"#).unwrap();
    for name in ["", "vocab.json", "merges.txt"] {
        let loaded = load_path(&path(name), &Hints::default()).unwrap();
        assert_eq!((loaded.tokenizer.kind(), loaded.diagnostics.len()), ("bpe", 0), "{name}: {:?}", loaded.diagnostics);
    }
    // A file that is named counts, whatever better one lies beside it.
    std::fs::write(path("model.tokenizer.json"), json.to_string()).unwrap();
    std::fs::write(path("tokenizer.json"), "{}").unwrap();
    assert_eq!(load_path(&path("model.tokenizer.json"), &Hints::default()).unwrap().tokenizer.kind(), "bpe");
    assert!(load_path(&path("tokenizer.json"), &Hints::default()).is_err());
    let missing = load_path(&path("nothing.json"), &Hints::default()).unwrap_err();
    assert!(matches!(missing, TokenizerError::Io { .. }), "{missing}");
    let huge = std::fs::File::create(path("huge.json")).unwrap();
    huge.set_len((256 << 20) + 1).unwrap();
    let error = load_path(&path("huge.json"), &Hints::default()).unwrap_err();
    assert!(matches!(error, TokenizerError::FileTooLarge { .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_has_the_naive_ranks(text in any_text()) {
        static OURS: OnceLock<Loaded> = OnceLock::new();
        let ours = OURS.get_or_init(|| open(&[("t.tiktoken", rank_file().0.clone())], &named("llama-bpe")).unwrap());
        prop_assert_eq!(ours.tokenizer.encode(&text, PARSE).unwrap(), naive_ranks(&text));
    }
}
