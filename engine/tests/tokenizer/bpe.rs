//! Byte-level BPE, id by id against the crate `tokenizers` with the same vocabulary.

use crate::tokenizer_support::*;
use bitnet_engine::tokenizer::pretokenize::by_name;
use bitnet_engine::tokenizer::unicode::{NUMBER, class};
use bitnet_engine::tokenizer::{EncodeOptions, Tokenizer, from_source};
use proptest::prelude::*;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const PARSE: EncodeOptions = EncodeOptions { add_special: false, parse_special: true };
const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };

pub(crate) struct Pair {
    pub(crate) pre: &'static str,
    whole_alphabet: bool,
    pub(crate) ours: Arc<dyn Tokenizer>,
    theirs: tokenizers::Tokenizer,
    /// Reads special tokens in text as text.
    theirs_plain: tokenizers::Tokenizer,
}

pub(crate) fn pairs() -> &'static [Pair] {
    static PAIRS: OnceLock<Vec<Pair>> = OnceLock::new();
    PAIRS.get_or_init(|| {
        let mut out = Vec::new();
        for (pre, size, whole_alphabet) in [
            ("gpt-2", 1500, true),
            ("llama-bpe", 1500, true),
            ("smollm", 1200, true),
            ("smollm", 1000, false),
            ("qwen2", 800, true),
            ("default", 900, true),
        ] {
            let mut model = train_byte_level(pre, size, whole_alphabet);
            if pre == "llama-bpe" {
                // Tokens that no merges reach, as LLaMA-3 has: drop the last step of some.
                let merges = model["merges"].as_array_mut().unwrap();
                let mut n = 0;
                merges.retain(|_| {
                    n += 1;
                    n < 300 || n % 7 != 0
                });
            }
            let file = byte_level_json_file(model, pre, SPECIALS);
            let loaded = from_source(source_of(&file, "gpt2", Some(pre))).unwrap();
            let mut theirs_plain = oracle(&file);
            theirs_plain.set_encode_special_tokens(true);
            out.push(Pair { pre, whole_alphabet, ours: loaded.tokenizer, theirs: oracle(&file), theirs_plain });
        }
        out
    })
}

fn check(text: &str) {
    for pair in pairs() {
        // The named difference of `smollm`: numbers that Rust knows and Unicode 16.0 does not.
        if pair.pre == "smollm" && text.chars().any(|c| c.is_numeric() && class(c as u32) & NUMBER == 0) {
            continue;
        }
        let ids = pair.ours.encode(text, PARSE).unwrap();
        assert_eq!(ids, oracle_ids(&pair.theirs, text), "{} on {text:?}", pair.pre);
        let plain = pair.ours.encode(text, PLAIN).unwrap();
        assert_eq!(plain, oracle_ids(&pair.theirs_plain, text), "{} without specials on {text:?}", pair.pre);
        if pair.whole_alphabet {
            assert_eq!(pair.ours.decode(&ids, false), text.as_bytes(), "{} does not come back", pair.pre);
            assert_eq!(pair.ours.decode(&plain, true), text.as_bytes(), "{} does not come back", pair.pre);
            assert_eq!(pair.theirs.decode(&ids, true).unwrap().as_bytes(), pair.ours.decode(&ids, true));
        }
    }
}

/// Long texts go through tables of what was met lately, and their pieces are merged several at once.
#[test]
fn long_texts_give_the_same_ids_the_first_time_and_again() {
    let nasty = nasty();
    for turn in 0..8 {
        let mut text = String::new();
        for part in nasty.iter().cycle().skip(turn * 29).step_by(turn + 1) {
            text.push_str(part);
            text.push_str(["", " ", "\n", "x"][turn % 4]);
            if text.len() > 12_000 {
                break;
            }
        }
        let text: String = text.chars().filter(|c| !c.is_numeric() || class(*c as u32) & NUMBER != 0).collect();
        check(&text);
        check(&text);
    }
}

/// Bytes that are not text: what a long text gives is what its pieces give one by one.
#[test]
fn long_bytes_give_the_ids_of_their_pieces() {
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let bytes: Vec<u8> = (0..20_000).map(|_| random()).collect();
    let text: Vec<String> = nasty().into_iter().filter(|text| text.len() < 300).collect();
    let text = text.join("|").repeat(3).into_bytes();
    assert!(text.len() > 9000);
    for pair in pairs() {
        let pre = by_name(pair.pre).unwrap().pre;
        for bytes in [&bytes[..], &text[1..9000], &text[2..]] {
            let mut wanted = Vec::new();
            for piece in pre.split(bytes).into_iter().map(|range| &bytes[range]) {
                assert!(piece.len() < 1024, "a short piece takes the plain way");
                assert_eq!(pre.split(piece).len(), 1, "{} splits {piece:?}", pair.pre);
                wanted.extend(pair.ours.encode_bytes(piece, PLAIN).unwrap());
            }
            let plain = EncodeOptions::default();
            assert_eq!(pair.ours.encode_bytes(bytes, plain).unwrap(), wanted, "{}", pair.pre);
        }
    }
}

