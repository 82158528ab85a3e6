//! Shared by the tokenizer tests: nasty text, small vocabularies trained on the spot, and the oracle (the crate
//! `tokenizers`, built from the same vocabulary).
#![allow(unreachable_pub, reason = "shared by the modules of one test program")]

pub mod sentencepiece;

use bitnet_engine::tokenizer::pretokenize::{Pre, by_name};
use bitnet_engine::tokenizer::{TokenKind, VocabSource};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::str::FromStr;
use std::time::Duration;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

/// What `work` gives, and the time that this thread computed: other processes do not count. Wall time where the system does not say.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    #[cfg(unix)]
    let now = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    #[cfg(not(unix))]
    let started = std::time::Instant::now();
    #[cfg(not(unix))]
    let now = || started.elapsed();
    let start = now();
    let made = work();
    (made, now() - start)
}

pub const GPT2_REGEX: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
pub const LLAMA3_REGEX: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
pub const QWEN2_REGEX: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Varied text to train on.
pub const CORPUS: &str = r#"The quick brown fox jumps over the lazy dog. The dog doesn't mind; it's what they'd call "a quiet day".
We'll see what you've done, I'm sure they're right. WE'LL SEE WHAT YOU'VE DONE. O'Neill's 3rd law of 1984: 1234567890 things.
fn main() { let x: Vec<u32> = (0..10).map(|i| i * 2).collect(); println!("{:?}", x); }
    if (a != b && c <= d) { return (a << 2) | ~c; }  // comment    with   spaces
	def f(self, *args, **kwargs):
		return {"key": [1, 2, 3], 'other': None}
<html><body class="main"><p>Hello, world!</p></body></html>
Der Käufer überprüft die Größe der Straße; das Mädchen läuft. L'été dernier, où était-ce? ¿Qué pasó, señor? Ação, coração.
Привет, мир! Как дела? Все хорошо, спасибо. Ελληνικά γράμματα: αβγδε. שלום עולם. مرحبا بالعالم ١٢٣٤٥.
नमस्ते दुनिया १२३। สวัสดีชาวโลก ๑๒๓. 你好，世界！今天天气很好。こんにちは世界、元気ですか？ 안녕하세요 세계, 업데이트. Xin chào thế giới, việc.
Emoji: 😀 😁 👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪. Math: ∀x∈ℝ: ⌈x⌉ = −⌊−x⌋, ½ ² ³ Ⅷ ㊿. Currency: $5 €6 £7 ¥8.
the of and to in a is that for it was on with as be at by he this had not are but from or have an they which one you were all her she there
would their we him been has when who will no more if out so up said what its about than into them can only other time new some could these two may first then do


Blank lines above, trailing spaces   
and tabs		here. ===== ----- ##### ......... aaaaaaaa bbbb abababab nananana.
"#;

/// Special tokens that every small vocabulary has.
pub const SPECIALS: &[&str] = &["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|x|>", "<|x|>y"];

