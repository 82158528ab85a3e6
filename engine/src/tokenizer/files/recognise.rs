//! Telling what a file is by its content, and what it is instead of a tokenizer.

use super::super::error::TokenizerError;
use super::base64;
use super::set::{COMPANION_NAMES, FileSet};
use super::show;
use std::fmt;

/// How much of a file [`recognise`] needs at most.
pub(super) const HEAD_BYTES: usize = 64 << 10;

/// What a tokenizer file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// HuggingFace's `tokenizer.json`.
    HuggingFaceJson,
    /// SentencePiece's protobuf.
    SentencePiece,
    /// tiktoken's ranks: base64, a space and a number on every line.
    Tiktoken,
    /// GPT-2's `vocab.json`; needs [`FileKind::Merges`].
    VocabJson,
    /// GPT-2's `merges.txt`: two pieces on every line.
    Merges,
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HuggingFaceJson => "tokenizer.json of HuggingFace",
            Self::SentencePiece => "SentencePiece model",
            Self::Tiktoken => "tiktoken ranks",
            Self::VocabJson => "vocabulary with merges",
            Self::Merges => "merges",
        })
    }
}

/// What the file is, by its content first and its name second; `None` if it is not a tokenizer file. `head` is its
/// beginning, 64 KiB or all of it.
#[must_use]
pub fn recognise(name: &str, head: &[u8]) -> Option<FileKind> {
    if COMPANION_NAMES.contains(&name) {
        return None;
    }
    let text = head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(head);
    // A protobuf of pieces starts with a line feed (field 1, length-delimited), so before white space is trimmed.
    if is_sentencepiece(head) {
        return Some(FileKind::SentencePiece);
    }
    let trimmed = text.trim_ascii_start();
    match trimmed.first()? {
        b'{' => json(trimmed),
        b'<' if is_html(trimmed) => None,
        _ if is_lfs(trimmed) => None,
        _ if is_tiktoken(trimmed) => Some(FileKind::Tiktoken),
        _ if is_merges(name, trimmed) => Some(FileKind::Merges),
        _ => None,
    }
}

fn contains(text: &[u8], part: &str) -> bool {
    text.windows(part.len()).any(|w| w == part.as_bytes())
}

/// `{"text": number, ...` is a vocabulary; a tokenizer.json names its parts.
fn json(text: &[u8]) -> Option<FileKind> {
    let rest = text.get(1..)?.trim_ascii_start().strip_prefix(b"\"")?;
    let mut end = 0;
    while *rest.get(end)? != b'"' {
        end += if rest[end] == b'\\' { 2 } else { 1 };
    }
    let value = rest.get(end + 1..)?.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    if value.first()?.is_ascii_digit() {
        return Some(FileKind::VocabJson);
    }
    let parts = ["\"added_tokens\"", "\"pre_tokenizer\"", "\"post_processor\"", "\"normalizer\"", "\"model\""];
    parts.iter().any(|p| contains(text, p)).then_some(FileKind::HuggingFaceJson)
}

/// The first piece: field 1 holding a message whose first field is 1, a string, with a float behind it.
fn is_sentencepiece(head: &[u8]) -> bool {
    let Some(rest) = head.strip_prefix(b"\x0A") else { return false };
    let Some((&len, rest)) = rest.split_first() else { return false };
    let Some(piece) = rest.strip_prefix(b"\x0A") else { return false };
    let Some((&text, rest)) = piece.split_first() else { return false };
    if !(2..0x80).contains(&len) || usize::from(text) + 2 > usize::from(len) {
        return false;
    }
    // The score is field 2, four bytes; a piece without one ends here.
    match rest.get(usize::from(text)) {
        Some(&tag) => tag == 0x15 || tag == 0x18 || usize::from(text) + 2 == usize::from(len),
        None => true,
    }
}

/// Whole lines of the head, without the last if it may be cut.
fn lines(text: &[u8], most: usize) -> impl Iterator<Item = &[u8]> {
    let whole = match text.iter().rposition(|&b| b == b'\n') {
        Some(end) => &text[..end],
        None => text,
    };
    whole.split(|&b| b == b'\n').map(|l| l.strip_suffix(b"\r").unwrap_or(l)).filter(|l| !l.is_empty()).take(most)
}

fn is_tiktoken(text: &[u8]) -> bool {
    let mut any = false;
    for line in lines(text, 8) {
        let Some((token, rank)) = base64::split_line(line) else { return false };
        if base64::decode(token).is_none() || rank.is_empty() || !rank.iter().all(u8::is_ascii_digit) {
            return false;
        }
        any = true;
    }
    any
}

fn is_merges(name: &str, text: &[u8]) -> bool {
    if text.starts_with(b"#version") {
        return true;
    }
    let named = name.ends_with("merges.txt") || name.ends_with(".bpe");
    let two = |line: &[u8]| matches!(line.split(|&b| b == b' ').collect::<Vec<_>>()[..], [a, b] if !a.is_empty() && !b.is_empty());
    named && lines(text, 8).next().is_some() && lines(text, 8).all(two)
}

