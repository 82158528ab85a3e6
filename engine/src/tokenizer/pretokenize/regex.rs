//! The regular expressions of pre-tokenizers, parsed: as much of Oniguruma's syntax as they use.
//!
//! Literals, `\r \n \t`, classes (nested, negated, ranges, `&&`), `\p{..}` of the general categories and `\p{Han}`, `\s \S
//! \d`, groups, `(?i:..)` for ASCII letters, alternatives, greedy `? * + {n} {n,m}`, and looking at one character ahead:
//! `(?=..)` and `(?!..)` of a class. The possessive `?+` and `++` that one model's file has are greedy here: its parts
//! cannot give back what another could take. Anything else is an error.

use super::super::unicode;
use std::iter::Peekable;
use std::str::Chars;

/// Inclusive ranges of code points, ascending, with gaps between.
pub(super) type Set = Vec<(u32, u32)>;

/// An expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// One character.
    Set(Set),
    /// The next character is in the set, or is not (or there is none).
    Ahead(Set, bool),
    Concat(Vec<Node>),
    /// The first that matches.
    Either(Vec<Node>),
    /// As often as possible: at least, at most.
    Repeat(Box<Node>, u32, Option<u32>),
}

const LAST: u32 = 0x10_FFFF;

/// Sorted, without overlap.
fn tidy(mut set: Set) -> Set {
    set.sort_unstable();
    let mut out: Set = Vec::with_capacity(set.len());
    for (first, last) in set {
        match out.last_mut() {
            Some(end) if first <= end.1.saturating_add(1) => end.1 = end.1.max(last),
            _ => out.push((first, last)),
        }
    }
    out
}

fn negated(set: &Set) -> Set {
    let mut out = Vec::with_capacity(set.len() + 1);
    let mut next = 0;
    for &(first, last) in set {
        if first > next {
            out.push((next, first - 1));
        }
        next = last + 1;
    }
    if next <= LAST {
        out.push((next, LAST));
    }
    out
}

fn both(a: &Set, b: &Set) -> Set {
    negated(&tidy([negated(a), negated(b)].concat()))
}

/// Whether a set has a character.
pub(super) fn contains(set: &Set, c: u32) -> bool {
    let at = set.partition_point(|range| range.1 < c);
    set.get(at).is_some_and(|range| range.0 <= c)
}

/// Parses an expression.
///
/// # Errors
/// What is not known, and where.
pub(super) fn parse(text: &str) -> Result<Node, String> {
    let mut parser = Parser { rest: text.chars().peekable(), folds: false };
    let node = parser.either()?;
    match parser.rest.next() {
        None => Ok(node),
        Some(c) => Err(format!("`{c}` where nothing can stand, before {:?}", parser.rest.collect::<String>())),
    }
}

struct Parser<'a> {
    rest: Peekable<Chars<'a>>,
    /// Inside of `(?i:`.
    folds: bool,
}

