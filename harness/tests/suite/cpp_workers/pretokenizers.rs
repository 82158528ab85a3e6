//! Every pre-tokenizer that llama.cpp knows, against llama.cpp: made-up vocabularies whose ids show where text was cut.
//!
//! The vocabulary has every byte, and every pair of bytes that the texts have merges: so the ids of a piece are its pairs from
//! the left, and a piece that is cut otherwise has other ids. A rule that differs for a reason that we name must differ.

use super::{PATIENCE, Stage, check};
use bitnet_engine::gguf::GgufFile;
use bitnet_engine::tokenizer::normalize::Normalizing;
use bitnet_engine::tokenizer::pretokenize::{KNOWN, Pre};
use bitnet_engine::tokenizer::{EncodeOptions, TokenKind, VocabSource, byte_alphabet, from_gguf, unicode};
use bitnet_harness::Failure;
use bitnet_harness::vocabularies::gguf_bytes;
use cpp_sys::{LoadOptions, Session};
use std::collections::BTreeSet;

const ASCII: &[&str] = &[
    "a", "b", "Z", "the", "The", "THE", "iOS", "1", "12", "123", "1234", "12345", " ", " ", "  ", "    ", "\n", "\n\n",
    "\r\n", "\t", "'s", "'S", "'ll", "'RE", "'t", "'x", "'", "!", "?!", "...", "-", "_", "/", "//", "+", "=", "<", ">",
    "|", "~", "^", "$", "`", "(", ")", "[", "]", "{", "\\", "#", "%", "&", "*", "@", ":", ";", "\"", ",", ".",
];
const UNICODE: &[&str] = &[
    "a", "B", "é", "É", "ß", "Ж", "ж", "α", "Ω", "中", "文字", "の", "カ", "한국", "ㄱ", "ก", "\u{301}", "\u{94d}",
    "क", "ǅ", "ª", "1", "123", "٣٤", "²", "½", "Ⅷ", "１２", " ", "  ", "\u{a0}", "\u{3000}", "\n", "!", "！", "。",
    "…", "—", "«", "€", "±", "😀", "'s", "’s", "\u{200b}", "`", "$",
];

/// What llama.cpp does otherwise: the names, why, and whether a text can show it. Texts that cannot must be cut alike.
struct Other {
    names: &'static [&'static str],
    why: &'static str,
    shows: fn(&str) -> bool,
}

const OTHERS: &[Other] = &[
    Other {
        names: &["kimi-k2", "youtu", "tiny_aya", "cohere2moe"],
        why: "it takes upper and lower case for one, and marks for no part of a word",
        shows: |text| text.chars().any(|c| c.is_uppercase() || is_mark(c) || (!c.is_ascii() && c.is_alphabetic())),
    },
    Other {
        names: &["tiny_aya", "cohere2moe"],
        why: "it groups numbers whatever follows, and all kinds of digits, and keeps what is in front with the first group",
        shows: |text| text.chars().any(char::is_numeric),
    },
    Other {
        names: &["tekken", "gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2", "granite-embed-multi-97m"],
        why: "letters but a-z are upper case to it, letters but A-Z lower case",
        shows: |text| text.chars().any(|c| !c.is_ascii() && (c.is_alphabetic() || is_mark(c))),
    },
    Other {
        names: &["afmoe"],
        why: "it keeps the text in front of a number with its first group",
        shows: |text| text.chars().any(char::is_numeric),
    },
    Other {
        names: &["deepseek-coder", "deepseek-llm"],
        why: "its library gets a vertical tab for spaces beyond ASCII",
        shows: |text| text.chars().any(|c| !c.is_ascii() && c.is_whitespace()),
    },
];

fn is_mark(c: char) -> bool {
    unicode::ranges("M").unwrap_or_default().iter().any(|range| (range.0..=range.1).contains(&(c as u32)))
}

const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };

/// So many texts of random parts, always the same.
fn texts(parts: &[&str], n: usize) -> Vec<String> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    (0..n).map(|_| (0..1 + next(12)).map(|_| parts[next(parts.len())]).collect()).collect()
}

