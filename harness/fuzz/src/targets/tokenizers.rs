//! Tokenizer files: read, then asked for the ids of a short text and its bytes back.

use super::{files, joined, parts};
use crate::Target;
use bitnet_engine::tokenizer::EncodeOptions;
use bitnet_engine::tokenizer::files::{FileSet, Hints, load, look};

/// HuggingFace's file.
pub const TOKENIZER_JSON: Target = Target {
    name: "tokenizer-json",
    about: "tokenizer.json, with tokenizer_config.json",
    seeds: json_seeds,
    run: |bytes| read(&["tokenizer.json", "tokenizer_config.json"], bytes, &Hints::default()),
};

/// SentencePiece's protobuf.
pub const SENTENCEPIECE: Target = Target {
    name: "sentencepiece",
    about: "tokenizer.model of SentencePiece",
    seeds: || files("sentencepiece", "model", 10_000),
    run: |bytes| read(&["tokenizer.model", "added_tokens.json"], bytes, &Hints::default()),
};

/// Ranks in base64.
pub const TIKTOKEN: Target = Target {
    name: "tiktoken",
    about: "tokenizer.model of tiktoken ranks",
    seeds: tiktoken_seeds,
    run: |bytes| {
        let hints = Hints { family: Some("llama-3"), pre: Some("llama-bpe".to_owned()), expected_vocab: None };
        read(&["tokenizer.model", "tokenizer_config.json"], bytes, &hints)
    },
};

/// GPT-2's pair.
pub const VOCAB_MERGES: Target = Target {
    name: "vocab-merges",
    about: "vocab.json and merges.txt, with special_tokens_map.json",
    seeds: pair_seeds,
    run: |bytes| read(&["vocab.json", "merges.txt", "special_tokens_map.json"], bytes, &Hints::default()),
};

fn read(names: &[&str], bytes: &[u8], hints: &Hints) -> String {
    let mut set = FileSet::new();
    for (name, part) in names.iter().zip(parts(bytes)) {
        set.add(*name, part.to_vec());
    }
    let seen = look(&set);
    let loaded = match load(&set, hints) {
        Ok(loaded) => loaded,
        Err(error) => return error.to_string(),
    };
    let tokenizer = loaded.tokenizer;
    let options = EncodeOptions { add_special: true, parse_special: true };
    let ids = match tokenizer.encode_bytes("Hello, wörld! <s>\n  12".as_bytes(), options) {
        Ok(ids) => ids,
        Err(error) => return error.to_string(),
    };
    std::hint::black_box(tokenizer.decode(&ids, false));
    let noticed: Vec<&str> = loaded.diagnostics.iter().map(|diagnostic| diagnostic.code).collect();
    format!("{} {} {}", tokenizer.kind(), if seen.is_some() { "seen" } else { "not seen" }, noticed.join(" "))
}

/// The alphabet of bytes as GPT-2 writes it, and a few merges.
fn alphabet() -> Vec<String> {
    (0..=255_u8).map(|byte| bitnet_engine::tokenizer::byte_alphabet::encode(&[byte])).collect()
}

fn json_seeds() -> Vec<Vec<u8>> {
    let mut vocab: Vec<String> = alphabet();
    vocab.extend(["He", "ll", "llo", "Hello"].map(str::to_owned));
    let ids: serde_json::Map<String, serde_json::Value> =
        vocab.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
    let added = serde_json::json!([
        {"id": 260, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}
    ]);
    let merges = ["H e", "l l", "ll o", "He llo"];
    let gpt2 = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [260], "tokens": ["<s>"]}}},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": true, "vocab": ids, "merges": merges},
    });
    let mut spm = gpt2.clone();
    spm["normalizer"] = serde_json::json!({"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "\u{2581}"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"}]});
    spm["pre_tokenizer"] = serde_json::Value::Null;
    spm["model"]["byte_fallback"] = true.into();
    spm["model"]["unk_token"] = "<unk>".into();
    spm["model"]["ignore_merges"] = false.into();
    spm["model"]["vocab"] = serde_json::json!({"<unk>": 0, "\u{2581}": 1, "H": 2, "e": 3, "l": 4, "o": 5, "He": 6, "ll": 7, "llo": 8, "Hello": 9, "<0x0A>": 10});
    let mut split = gpt2.clone();
    split["pre_tokenizer"] = serde_json::json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+"}, "behavior": "Isolated", "invert": false},
        {"type": "Digits", "individual_digits": true},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]});
    let unigram = serde_json::json!({
        "version": "1.0", "added_tokens": [], "normalizer": {"type": "NFKC"},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true},
        "post_processor": null, "decoder": {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true},
        "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": false,
            "vocab": [["<unk>", 0.0], ["\u{2581}", -2.0], ["\u{2581}Hello", -3.5], ["l", -4.0], ["o", -4.5]]},
    });
    let pieces = serde_json::json!({
        "version": "1.0", "added_tokens": [],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": null,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
            "vocab": {"[UNK]": 0, "hello": 1, "##lo": 2, "!": 3, "12": 4}},
    });
    let config = br#"{"add_bos_token": true, "bos_token": {"content": "<s>"}, "eos_token": "</s>", "chat_template": "{{ messages }}"}"#;
    let text = |value: &serde_json::Value| value.to_string().into_bytes();
    let mut seeds: Vec<Vec<u8>> = [&gpt2, &spm, &split, &unigram, &pieces].map(text).to_vec();
    seeds.push(joined(&[&text(&spm), config]));
    seeds
}

fn tiktoken_seeds() -> Vec<Vec<u8>> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for byte in 0..=255_u8 {
        let pair = [DIGITS[usize::from(byte >> 2)], DIGITS[usize::from(byte & 3) << 4]];
        text.push_str(&format!("{}{}== {byte}\n", char::from(pair[0]), char::from(pair[1])));
    }
    text.push_str("SGU= 256\nbGw= 257\nbGxv 258\nSGVsbG8= 259\n");
    let config = br#"{"added_tokens_decoder": {"260": {"content": "<s>", "special": true}}, "bos_token": "<s>"}"#;
    vec![text.clone().into_bytes(), joined(&[text.as_bytes(), config])]
}

/// `vocab.json` and `merges.txt`.
pub(super) fn pair() -> (Vec<u8>, Vec<u8>) {
    let mut tokens = alphabet();
    tokens.extend(["He", "ll", "llo", "Hello", "<|endoftext|>"].map(str::to_owned));
    let vocab: serde_json::Map<String, serde_json::Value> =
        tokens.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
    let merges = b"#version: 0.2\nH e\nl l\nll o\nHe llo\n";
    (serde_json::Value::Object(vocab).to_string().into_bytes(), merges.to_vec())
}

fn pair_seeds() -> Vec<Vec<u8>> {
    let (vocab, merges) = pair();
    let special = br#"{"bos_token": "<|endoftext|>", "eos_token": {"content": "<|endoftext|>", "lstrip": false}}"#;
    vec![joined(&[&vocab, &merges]), joined(&[&vocab, &merges, special])]
}
