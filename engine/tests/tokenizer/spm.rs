//! SentencePiece BPE against two oracles: a naive quadratic encoder that can be believed at sight, and HuggingFace's
//! `BPE` with byte fallback, which is how LLaMA-2 is published there.

use crate::tokenizer_support::*;
use bitnet_engine::tokenizer::{EncodeOptions, TokenKind, Tokenizer, TokenizerError, VocabSource, from_source};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};

const PARSE: EncodeOptions = EncodeOptions { add_special: false, parse_special: true };
const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };

/// `<unk> <s> </s>`, 256 bytes, then pieces trained on the corpus, best first; scores fall, some of them equal.
pub(crate) fn source() -> VocabSource {
    static SOURCE: OnceLock<VocabSource> = OnceLock::new();
    SOURCE.get_or_init(|| train(false)).clone()
}

/// Unless `whole`, half of the rarer characters are not tokens, though longer pieces have them: then the merges decide
/// (SentencePiece, llama.cpp), while HuggingFace turns such characters into bytes before merging. Vocabularies that
/// SentencePiece trained are whole.
fn train(whole: bool) -> VocabSource {
    let mut trainer = TrainerWrapper::BpeTrainer(BpeTrainer::builder().vocab_size(900).show_progress(false).build());
    let mut tokenizer = tokenizers::Tokenizer::new(BPE::default());
    tokenizer.train(&mut trainer, CORPUS.split([' ', '\n']).map(|w| format!("▁{w}"))).unwrap();
    let mut pieces: Vec<(String, u32)> = tokenizer.get_vocab(false).into_iter().collect();
    pieces.sort_by_key(|p| p.1);
    // Characters last, as SentencePiece has them; a few runs of spaces at the very end of the order.
    let (long, chars): (Vec<_>, Vec<_>) = pieces.into_iter().map(|p| p.0).partition(|p| p.chars().count() > 1);
    let mut tokens: Vec<String> = vec!["<unk>".into(), "<s>".into(), "</s>".into()];
    tokens.extend((0..256).map(|b| format!("<0x{b:02X}>")));
    tokens.extend(["▁▁", "▁▁▁▁", "▁▁▁", "<|x|>", "n▁", "n▁a", "=▁", "の▁の"].map(String::from));
    tokens.extend(long);
    tokens.extend(
        chars.into_iter().filter(|c| whole || c.is_ascii() || !c.ends_with(|c: char| c as u32 % 2 == 1) || c == "▁"),
    );
    let scores = (0..tokens.len()).map(|i| match i {
        0..259 => 0.0,
        259..262 => -1e9,
        _ => -((i / 2) as f32),
    });
    let mut token_types = vec![TokenKind::Normal; tokens.len()];
    token_types[0] = TokenKind::Unknown;
    token_types[1..3].fill(TokenKind::Control);
    token_types[3..259].fill(TokenKind::Byte);
    token_types[262] = TokenKind::UserDefined;
    VocabSource {
        model: "llama".into(),
        scores: scores.collect(),
        tokens: tokens.into_iter().map(String::into_bytes).collect(),
        token_types,
        ..VocabSource::default()
    }
}

fn ours() -> &'static Arc<dyn Tokenizer> {
    static OURS: OnceLock<Arc<dyn Tokenizer>> = OnceLock::new();
    OURS.get_or_init(|| {
        let loaded = from_source(source()).unwrap();
        assert_eq!(loaded.diagnostics, []);
        loaded.tokenizer
    })
}

/// Pieces of plain text by the definition: merge the best-scoring, leftmost pair until none is left.
struct Naive {
    ids: HashMap<String, u32>,
    scores: Vec<f32>,
}

impl Naive {
    fn new(source: &VocabSource) -> Self {
        let text = |i: usize| String::from_utf8(source.tokens[i].clone()).unwrap();
        let mergeable = |i: &usize| matches!(source.token_types[*i], TokenKind::Normal | TokenKind::UserDefined);
        Self {
            ids: (0..source.tokens.len()).filter(mergeable).map(|i| (text(i), i as u32)).collect(),
            scores: source.scores.clone(),
        }
    }

    fn encode(&self, text: &str) -> Vec<u32> {
        let escaped = format!("▁{}", text.replace(' ', "▁"));
        let mut parts: Vec<String> = escaped.chars().map(String::from).collect();
        loop {
            let mut best: Option<(f32, usize)> = None;
            for i in 1..parts.len() {
                if let Some(&id) = self.ids.get(&format!("{}{}", parts[i - 1], parts[i])) {
                    let score = self.scores[id as usize];
                    if best.is_none_or(|(b, _)| score > b) {
                        best = Some((score, i));
                    }
                }
            }
            let Some((_, i)) = best else { break };
            let right = parts.remove(i);
            parts[i - 1].push_str(&right);
        }
        let id = |part: &String| match self.ids.get(part) {
            Some(&id) => vec![id],
            None => part.bytes().map(|b| u32::from(b) + 3).collect(),
        };
        parts.iter().flat_map(id).collect()
    }

