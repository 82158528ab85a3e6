//! Pre-tokenizers: splitting text into the pieces that BPE never merges across.
//!
//! Each is a regular expression in the model's own files, or several. The most used ones are worked out 64 bytes at a time
//! with bit masks, or are scanners written by hand; all others are lines of data (`pretokenize/rules.rs`) for one engine
//! (`pretokenize/dfa.rs`) that reads a text once, whatever it is. The tests compare piece by piece with Oniguruma running
//! the expressions.
//!
//! | file | owns |
//! |---|---|
//! | `names` | every name of `tokenizer.ggml.pre`, its rule and its flags |
//! | `rules` | the rules in data |
//! | `regex`, `dfa` | expressions, parsed; and compiled into a table |
//! | `windows` | a text in windows, pieces in batches; which rules are worked out with masks |
//! | `blocks` | a window as masks: which bytes are letters, numbers, spaces |
//! | `starts` | where pieces start: the expressions as sums of masks |
//! | `words` | scanners of some of the others |
//! | `threes` | numbers in groups from the right |
//!
//! Names are those of llama.cpp's `tokenizer.ggml.pre`. Differences that are decided here, always for HuggingFace:
//! - `(?i:'s)` also takes `'ſ` (U+017F folds to `s`); llama.cpp spells the cases out and does not.
//! - Unicode is 16.0 (see [`super::unicode`]); llama.cpp's tables are another version. HuggingFace's `Digits`
//!   (SmolLM) asks Rust's `char::is_numeric` instead, which is newer: numbers that came after Unicode 16.0 split there.

mod blocks;
mod dfa;
mod names;
mod regex;
mod rules;
mod starts;
mod threes;
mod windows;
mod words;

pub(crate) use names::by_expressions;
pub use names::{KNOWN, PreSpec, REFUSED, by_name, known_names};
pub use rules::{RULES, Rule};

use super::unicode::{LETTER, NUMBER, SPACE, class_at};
use bitnet_kernels::text::{self, TextSet};
use std::ops::Range;
pub(super) use windows::Windows;
use windows::{Scan, split};

/// A splitting rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pre {
    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    Gpt2,
    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
    Llama3,
    /// As [`Pre::Llama3`] with `\p{N}` instead of `\p{N}{1,3}`.
    Qwen2,
    /// Every `\p{N}` apart, then [`Pre::Gpt2`] between.
    Smollm,
    /// llama.cpp's four passes: `[\p{P}\$\+<=>\^~\|]+`, then [`Pre::Gpt2`], `\p{N}+`, `[0-9][0-9][0-9]`.
    Default,
    /// One of the table: passes of expressions.
    Rule(&'static Rule),
    /// Nothing is split: the pieces are SentencePiece's, and [`super::spm`] merges them.
    Pieces,
}

impl Pre {
    /// The expression of [`Pre::Gpt2`]; llama.cpp leaves its last alternative out, which changes nothing.
    pub(crate) const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
    /// That of [`Pre::Llama3`].
    pub(crate) const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    /// That of [`Pre::Qwen2`].
    pub(crate) const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    /// Calls `batch` with where some pieces start in `text` and, for each of them, how far behind that place it ends. The pieces are in
    /// order and cover the text. `set` and `windows` change nothing but the time.
    #[inline]
    pub(super) fn batches(
        self,
        set: &TextSet,
        text: &[u8],
        windows: &mut Windows,
        batch: &mut dyn FnMut(usize, &[u32]),
    ) {
        match self {
            Self::Gpt2 => split(Scan::Gpt2, set, text, windows, batch),
            Self::Llama3 => split(Scan::Llama3, set, text, windows, batch),
            Self::Qwen2 => split(Scan::Qwen2, set, text, windows, batch),
            Self::Smollm => split(Scan::Smollm, set, text, windows, batch),
            Self::Default => split(Scan::Default, set, text, windows, batch),
            Self::Rule(rule) => match rule.scan() {
                Some(scan) => split(scan, set, text, windows, batch),
                None => {
                    let mut pieces = Gathered { from: 0, ends: Vec::with_capacity(GATHERED), batch };
                    rule.for_each(set, text, &mut |piece| pieces.push(piece.len()));
                    pieces.flush();
                }
            },
            Self::Pieces if text.is_empty() => {}
            Self::Pieces => batch(0, &[text.len() as u32]),
        }
    }

