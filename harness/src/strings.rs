//! Strings that strain tokenizers, made from seeds: the same ones everywhere, nothing is downloaded.

use bitnet_engine::random::{SplitMix64, seed_of};
use std::sync::LazyLock;

/// Kinds of strings, and how many of each a vocabulary is asked.
pub static CLASSES: &[(&str, usize)] = &[
    ("multilingual", 400),
    ("code", 300),
    ("emoji", 250),
    ("control", 250),
    ("whitespace", 250),
    ("numbers", 250),
    ("specials", 300),
    ("mixed", 400),
];

/// A generator that is fixed for ever, since the strings depend on it.
#[derive(Debug, Clone)]
pub struct Random(SplitMix64);

impl Random {
    /// From a text, such as the name of what the numbers are for.
    pub fn new(name: &str) -> Self {
        Self(SplitMix64(seed_of(name)))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0.bits()
    }

    /// Below `n` (which must not be 0).
    pub fn below(&mut self, n: usize) -> usize {
        self.0.below(n)
    }

    /// One of a list that is not empty.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    /// One of a list of texts that is not empty.
    pub fn text<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }

    fn character(&mut self, [first, last]: [u32; 2]) -> char {
        char::from_u32(first + self.below((last - first + 1) as usize) as u32).unwrap_or('x')
    }
}

/// Scripts as ranges of code points, first and last; words are made of their characters whatever they mean.
static SCRIPTS: [u32; 96] = [
    0x61, 0x7A, 0xC0, 0x17F, 0x1E00, 0x1EFF, 0x370, 0x3FF, 0x1F00, 0x1FFF, 0x400, 0x45F, 0x531, 0x58F, 0x591, 0x5F4,
    0x600, 0x6FF, 0x700, 0x74F, 0x780, 0x7B1, 0x900, 0x97F, 0x980, 0x9FE, 0xA01, 0xA76, 0xA81, 0xAFF, 0xB01, 0xB77,
    0xB82, 0xBFA, 0xC00, 0xC7F, 0xC80, 0xCF3, 0xD00, 0xD7F, 0xD81, 0xDF4, 0xE01, 0xE5B, 0xE81, 0xEDF, 0xF00, 0xFDA,
    0x1000, 0x109F, 0x10A0, 0x10FF, 0x1100, 0x11FF, 0x1200, 0x139F, 0x13A0, 0x13FD, 0x1401, 0x167F, 0x16A0, 0x16F8,
    0x1780, 0x17F9, 0x1800, 0x18AA, 0x2C00, 0x2C7F, 0x3041, 0x309F, 0x30A0, 0x30FF, 0x3105, 0x312F, 0x4E00, 0x5200,
    0x4E00, 0x9FFF, 0xA000, 0xA48C, 0xAC00, 0xD7A3, 0xFB50, 0xFDFF, 0xFF01, 0xFFEE, 0x10400, 0x1044F, 0x12000, 0x12399,
    0x13000, 0x1342F, 0x1D400, 0x1D7FF, 0x20000, 0x20400,
];

/// Real sentences, so that common words of many languages occur too.
static SENTENCES: &[&str] = &[
    "The quick brown fox jumps over the lazy dog, doesn't it?",
    "Der Käufer überprüft die Größe der Straße; das Mädchen läuft.",
    "L'été dernier, où était-ce ? Ça va très bien, merci.",
    "¿Qué pasó, señor? Mañana será otro día.",
    "Ação, coração e informações não são iguais.",
    "Zażółć gęślą jaźń. Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "Árvíztűrő tükörfúrógép. İstanbul'da yağmur yağıyor.",
    "Привет, мир! Как дела? Всё хорошо, спасибо.",
    "Ελληνικά γράμματα και πολυτονικό: ἐν ἀρχῇ ἦν ὁ λόγος.",
    "שלום עולם, מה שלומך היום? בְּרֵאשִׁית",
    "مرحبا بالعالم، كيف حالك؟ ١٢٣٤٥ اَلْعَرَبِيَّةُ",
    "नमस्ते दुनिया, आप कैसे हैं? १२३",
    "আমার সোনার বাংলা। தமிழ் மொழி அழகானது. తెలుగు భాష",
    "สวัสดีชาวโลก วันนี้อากาศดีมาก ๑๒๓",
    "你好，世界！今天天气很好。我們去公園吧。",
    "こんにちは世界、元気ですか？カタカナとひらがなと漢字。",
    "안녕하세요 세계, 업데이트가 완료되었습니다.",
    "Xin chào thế giới, việc này được thực hiện như thế nào?",
    "გამარჯობა მსოფლიო. Բարեւ աշխարհ։ ሰላም ልዑል!",
    "မင်္ဂလာပါ ကမ္ဘာလောက។ សួស្តីពិភពលោក",
];

