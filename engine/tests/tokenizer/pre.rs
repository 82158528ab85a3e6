//! Pre-tokenizers piece by piece against Oniguruma running the expressions.

use crate::tokenizer_support::*;
use bitnet_engine::tokenizer::pretokenize::{KNOWN, Pre, REFUSED, RULES, by_name};
use bitnet_engine::tokenizer::unicode::{NUMBER, class};
use proptest::prelude::*;
use serde_json::json;
use std::sync::OnceLock;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, PreTokenizerWrapper};

const NAMES: [&str; 5] = ["gpt-2", "llama-bpe", "qwen2", "smollm", "default"];

fn oracles() -> &'static [(Pre, PreTokenizerWrapper)] {
    static ORACLES: OnceLock<Vec<(Pre, PreTokenizerWrapper)>> = OnceLock::new();
    ORACLES.get_or_init(|| {
        let oracle = |name: &str| serde_json::from_value(pre_json(name)).unwrap();
        let rule = |passes: Vec<&str>| {
            let steps: Vec<_> = passes.into_iter().map(split_json).collect();
            serde_json::from_value(json!({"type": "Sequence", "pretokenizers": steps})).unwrap()
        };
        let scanners = NAMES.iter().map(|name| (by_name(name).unwrap().pre, oracle(name)));
        scanners.chain(RULES.iter().map(|r| (Pre::Rule(r), rule(r.expressions())))).collect()
    })
}

fn check(text: &str) {
    check_with(text, oracles());
}

