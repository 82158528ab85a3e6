//! SentencePiece models against the ids that sentencepiece itself gave (`golden/sentencepiece/record.py`).

use bitnet_engine::tokenizer::files::{FileSet, Hints, load};
use bitnet_engine::tokenizer::{EncodeOptions, Loaded, Tokenizer};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };
const PARSE: EncodeOptions = EncodeOptions { add_special: false, parse_special: true };

#[derive(serde::Deserialize)]
struct Record {
    texts: Vec<String>,
    models: BTreeMap<String, Answers>,
}

#[derive(serde::Deserialize)]
struct Answers {
    ids: Vec<Vec<u32>>,
    decoded: Vec<Option<String>>,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../golden/sentencepiece")
}

fn record() -> Record {
    serde_json::from_slice(&std::fs::read(folder().join("expected.json")).unwrap()).unwrap()
}

fn open(name: &str, companions: Option<Value>) -> Loaded {
    let mut files = FileSet::new();
    files.add("tokenizer.model", std::fs::read(folder().join(format!("{name}.model"))).unwrap());
    if let Some(config) = companions {
        files.add("tokenizer_config.json", config.to_string().into_bytes());
    }
    load(&files, &Hints::default()).unwrap()
}

#[test]
fn ids_and_texts_are_sentencepieces_own() {
    let record = record();
    assert_eq!(record.models.len(), 6);
    for (name, answers) in &record.models {
        let loaded = open(name, None);
        let kind = if name.starts_with("bpe") { "spm" } else { "unigram" };
        assert_eq!(loaded.tokenizer.kind(), kind, "{name}");
        assert_eq!(answers.ids.len(), record.texts.len());
        for ((text, ids), decoded) in record.texts.iter().zip(&answers.ids).zip(&answers.decoded) {
            let ours = loaded.tokenizer.encode(text, PLAIN).unwrap();
            assert_eq!(&ours, ids, "{name} on {text:?}");
            if let Some(decoded) = decoded {
                assert_eq!(
                    &String::from_utf8_lossy(&loaded.tokenizer.decode(ids, true)),
                    decoded,
                    "{name} of {text:?}"
                );
            }
        }
    }
}

/// The texts hold `<s>`, `<ctl>`, `<0x41>`: with `parse_special` the control pieces are found, the byte pieces never.
#[test]
fn control_and_byte_pieces_that_are_spelled_out() {
    for name in record().models.keys() {
        let tokenizer = open(name, None).tokenizer;
        let spelled = |text: &str, opts| tokenizer.encode(text, opts).unwrap();
        let id = |text: &str| {
            (0..tokenizer.vocab_size() as u32).find(|&id| tokenizer.token_bytes(id, true).unwrap() == text.as_bytes())
        };
        for control in ["<s>", "</s>", "<ctl>"] {
            let Some(id) = id(control) else { continue };
            assert_eq!(spelled(control, PARSE), [id], "{name}");
            assert!(!spelled(control, PLAIN).contains(&id), "{name}: {control}");
        }
        let letter = id("A");
        for opts in [PLAIN, PARSE] {
            let ids = spelled("<0x41>", opts);
            assert!(ids.len() > 1 && !ids.contains(&letter.unwrap_or(u32::MAX)), "{name}: {ids:?}");
        }
    }
}

/// Added tokens of the companions are cut out, as `transformers` does it; the pieces of the model are found by the model.
#[test]
fn added_tokens_are_cut_out_and_user_defined_pieces_are_not() {
    let plain = open("unigram-nmt", None).tokenizer;
    let n = plain.vocab_size() as u32;
    let config = json!({"add_eos_token": true, "added_tokens_decoder": {
        n.to_string(): {"content": "<added>", "special": false}, (n + 1).to_string(): {"content": "<|im_end|>", "special": true}}});
    let added = open("unigram-nmt", Some(config)).tokenizer;
    let ids = |tokenizer: &dyn Tokenizer, text: &str| tokenizer.encode(text, PARSE).unwrap();
    assert_eq!(ids(&*added, "the<sep>the"), ids(&*plain, "the<sep>the"));
    let the = ids(&*plain, "the");
    let wanted = [&the[..], &[n], &the[..], &[n + 1]].concat();
    assert_eq!(ids(&*added, "the<added>the<|im_end|>"), wanted, "each stretch has its own space in front");
    let framed = added.encode("the", EncodeOptions { add_special: true, parse_special: false }).unwrap();
    assert_eq!(framed, [&the[..], &[2]].concat());
}

/// A tokenizer.json of Unigram lists control and byte pieces among the others; the crate's search would take them.
#[test]
fn spelled_out_pieces_of_a_tokenizer_json() {
    let mut vocab = vec![json!(["<unk>", 0.0]), json!(["<s>", 0.0]), json!(["</s>", 0.0])];
    vocab.extend((0..256).map(|b| json!([format!("<0x{b:02X}>"), 0.0])));
    vocab.extend("<s>/0x41a\u{2581}".chars().map(|c| json!([c.to_string(), -3.0])));
    vocab.push(json!(["\u{2581}a", -1.0]));
    let added = |id: u32, text: &str| json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let space = json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true});
    let decoder = json!({"type": "Sequence", "decoders": [space, {"type": "ByteFallback"}]});
    for byte_fallback in [true, false] {
        let json = json!({"version": "1.0", "added_tokens": [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>")],
            "normalizer": null, "pre_tokenizer": space, "post_processor": null, "decoder": decoder,
            "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": byte_fallback, "vocab": vocab}});
        let mut files = FileSet::new();
        files.add("tokenizer.json", json.to_string().into_bytes());
        let tokenizer = load(&files, &Hints::default()).unwrap().tokenizer;
        let ids = |text: &str, opts| tokenizer.encode(text, opts).unwrap();
        let a = 259 + 10;
        assert_eq!(ids("a<s>a", PARSE), [a, 1, a]);
        let spelled = ids("a<s></s><0x41>", PLAIN);
        assert!(spelled[0] == a && spelled[1..].iter().all(|&id| (259..a).contains(&id)), "{spelled:?}");
        let unknown = if byte_fallback { vec![a, 3 + 0xC3, 3 + 0xA9, 3 + 0xC3, 3 + 0xA8] } else { vec![a, 0] };
        assert_eq!(ids("aéè", PLAIN), unknown);
        assert_eq!(ids("aéè", PARSE), unknown);
    }
}

/// Whatever is damaged in a model with a character map, loading and encoding end in ids or an error.
#[test]
fn a_damaged_model_is_an_error_or_whole() {
    let whole = std::fs::read(folder().join("unigram-nmt.model")).unwrap();
    let mut loaded = 0;
    for at in (0..whole.len()).step_by(1009) {
        let mut bytes = whole.clone();
        for (i, byte) in bytes[at..].iter_mut().take(6).enumerate() {
            *byte ^= 0x5A + i as u8;
        }
        let mut files = FileSet::new();
        files.add("tokenizer.model", bytes);
        if let Ok(tokenizer) = load(&files, &Hints::default()) {
            loaded += 1;
            let text = "Größe ﬁ ½ 你好 ＡＢＣ e\u{301} \u{3000} the<sep>";
            if let Ok(ids) = tokenizer.tokenizer.encode(text, PARSE) {
                tokenizer.tokenizer.decode(&ids, true);
            }
        }
    }
    assert!(loaded > 100, "most of the file is the character map, whose entries cannot be told from others: {loaded}");
}
