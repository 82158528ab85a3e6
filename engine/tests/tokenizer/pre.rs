//! Pre-tokenizers piece by piece against Oniguruma running the expressions.

use crate::tokenizer_support::*;
use bitnet_engine::tokenizer::pretokenize::{KNOWN, Pre, by_name};
use bitnet_engine::tokenizer::unicode::{NUMBER, class};
use proptest::prelude::*;
use std::sync::OnceLock;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, PreTokenizerWrapper};

const NAMES: [&str; 5] = ["gpt-2", "llama-bpe", "qwen2", "smollm", "default"];

fn oracles() -> &'static [(Pre, PreTokenizerWrapper)] {
    static ORACLES: OnceLock<Vec<(Pre, PreTokenizerWrapper)>> = OnceLock::new();
    ORACLES.get_or_init(|| {
        let oracle = |name: &str| serde_json::from_value(pre_json(name)).unwrap();
        NAMES.iter().map(|name| (by_name(name).unwrap().pre, oracle(name))).collect()
    })
}

fn check(text: &str) {
    for (pre, oracle) in oracles() {
        // The named difference: numbers that Rust knows and Unicode 16.0 does not.
        if *pre == Pre::Smollm && text.chars().any(|c| c.is_numeric() && class(c as u32) & NUMBER == 0) {
            continue;
        }
        let mut pretokenized = PreTokenizedString::from(text);
        oracle.pre_tokenize(&mut pretokenized).unwrap();
        let wanted: Vec<&str> = pretokenized
            .get_splits(OffsetReferential::Original, OffsetType::Byte)
            .into_iter()
            .map(|(_, (start, end), _)| &text[start..end])
            .filter(|piece| !piece.is_empty())
            .collect();
        let ours: Vec<&str> = pre.split(text.as_bytes()).into_iter().map(|r| &text[r]).collect();
        assert_eq!(ours, wanted, "{pre:?} on {text:?}");
    }
}

#[test]
fn nasty_strings_split_as_the_expressions_do() {
    for text in nasty() {
        check(&text);
    }
}

#[test]
fn every_code_point_splits_as_the_expressions_do() {
    let all: Vec<char> = (0..=0x10_FFFF)
        .filter_map(char::from_u32)
        .filter(|c| (*c as u32) < 0x3_3000 || (*c as u32).is_multiple_of(251))
        .collect();
    for chunk in all.chunks(512) {
        // After an apostrophe (case folding), alone between letters, and next to spaces and digits.
        let text: String = chunk
            .iter()
            .flat_map(|&c| ['\'', c, 'x', c, ' ', c, '1', c, '!', c, '\n'])
            .filter(|c| !c.is_numeric() || class(*c as u32) & NUMBER != 0)
            .collect();
        check(&text);
    }
}

#[test]
fn names_are_unique_and_default_is_there() {
    for (i, a) in KNOWN.iter().enumerate() {
        assert!(KNOWN[i + 1..].iter().all(|b| a.name != b.name), "{} twice", a.name);
    }
    assert_eq!(by_name("default").unwrap().pre, Pre::Default);
    for name in ["llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral"] {
        let spec = by_name(name).unwrap();
        assert!(spec.pre == Pre::Llama3 && spec.ignore_merges && spec.add_bos, "{name}");
    }
    assert!(by_name("gpt2").is_none());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_splits_as_the_expressions_do(text in any_text()) {
        check(&text);
    }

    #[test]
    fn pieces_cover_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for name in NAMES {
            let mut at = 0;
            for piece in by_name(name).unwrap().pre.split(&bytes) {
                prop_assert!(piece.start == at && piece.end > at);
                at = piece.end;
            }
            prop_assert_eq!(at, bytes.len());
        }
    }
}