static CODE: &[&str] = &[
    "fn main() {\n    let x: Vec<u32> = (0..10).map(|i| i * 2).collect();\n    println!(\"{:?}\", x);\n}\n",
    "def f(self, *args, **kwargs):\n\treturn {\"key\": [1, 2, 3], 'other': None}\n",
    "for (int i = 0; i < n; ++i) { sum += a[i] * b[i]; } // dot product\n",
    "if (a != b && c <= d || !e) { return (a << 2) | ~c ^ 0xFF; }\r\n",
    "<div class=\"main\" id='x1'><p>Hello &amp; goodbye</p><!-- comment --></div>\n",
    "SELECT t.id, COUNT(*) FROM table_name AS t WHERE x IN (1,2,3) GROUP BY t.id;\n",
    "#include <stdio.h>\n#define MAX(a,b) ((a)>(b)?(a):(b))\n",
    "{\"json\": {\"nested\": [true, false, null, -1.5e-10]}}\n",
    "$ curl -sSL https://example.org/path?x=1&y=%20 | sh -c 'echo $HOME'\n",
    "\\begin{equation} \\alpha_{i}^{2} + \\frac{1}{2} \\end{equation}\n",
    "var re = /^[a-z]+\\d{2,3}$/gi; let s = `template ${re} text`;\n",
    "        deep_indent = __init__.CamelCase_and_snake_case2HTTPServer\n\n\n",
    "\t\tmov eax, dword ptr [rbp-0x14]\n\t\tjne .L3\n",
    "//////////////////////////////////////////////////////\n// ==== ---- **** #### ....\n",
    "lambda x: x if x is not None else (yield from range(10))\n",
];

static EMOJI: LazyLock<Vec<&str>> = LazyLock::new(|| {
    "👩‍👩‍👧‍👦 👨🏽‍🚀 🏳️‍🌈 🏴‍☠️ 👍🏽 👍 🇩🇪 🇫🇷 🇯🇵 1️⃣ #️⃣ ❤️‍🔥 ❤ ❤️ ☺ ☺️ 😀 😂 🤷🏿‍♀️ 🧑‍💻 👁️‍🗨️ 🐻‍❄️ 🏴󠁧󠁢󠁳󠁣󠁴󠁿 \u{200D} \
    \u{FE0F} \u{1F3FB} 🫠 🥲 ✅ → ∑ ™ ©️ ㊗️ 🀄 🃏"
        .split(' ')
        .collect()
});

static SPACES: &[&str] = &[
    " ", " ", " ", "  ", "   ", "\n", "\n", "\r\n", "\r", "\t", "\t\t", "\u{b}", "\u{c}", "\u{85}", "\u{a0}",
    "\u{1680}", "\u{2000}", "\u{2003}", "\u{2009}", "\u{2028}", "\u{2029}", "\u{202f}", "\u{205f}", "\u{3000}",
    "\u{1c}", "\u{1f}", "\u{180e}", "\u{200b}", "\u{feff}", "▁", "Ġ", "Ċ",
];

static NUMBERS: LazyLock<Vec<&str>> = LazyLock::new(|| {
    "0 1 12 123 1234 12345 1234567890 3.14159 1,000,000 1e-10 0xFF ٣٤٥٦ १२३४ ๑๒๓ １２３４ ½¼ ²³ ⅧⅨ ㊿ 𝟎𝟏𝟐 1st \
    x86_64 v1.2.3-rc4 $5 €6 % 50% 's 'S 're 'LL 'ſ ' ’s + - = <=> !! ?! ... … — ( ) [ ] ~ ^ | $ , . : / \
    12:34:56 2026-11-22"
        .split(' ')
        .collect()
});