/// All bytes and all pairs of `used`, in GPT-2's alphabet.
fn pairs(pre: &str, used: &BTreeSet<u8>) -> VocabSource {
    let text = |byte: u8| byte_alphabet::to_char(byte).to_string();
    let mut tokens: Vec<String> = (0..=255).map(text).collect();
    let mut merges = Vec::new();
    for &left in used {
        for &right in used {
            tokens.push(text(left) + &text(right));
            merges.push(format!("{} {}", text(left), text(right)).into_bytes());
        }
    }
    let tokens = tokens.into_iter().map(|text| (text, TokenKind::Normal)).collect();
    VocabSource { pre: Some(pre.into()), merges, add_bos: Some(false), ..source("gpt2", tokens) }
}

/// The first text whose ids differ.
fn differs(session: &mut Session, source: &VocabSource, texts: &[String]) -> Result<Option<String>, Failure> {
    let bytes = gguf_bytes(source)?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("vocabulary.gguf");
    std::fs::write(&path, &bytes)?;
    let file = GgufFile::from_vec(bytes)?;
    session.load(&path, LoadOptions { vocab_only: true, ..LoadOptions::default() })?;
    let ours = from_gguf(file.metadata())?.tokenizer;
    let mut seen = BTreeSet::new();
    for text in texts {
        let (theirs, ours) = (session.tokenize(text, false, false)?, ours.encode(text, PLAIN)?);
        if theirs != ours {
            return Ok(Some(format!("{text:?}: llama.cpp {theirs:?}, we {ours:?}")));
        }
        seen.extend(ours);
    }
    // Equal for want of tokens would show nothing.
    check(
        texts.len() < 100 || seen.len() > 50,
        format_args!("{}: only {} ids in {} texts: {seen:?}", source.model, seen.len(), texts.len()),
    )?;
    Ok(None)
}

pub(crate) fn pretokenizers(stage: &Stage) -> Result<(), Failure> {
    let mut session = stage.session(PATIENCE)?;
    let mut wrong = Vec::new();
    let texts = [texts(ASCII, 150), texts(UNICODE, 250)].concat();
    let used: BTreeSet<u8> = texts.iter().flat_map(|text| text.bytes()).collect();
    let mut compared = 0;
    for spec in KNOWN.iter().filter(|spec| spec.name != "falcon_e" && spec.pre != Pre::Pieces) {
        let source = pairs(spec.name, &used);
        let others: Vec<&Other> = OTHERS.iter().filter(|other| other.names.contains(&spec.name)).collect();
        let (some, same): (Vec<String>, _) =
            texts.iter().cloned().partition(|text| others.iter().any(|o| (o.shows)(text)));
        compared += same.len();
        if let Some(found) = differs(&mut session, &source, &same)? {
            wrong.push(format!("{}: {found}", spec.name));
        }
        if let (Some(other), None) = (others.first(), differs(&mut session, &source, &some)?) {
            wrong.push(format!("{} does not differ, though {}", spec.name, other.why));
        }
    }
    eprintln!("{compared} texts were compared");
    check(wrong.is_empty(), wrong.join("\n"))
}

/// The kinds without a pre-tokenizer: WordPiece, Unigram, and pieces with merges.
pub(crate) fn kinds(stage: &Stage) -> Result<(), Failure> {
    let mut session = stage.session(PATIENCE)?;
    let texts = texts(ASCII, 200);
    let mut wrong = Vec::new();
    for (name, source) in [("bert", bert()), ("t5", t5()), ("gemma4", gemma())] {
        // Spaces alone are a word to llama.cpp, and nothing to a model that removes them.
        let texts: Vec<String> = texts.iter().filter(|t| !t.trim().is_empty()).cloned().collect();
        if let Some(found) = differs(&mut session, &source, &texts)? {
            wrong.push(format!("{name}: {found}"));
        }
    }
    check(wrong.is_empty(), wrong.join("\n"))
}

