//! Scanners of the rules in data that popular models have: words with marks, words by case, DeepSeek's three passes in
//! one. Each gives the end of the piece that starts at a place, as its expression in the table of rules does.

use super::super::unicode::{LETTER, LOWER, MARK, NUMBER, PUNCT, SPACE, SYMBOL, UPPER, class_at, decode};
use super::{advance, contraction, digits, newlines, others, spaces_and_breaks};

const WORD: u8 = LETTER | MARK;

/// `tekken`.
pub(super) fn tekken(text: &[u8], at: usize) -> usize {
    cased::<1, false>(text, at)
}

/// `gpt-4o`: as `tekken`, with contractions behind words and numbers of up to three digits.
pub(super) fn gpt4o(text: &[u8], at: usize) -> usize {
    cased::<3, true>(text, at)
}

#[inline]
fn cased<const DIGITS: usize, const CONTRACTIONS: bool>(text: &[u8], at: usize) -> usize {
    let lead = text[at];
    let (class, len) = class_at(text, at);
    let second = at + len;
    if class & NUMBER != 0 {
        return digits::<DIGITS>(text, second);
    }
    let next = if second < text.len() { class_at(text, second).0 } else { 0 };
    let word = if class & LETTER != 0 {
        let (lower, upper) = case_run(text, at);
        Some(lower.unwrap_or(upper))
    } else if matches!(lead, b'\r' | b'\n') {
        None
    } else if next & WORD != 0 {
        // In front of the word; a mark could also be the word.
        match case_run(text, second) {
            (Some(lower), _) => Some(lower),
            (None, _) if class & MARK != 0 => Some(second),
            (None, upper) => Some(upper),
        }
    } else {
        (class & MARK != 0).then_some(second)
    };
    if let Some(end) = word {
        let more = CONTRACTIONS && text.get(end) == Some(&b'\'');
        return if more { end + contraction(text, end) } else { end };
    }
    // ` ?[^\s\p{L}\p{N}]+[\r\n/]*`
    let symbols = if class & SPACE == 0 { second } else { at + usize::from(lead == b' ') };
    if symbols == second && (class & SPACE == 0 || (second < text.len() && next & (WORD | NUMBER | SPACE) == 0)) {
        let mut end = others(text, symbols);
        while let Some(b'\r' | b'\n' | b'/') = text.get(end) {
            end += 1;
        }
        return end;
    }
    spaces_and_breaks(text, at)
}

/// At a letter or mark: where `U*L+` ends, if it matches, and where `U+` does. U is a letter that is not lower case, L one
/// that is not upper case, and marks and letters without case are both.
#[inline]
fn case_run(text: &[u8], start: usize) -> (Option<usize>, usize) {
    let (mut at, mut last_both) = (start, None);
    while at < text.len() {
        let (class, len) = class_at(text, at);
        if class & LOWER != 0 {
            // The lower letters go on to the next upper one.
            while at < text.len() {
                let (class, len) = class_at(text, at);
                if class & WORD == 0 || class & UPPER != 0 {
                    break;
                }
                at += len;
            }
            return (Some(at), at);
        }
        if class & WORD == 0 {
            break;
        }
        at += len;
        if class & UPPER == 0 {
            // Without a lower letter behind, the last that can be one must be.
            last_both = Some(at);
        }
    }
    (last_both, at)
}

/// `deepseek-v3`: numbers and Chinese or Japanese are apart before words are looked for, and end the text for them.
pub(super) fn deepseek(text: &[u8], at: usize) -> usize {
    let lead = text[at];
    let (class, len) = class_apart(text, at);
    let second = at + len;
    if class & NUMBER != 0 {
        return if is_cjk(text, at) { cjk_run(text, second) } else { digits::<3>(text, second) };
    }
    let (next, next_len) = if second < text.len() { class_apart(text, second) } else { (0, 1) };
    if lead.is_ascii_punctuation() && text.get(second).is_some_and(u8::is_ascii_alphabetic) {
        return text[second..].iter().position(|b| !b.is_ascii_alphabetic()).map_or(text.len(), |n| second + n);
    }
    let newline = matches!(lead, b'\r' | b'\n');
    if class & WORD != 0 || (class & (PUNCT | SYMBOL) == 0 && !newline && next & WORD != 0) {
        return run(text, second, WORD);
    }
    if class & (PUNCT | SYMBOL) != 0 {
        return newlines(text, run(text, second, PUNCT | SYMBOL));
    }
    if lead == b' ' && next & (PUNCT | SYMBOL) != 0 {
        return newlines(text, run(text, second + next_len, PUNCT | SYMBOL));
    }
    if class & SPACE != 0 {
        let end = advance(text, at, SPACE, false);
        let whole = end < text.len() && class_apart(text, end).0 & NUMBER != 0;
        return if whole { spaces_and_breaks(&text[..end], at) } else { spaces_and_breaks(text, at) };
    }
    // What nothing matches, up to where something does: the last of it may stand in front of a word.
    let (mut end, mut last) = (second, at);
    while end < text.len() {
        let (class, len) = class_apart(text, end);
        if class != 0 {
            return if class & WORD != 0 { last } else { end };
        }
        last = end;
        end += len;
    }
    end
}

/// [`class_at`], with Chinese and Japanese as numbers.
#[inline]
fn class_apart(text: &[u8], at: usize) -> (u8, usize) {
    let (class, len) = class_at(text, at);
    if len == 3 && is_cjk(text, at) { (NUMBER, len) } else { (class, len) }
}

/// `[一-龥぀-ゟ゠-ヿ]`
#[inline]
fn is_cjk(text: &[u8], at: usize) -> bool {
    matches!(decode(text, at), Some((0x4E00..=0x9FA5 | 0x3040..=0x30FF, _)))
}

fn cjk_run(text: &[u8], mut at: usize) -> usize {
    while at < text.len() && is_cjk(text, at) {
        at += 3;
    }
    at
}

/// Characters with one of the properties.
#[inline]
fn run(text: &[u8], mut at: usize, mask: u8) -> usize {
    while at < text.len() {
        let (class, len) = class_apart(text, at);
        if class & mask == 0 {
            break;
        }
        at += len;
    }
    at
}