#[test]
fn the_vocabularies_merge_deeply_and_some_tokens_are_out_of_reach() {
    // Guards the tests themselves: a vocabulary of bytes would pass everything.
    for pair in pairs() {
        let longest =
            (0..pair.ours.vocab_size() as u32).filter_map(|id| pair.ours.token_bytes(id, false)).map(|b| b.len()).max();
        assert!(longest >= Some(8), "{}: {longest:?}", pair.pre);
    }
    let file = byte_level_json_file(train_byte_level("gpt-2", 600, true), "gpt-2", SPECIALS);
    let mut source = source_of(&file, "gpt2", Some("llama-bpe"));
    source.merges.pop();
    let tokens = source.tokens.clone();
    let exact = from_source(source.clone()).unwrap().tokenizer;
    source.pre = Some("gpt-2".into());
    let merged = from_source(source).unwrap().tokenizer;
    let id = (tokens.len() - SPECIALS.len() - 1) as u32;
    let text = exact.token_bytes(id, false).unwrap();
    assert_eq!(exact.encode_bytes(&text, PLAIN).unwrap(), [id], "ignore_merges takes {text:?} as it stands");
    assert!(merged.encode_bytes(&text, PLAIN).unwrap().len() > 1, "merges do not reach {text:?}");
}

#[test]
fn nasty_strings_have_the_oracles_ids() {
    for text in nasty() {
        check(&text);
    }
}

/// What a thread remembers of earlier pieces is never taken for another piece, or for one of another vocabulary: more words than it
/// holds, of every length around its limit, in turns of vocabularies.
#[test]
fn remembered_pieces_are_the_right_ones() {
    let mut seed = 7u64;
    let mut below = |n: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % n
    };
    let mut text = String::new();
    for _ in 0..9_000 {
        // Few letters, so that prefixes and lengths meet; zero bytes, since the unused part of an entry is zero.
        text.push(' ');
        let longest = if below(4) == 0 { 30 } else { 4 };
        for _ in 0..1 + below(longest) {
            text.push(*['a', 'b', 'e', 'é', '1', '\0', 'ſ'].get(below(7)).unwrap());
        }
    }
    for _ in 0..2 {
        check(&text);
    }
}

#[test]
fn frames_follow_the_flags() {
    let file = byte_level_json_file(train_byte_level("gpt-2", 400, true), "gpt-2", SPECIALS);
    let mut source = source_of(&file, "gpt2", Some("llama-bpe"));
    let n = source.tokens.len() as u32;
    (source.bos, source.eos) = (Some(n - 5), Some(n - 4));
    let opts = EncodeOptions { add_special: true, parse_special: false };
    let with = |add_bos, add_eos, pre: &str| {
        let source =
            bitnet_engine::tokenizer::VocabSource { add_bos, add_eos, pre: Some(pre.into()), ..source.clone() };
        from_source(source).unwrap().tokenizer.encode("", opts).unwrap()
    };
    assert_eq!(with(None, None, "llama-bpe"), [n - 5], "the LLaMA-3 family adds BOS by itself");
    assert_eq!(with(None, None, "gpt-2"), [] as [u32; 0]);
    assert_eq!(with(Some(false), None, "llama-bpe"), [] as [u32; 0]);
    assert_eq!(with(Some(true), Some(true), "gpt-2"), [n - 5, n - 4]);
    assert_eq!(from_source(source).unwrap().tokenizer.encode("", PLAIN).unwrap(), [] as [u32; 0]);
}

#[test]
fn a_million_characters_of_one_kind_stay_linear() {
    for pair in pairs().iter().take(3) {
        for unit in ["a", "ab", " ", "\n", " \n", "1", "!", "é", "日", "\u{301}", "<", "'"] {
            let text = unit.repeat(1_000_000 / unit.len());
            let (ids, took) = timed(|| pair.ours.encode(&text, PARSE).unwrap());
            assert!(took < Duration::from_secs(2), "{} {unit:?}: {took:?}", pair.pre);
            assert_eq!(pair.ours.decode(&ids, false), text.as_bytes());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_has_the_oracles_ids(text in any_text()) {
        check(&text);
    }

    #[test]
    fn any_bytes_come_back(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for pair in pairs().iter().filter(|p| p.whole_alphabet) {
            for opts in [PARSE, PLAIN] {
                let ids = pair.ours.encode_bytes(&bytes, opts).unwrap();
                prop_assert_eq!(&pair.ours.decode(&ids, false), &bytes);
            }
        }
    }
}
