//! Pre-tokenizers: splitting text into the pieces that BPE never merges across.
//!
//! Each is a regular expression in the model's own files, or several. The most used ones are scanners written by hand,
//! with the expression above the scanner; all others are lines of data (`pretokenize/rules.rs`) for one engine
//! (`pretokenize/dfa.rs`) that reads a text once, whatever it is. The tests compare piece by piece with Oniguruma running
//! the expressions.
//!
//! | file | owns |
//! |---|---|
//! | `names` | every name of `tokenizer.ggml.pre`, its rule and its flags |
//! | `rules` | the rules in data |
//! | `regex`, `dfa` | expressions, parsed; and compiled into a table |
//! | `words` | scanners of some of them |
//! | `threes` | numbers in groups from the right |
//!
//! Names are those of llama.cpp's `tokenizer.ggml.pre`. Differences that are decided here, always for HuggingFace:
//! - `(?i:'s)` also takes `'ſ` (U+017F folds to `s`); llama.cpp spells the cases out and does not.
//! - Unicode is 16.0 (see [`super::unicode`]); llama.cpp's tables are another version. HuggingFace's `Digits`
//!   (SmolLM) asks Rust's `char::is_numeric` instead, which is newer: numbers that came after Unicode 16.0 split there.

mod dfa;
mod names;
mod regex;
mod rules;
mod threes;
mod words;

pub(crate) use names::by_expressions;
pub use names::{KNOWN, PreSpec, REFUSED, by_name, known_names};
pub use rules::{RULES, Rule};

use super::unicode::{LETTER, NUMBER, PUNCT, SPACE, class_at};
use std::ops::Range;

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

    /// Calls `piece` with every piece of `text` in order; the pieces cover the text. Stops early at an error.
    ///
    /// # Errors
    /// What `piece` returned.
    #[inline]
    pub fn for_each<E>(self, text: &[u8], mut piece: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        match self {
            Self::Gpt2 => pieces(text, gpt2, &mut piece),
            Self::Llama3 => pieces(text, llama3::<3, LETTER>, &mut piece),
            Self::Qwen2 => pieces(text, llama3::<1, LETTER>, &mut piece),
            Self::Smollm => runs(text, is_number, true, &mut |part, number| {
                if number { piece(part) } else { pieces(part, gpt2, &mut piece) }
            }),
            Self::Default => default_passes(text, &mut piece),
            Self::Rule(rule) => rule.for_each(text, &mut piece),
            Self::Pieces if text.is_empty() => Ok(()),
            Self::Pieces => piece(text),
        }
    }

    /// The pieces as ranges of `text`; for tests and tools.
    #[must_use]
    pub fn split(self, text: &[u8]) -> Vec<Range<usize>> {
        let mut out = Vec::new();
        let mut at = 0;
        let done: Result<(), std::convert::Infallible> = self.for_each(text, |p| {
            out.push(at..at + p.len());
            at += p.len();
            Ok(())
        });
        match done {
            Ok(()) => out,
        }
    }
}

#[inline]
fn pieces<E>(
    text: &[u8],
    scan: impl Fn(&[u8], usize) -> usize,
    piece: &mut impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut at = 0;
    while at < text.len() {
        let end = scan(text, at);
        piece(&text[at..end])?;
        at = end;
    }
    Ok(())
}

/// Splits into runs of characters that `wanted` takes (each alone if `single`) and the text between.
fn runs<E>(
    text: &[u8],
    wanted: impl Fn(&[u8], usize) -> (bool, usize),
    single: bool,
    part: &mut impl FnMut(&[u8], bool) -> Result<(), E>,
) -> Result<(), E> {
    let (mut start, mut at, mut inside) = (0, 0, false);
    while at < text.len() {
        let (hit, len) = wanted(text, at);
        if at > start && (hit != inside || (hit && single)) {
            part(&text[start..at], inside)?;
            start = at;
        }
        inside = hit;
        at += len;
    }
    if at > start { part(&text[start..at], inside) } else { Ok(()) }
}

fn is_number(text: &[u8], at: usize) -> (bool, usize) {
    let (class, len) = class_at(text, at);
    (class & NUMBER != 0, len)
}

/// What [`Pre::Default`] cuts out besides punctuation.
pub(super) const DEFAULT_SYMBOLS: [u8; 8] = *b"$+<=>^~|";