    /// With the special tokens of [`source`] cut out first.
    fn encode_all(&self, text: &str, parse_special: bool) -> Vec<u32> {
        let specials: &[(&str, u32)] =
            if parse_special { &[("<|x|>", 262), ("</s>", 2), ("<unk>", 0), ("<s>", 1)] } else { &[("<|x|>", 262)] };
        let found = specials.iter().filter_map(|&(s, id)| Some((text.find(s)?, s, id))).min_by_key(|f| f.0);
        match found {
            _ if text.is_empty() => Vec::new(),
            None => self.encode(text),
            Some((at, special, id)) => {
                let mut out = self.encode_all(&text[..at], parse_special);
                out.push(id);
                out.extend(self.encode_all(&text[at + special.len()..], parse_special));
                out
            }
        }
    }
}

fn naive() -> &'static Naive {
    static NAIVE: OnceLock<Naive> = OnceLock::new();
    NAIVE.get_or_init(|| Naive::new(&source()))
}

fn check(text: &str) {
    for opts in [PARSE, PLAIN] {
        let ids = ours().encode(text, opts).unwrap();
        assert_eq!(ids, naive().encode_all(text, opts.parse_special), "{opts:?} on {text:?}");
        let specials = ["<|x|>", "<s>", "</s>", "<unk>", "▁"];
        if specials.iter().all(|s| !text.contains(s)) {
            assert_eq!(ours().decode(&ids, true), text.as_bytes(), "does not come back");
        }
    }
}

/// The same vocabulary as HuggingFace has it: every way to make a piece from two, by the piece's score.
fn huggingface(source: &VocabSource, ids: &HashMap<String, u32>) -> tokenizers::Tokenizer {
    let text: Vec<String> = source.tokens.iter().map(|t| String::from_utf8(t.clone()).unwrap()).collect();
    let mut merges: Vec<(f32, u32, u32)> = Vec::new();
    for (piece, &id) in ids {
        for (at, _) in piece.char_indices().skip(1) {
            if let (Some(&left), Some(&right)) = (ids.get(&piece[..at]), ids.get(&piece[at..])) {
                merges.push((-source.scores[id as usize], left, right));
            }
        }
    }
    merges.sort_by(|a, b| a.partial_cmp(b).unwrap());
    let merges: Vec<Value> = merges.iter().map(|&(_, l, r)| json!([text[l as usize], text[r as usize]])).collect();
    let vocab: serde_json::Map<String, Value> = text.iter().enumerate().map(|(i, t)| (t.clone(), json!(i))).collect();
    let added = |id: u32, special: bool| json!({"id": id, "content": text[id as usize], "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": special});
    oracle(&json!({
        "version": "1.0", "truncation": null, "padding": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "added_tokens": [added(0, true), added(1, true), added(2, true), added(262, false)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "vocab": vocab, "merges": merges},
    }))
}

#[test]
fn nasty_strings_have_the_naive_encoders_ids() {
    for text in nasty() {
        if text.len() < 2000 {
            check(&text);
        }
    }
}

/// Long texts are cut wherever no token joins two bytes, and go through tables of what was met lately.
#[test]
fn long_texts_have_the_naive_encoders_ids_the_first_time_and_again() {
    let nasty = nasty();
    for turn in 0..6 {
        let mut text = String::new();
        for part in nasty.iter().filter(|part| part.len() < 300).cycle().skip(turn * 31).step_by(2 * turn + 1) {
            text.push_str(part);
            text.push_str(["", " ", "\n", "▁"][turn % 4]);
            if text.len() > 1100 {
                break;
            }
        }
        check(&text);
        check(&text);
        // Without a space in front of the first word.
        check(&format!("日{text}"));
    }
}

#[test]
fn words_are_cut_wherever_no_token_joins_them() {
    // Without a token of two spaces even runs of spaces are cut.
    let mut source = source();
    for id in [259, 260, 261, 263, 264, 265, 266] {
        source.tokens[id] = format!("unused{id}").into_bytes();
        source.token_types[id] = TokenKind::Unused;
    }
    let naive = Naive::new(&source);
    let ours = from_source(source).unwrap().tokenizer;
    for text in nasty().iter().filter(|t| t.len() < 2000) {
        assert_eq!(ours.encode(text, PARSE).unwrap(), naive.encode_all(text, true), "{text:?}");
    }
}

