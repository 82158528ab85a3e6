//! Texts that a tokenizer may get wrong.

use crate::staged::Staged;
use crate::texts::{Texts, cut};
use bitnet_engine::tokenizer::byte_alphabet;
use bitnet_harness::strings::{CLASSES, Random, make};

/// The longest run of one character.
const LONGEST_RUN: usize = 1_000_000;

/// What the texts of one vocabulary are made of.
pub(super) struct Inputs<'a> {
    texts: &'a Texts,
    /// Texts of the tokens, those that are UTF-8.
    tokens: Vec<String>,
    specials: &'a [String],
    /// The strings on which the suite's own tests run.
    nasty: Vec<String>,
}

impl<'a> Inputs<'a> {
    pub(super) fn new(staged: &'a Staged, texts: &'a Texts) -> Self {
        let spm = staged.source.model == "llama";
        let text = |token: &Vec<u8>| {
            let bytes = if spm { token.clone() } else { byte_alphabet::decode(token)? };
            String::from_utf8(bytes).ok().map(|text| if spm { text.replace('\u{2581}', " ") } else { text })
        };
        let nasty = CLASSES.iter().flat_map(|(class, count)| make(class, *count, &staged.specials)).collect();
        Self {
            texts,
            tokens: staged.source.tokens.iter().filter_map(text).collect(),
            specials: &staged.specials,
            nasty,
        }
    }

    /// The next text and its kind.
    pub(super) fn next(&self, r: &mut Random) -> (&'static str, String) {
        match r.below(16) {
            0..=4 => ("real", self.real(r)),
            5 => ("spliced", self.spliced(r)),
            6 | 7 => ("tokens", self.of_tokens(r, 0)),
            8 | 9 => ("almost tokens", self.of_tokens(r, 2)),
            10 => ("unicode", unicode(r)),
            11 => ("script", script(r)),
            12 => ("specials", self.with_specials(r)),
            13 => ("whitespace", whitespace(r)),
            14 => ("nasty", self.of_nasty(r)),
            _ => ("runs", self.run(r)),
        }
    }

    /// Some real text: a piece from anywhere, cut at any character.
    fn piece(&self, r: &mut Random, most: usize) -> &'a str {
        let text = self.texts.whole(r.text(&["english", "code", "multilingual", "multilingual"]));
        cut(text, r.below(text.len().max(1)), 1 + r.below(most))
    }

    fn real(&self, r: &mut Random) -> String {
        let most = length(r, 64 << 10);
        self.piece(r, most).to_owned()
    }

    /// Short pieces of real texts without anything between.
    fn spliced(&self, r: &mut Random) -> String {
        (0..1 + r.below(400)).map(|_| self.piece(r, 24)).collect()
    }

    /// Tokens side by side; `spoiled` of four are changed by a character.
    fn of_tokens(&self, r: &mut Random, spoiled: usize) -> String {
        let mut text = String::new();
        if self.tokens.is_empty() {
            return text;
        }
        for _ in 0..1 + length(r, 2000) {
            let token = r.pick(&self.tokens);
            if r.below(4) >= spoiled {
                text.push_str(token);
                continue;
            }
            let mut chars: Vec<char> = token.chars().collect();
            let at = r.below(chars.len().max(1));
            match r.below(5) {
                0 if !chars.is_empty() => drop(chars.remove(at)),
                1 if !chars.is_empty() => chars.insert(at, chars[at]),
                2 => chars.reverse(),
                3 => chars.extend(r.pick(&self.tokens).chars().take(1)),
                _ => chars.insert(at, any(r)),
            }
            text.extend(chars);
        }
        text
    }

    fn with_specials(&self, r: &mut Random) -> String {
        let mut text = String::new();
        for _ in 0..1 + r.below(60) {
            text.push_str(self.piece(r, 40));
            if self.specials.is_empty() {
                continue;
            }
            let special = r.pick(self.specials);
            match r.below(6) {
                0 => text.push_str(cut(special, 0, r.below(special.len() + 1))),
                1 => text.push_str(cut(special, 1, special.len())),
                2 => text.push_str(&special.repeat(1 + r.below(4))),
                _ => text.push_str(special),
            }
        }
        text
    }

    fn of_nasty(&self, r: &mut Random) -> String {
        (0..1 + r.below(40)).map(|_| r.pick(&self.nasty).as_str()).collect()
    }

    /// One character or one token again and again, now and then very often.
    fn run(&self, r: &mut Random) -> String {
        let unit = match r.below(4) {
            0 => any(r).to_string(),
            1 if !self.tokens.is_empty() => r.pick(&self.tokens).clone(),
            _ => r
                .text(&["a", " ", "\n", "\r\n", "\t", ".", "=", "1", "é", "漢", "ก", "😀", "\u{301}", "▁", "'", "aB"])
                .to_owned(),
        };
        let most = if r.below(64) == 0 { LONGEST_RUN } else { length(r, 32 << 10) };
        let count = most / unit.len().max(1);
        format!("{}{}{}", self.piece(r, 12), unit.repeat(count), self.piece(r, 12))
    }
}

/// A length up to `most`, short ones as likely as long ones.
fn length(r: &mut Random, most: usize) -> usize {
    let bits = usize::BITS - most.leading_zeros();
    (1_usize << r.below(bits as usize)).saturating_add(r.below(most)).min(most).max(1) >> r.below(4)
}

/// Any character at all.
fn any(r: &mut Random) -> char {
    let most = *r.pick(&[0x80, 0x800, 0x3000, 0x1_0000, 0x2_0000, 0x11_0000]);
    char::from_u32(r.below(most) as u32).unwrap_or('\u{FFFD}')
}

fn unicode(r: &mut Random) -> String {
    (0..length(r, 8 << 10)).map(|_| any(r)).collect()
}

/// Words of neighbouring characters, with spaces, digits and apostrophes between.
fn script(r: &mut Random) -> String {
    let mut text = String::new();
    for _ in 0..1 + r.below(300) {
        let start = r.below(0x3_1000) as u32;
        for _ in 0..1 + r.below(9) {
            text.push(char::from_u32(start + r.below(48) as u32).unwrap_or('x'));
        }
        text.push_str(r.text(&[" ", " ", "", "'s", "'ſ", "\n", "1", "2026", ", ", "\u{3000}", "\u{301}"]));
    }
    text
}

fn whitespace(r: &mut Random) -> String {
    const SPACES: [&str; 16] = [
        " ", " ", " ", "  ", "\n", "\r", "\r\n", "\t", "\u{b}", "\u{c}", "\u{85}", "\u{a0}", "\u{1680}", "\u{2003}",
        "\u{2028}", "\u{3000}",
    ];
    let mut text = String::new();
    for _ in 0..1 + r.below(400) {
        text.push_str(&r.text(&SPACES).repeat(1 + r.below(4) * r.below(8)));
        if r.below(3) == 0 {
            text.push_str(r.text(&["a", "word", "!", "1", "'s", "日本", "\u{301}", "{", "//", "_", "\u{200b}"]));
        }
    }
    text
}