fn check_with(text: &str, oracles: &[(Pre, PreTokenizerWrapper)]) {
    for (pre, oracle) in oracles {
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
    let names = ["qwen35", "tekken", "gpt-4o", "deepseek-v3"].map(|name| by_name(name).unwrap().pre);
    let scanned: &Vec<_> = &oracles()
        .iter()
        .enumerate()
        .filter(|(i, o)| *i < NAMES.len() || names.contains(&o.0))
        .map(|o| o.1.clone())
        .collect();
    for chunk in all.chunks(512) {
        // After an apostrophe (case folding), alone between letters, and next to spaces and digits.
        let text: String = chunk
            .iter()
            .flat_map(|&c| ['\'', c, 'x', c, ' ', c, '1', c, '!', c, '\n'])
            .filter(|c| !c.is_numeric() || class(*c as u32) & NUMBER != 0)
            .collect();
        // Of the other rules in data the classes are the tables, which `unicode` compares at every code point.
        check_with(&text, scanned);
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

/// What the rules look at: numbers of every kind before every kind of end, cases, marks, Han, spaces, the names of tokens.
fn parts() -> impl Strategy<Value = String> {
    let some = prop::sample::select(vec![
        "1",
        "12",
        "123",
        "1234567",
        "٣",
        "²",
        "Ⅷ",
        "１２",
        "a",
        "b",
        "Z",
        "É",
        "ǅ",
        "ʰ",
        "ª",
        "\u{301}",
        "\u{94d}",
        "中",
        "文",
        "一",
        "の",
        "カ",
        "한",
        "ㄱ",
        "ㄅ",
        "ก",
        "က",
        "！",
        "…",
        "。",
        "、",
        "،",
        "।",
        "$",
        "+",
        "`",
        "|",
        "(",
        ")",
        "[",
        "/",
        "//",
        "-",
        "_",
        "'s",
        "'S",
        "'ſ",
        "'ll",
        "'RE",
        "'t",
        " ",
        "  ",
        "    ",
        "\t",
        "\n",
        "\r\n",
        "\n\n",
        "\u{a0}",
        "\u{3000}",
        "\u{85}",
        "\u{200b}",
        "IMGIMG",
        "ABCI",
        "Z",
        "<sentinel:",
        "12>",
        "\u{e0100}",
        "\u{10ffff}",
        "😀",
        "Ⓐ",
        "\u{2028}",
    ]);
    prop::collection::vec(some, 0..14).prop_map(|parts| parts.concat())
}

#[test]
fn every_name_of_llama_cpp_is_known_or_refused() {
    assert_eq!(KNOWN.len() + REFUSED.len(), 93, "92 names of llama.cpp, and `falcon_e`");
    for (name, why) in REFUSED {
        assert!(by_name(name).is_none() && !why.is_empty());
    }
    for rule in RULES {
        assert_eq!(by_name(rule.name).unwrap().pre, Pre::Rule(rule), "{}", rule.name);
    }
}

/// What the masks have to carry from block to block: every kind of run, contractions, spaces and breaks in every order.
const BORDERS: &str = "a b  c   1 12 1234 12345678 ٣٤٥٦ x'sy 're'Ve 'll. ' 'ſz ''t !'d  ?! x.y .é.z ,中文。の  \u{3000}か\u{a0} \u{a0}b \n c\n\n  \n d \t\r\n \n \t e!\n\n  f!\r\n \n g1\n2\n 😀 😀a👍🏽!\n/x ` `` $<|^~+= 1,000.5 \u{301}a e\u{301}\u{301} नमस्ते १२३ ЖизньRegEx don't I'M 12's\n\t\tmov   ";

/// The rules that are worked out with masks.
fn masked() -> Vec<(Pre, PreTokenizerWrapper)> {
    let names =
        ["gpt-2", "llama-bpe", "qwen2", "smollm", "default", "qwen35", "falcon", "falcon_e", "tekken", "gpt-4o"];
    let rules = names.map(|name| by_name(name).unwrap().pre);
    oracles().iter().filter(|(pre, _)| rules.contains(pre)).cloned().collect()
}

#[test]
fn texts_split_the_same_at_every_offset_of_a_block() {
    let masked = masked();
    assert_eq!(masked.len(), 10);
    for shift in 0..64 {
        check_with(&format!("{}{BORDERS}", "x".repeat(shift)), &masked);
        // Behind the end of a window, and in pieces that are longer than one.
        if shift % 7 == 0 {
            check_with(&format!("{}{BORDERS}", "y".repeat(4096 - 9 * shift)), &masked);
            check_with(&format!("x{}{BORDERS}", " \n".repeat(2048 + shift)), &masked);
            check_with(&format!("1{}{BORDERS}", "!".repeat(8192 + shift)), &masked);
        }
    }
}

/// Words by case, without letters that have none: contractions behind words and behind those, slashes behind breaks behind symbols.
#[test]
fn words_by_case_split_as_the_expressions_do() {
    let parts = [
        "a", "Bc", "DEF", "é", "Ж", "ж", "'s", "'LL", "'rE", "'", "'x", "!", "/", "\n", "\r", " ", "12", "x'd", ".\n/",
        "\t",
    ];
    let masked: Vec<_> = masked()
        .into_iter()
        .filter(|(pre, _)| ["tekken", "gpt-4o"].iter().any(|n| by_name(n).unwrap().pre == *pre))
        .collect();
    let mut state = 7usize;
    let mut texts = 0;
    for shift in 0..64 {
        for _ in 0..24 {
            let mut text = "w".repeat(shift);
            for _ in 0..16 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push_str(parts[(state >> 40) % parts.len()]);
            }
            check_with(&text, &masked);
            texts += 1;
        }
    }
    assert_eq!((masked.len(), texts), (2, 1536));
}

#[test]
fn every_instruction_set_splits_as_the_plain_one_does() {
    use bitnet_kernels::text::sets;
    let plain = (sets()[0].detect)().unwrap();
    let mut texts: Vec<Vec<u8>> = nasty().into_iter().map(String::into_bytes).collect();
    let all = texts.concat();
    for cut in 0..64 {
        // Cut inside of characters: bytes that are not text.
        texts.push(all[cut..all.len().min(cut + 9000)].to_vec());
        let mixed: Vec<u8> = all.iter().skip(cut).step_by(3).copied().take(5000).collect();
        texts.push(mixed);
    }
    let mut others = 0;
    for set in sets()[1..].iter().filter_map(|set| (set.detect)().ok()) {
        others += 1;
        for (pre, _) in oracles() {
            for text in &texts {
                let (ours, wanted) = (pre.split_by(set, text), pre.split_by(plain, text));
                assert_eq!(ours, wanted, "{pre:?} by {} on {:?}", set.name, String::from_utf8_lossy(text));
            }
        }
    }
    // A machine without any of them has only the plain one to show.
    assert!(others > 0 || !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")));
}

/// No rule reads a text of one kind, or of two that alternate, much more slowly than any other.
#[test]
fn long_runs_are_split_in_one_pass() {
    let runs = [
        "a",
        " ",
        "\n",
        "1",
        "!",
        "é",
        "中",
        "\u{301}",
        "\u{3000}",
        "\t",
        "A",
        "'s",
        " a",
        "\n ",
        "1 ",
        "<sentinel:1",
        "IMGIMGA",
        " !",
    ];
    for (pre, _) in oracles() {
        for run in runs {
            let text = run.repeat(50_000 / run.len());
            let text = format!("{text}x{text}");
            let (pieces, took) = timed(|| pre.split(text.as_bytes()));
            assert_eq!(pieces.last().map(|piece| piece.end), Some(text.len()));
            assert!(took.as_secs() < 3, "{pre:?} needs {took:?} for {run:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_splits_as_the_expressions_do(text in any_text()) {
        check_with(&text, &oracles()[..NAMES.len()]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_splits_as_the_expressions_in_data_do(text in any_text()) {
        check_with(&text, &oracles()[NAMES.len()..]);
    }

    #[test]
    fn the_parts_of_rules_split_as_the_expressions_do(text in parts()) {
        check(&text);
    }

    #[test]
    fn pieces_cover_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for spec in KNOWN {
            let mut at = 0;
            for piece in spec.pre.split(&bytes) {
                prop_assert!(piece.start == at && piece.end > at, "{}", spec.name);
                at = piece.end;
            }
            prop_assert_eq!(at, bytes.len());
        }
    }
}
