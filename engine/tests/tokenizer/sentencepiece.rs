//! SentencePiece models against the ids that sentencepiece itself gave (`golden/sentencepiece/record.py`).

use bitnet_engine::tokenizer::files::{FileSet, Hints, load};
use bitnet_engine::tokenizer::{EncodeOptions, Loaded, Tokenizer};
use serde_json::Value;
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
                assert_eq!(&String::from_utf8_lossy(&loaded.tokenizer.decode(ids, true)), decoded, "{name} of {text:?}");
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
        let id = |text: &str| (0..tokenizer.vocab_size() as u32).find(|&id| tokenizer.token_bytes(id, true).unwrap() == text.as_bytes());
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
    let config = serde_json::json!({"add_eos_token": true, "added_tokens_decoder": {
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