    /// The pieces as ranges of `text`; for tests and tools.
    #[must_use]
    pub fn split(self, text: &[u8]) -> Vec<Range<usize>> {
        self.split_by(text::best(), text)
    }

    /// The same by the instructions of `set`.
    #[must_use]
    pub fn split_by(self, set: &TextSet, text: &[u8]) -> Vec<Range<usize>> {
        let mut out = Vec::new();
        self.batches(set, text, &mut Windows::default(), &mut |from, ends| {
            let mut at = from;
            for end in ends.iter().map(|&end| from + end as usize) {
                out.push(at..end);
                at = end;
            }
        });
        out
    }
}

/// Pieces of a gathered batch.
const GATHERED: usize = 256;

/// Pieces that come one by one.
struct Gathered<'a> {
    from: usize,
    ends: Vec<u32>,
    batch: &'a mut dyn FnMut(usize, &[u32]),
}

impl Gathered<'_> {
    fn push(&mut self, len: usize) {
        if self.ends.len() == GATHERED {
            self.flush();
        }
        self.ends.push(self.ends.last().unwrap_or(&0) + len as u32);
    }

    fn flush(&mut self) {
        if let Some(&end) = self.ends.last() {
            (self.batch)(self.from, &self.ends);
            self.from += end as usize;
            self.ends.clear();
        }
    }
}

/// What [`Pre::Default`] cuts out besides punctuation.
pub(super) const DEFAULT_SYMBOLS: [u8; 8] = *b"$+<=>^~|";

/// Moves on while the character has one of the properties in `mask` (or, if `negate`, while it has none of them).
#[inline]
fn advance(text: &[u8], mut at: usize, mask: u8, negate: bool) -> usize {
    while at < text.len() {
        let (class, len) = class_at(text, at);
        if (class & mask != 0) == negate {
            break;
        }
        at += len;
    }
    at
}

const WORD_OR_SPACE: u8 = LETTER | NUMBER | SPACE;

/// `[^\s\p{L}\p{N}]+` from `at`.
#[inline]
fn others(text: &[u8], at: usize) -> usize {
    advance(text, at, WORD_OR_SPACE, true)
}

/// Length of `(?i:'s|'t|'re|'ve|'m|'ll|'d)` at an apostrophe, or 0.
#[inline]
fn contraction(text: &[u8], at: usize) -> usize {
    match &text[at + 1..] {
        [b's' | b'S' | b't' | b'T' | b'm' | b'M' | b'd' | b'D', ..] => 2,
        [b'r' | b'R' | b'v' | b'V', b'e' | b'E', ..] | [b'l' | b'L', b'l' | b'L', ..] => 3,
        [0xC5, 0xBF, ..] => 3, // U+017F, the long s, folds to s
        _ => 0,
    }
}

/// Behind the first of up to `MOST` numbers.
#[inline]
fn digits<const MOST: usize>(text: &[u8], mut end: usize) -> usize {
    for _ in 1..MOST {
        if end == text.len() {
            break;
        }
        match class_at(text, end) {
            (class, len) if class & NUMBER != 0 => end += len,
            _ => break,
        }
    }
    end
}

/// `\s*[\r\n]+|\s+(?!\S)|\s+` at a white space.
#[inline]
fn spaces_and_breaks(text: &[u8], at: usize) -> usize {
    // `\s*[\r\n]+`: through the last line break of the run, if it has one.
    let (mut end, mut last, mut after_break) = (at, at, None);
    while end < text.len() {
        let (class, len) = class_at(text, end);
        if class & SPACE == 0 {
            break;
        }
        if matches!(text[end], b'\r' | b'\n') {
            after_break = Some(end + 1);
        }
        last = end;
        end += len;
    }
    match after_break {
        Some(end) => end,
        None if end == text.len() || last == at => end,
        None => last,
    }
}

/// `[\r\n]*`
#[inline]
fn newlines(text: &[u8], mut at: usize) -> usize {
    while let Some(b'\r' | b'\n') = text.get(at) {
        at += 1;
    }
    at
}