fn chars() -> impl Iterator<Item = String> {
    (b'!'..=b'~').map(|c| char::from(c).to_string())
}

fn source(model: &str, tokens: Vec<(String, TokenKind)>) -> VocabSource {
    let (tokens, token_types): (Vec<String>, _) = tokens.into_iter().unzip();
    let tokens = tokens.into_iter().map(String::into_bytes).collect();
    VocabSource { model: model.into(), tokens, token_types, ..VocabSource::default() }
}

/// Ids 100 to 102 have their roles; every character starts a word and goes on in one.
fn bert() -> VocabSource {
    let named = |id| match id {
        0 => "[PAD]".to_owned(),
        100 => "[UNK]".to_owned(),
        101 => "[CLS]".to_owned(),
        102 => "[SEP]".to_owned(),
        103 => "[MASK]".to_owned(),
        other => format!("[unused{other}]"),
    };
    let mut tokens: Vec<(String, TokenKind)> = (0..104).map(|id| (named(id), TokenKind::Control)).collect();
    let words = ["the", "ios", "12", "123", "45"].map(str::to_owned);
    // Inside of a word letters and digits but `z`, and some pairs: words with a `z` inside are unknown.
    let inside = ["he", "os", "23", "34", "th"].map(str::to_owned).into_iter().chain(chars().filter(|c| c != "z"));
    tokens.extend(chars().filter(|c| c != "b").chain(words).map(|c| (format!("\u{2581}{c}"), TokenKind::Normal)));
    tokens.extend(inside.map(|c| (c, TokenKind::Normal)));
    source("bert", tokens)
}

fn scored(tokens: &[(String, TokenKind)]) -> Vec<f32> {
    (0..tokens.len()).map(|id| -1.0 - (id * 7919 % 1009) as f32 / 91.0).collect()
}

fn t5() -> VocabSource {
    let roles = [("<pad>", TokenKind::Control), ("</s>", TokenKind::Control), ("<unk>", TokenKind::Unknown)];
    let mut tokens: Vec<(String, TokenKind)> = roles.map(|(text, kind)| (text.to_owned(), kind)).to_vec();
    let words = "\u{2581} \u{2581}the the \u{2581}T he HE 12 1234 \u{2581}1 .. 's \u{2581}a iO OS".split(' ');
    let pieces = words.map(str::to_owned).chain(chars().filter(|c| c != "#" && c != "b"));
    tokens.extend(pieces.map(|c| (c, TokenKind::Normal)));
    let normalizing = Normalizing { dummy_prefix: true, remove_extra: true, ..Normalizing::default() };
    VocabSource { scores: scored(&tokens), normalizing: Some(normalizing), ..source("t5", tokens) }
}

fn gemma() -> VocabSource {
    let roles = [
        ("<pad>", TokenKind::Control),
        ("<eos>", TokenKind::Control),
        ("<bos>", TokenKind::Control),
        ("<unk>", TokenKind::Unknown),
    ];
    let mut tokens: Vec<(String, TokenKind)> = roles.map(|(text, kind)| (text.to_owned(), kind)).to_vec();
    tokens.extend((0..256).map(|b| (format!("<0x{b:02X}>"), TokenKind::Byte)));
    let single: Vec<String> = chars().filter(|c| c != "#").chain(["\u{2581}".to_owned()]).collect();
    tokens.extend(single.iter().map(|c| (c.clone(), TokenKind::Normal)));
    let mut merges = Vec::new();
    for (at, left) in single.iter().enumerate().filter(|(at, _)| at % 3 != 1) {
        for right in single.iter().skip(at % 2).step_by(2) {
            tokens.push((format!("{left}{right}"), TokenKind::Normal));
            merges.push(format!("{left} {right}").into_bytes());
        }
    }
    let scores = scored(&tokens);
    VocabSource {
        merges,
        scores,
        bos: Some(2),
        eos: Some(1),
        unk: Some(3),
        add_bos: Some(false),
        ..source("gemma4", tokens)
    }
}
