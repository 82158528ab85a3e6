//! Matching in one pass, however the expression is written: a table of states and kinds of characters.
//!
//! A state is what a backtracking engine would still have to try, in its order; a character leads to the next one.
//! Where one of the ways ends, the ways behind it are dropped, and the match so far ends there: the last such place is
//! what backtracking would find. Looking one character ahead costs nothing, since a state is opened only when the
//! next character is known. The table is built whole, once, and is small: but for one rule that counts spaces to 512 it has some dozen states.
//!
//! A match costs the characters until no way is left, which may be more than it has: a run of spaces is read to its end for
//! `\s*[\r\n]+`, again and again where another way takes the spaces in portions. So the last state that led nowhere, and
//! where, is kept ([`Nowhere`]); a test holds every rule to one pass.

use super::super::unicode::decode;
use super::regex::{Node, Set, contains, parse};
use std::collections::HashMap;

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Dfa {
    /// `state * kinds + kind` gives the next state, and [`MATCH`] if a match ends in front of the character.
    table: Vec<u16>,
    kinds: usize,
    ascii: [u8; 128],
    /// Kinds of the code points below its length.
    low: Vec<u8>,
    /// First code point and kind of the ranges beyond.
    high: Vec<(u32, u8)>,
    /// Kind of a byte that is not a character: like an unassigned code point.
    stray: u8,
    /// Kind of the end of the text.
    end: u8,
}

/// A state in which the text between two places brought no match, until no way was left.
#[derive(Debug, Default)]
pub(super) struct Nowhere {
    state: u16,
    from: usize,
    to: usize,
}

const MATCH: u16 = 0x8000;
const DEAD: u16 = 0;
const START: u16 = 1;
/// Code points below have a table of their kinds; those beyond are rare.
const LOW: u32 = 0x3_2400;

enum Inst {
    Set(usize, usize),
    Ahead(usize, bool, usize),
    Split(usize, usize),
    Match,
}

#[derive(Default)]
struct Program {
    insts: Vec<Inst>,
    sets: Vec<Set>,
}

impl Program {
    fn set(&mut self, set: &Set) -> usize {
        self.sets.iter().position(|s| s == set).unwrap_or_else(|| {
            self.sets.push(set.clone());
            self.sets.len() - 1
        })
    }

    fn push(&mut self, inst: Inst) -> usize {
        self.insts.push(inst);
        self.insts.len() - 1
    }

    /// Adds `node` in front of `next`, from behind; gives where it starts.
    fn add(&mut self, node: &Node, next: usize) -> usize {
        match node {
            Node::Set(set) => {
                let set = self.set(set);
                self.push(Inst::Set(set, next))
            }
            Node::Ahead(set, is) => {
                let set = self.set(set);
                self.push(Inst::Ahead(set, *is, next))
            }
            Node::Concat(list) => list.iter().rev().fold(next, |next, node| self.add(node, next)),
            Node::Either(list) => {
                let starts: Vec<usize> = list.iter().map(|node| self.add(node, next)).collect();
                starts.into_iter().rev().reduce(|rest, first| self.push(Inst::Split(first, rest))).unwrap_or(next)
            }
            Node::Repeat(node, least, most) => {
                let rest = match most {
                    Some(most) => (*least..*most).fold(next, |rest, _| {
                        let once = self.add(node, rest);
                        self.push(Inst::Split(once, next))
                    }),
                    None => {
                        let again = self.push(Inst::Split(0, next));
                        let body = self.add(node, again);
                        self.insts[again] = Inst::Split(body, next);
                        again
                    }
                };
                (0..*least).fold(rest, |rest, _| self.add(node, rest))
            }
        }
    }
}

/// Where a list of ways leads with a character (or, without one, at the end): the next list, and whether a match ends.
fn step(program: &Program, ways: &[usize], holds: &dyn Fn(usize) -> bool) -> (Vec<usize>, bool) {
    let mut seen = vec![false; program.insts.len()];
    let mut next = Vec::new();
    let mut stack: Vec<usize> = ways.iter().rev().copied().collect();
    while let Some(at) = stack.pop() {
        if std::mem::replace(&mut seen[at], true) {
            continue;
        }
        match program.insts[at] {
            Inst::Match => return (next, true),
            Inst::Set(set, to) if holds(set) && !next.contains(&to) => next.push(to),
            Inst::Ahead(set, is, to) if holds(set) == is => stack.push(to),
            Inst::Set(..) | Inst::Ahead(..) => {}
            Inst::Split(first, rest) => stack.extend([rest, first]),
        }
    }
    (next, false)
}

impl Dfa {
    /// Compiles an expression.
    ///
    /// # Errors
    /// What of it is not known, or that it is too large.
    pub(super) fn new(expression: &str) -> Result<Self, String> {
        let node = parse(expression).map_err(|reason| format!("`{expression}`: {reason}"))?;
        let mut program = Program::default();
        let end = program.push(Inst::Match);
        let start = program.add(&node, end);
        let (intervals, members) = kinds(&program.sets);
        let kinds = members.len() + 1;
        let end = u8::try_from(members.len()).map_err(|_| format!("`{expression}`: too many kinds of characters"))?;

        let mut states: HashMap<Vec<usize>, u16> = HashMap::from([(Vec::new(), DEAD), (vec![start], START)]);
        let mut lists = vec![Vec::new(), vec![start]];
        let mut table = Vec::new();
        let mut at = 0;
        while at < lists.len() {
            for kind in 0..kinds {
                let holds = |set: usize| members.get(kind).is_some_and(|sets: &Vec<bool>| sets[set]);
                let (next, matched) = step(&program, &lists[at], &holds);
                let next = match states.get(&next) {
                    // Nothing is behind the end.
                    _ if kind == members.len() => DEAD,
                    Some(&state) => state,
                    None => {
                        let state = u16::try_from(lists.len()).ok().filter(|s| *s < MATCH);
                        let state = state.ok_or_else(|| format!("`{expression}`: too many states"))?;
                        states.insert(next.clone(), state);
                        lists.push(next);
                        state
                    }
                };
                table.push(next | if matched { MATCH } else { 0 });
            }
            at += 1;
        }
        let mut low = vec![0; LOW as usize];
        for (i, &(first, kind)) in intervals.iter().enumerate() {
            let next = intervals.get(i + 1).map_or(LOW, |n| n.0).min(LOW);
            if first < next {
                low[first as usize..next as usize].fill(kind);
            }
        }
        let beyond = intervals.partition_point(|interval| interval.0 <= LOW).saturating_sub(1);
        let ascii = std::array::from_fn(|c| low[c]);
        let stray = intervals.last().map_or(0, |last| last.1);
        Ok(Self { table, kinds, ascii, low, high: intervals[beyond..].to_vec(), stray, end })
    }