/// `count` strings of a class. `specials` are the vocabulary's special tokens.
///
/// Unknown classes give none: the callers take the names from [`CLASSES`].
pub fn make(class: &str, count: usize, specials: &[String]) -> Vec<String> {
    let mut random = Random::new(class);
    let r = &mut random;
    let one: fn(&mut Random, &[String]) -> String = match class {
        "multilingual" => |r, _| multilingual(r),
        "code" => |r, _| code(r),
        "emoji" => |r, _| fragments(r, 12, &[&EMOJI, &EMOJI, &["a", " ", "x ", "!", "\n", "日", "1"]]),
        "control" => |r, _| control(r),
        "whitespace" => {
            |r, _| fragments(r, 24, &[SPACES, SPACES, SPACES, &["a", "word", "日", "1", "!", "é", "\u{301}", "'s"]])
        }
        "numbers" => |r, _| fragments(r, 16, &[&NUMBERS, &NUMBERS, &[" ", "  ", "a", "\n", "word", "é"]]),
        "specials" => special,
        "mixed" => mixed,
        _ => return Vec::new(),
    };
    (0..count).map(|_| one(r, specials)).collect()
}

/// `most` fragments at most, each out of one of `lists`.
fn fragments(r: &mut Random, most: usize, lists: &[&[&str]]) -> String {
    let n = 1 + r.below(most);
    (0..n)
        .map(|_| {
            let list = *r.pick(lists);
            *r.pick(list)
        })
        .collect()
}

fn multilingual(r: &mut Random) -> String {
    if r.below(4) == 0 {
        let n = 1 + r.below(3);
        return (0..n).map(|_| format!("{} ", r.pick(SENTENCES))).collect();
    }
    let mut text = String::new();
    let script = *r.pick(SCRIPTS.as_chunks().0);
    for _ in 0..1 + r.below(12) {
        // Now and then a word of another script, without a space between.
        let script = if r.below(6) == 0 { *r.pick(SCRIPTS.as_chunks().0) } else { script };
        for _ in 0..1 + r.below(8) {
            text.push(r.character(script));
        }
        text.push_str(r.text(&[" ", " ", " ", ", ", ". ", "", "\n", "\u{3000}", "-", "'s "]));
    }
    text
}

/// Lines of programs, cut and joined at any character.
fn code(r: &mut Random) -> String {
    let mut text = String::new();
    for _ in 0..1 + r.below(4) {
        let line: Vec<char> = r.pick(CODE).chars().collect();
        let from = if r.below(2) == 0 { 0 } else { r.below(line.len()) };
        let to = if r.below(2) == 0 { line.len() } else { from + r.below(line.len() - from) };
        text.push_str(&" ".repeat(r.below(3) * 4));
        text.extend(&line[from..to]);
    }
    text
}

fn control(r: &mut Random) -> String {
    static RANGES: [u32; 36] = [
        0, 0x1F, 0, 0x1F, 0x7F, 0x9F, 0xAD, 0xAD, 0x200B, 0x200F, 0x202A, 0x202E, 0x2060, 0x206F, 0xFE00, 0xFE0F,
        0xFFF9, 0xFFFF, 0xE000, 0xE0FF, 0xE0001, 0xE007F, 0xF0000, 0xF00FF, 0x10FF00, 0x10FFFF, 0x40000, 0x400FF,
        0x300, 0x36F, 0xD7F0, 0xD7FF, 0x20, 0x7E, 0x61, 0x7A,
    ];
    let n = 1 + r.below(20);
    (0..n)
        .map(|_| {
            let range = *r.pick(RANGES.as_chunks().0);
            r.character(range)
        })
        .collect()
}

/// Special tokens in text, whole, cut, doubled, with text close to them.
fn special(r: &mut Random, specials: &[String]) -> String {
    static AROUND: &[&str] = &[
        "", "", " ", "  ", "a", "Hello", " world", "\n", "!", "日本", "1", "<", ">", "|", "<|", "|>", "</", "</s",
        "s>", "<s", "<0x0A>", "<unk", "'s", "▁",
    ];
    let mut text = String::new();
    for _ in 0..1 + r.below(6) {
        text.push_str(r.text(AROUND));
        if let Some(token) = (!specials.is_empty()).then(|| r.pick(specials)) {
            match r.below(8) {
                0 => text.extend(token.chars().take(token.chars().count() / 2)),
                1 => text.extend(token.chars().skip(1)),
                _ => text.push_str(token),
            }
        }
        text.push_str(r.text(AROUND));
    }
    text
}