fn is_html(text: &[u8]) -> bool {
    let start: Vec<u8> = text.iter().take(1024).map(u8::to_ascii_lowercase).collect();
    ["<!doctype", "<html", "<head", "<body", "<?xml", "<error"].iter().any(|tag| start.starts_with(tag.as_bytes()))
        || contains(&start, "<html")
}

fn is_lfs(text: &[u8]) -> bool {
    text.starts_with(b"version https://git-lfs")
}

/// A file that may be loaded.
pub(super) struct Candidate<'a> {
    pub(super) name: &'a str,
    pub(super) bytes: &'a [u8],
    pub(super) kind: Option<FileKind>,
    /// The merges of a vocabulary.
    pub(super) partner: Option<(&'a str, &'a [u8])>,
}

/// What there is to load, best first; files that are nothing known stand where their name puts them.
pub(super) fn candidates(files: &FileSet) -> Vec<Candidate<'_>> {
    let known = |bytes: &[u8], name: &str| recognise(name, &bytes[..bytes.len().min(HEAD_BYTES)]);
    let mut all: Vec<Candidate<'_>> = files
        .iter()
        .filter(|(name, _)| !COMPANION_NAMES.contains(name))
        .map(|(name, bytes)| Candidate { name, bytes, kind: known(bytes, name), partner: None })
        .collect();
    let merges = all.iter().find(|c| c.kind == Some(FileKind::Merges)).map(|c| (c.name, c.bytes));
    for candidate in all.iter_mut().filter(|c| c.kind == Some(FileKind::VocabJson)) {
        candidate.partner = merges;
    }
    if all.iter().any(|c| c.partner.is_some()) {
        all.retain(|c| c.kind != Some(FileKind::Merges));
    }
    all.sort_by_key(|c| c.kind.unwrap_or(by_name(c.name)));
    all
}

fn by_name(name: &str) -> FileKind {
    match name {
        "merges.txt" | "vocab.bpe" => FileKind::Merges,
        "vocab.json" | "encoder.json" => FileKind::VocabJson,
        _ if name.ends_with(".json") => FileKind::HuggingFaceJson,
        _ if name.ends_with(".tiktoken") => FileKind::Tiktoken,
        _ => FileKind::SentencePiece,
    }
}

/// The error for a file that is not a tokenizer, saying what it is.
pub(super) fn what_else(name: &str, bytes: &[u8]) -> TokenizerError {
    let head = &bytes[..bytes.len().min(HEAD_BYTES)];
    let text = head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(head).trim_ascii_start();
    let again = format!("Download it again: `bitnet download REPO --file {name}`");
    let (what, remedy) = if bytes.is_empty() {
        ("the file is empty".to_owned(), again)
    } else if text.is_empty() {
        ("the file holds nothing but white space".to_owned(), again)
    } else if is_html(text) {
        ("this is an HTML page, an error or login page that was saved under this name".to_owned(), again)
    } else if is_lfs(text) {
        (
            "this is a Git LFS pointer, not the file".to_owned(),
            format!("Fetch the file itself: `git lfs pull`, or `bitnet download REPO --file {name}`"),
        )
    } else if let Some(message) = json_error(text) {
        (format!("this is a JSON error answer of a server ({message})"), again)
    } else if let Some(what) = magic(head) {
        (what.to_owned(), "Give the tokenizer's own file".to_owned())
    } else if text.starts_with(b"{") || text.starts_with(b"[") {
        ("this is JSON, but neither a tokenizer.json (no `model`) nor a vocabulary (`\"text\": id`)".to_owned(), again)
    } else {
        (
            format!(
                "its first bytes ({}) are those of no known tokenizer file",
                hex::encode(&head[..head.len().min(8)])
            ),
            again,
        )
    };
    TokenizerError::NotATokenizer { file: name.to_owned(), what, remedy }
}

fn magic(head: &[u8]) -> Option<&'static str> {
    const MAGIC: &[(&[u8], &str)] = &[
        (b"GGUF", "this is a GGUF model"),
        (b"\x1f\x8b", "this is a gzip archive"),
        (b"PK\x03\x04", "this is a zip archive"),
        (b"\x28\xb5\x2f\xfd", "this is a zstd archive"),
    ];
    MAGIC.iter().find(|m| head.starts_with(m.0)).map(|m| m.1)
}

/// The message of `{"error": ...}`.
fn json_error(text: &[u8]) -> Option<String> {
    if text.len() > 16 << 10 {
        return None;
    }
    let value: serde_json::Value = serde_json::from_slice(text).ok()?;
    let message = ["error", "message", "detail"].iter().find_map(|key| value.get(key))?;
    Some(match message.as_str() {
        Some(message) => show(message.as_bytes()),
        None => show(message.to_string().as_bytes()),
    })
}
