//! The rules, each a line of data: passes of expressions, every one splitting what the passes before left.
//!
//! The expressions are those of the models' own tokenizer.json where they are known, else llama.cpp's (its
//! src/llama-vocab.cpp names them too). What a pass does not match is a piece as well. Where llama.cpp does otherwise:
//! - it spells the cases of `(?i:'s)` out, and so does not take `'ſ`;
//! - `tekken`, `gpt-4o` and what follows them: it takes letters but a-z for upper and letters but A-Z for lower case,
//!   and marks only in `granite-embed-multi-97m`;
//! - `tiny_aya`, `afmoe`: it groups all `\p{N}` (the expression of `tiny_aya` only digits that no letter follows), and
//!   leaves the text in front of a number in one piece with its first group;
//! - `superbpe`: as here, but it counts what its library takes for digits;
//! - spaces: U+0085 and other characters beyond ASCII are not `\s` everywhere in its library.

use super::dfa::{Dfa, Nowhere};
use super::starts::Scanner;
use super::windows::{Scan, Windows, split};
use super::words;
use super::{Pre, TextSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::OnceLock;

/// One pass over the text.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pass {
    /// Matches and what is between.
    Regex(&'static str),
    /// What these passes leave, by one scanner.
    Scanned(Scanner, &'static [&'static str]),
    /// What these passes leave, with masks.
    Masked(Scan, &'static [&'static str]),
    /// `\s+$` of text without line breaks.
    SpacesAtEnd,
    /// `\d{1,3}(?=(?:\d{3})*\b)`: digits that no letter follows, in threes from the right.
    Threes,
    /// `\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))`: numbers in threes from the right.
    NumbersInThrees,
    /// `(?=(\d{3})+(?!\d))`: cut in front of every three digits from the right.
    CutThrees,
}

/// A rule: its passes, compiled when first used.
pub struct Rule {
    /// For people: the first name that had it.
    pub name: &'static str,
    pub(super) passes: &'static [Pass],
    compiled: OnceLock<Vec<Step>>,
}