/// `[\p{P}\$\+<=>\^~\|]`
fn is_default_punct(text: &[u8], at: usize) -> (bool, usize) {
    let (class, len) = class_at(text, at);
    (class & PUNCT != 0 || DEFAULT_SYMBOLS.contains(&text[at]), len)
}

fn default_passes<E>(text: &[u8], piece: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    runs(text, is_default_punct, false, &mut |part, _| {
        pieces(part, gpt2, &mut |word: &[u8]| {
            // Only ` ?\p{N}+` of the second pass has numbers, at its end.
            let digits = match word {
                [b' ', rest @ ..] => rest,
                all => all,
            };
            if digits.is_empty() || !is_number(digits, 0).0 {
                return piece(word);
            }
            if digits.len() < word.len() {
                piece(&word[..1])?;
            }
            ascii_triples(digits, piece)
        })
    })
}

/// `[0-9][0-9][0-9]` apart, and what is between.
fn ascii_triples<E>(digits: &[u8], piece: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    let (mut start, mut at) = (0, 0);
    while at + 3 <= digits.len() {
        if digits[at..at + 3].iter().all(u8::is_ascii_digit) {
            if at > start {
                piece(&digits[start..at])?;
            }
            piece(&digits[at..at + 3])?;
            at += 3;
            start = at;
        } else {
            at += 1;
        }
    }
    if start < digits.len() { piece(&digits[start..]) } else { Ok(()) }
}

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

/// `\s+(?!\S)|\s+` at a white space: all of the run at the end of the text, else all but its last character, which
/// belongs to what follows (unless it is the only one).
#[inline]
fn spaces(text: &[u8], at: usize) -> usize {
    let (mut end, mut last) = (at, at);
    while end < text.len() {
        let (class, len) = class_at(text, end);
        if class & SPACE == 0 {
            return if last == at { end } else { last };
        }
        last = end;
        end += len;
    }
    end
}

/// End of the piece that starts at `at` ([`Pre::Gpt2`]).
#[inline]
fn gpt2(text: &[u8], at: usize) -> usize {
    let lead = text[at];
    if lead == b'\'' {
        let len = match &text[at + 1..] {
            [b's' | b't' | b'm' | b'd', ..] => 2,
            [b'r' | b'v', b'e', ..] | [b'l', b'l', ..] => 3,
            _ => 0,
        };
        if len > 0 {
            return at + len;
        }
    }
    let from = at + usize::from(lead == b' ');
    if from == text.len() {
        return from;
    }
    let (class, len) = class_at(text, from);
    if class & SPACE != 0 {
        return spaces(text, at);
    }
    match class & WORD_OR_SPACE {
        0 => others(text, from + len),
        kind => advance(text, from + len, kind, false),
    }
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

/// End of the piece that starts at `at` ([`Pre::Llama3`], and [`Pre::Qwen2`] with `DIGITS` = 1). `WORD` is what words are
/// made of: letters, and for some marks.
#[inline]
fn llama3<const DIGITS: usize, const WORD: u8>(text: &[u8], at: usize) -> usize {
    let lead = text[at];
    if lead == b'\'' {
        let len = contraction(text, at);
        if len > 0 {
            return at + len;
        }
    }
    let (class, len) = class_at(text, at);
    let second = at + len;
    if class & WORD != 0 {
        return advance(text, second, WORD, false);
    }
    if class & NUMBER != 0 {
        return digits::<DIGITS>(text, second);
    }
    let newline = lead == b'\r' || lead == b'\n';
    if second < text.len() {
        let (next, next_len) = class_at(text, second);
        // [^\r\n\p{L}\p{N}]?\p{L}+
        if next & WORD != 0 && !newline {
            return advance(text, second + next_len, WORD, false);
        }
        // ' ' of ` ?[^\s\p{L}\p{N}]+[\r\n]*`
        if lead == b' ' && next & (WORD | NUMBER | SPACE) == 0 {
            return newlines(text, advance(text, second + next_len, WORD | NUMBER | SPACE, true));
        }
    }
    if class & SPACE == 0 {
        return newlines(text, advance(text, second, WORD | NUMBER | SPACE, true));
    }
    spaces_and_breaks(text, at)
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