/// Everything together, and any character at all.
fn mixed(r: &mut Random, specials: &[String]) -> String {
    let mut text = String::new();
    for _ in 0..1 + r.below(10) {
        match r.below(9) {
            0 => text.push_str(r.text(&EMOJI)),
            1 => text.push_str(r.text(SPACES)),
            2 => text.push_str(r.text(&NUMBERS)),
            3 => text.push_str(&code(r)),
            4 => text.push_str(&multilingual(r)),
            5 => text.push_str(&control(r)),
            6 => text.push_str(&special(r, specials)),
            7 => text.push(r.character([0x20, 0x10_FFFF])),
            _ => {
                let c = r.character([0x20, 0x2FFF]);
                text.extend(std::iter::repeat_n(c, 1 + r.below(60)));
            }
        }
    }
    text
}

/// Documents of `bytes` bytes, at least `total` bytes of them, none like another: for measuring. Kinds are `english`,
/// `code`, `multilingual` and `mixed`.
pub fn documents(kind: &str, bytes: usize, total: usize) -> Vec<String> {
    (0..total.div_ceil(bytes.max(1))).map(|number| document(kind, bytes, number)).collect()
}

/// One of them.
pub fn document(kind: &str, bytes: usize, number: usize) -> String {
    let mut r = Random::new(&format!("{kind} {number}"));
    let words: Vec<&str> = SENTENCES[0].split(' ').chain(ENGLISH.split_whitespace()).collect();
    let mut text = String::with_capacity(bytes + 512);
    while text.len() < bytes {
        let kind = if kind == "mixed" { *r.pick(&["english", "english", "code", "multilingual"]) } else { kind };
        match kind {
            "code" => {
                // A number makes every line another.
                let n = r.below(100_000);
                text.push_str(&format!("{}let value_{n} = {n};\n", r.pick(CODE)));
            }
            "multilingual" => {
                let sentence: Vec<&str> = r.pick(&SENTENCES[1..]).split(' ').collect();
                for _ in 0..sentence.len() {
                    text.push_str(r.text(&sentence));
                    text.push(' ');
                }
                if r.below(4) == 0 {
                    text.push_str(&multilingual(&mut r));
                }
            }
            _ => {
                for i in 0..6 + r.below(14) {
                    if i > 0 {
                        text.push(' ');
                    }
                    text.push_str(r.text(&words));
                }
                text.push_str(r.text(&[". ", ".\n\n", "? ", "; ", ", and ", "'s "]));
            }
        }
    }
    let mut end = bytes;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// Common and less common words.
static ENGLISH: &str = "the of and to in a is that for it was on with as be at by he this had not are but from or have an they which one \
    you were all her she there would their we him been has when who will no more if out so up said what its about than into them can only \
    other time new some could these two may first then do any like my now over such our man me even most made after also did many off before \
    must well back through years much where your way down should because long each just those people how too little state good very make \
    world still see own work men day get here between both life being under three never know same last another while us might great old year \
    come since against go came right used take himself few house use during without again place around however small found thought part went \
    say general once high upon school every don't does got united left number course war until always away something fact water less public \
    put thing almost hand enough far took head yet better set told nothing night end why didn't know eyes find going look asked later knew \
    quantization tokenizer vocabulary throughput architecture discovery parameterization internationally counterexample bibliography \
    unquestionably thermodynamics Constantinople Massachusetts neuroscience photosynthesis decentralized hypothetical";

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_strings_are_the_same_everywhere_and_many() {
        let specials = ["<s>".to_owned()];
        let mut all = HashSet::new();
        for (class, count) in CLASSES {
            let strings = make(class, *count, &specials);
            assert_eq!(strings, make(class, *count, &specials));
            assert_eq!(strings.len(), *count, "{class}");
            all.extend(strings);
        }
        assert!(all.len() >= 2000, "{} different strings", all.len());
    }

    #[test]
    fn documents_have_their_length_and_differ() {
        for kind in ["english", "code", "multilingual", "mixed"] {
            let documents = documents(kind, 4096, 64 * 4096);
            assert_eq!(documents.iter().collect::<HashSet<_>>().len(), 64, "{kind}");
            assert!(documents.iter().all(|d| (4090..=4096).contains(&d.len())), "{kind}");
        }
    }
}