impl Parser<'_> {
    fn eat(&mut self, wanted: char) -> bool {
        self.rest.next_if_eq(&wanted).is_some()
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        match self.rest.next() {
            Some(c) if c == wanted => Ok(()),
            found => Err(format!("`{wanted}` is missing, found {found:?}")),
        }
    }

    fn either(&mut self) -> Result<Node, String> {
        let mut list = vec![self.concat()?];
        while self.eat('|') {
            list.push(self.concat()?);
        }
        Ok(if list.len() == 1 { list.remove(0) } else { Node::Either(list) })
    }

    fn concat(&mut self) -> Result<Node, String> {
        let mut list = Vec::new();
        while let Some(c) = self.rest.peek()
            && !matches!(c, '|' | ')')
        {
            let one = self.one()?;
            list.push(self.repeat(one)?);
        }
        Ok(if list.len() == 1 { list.remove(0) } else { Node::Concat(list) })
    }

    fn repeat(&mut self, node: Node) -> Result<Node, String> {
        let (least, most) = match self.rest.next_if(|c| "?*+{".contains(*c)) {
            Some('?') => (0, Some(1)),
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some(_) => {
                let least = self.number()?;
                let most = if self.eat(',') { self.number()? } else { least };
                self.expect('}')?;
                (least, Some(most))
            }
            None => return Ok(node),
        };
        self.eat('+');
        match self.rest.peek() {
            Some(c @ ('?' | '*')) => Err(format!("`{c}` behind a repetition")),
            _ => Ok(Node::Repeat(Box::new(node), least, most)),
        }
    }

    fn number(&mut self) -> Result<u32, String> {
        let mut number = None;
        while let Some(digit) = self.rest.peek().and_then(|c| c.to_digit(10)) {
            self.rest.next();
            number = Some(number.unwrap_or(0) * 10 + digit).filter(|n| *n <= 1024);
        }
        number.ok_or_else(|| "a repetition without a number up to 1024".to_owned())
    }

    fn one(&mut self) -> Result<Node, String> {
        match self.rest.next() {
            Some('(') => self.group(),
            Some('[') => Ok(Node::Set(self.class()?)),
            Some('\\') => Ok(Node::Set(self.escape()?)),
            Some(c @ ('.' | '^' | '$' | '*' | '+' | '?' | '{' | '}')) => Err(format!("`{c}` is not known here")),
            Some(c) => Ok(Node::Set(self.fold(vec![(c as u32, c as u32)]))),
            None => Err("the end where something must stand".to_owned()),
        }
    }

    fn group(&mut self) -> Result<Node, String> {
        let folds = self.folds;
        let mut ahead = None;
        if self.eat('?') {
            match self.rest.next() {
                Some(':') => {}
                Some('i') => {
                    self.expect(':')?;
                    self.folds = true;
                }
                Some('=') => ahead = Some(true),
                Some('!') => ahead = Some(false),
                other => return Err(format!("a group of a kind that is not known: {other:?}")),
            }
        }
        let node = self.either()?;
        self.expect(')')?;
        self.folds = folds;
        match (ahead, node) {
            (None, node) => Ok(node),
            (Some(is), Node::Set(set)) => Ok(Node::Ahead(set, is)),
            (Some(_), _) => Err("looking further ahead than one character".to_owned()),
        }
    }

    /// Behind `[`.
    fn class(&mut self) -> Result<Set, String> {
        let negate = self.eat('^');
        let mut parts = vec![Set::new()];
        loop {
            let c = self.rest.next().ok_or("a class without an end")?;
            let set = match c {
                ']' => break,
                '[' => self.class()?,
                '&' if self.eat('&') => {
                    parts.push(Set::new());
                    continue;
                }
                _ => self.item(c)?,
            };
            if let Some(last) = parts.last_mut() {
                last.extend(set);
            }
        }
        let parts: Vec<Set> = parts.into_iter().map(|set| self.fold(set)).collect();
        let set = parts.iter().skip(1).fold(parts[0].clone(), |set, part| both(&set, part));
        Ok(if negate { negated(&set) } else { set })
    }

    /// A character, a range or an escape of a class.
    fn item(&mut self, first: char) -> Result<Set, String> {
        let set = if first == '\\' { self.escape()? } else { vec![(first as u32, first as u32)] };
        let [(from, to)] = set[..] else { return Ok(set) };
        // A hyphen at the end stands for itself.
        let mut ahead = self.rest.clone();
        if from != to || ahead.next() != Some('-') || ahead.next() == Some(']') {
            return Ok(set);
        }
        self.rest.next();
        let last = match self.rest.next() {
            Some('\\') => self.escape()?,
            Some(c) => vec![(c as u32, c as u32)],
            None => return Err("a range without an end".to_owned()),
        };
        match last[..] {
            [(last, end)] if last == end && last >= from => Ok(vec![(from, last)]),
            _ => Err("a range that ends before it starts".to_owned()),
        }
    }

    /// Behind a backslash.
    fn escape(&mut self) -> Result<Set, String> {
        let c = self.rest.next().ok_or("a backslash at the end")?;
        let property = |name: &str| match name {
            "Lo" => {
                let cased: Set =
                    ["Lu", "Lt", "Ll", "Lm"].iter().filter_map(|n| unicode::ranges(n)).flatten().copied().collect();
                Ok(both(&unicode::ranges("L").unwrap_or_default().to_vec(), &negated(&tidy(cased))))
            }
            _ => unicode::ranges(name).map(<[_]>::to_vec).ok_or_else(|| format!("`\\p{{{name}}}` is not known")),
        };
        Ok(match c {
            'r' => vec![(0x0D, 0x0D)],
            'n' => vec![(0x0A, 0x0A)],
            't' => vec![(0x09, 0x09)],
            's' | 'd' => property(c.encode_utf8(&mut [0; 4]))?,
            'S' => negated(&property("s")?),
            'p' => {
                self.expect('{')?;
                let mut name = String::new();
                while let Some(c) = self.rest.next_if(char::is_ascii_alphabetic) {
                    name.push(c);
                }
                self.expect('}')?;
                property(&name)?
            }
            c if c.is_ascii_punctuation() => vec![(c as u32, c as u32)],
            c => return Err(format!("`\\{c}` is not known")),
        })
    }

    /// Inside of `(?i:` both cases of an ASCII letter, and what folds to it.
    fn fold(&self, mut set: Set) -> Set {
        for letter in (u32::from(b'a')..=u32::from(b'z')).filter(|_| self.folds) {
            let upper = letter - 32;
            if set.iter().any(|r| (r.0..=r.1).contains(&letter) || (r.0..=r.1).contains(&upper)) {
                set.extend([(letter, letter), (upper, upper)]);
                match char::from_u32(letter) {
                    Some('s') => set.push((0x17F, 0x17F)),
                    Some('k') => set.push((0x212A, 0x212A)),
                    _ => {}
                }
            }
        }
        tidy(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_an_error() {
        for text in [
            "a**", "(a", "a)", "[a", "\\", "\\q", "\\p{Xx}", "\\p{L", ".", "^a", "a$", "(?<n>a)", "(?=ab)", "(?!a|b)",
            "a{,2}", "a{2000}", "a+?", "[b-a]", "[a-", "a{1", "(?", "{", "[^",
        ] {
            assert!(parse(text).is_err(), "{text}: {:?}", parse(text));
        }
    }

    #[test]
    fn classes_have_their_characters() {
        let has = |text: &str, c: char| match parse(text).unwrap() {
            Node::Set(set) => contains(&set, c as u32),
            other => panic!("{other:?}"),
        };
        for (text, inside, outside) in [
            ("[a-c]", "abc", "d-"),
            ("[^a-c]", "d-\u{10ffff}", "abc"),
            ("[a-c\\]&-]", "abc]&-", "d\\"),
            ("[\\p{L}&&[^\\p{Han}]]", "aé", "中1"),
            ("[^\\r\\n\\p{L}\\p{N}]", " !\u{301}", "a1\r\n"),
            ("[!-/:-@\\[-`{-~]", "!/:@[`{~", "a1 "),
            ("\\p{Lo}", "中ª", "aAǅʰ"),
            ("(?i:s)", "sSſ", "t"),
            ("[(\\s|.)]", "( |.)", "a"),
            ("\\S", "a\u{301}", " \n\u{3000}"),
        ] {
            assert!(inside.chars().all(|c| has(text, c)), "{text}");
            assert!(!outside.chars().any(|c| has(text, c)), "{text}");
        }
    }
}