#[test]
fn text_has_huggingfaces_ids() {
    // Distinct scores: of pieces of one score HuggingFace takes the earlier merge, SentencePiece the leftmost.
    let mut source = train(true);
    for (i, score) in source.scores.iter_mut().enumerate().skip(262) {
        *score = -(i as f32);
    }
    let theirs = huggingface(&source, &Naive::new(&source).ids);
    let ours = from_source(source).unwrap().tokenizer;
    let backwards: Vec<String> = CORPUS.lines().map(|l| l.chars().rev().collect()).collect();
    let fixed = [CORPUS, "a</s> b<s>", "<|x|>é\u{10ffff}", "日本<unk>"];
    let mut tokens = 0;
    for text in CORPUS.lines().chain(fixed).chain(backwards.iter().map(String::as_str)) {
        let ids = ours.encode(text, PARSE).unwrap();
        assert_eq!(ids, oracle_ids(&theirs, text), "{text:?}");
        tokens += ids.len();
    }
    assert!(tokens > 1000);
}

#[test]
fn prefix_space_can_be_off() {
    let without = from_source(VocabSource { add_space_prefix: Some(false), ..source() }).unwrap().tokenizer;
    let with = ours();
    assert_eq!(without.encode(" the dog", PLAIN).unwrap(), with.encode("the dog", PLAIN).unwrap());
    let ids = without.encode(" the dog", PLAIN).unwrap();
    assert_eq!(without.decode(&ids, true), b" the dog");
    assert_eq!(with.decode(&ids, true), b"the dog");
    assert_eq!(with.token_bytes(ids[0], false).unwrap()[0], b' ', "only a whole text loses its space");
}

#[test]
fn frames_and_hidden_tokens() {
    let t = ours();
    let opts = EncodeOptions { add_special: true, parse_special: true };
    assert_eq!((t.special().bos, t.special().eos, t.special().unk), (Some(1), Some(2), Some(0)));
    assert!(t.special().add_bos && !t.special().add_eos);
    assert_eq!(t.encode("", opts).unwrap(), [1]);
    assert!(t.is_eog(2) && !t.is_eog(1) && !t.is_eog(300));
    let ids = t.encode("a</s>", opts).unwrap();
    assert_eq!((ids[0], *ids.last().unwrap()), (1, 2));
    assert_eq!(t.decode(&ids, true), b"a");
    assert_eq!(t.decode(&ids, false), b"<s> a</s>");
    assert_eq!(t.token_bytes(3 + 0xE9, false).unwrap().as_ref(), [0xE9]);
    assert_eq!(t.token_bytes(t.vocab_size() as u32, true), None);
    assert_eq!((t.kind(), t.pre()), ("spm", None));
}

#[test]
fn without_byte_tokens_the_unknown_token_stands_in_or_it_is_an_error() {
    let mut source = source();
    for id in 3..259 {
        source.tokens[id] = format!("unused{id}").into_bytes();
        source.token_types[id] = TokenKind::Unused;
    }
    let loaded = from_source(source.clone()).unwrap();
    assert!(loaded.diagnostics.iter().any(|d| d.code == "no_byte_fallback"));
    let ids = loaded.tokenizer.encode("a\u{10ffff}", PLAIN).unwrap();
    assert_eq!(*ids.last().unwrap(), 0);
    source.unk = Some(u32::MAX);
    let none = from_source(source).unwrap().tokenizer;
    let error = none.encode("ab \u{10ffff}", PLAIN).unwrap_err();
    assert_eq!(error, TokenizerError::NoTokenForText { text: "\u{10ffff}".into(), offset: 3 });
}

#[test]
fn a_million_characters_of_one_kind_stay_nearly_linear() {
    for unit in ["a", "na", " ", "=", "é", "日", "\u{10ffff}", "\u{301}"] {
        let text = unit.repeat(1_000_000 / unit.len());
        let (ids, took) = timed(|| ours().encode(&text, PARSE).unwrap());
        assert!(took < Duration::from_secs(2), "{unit:?}: {took:?}");
        assert_eq!(ours().decode(&ids, true), text.as_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_has_the_naive_encoders_ids(text in any_text()) {
        check(&text);
    }

    #[test]
    fn short_alphabets_merge_in_the_right_order(text in "[an ▁=]{0,120}") {
        check(&text);
    }

    #[test]
    fn any_bytes_come_back(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let ids = ours().encode_bytes(&bytes, PLAIN).unwrap();
        if !bytes.windows(3).any(|w| w == "▁".as_bytes()) {
            prop_assert_eq!(ours().decode(&ids, false), bytes);
        }
    }
}