/// Text that trips tokenizers.
pub fn nasty() -> Vec<String> {
    let mut out: Vec<String> = CORPUS.lines().map(str::to_owned).collect();
    out.push(CORPUS.to_owned());
    let fixed = [
        "",
        " ",
        "  ",
        "   ",
        "\n",
        "\n\n",
        "\r\n",
        "\r",
        "\t",
        " \n",
        "\n ",
        " \n ",
        "  \n\n  x",
        "x  ",
        "x \n",
        "\u{a0}",
        "\u{a0}x",
        " \u{a0} x",
        "\u{3000}x",
        "\u{2028}x\u{2029}",
        "\u{85}",
        "a\u{85}b",
        "\u{b}\u{c}x",
        "\u{1c}x",
        "\u{180e}x",
        "\u{200b}x",
        "\u{feff}x",
        "\0",
        "a\0b",
        "\u{1}\u{2}\u{3}\u{4}\u{5}\u{6}\u{7}\u{8}\u{7f}\u{80}\u{9f}\u{ad}",
        "'",
        "''",
        "'s",
        "'S",
        "'ſ",
        "'\u{17f}x",
        "it's",
        "IT'S",
        "'re",
        "'RE",
        "'Re",
        "'rE",
        "'r",
        "'v",
        "'l",
        "'ll",
        "'LL",
        "'Ll",
        "'d",
        "'D",
        "'m",
        "'M",
        "'t",
        "'T",
        "'ve",
        "'VE",
        "'s's's",
        "''s",
        "'x",
        "'1",
        "' s",
        "’s",
        "\u{149}x",
        "'\u{212a}",
        "don't",
        "don’t",
        "rock'n'roll",
        "1",
        "12",
        "123",
        "1234",
        "12345",
        "1234567",
        " 1",
        " 12",
        "  123",
        "1a2b3c",
        "a1",
        "1.5",
        "1,000,000",
        "٣٤٥٦",
        "१२३४५",
        "๑๒๓๔",
        "１２３４",
        "½¼¾",
        "²³¹",
        "ⅧⅨ",
        "㊿㋀",
        "1٣2٤3",
        "12٣45",
        "\u{1d7ce}\u{1d7cf}\u{1d7d0}\u{1d7d1}",
        "!",
        "!!",
        " !",
        " !!",
        "!\n",
        "!\n\n",
        "!\r\n\r\nx",
        " !?\n",
        "?!a",
        "!1",
        "$+<=>^~|",
        "a$b",
        "a$$b",
        "$$$",
        "a+b=c",
        "<=>",
        "a|b",
        "a ^ b ~ c",
        "~~~ ~~",
        "`code`",
        "``",
        "a.b,c;d:e",
        "...",
        "…",
        "——",
        "«»",
        "„x“",
        "e\u{301}",
        "\u{301}",
        " \u{301}",
        "a\u{301}\u{302}b",
        "\u{94d}",
        "क्ष",
        "👩‍👩‍👧‍👦",
        "🏳️‍🌈",
        "👍🏽",
        "🇩🇪🇫🇷",
        "\u{200d}",
        "\u{fe0f}",
        "1️⃣",
        "😀😀😀",
        " 😀",
        "x😀y",
        "\u{10ffff}",
        "\u{e000}",
        "\u{f0000}",
        "\u{40000}",
        "\u{80000}",
        "\u{fffd}",
        "\u{ffff}",
        "\u{d7ff}",
        "ǅ",
        "ª",
        "º",
        "ʰ",
        "ﬁ",
        "ß",
        "İ",
        "ı",
        "K",
        "日本語",
        "日本 語",
        "日本１２３",
        "한국어",
        "ไทย",
        "עִבְרִית",
        "العَرَبِيَّة",
        "Ελλάδα",
        "Ĳssel",
        "\u{1e900}",
        "𐐀𐐨",
        "𠮷野家",
        "\u{323af}\u{323b0}",
        "<|eot_id|>",
        "a<|eot_id|>b",
        " <|eot_id|> ",
        "<|eot_id|><|eot_id|>",
        "<|eot_id",
        "<|eot_id|",
        "<|<|eot_id|>|>",
        "<|x|>",
        "<|x|>y",
        "<|x|>yy",
        "<|x|> y",
        "<|begin_of_text|>Hi<|end_of_text|>\n",
        "a  <|x|>  b",
        "(a)",
        "[a]",
        "{a}",
        "_a_",
        "__init__",
        "camelCase",
        "snake_case",
        "HTTPServer",
        "a-b",
        "C++",
        "C#",
        ".NET",
        "\\n",
        "\\u1234",
        "https://a.b/c?d=e&f=%20#g",
        "a@b.c",
        "\t\tx",
        "\t x",
        " \tx",
        "x\ty",
        "  x",
        "\n\nx",
        "\n x",
        "\r\r",
        "\r\n\r\n  \r\n x",
        "\n\t\n\tx",
        "x\n \n y",
        " \n\n\n    y",
        "▁",
        "▁▁",
        " ▁x",
        "a▁b",
        "<0x0A>",
        "<s>",
        "</s>",
        "<unk>",
        "Ġ",
        "ĠĠa",
        "Ċ",
        "é",
        "É",
    ];
    out.extend(fixed.iter().map(|s| (*s).to_owned()));
    for n in [1usize, 2, 3, 7, 47, 48, 49, 50, 100, 500] {
        for s in ["a", "ab", " ", "\n", "\t", " \n", "!", "=", "1", "é", "日", "😀", "\u{301}", "na", "the ", "'s"]
        {
            out.push(s.repeat(n));
            out.push(format!("x{}", s.repeat(n)));
            out.push(format!("{}x", s.repeat(n)));
        }
    }
    out
}

/// Strings of fragments that meet badly, mixed with arbitrary Unicode.
pub fn any_text() -> impl Strategy<Value = String> {
    let fragment = prop_oneof![
        4 => prop::sample::select(vec![
            "a", "b", "the", "Hello", "é", "ß", "日", "本", "ไ", "क", "\u{94d}", "\u{301}", "\u{200d}", "😀", "ſ", "s", "S", "ll", "LL", "re", "'", "'", "’",
            "1", "22", "345", "٣", "½", "Ⅷ", " ", " ", "  ", "\n", "\r", "\r\n", "\t", "\u{a0}", "\u{3000}", "\u{85}", "!", ".", "$", "+", "=", "|", "_", "-", "—",
            "<|eot_id|>", "<|x|>", "<|x|>y", "<|", "|>", "\0", "\u{4}", "\u{10ffff}", "▁", "<0x41>",
        ]).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
        1 => "\\PC{0,4}",
    ];
    prop::collection::vec(fragment, 0..40).prop_map(|v| v.concat())
}