enum Step {
    Matches(Dfa),
    /// One of the passes that are not an expression.
    Scan(Pass),
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Rules are one each.
impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Rule {}

impl Hash for Rule {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

macro_rules! contractions {
    () => {
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    };
}
/// Line breaks, spaces.
macro_rules! spaces {
    () => {
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    };
}
/// What may stand in front of a word.
macro_rules! before {
    () => {
        r"[^\r\n\p{L}\p{N}]?"
    };
}
macro_rules! upper {
    () => {
        r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
    };
}
macro_rules! lower {
    () => {
        r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
    };
}
macro_rules! gpt4o {
    () => {
        concat!(
            before!(),
            upper!(),
            "*",
            lower!(),
            "+",
            contractions!(),
            "?|",
            before!(),
            upper!(),
            "+",
            lower!(),
            "*",
            contractions!(),
            r"?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*",
            spaces!()
        )
    };
}
macro_rules! deepseek_words {
    () => {
        r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"##
    };
}

macro_rules! rules {
    ($($(#[$doc:meta])* $id:ident = $name:literal: $passes:expr;)*) => {
        $($(#[$doc])* pub(super) static $id: Rule = Rule { name: $name, passes: &$passes, compiled: OnceLock::new() };)*
        /// All of them.
        pub static RULES: &[&Rule] = &[$(&$id),*];
    };
}

use Pass::{CutThrees, Masked, NumbersInThrees, Regex, Scanned, SpacesAtEnd, Threes};

/// [`Pre::Gpt2`] as a pass.
const GPT2: Pass = Masked(Scan::Gpt2, &[Pre::GPT2]);

#[rustfmt::skip]
rules! {
    FALCON = "falcon": [Masked(Scan::Falcon, &[r"[\p{P}\$\+<=>\^~\|`]+", Pre::GPT2, "[0-9][0-9][0-9]"])];
    /// ik_llama.cpp's (its commit c8e6d9cfe).
    FALCON_E = "falcon_e": [Masked(Scan::FalconE, &[r"[\p{P}\$\+<=>\^~\|`]+", Pre::GPT2, "[0-9]"])];
    QWEN35 = "qwen35": [Masked(Scan::Qwen35, &[concat!(contractions!(), "|", before!(), r"[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*", spaces!())])];
    TEKKEN = "tekken": [Masked(Scan::Tekken, &[concat!(before!(), upper!(), "*", lower!(), "+|", before!(), upper!(), "+", lower!(), r"*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*", spaces!())])];
    GPT4O = "gpt-4o": [Masked(Scan::Gpt4o, &[gpt4o!()])];
    TINY_AYA = "tiny_aya": [Threes, Scanned(words::gpt4o, &[gpt4o!()])];
    KIMI_K2 = "kimi-k2": [Regex(concat!(r"[\p{Han}]+|", before!(), r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+", contractions!(), "?|", before!(), r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*", contractions!(), r"?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*", spaces!()))];
    YOUTU = "youtu": [
        Regex("[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+"),
        Regex(concat!(before!(), upper!(), "*", lower!(), "+", contractions!(), "?|", before!(), upper!(), "+", lower!(), "*", contractions!(), r"?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*", spaces!())),
    ];
    DEEPSEEK_V3 = "deepseek-v3": [Scanned(words::deepseek, &[r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", concat!(deepseek_words!(), r"[\r\n]*", spaces!())])];
    SPARK = "spark2_5": [Regex(r"\p{N}{1,3}"), Regex("[一-龥぀-ゟ゠-ヿ]+"), Regex(concat!(deepseek_words!(), r"|[\r\n]|\s+(?!\S)|\s+")), Regex(r"\p{N}")];
    AFMOE = "afmoe": [
        NumbersInThrees,
        Regex("[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+"),
        Regex(concat!(deepseek_words!(), r"[\r\n]*", spaces!())),
    ];
    DEEPSEEK_CODER = "deepseek-coder": [Regex(r"[\r\n]"), Regex(r"\s?\p{L}+"), Regex(r"\s?\p{P}+"), Regex("[一-龥ࠀ-一가-퟿]+"), Regex(r"\p{N}")];
    DEEPSEEK_LLM = "deepseek-llm": [
        Regex(r"[\r\n]"),
        Regex(r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+"),
        Regex(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"),
        SpacesAtEnd,
        Regex("[一-龥ࠀ-一가-퟿]+"),
        Regex(r"\p{N}+"),
    ];
    BLOOM = "bloom": [Regex(r" ?[^(\s|.,!?…。，、।۔،)]+")];
    VIKING = "viking": [Regex(r" ?[^(\s|.,!?…。，、।۔،)]+"), Regex(r"\p{N}")];
    SUPERBPE = "superbpe": [Regex(r"\p{N}+"), CutThrees];
    CHAMELEON = "chameleon": [
        Regex("<sentinel:[0-9]+>"),
        Regex("(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z"),
        Regex(r"([\t\n]|    |  )"),
        Regex(r"\p{N}"),
        Regex(r"[\p{P}!-/:-@\[-`{-~]"),
        GPT2,
    ];
    JAIS2 = "jais-2": [Regex(concat!(contractions!(), "|", before!(), r"\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}"))];
    MINICPM5 = "minicpm5": [Regex(r"\p{N}{1,3}"), Regex(concat!(contractions!(), "|", before!(), r"\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*", spaces!()))];
    LAGUNA = "laguna": [Regex(r"[^\n]+|[\n]+"), Masked(Scan::Qwen2, &[Pre::QWEN2])];
    UFAKZEKA = "ufakzeka": [Regex(concat!(before!(), r"\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*", spaces!()))];
    SEED_CODER = "seed-coder": [Regex(concat!(contractions!(), "|", before!(), r"\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+", spaces!()))];
    BAILINGMOE = "bailingmoe": [Regex(r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+")];
    EXAONE_MOE = "exaone-moe": [Regex(concat!(contractions!(), "|", before!(), r"(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"))];
}

impl Rule {
    fn steps(&self) -> &[Step] {
        self.compiled.get_or_init(|| {
            let step = |pass: &Pass| match pass {
                // A test compiles every rule: there is no input that could fail here.
                Regex(expression) => {
                    Step::Matches(Dfa::new(expression).unwrap_or_else(|error| unreachable!("{error}")))
                }
                other => Step::Scan(*other),
            };
            self.passes.iter().map(step).collect()
        })
    }

    /// How all of it is worked out with masks, if it can be.
    pub(super) fn scan(&self) -> Option<Scan> {
        match self.passes {
            [Masked(scan, _)] => Some(*scan),
            _ => None,
        }
    }

    /// Calls `piece` with every piece of `text` in order; the pieces cover the text.
    pub(super) fn for_each(&self, set: &TextSet, text: &[u8], piece: &mut dyn FnMut(&[u8])) {
        passes(self.steps(), set, text, piece);
    }

    /// The expressions of all passes, for Oniguruma.
    #[must_use]
    pub fn expressions(&self) -> Vec<&'static str> {
        let expressions = |pass: &'static Pass| match pass {
            Regex(expression) => std::slice::from_ref(expression),
            Scanned(_, expressions) | Masked(_, expressions) => expressions,
            SpacesAtEnd => &[r"\s+$"],
            Threes => &[r"\d{1,3}(?=(?:\d{3})*\b)"],
            CutThrees => &[r"(?=(\d{3})+(?!\d))"],
            NumbersInThrees => &[r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"],
        };
        self.passes.iter().flat_map(expressions).copied().collect()
    }
}

fn passes(steps: &[Step], set: &TextSet, text: &[u8], piece: &mut dyn FnMut(&[u8])) {
    let Some((step, rest)) = steps.split_first() else { return piece(text) };
    let mut part = |part: &[u8]| match part {
        [] => {}
        _ if rest.is_empty() => piece(part),
        _ => passes(rest, set, part, piece),
    };
    let mut cut = |ends: &mut dyn Iterator<Item = usize>| {
        let mut at = 0;
        for end in ends {
            part(&text[at..end]);
            at = end;
        }
        part(&text[at..]);
    };
    match step {
        Step::Matches(dfa) => {
            let (mut at, mut nowhere) = (0, Nowhere::default());
            while let Some((start, end)) = dfa.find(text, at, &mut nowhere) {
                part(&text[at..start]);
                part(&text[start..end]);
                at = end;
            }
            part(&text[at..]);
        }
        Step::Scan(Masked(scan, _)) => split(*scan, set, text, &mut Windows::default(), &mut |from, ends| {
            let mut at = from;
            for end in ends.iter().map(|&end| from + end as usize) {
                part(&text[at..end]);
                at = end;
            }
        }),
        Step::Scan(Scanned(scanner, _)) => {
            let mut at = 0;
            while at < text.len() {
                let end = scanner(text, at);
                part(&text[at..end]);
                at = end;
            }
        }
        Step::Scan(SpacesAtEnd) => {
            let mut from = text.len();
            for (at, space) in spaces_of(text) {
                from = if !space { text.len() } else { from.min(at) };
            }
            cut(&mut std::iter::once(from));
        }
        Step::Scan(pass) => cut(&mut super::threes::cuts(text, *pass).into_iter()),
    }
}

/// Where each character starts, and whether it is a space.
fn spaces_of(text: &[u8]) -> impl Iterator<Item = (usize, bool)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let here = at;
        (here < text.len()).then(|| {
            let (class, len) = super::class_at(text, here);
            at += len;
            (here, class & super::SPACE != 0)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_compiles_and_is_small() {
        for rule in RULES {
            for step in rule.steps() {
                if let Step::Matches(dfa) = step {
                    assert!(dfa.states() < 1100, "{}: {} states", rule.name, dfa.states());
                }
            }
        }
    }
}