    /// Kind and length of the character at `at`.
    #[inline]
    fn kind_at(&self, text: &[u8], at: usize) -> (u8, usize) {
        let lead = text[at];
        if lead < 0x80 {
            return (self.ascii[usize::from(lead)], 1);
        }
        match decode(text, at) {
            Some((c, len)) => (self.kind(c), len),
            None => (self.stray, 1),
        }
    }

    #[inline]
    fn kind(&self, c: u32) -> u8 {
        match self.low.get(c as usize) {
            Some(&kind) => kind,
            None => {
                self.high.get(self.high.partition_point(|r| r.0 <= c).saturating_sub(1)).map_or(self.stray, |r| r.1)
            }
        }
    }

    /// End of the match that starts at `at`, if one does.
    #[inline]
    fn matches(&self, text: &[u8], mut at: usize, nowhere: &mut Nowhere) -> Option<usize> {
        let (mut state, mut found) = (START, None);
        let mut since = at;
        loop {
            let (kind, len) = if at < text.len() { self.kind_at(text, at) } else { (self.end, 0) };
            let entry = self.table[usize::from(state) * self.kinds + usize::from(kind)];
            if entry & MATCH != 0 {
                found = Some(at);
            }
            let next = entry & !MATCH;
            if next == DEAD {
                if found.is_none_or(|end| end < since) && at > nowhere.to {
                    *nowhere = Nowhere { state, from: since, to: at };
                }
                return found;
            }
            at += len;
            if next != state {
                (state, since) = (next, at);
                if state == nowhere.state && (nowhere.from..=nowhere.to).contains(&at) {
                    return found;
                }
            }
        }
    }

    /// The first match at or after `at`: where it starts and ends. None is empty. `nowhere` is of earlier matches in the
    /// same text.
    #[inline]
    pub(super) fn find(&self, text: &[u8], mut at: usize, nowhere: &mut Nowhere) -> Option<(usize, usize)> {
        while at < text.len() {
            let (kind, len) = self.kind_at(text, at);
            if self.table[usize::from(START) * self.kinds + usize::from(kind)] & !MATCH != DEAD
                && let Some(end) = self.matches(text, at, nowhere).filter(|end| *end > at)
            {
                return Some((at, end));
            }
            at += len;
        }
        None
    }

    #[cfg(test)]
    pub(super) fn states(&self) -> usize {
        self.table.len() / self.kinds
    }
}

/// Code points that no set tells apart are of one kind: where the kinds start, and for each kind which sets have it.
fn kinds(sets: &[Set]) -> (Vec<(u32, u8)>, Vec<Vec<bool>>) {
    let mut starts: Vec<u32> = sets.iter().flatten().flat_map(|&(first, last)| [first, last + 1]).collect();
    // The end of the code points, whose last is of no property, is a kind of its own if a set ends there.
    starts.push(0);
    starts.retain(|c| *c <= 0x10_FFFF);
    starts.sort_unstable();
    starts.dedup();
    let mut members: Vec<Vec<bool>> = Vec::new();
    let mut intervals: Vec<(u32, u8)> = Vec::with_capacity(starts.len());
    for first in starts {
        let here: Vec<bool> = sets.iter().map(|set| contains(set, first)).collect();
        let kind = members.iter().position(|m| *m == here).unwrap_or_else(|| {
            members.push(here);
            members.len() - 1
        });
        // More kinds than fit are refused by the caller, by their number.
        let kind = kind.min(255) as u8;
        if intervals.last().is_none_or(|last| last.1 != kind) {
            intervals.push((first, kind));
        }
    }
    (intervals, members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_alternative_wins_as_in_backtracking() {
        for (expression, text, wanted) in [
            ("a|ab", "ab", Some(1)),
            ("ab|a", "ab", Some(2)),
            ("a*ab?", "aaab", Some(4)),
            ("(?:a|ab)(?:c|bcd)", "abcd", Some(4)),
            ("a{2,3}", "aaaa", Some(3)),
            ("a{2}", "a", None),
            (r"\s+(?!\S)|\s", "   x", Some(2)),
            (r"\s+(?!\S)|\s", "   ", Some(3)),
            (r"\s+(?!\S)|\s", " x", Some(1)),
            (r"a(?=b)", "ab", Some(1)),
            (r"a(?=b)", "a", None),
            (r"\s*\n|\s+", "  \n x", Some(3)),
            ("x?y*z+", "yyz", Some(3)),
            ("(?:a(?: a)*)+", "a a aa a", Some(8)),
        ] {
            let dfa = Dfa::new(expression).unwrap();
            assert_eq!(dfa.matches(text.as_bytes(), 0, &mut Nowhere::default()), wanted, "{expression} on {text:?}");
        }
    }
}