pub fn split_json(regex: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false})
}

pub fn byte_level_json(use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex})
}

/// HuggingFace's pre-tokenizer for a name of `tokenizer.ggml.pre`.
pub fn pre_json(pre: &str) -> Value {
    let steps = match pre {
        "gpt-2" => return byte_level_json(true),
        "llama-bpe" => vec![split_json(LLAMA3_REGEX), byte_level_json(false)],
        "qwen2" => vec![split_json(QWEN2_REGEX), byte_level_json(false)],
        "smollm" => vec![json!({"type": "Digits", "individual_digits": true}), byte_level_json(true)],
        "default" => vec![
            split_json(r"[\p{P}\$\+<=>\^~\|]+"),
            split_json(GPT2_REGEX),
            split_json(r"\p{N}+"),
            split_json("[0-9][0-9][0-9]"),
            byte_level_json(false),
        ],
        // The rules in data: every expression a step.
        other => match by_name(other).map(|spec| spec.pre) {
            Some(Pre::Rule(rule)) => {
                rule.expressions().into_iter().map(split_json).chain([byte_level_json(false)]).collect()
            }
            pre => panic!("no oracle for {other}: {pre:?}"),
        },
    };
    json!({"type": "Sequence", "pretokenizers": steps})
}

/// A vocabulary trained on [`CORPUS`] (with pre-tokenizer `pre`), as the `model` part of a tokenizer.json.
pub fn train_byte_level(pre: &str, size: usize, whole_alphabet: bool) -> Value {
    let builder = BpeTrainer::builder().vocab_size(size).show_progress(false);
    let builder =
        if whole_alphabet { builder.initial_alphabet(ByteLevel::alphabet().into_iter().collect()) } else { builder };
    let mut trainer = TrainerWrapper::BpeTrainer(builder.build());
    let mut tokenizer = tokenizers::Tokenizer::new(BPE::default());
    let pre: tokenizers::PreTokenizerWrapper = serde_json::from_value(pre_json(pre)).unwrap();
    tokenizer.with_pre_tokenizer(Some(pre));
    tokenizer.train(&mut trainer, CORPUS.split_inclusive('\n')).unwrap();
    let text: Value = serde_json::from_str(&tokenizer.to_string(false).unwrap()).unwrap();
    text["model"].clone()
}

/// The whole tokenizer.json of a byte-level BPE: `model` plus `specials` behind it.
pub fn byte_level_json_file(mut model: Value, pre: &str, specials: &[&str]) -> Value {
    model["ignore_merges"] = json!(pre == "llama-bpe");
    let n = model["vocab"].as_object().unwrap().len();
    let added: Vec<Value> = specials
        .iter()
        .enumerate()
        .map(|(i, s)| {
            json!({"id": n + i, "content": s, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": pre_json(pre), "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": model,
    })
}

pub fn oracle(file: &Value) -> tokenizers::Tokenizer {
    tokenizers::Tokenizer::from_str(&file.to_string()).unwrap()
}

/// What a GGUF made from this tokenizer.json would say.
pub fn source_of(file: &Value, model: &str, pre: Option<&str>) -> VocabSource {
    let vocab = file["model"]["vocab"].as_object().unwrap();
    let added = file["added_tokens"].as_array().unwrap();
    let id = |v: &Value| usize::try_from(v.as_u64().unwrap()).unwrap();
    let size = vocab.values().map(id).chain(added.iter().map(|a| id(&a["id"]))).max().unwrap() + 1;
    let mut tokens = vec![Vec::new(); size];
    let mut token_types = vec![TokenKind::Normal; size];
    for (text, v) in vocab {
        tokens[id(v)] = text.as_bytes().to_vec();
    }
    for a in added {
        tokens[id(&a["id"])] = a["content"].as_str().unwrap().as_bytes().to_vec();
        token_types[id(&a["id"])] =
            if a["special"].as_bool().unwrap() { TokenKind::Control } else { TokenKind::UserDefined };
    }
    let merges = file["model"]["merges"].as_array().unwrap().iter().map(|m| match m {
        Value::String(s) => s.as_bytes().to_vec(),
        pair => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()).into_bytes(),
    });
    VocabSource {
        model: model.to_owned(),
        pre: pre.map(str::to_owned),
        merges: merges.collect(),
        tokens,
        token_types,
        ..VocabSource::default()
    }
}

pub fn oracle_ids(oracle: &tokenizers::Tokenizer, text: &str) -> Vec<u32> {
    oracle.encode(text, false).unwrap().get_ids().to_vec()
}
