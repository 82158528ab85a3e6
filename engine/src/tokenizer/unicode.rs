//! The character properties that most pre-tokenizers ask for, as one table lookup, and the ranges of all of them.
//!
//! The version is pinned to Unicode 16.0 because that is what Oniguruma 6.9.10 inside HuggingFace `tokenizers` has;
//! some 4,300 letters differ between Unicode versions in use, and a model was trained with exactly one of them. The
//! ranges in `unicode_tables.rs` are made and checked over all code points by the test `tokenizer_unicode`.

#[path = "unicode_tables.rs"]
#[rustfmt::skip]
mod tables;

/// Version of the tables.
pub const UNICODE_VERSION: (u8, u8, u8) = (16, 0, 0);

/// `\p{L}`.
pub const LETTER: u8 = 1;
/// `\p{N}`.
pub const NUMBER: u8 = 2;
/// `\s` (White_Space).
pub const SPACE: u8 = 4;
/// `\p{P}`.
pub const PUNCT: u8 = 8;

/// `\p{M}`.
pub const MARK: u8 = 16;
/// `\p{S}`.
pub const SYMBOL: u8 = 32;
/// `[\p{Lu}\p{Lt}]`.
pub const UPPER: u8 = 64;
/// `\p{Ll}`.
pub const LOWER: u8 = 128;

/// Everything from here on has none of the properties, but for [`LATE_MARKS`].
const TABLE_LEN: usize = 0x32400;
/// Variation selectors.
const LATE_MARKS: std::ops::RangeInclusive<u32> = 0xE0100..=0xE01EF;

static CLASSES: [u8; TABLE_LEN] = build();

/// The first 128 entries once more, so that ASCII needs no bounds check.
pub(crate) static ASCII: [u8; 256] = {
    let mut out = [0; 256];
    let mut i = 0;
    while i < 128 {
        out[i] = CLASSES[i];
        i += 1;
    }
    out
};

#[allow(long_running_const_eval)] // 200,000 steps once per build instead of a generated 200 KB source
const fn build() -> [u8; TABLE_LEN] {
    let mut out = [0; TABLE_LEN];
    fill(&mut out, &tables::LETTERS, LETTER);
    fill(&mut out, &tables::NUMBERS, NUMBER);
    fill(&mut out, &tables::WHITESPACE, SPACE);
    fill(&mut out, &tables::PUNCTUATION, PUNCT);
    fill(&mut out, &tables::MARKS, MARK);
    fill(&mut out, &tables::SYMBOLS, SYMBOL);
    fill(&mut out, &tables::UPPERCASE, UPPER);
    fill(&mut out, &tables::TITLECASE, UPPER);
    fill(&mut out, &tables::LOWERCASE, LOWER);
    out
}

const fn fill(out: &mut [u8; TABLE_LEN], ranges: &[(u32, u32)], bit: u8) {
    let mut r = 0;
    while r < ranges.len() {
        let (mut c, last) = (ranges[r].0 as usize, ranges[r].1 as usize);
        while c <= last && c < TABLE_LEN {
            out[c] |= bit;
            c += 1;
        }
        r += 1;
    }
}

/// The ranges of a property: a general category (`L`, `Lu`, `Lt`, `Ll`, `Lm`, `M`, `N`, `P`, `S`), `Han`, or `s`, `d`, `w` for what
/// `\s`, `\d` and `\w` match. Inclusive, ascending.
#[must_use]
pub fn ranges(property: &str) -> Option<&'static [(u32, u32)]> {
    Some(match property {
        "L" => &tables::LETTERS,
        "Lu" => &tables::UPPERCASE,
        "Lt" => &tables::TITLECASE,
        "Ll" => &tables::LOWERCASE,
        "Lm" => &tables::MODIFIERS,
        "M" => &tables::MARKS,
        "N" => &tables::NUMBERS,
        "P" => &tables::PUNCTUATION,
        "S" => &tables::SYMBOLS,
        "Han" => &tables::HAN,
        "s" => &tables::WHITESPACE,
        "d" => &tables::DIGITS,
        "w" => &tables::WORDS,
        _ => return None,
    })
}

/// Whether a character is in [`ranges`] of `property`; by search, for rare questions.
pub(super) fn in_ranges(property: &str, c: u32) -> bool {
    let ranges = ranges(property).unwrap_or_default();
    ranges.get(ranges.partition_point(|range| range.1 < c)).is_some_and(|range| range.0 <= c)
}

/// [`class`] of every code point from 0 on; what is beyond has none.
pub(super) fn classes() -> &'static [u8] {
    &CLASSES
}

/// Properties of a code point, any of [`LETTER`], [`NUMBER`], [`SPACE`], [`PUNCT`], [`MARK`], [`SYMBOL`], [`UPPER`], [`LOWER`].
#[inline]
#[must_use]
pub fn class(code_point: u32) -> u8 {
    match CLASSES.get(code_point as usize) {
        Some(&class) => class,
        None if LATE_MARKS.contains(&code_point) => MARK,
        None => 0,
    }
}

/// The character at `at`: its properties and length in bytes. A byte that is not part of well-formed UTF-8 is a
/// character of its own without properties, so that arbitrary bytes pass through unharmed. `at` must be inside.
#[inline]
#[must_use]
pub fn class_at(text: &[u8], at: usize) -> (u8, usize) {
    let lead = text[at];
    if lead < 0x80 {
        return (ASCII[lead as usize], 1);
    }
    match decode(text, at) {
        Some((c, len)) => (class(c), len),
        None => (0, 1),
    }
}

/// The code point that starts at `at` and its length, or `None` where the bytes are not well-formed UTF-8.
#[inline]
#[must_use]
pub fn decode(text: &[u8], at: usize) -> Option<(u32, usize)> {
    let tail = |i: usize| match text.get(at + i) {
        Some(&b) if b & 0xC0 == 0x80 => Some(u32::from(b & 0x3F)),
        _ => None,
    };
    let lead = u32::from(*text.get(at)?);
    match lead {
        0..=0x7F => Some((lead, 1)),
        0xC2..=0xDF => Some(((lead & 0x1F) << 6 | tail(1)?, 2)),
        0xE0..=0xEF => {
            let c = (lead & 0x0F) << 12 | tail(1)? << 6 | tail(2)?;
            (c >= 0x800 && !(0xD800..=0xDFFF).contains(&c)).then_some((c, 3))
        }
        0xF0..=0xF4 => {
            let c = (lead & 0x07) << 18 | tail(1)? << 12 | tail(2)? << 6 | tail(3)?;
            (0x1_0000..=0x10_FFFF).contains(&c).then_some((c, 4))
        }
        _ => None,
    }
}
