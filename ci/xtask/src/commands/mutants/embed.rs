//! All mutants of a file in one text: each stands behind a question that is asked when the program runs.
//!
//! `a + b` with the mutants 7 (`-`) and 8 (`*`) becomes
//! `(match (a, b) { (l, r) => match crate::__mutants::chosen(7, 2) { 1 => l - r, 2 => l * r, _ => l + r } })`,
//! so that one build tries them all. The mutants of a place have numbers side by side. What cannot be asked so (a constant, a
//! chain with `let`) is left out here, and what the compiler refuses is taken out by its message.

use super::Mutant;
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{BinOp, Expr};

/// The module that answers, for the root of the crate. In a run with `MUTANTS_REACHED` it writes down which places are asked.
pub(super) const RUNTIME: &str = r#"
#[doc(hidden)]
pub mod __mutants {
    use std::io::Write;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use std::sync::{Mutex, OnceLock};
    const UNKNOWN: u32 = u32::MAX;
    const RECORDING: u32 = u32::MAX - 1;
    static CHOSEN: AtomicU32 = AtomicU32::new(UNKNOWN);
    static SEEN: [AtomicBool; 1 << 16] = [const { AtomicBool::new(false) }; 1 << 16];
    static FILE: OnceLock<Option<Mutex<std::fs::File>>> = OnceLock::new();
    /// Which of the `count` mutants from `first` on is chosen, from 1; 0 none.
    #[inline(always)]
    pub fn chosen(first: u32, count: u32) -> u32 {
        let chosen = CHOSEN.load(Ordering::Relaxed);
        if chosen >= RECORDING { return slow(first, count); }
        let at = chosen.wrapping_sub(first);
        if at < count { at + 1 } else { 0 }
    }
    #[cold]
    #[inline(never)]
    fn slow(first: u32, count: u32) -> u32 {
        if CHOSEN.load(Ordering::Relaxed) == UNKNOWN {
            let given = std::env::var("MUTANTS_CHOSEN").ok().and_then(|text| text.parse().ok());
            let recording = std::env::var_os("MUTANTS_REACHED").is_some();
            CHOSEN.store(given.unwrap_or(if recording { RECORDING } else { RECORDING - 1 }), Ordering::Relaxed);
            return chosen(first, count);
        }
        if !SEEN[first as usize & 0xFFFF].swap(true, Ordering::Relaxed) {
            let open = || {
                let path = std::env::var_os("MUTANTS_REACHED")?;
                std::fs::OpenOptions::new().append(true).create(true).open(path).ok().map(Mutex::new)
            };
            if let Some(file) = FILE.get_or_init(open) {
                let mut file = file.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                let _ = file.write_all(format!("{first}\n").as_bytes());
            }
        }
        0
    }
}
"#;

/// A piece of what stands in place of a stretch of the source.
#[derive(Debug, Clone)]
enum Part {
    Text(String),
    /// A stretch of the source, in which there may be more places.
    Source(Range<usize>),
    /// The text of one mutant alone.
    Only(u32, Vec<Part>),
}

/// A place: a stretch of the source, what stands for it, and the mutants there.
#[derive(Debug, Clone)]
struct Place {
    range: Range<usize>,
    parts: Vec<Part>,
    mutants: Vec<u32>,
    /// Each mutant is asked for by itself, not all at once.
    apart: bool,
}

/// The text of a file, and which of its bytes belong to which mutants.
#[derive(Debug, Default)]
pub(super) struct Embedded {
    pub(super) text: String,
    /// Innermost last.
    owners: Vec<(Range<usize>, Vec<u32>)>,
    /// The mutants that are in it, and the first one of their place.
    pub(super) inside: BTreeMap<u32, u32>,
}

impl Embedded {
    /// The mutants to which a stretch of the text belongs: those of the smallest place that holds it.
    pub(super) fn owners(&self, bytes: Range<usize>) -> &[u32] {
        let holds = |range: &Range<usize>| range.start <= bytes.start && bytes.end <= range.end;
        let smallest = self.owners.iter().filter(|(range, _)| holds(range)).min_by_key(|(range, _)| range.len());
        smallest.map_or(&[], |(_, mutants)| mutants)
    }

    /// The mutants between the braces that open behind a byte.
    pub(super) fn in_braces(&self, from: usize) -> impl Iterator<Item = u32> {
        let rest = self.text.get(from..).unwrap_or_default();
        let (mut depth, mut begun) = (0, false);
        let end = rest.find(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            begun |= depth > 0;
            begun && depth <= 0
        });
        let inside = from..from + end.unwrap_or(rest.len());
        let holds = move |range: &Range<usize>| inside.start <= range.start && range.end <= inside.end;
        self.owners.iter().filter(move |(range, _)| holds(range)).flat_map(|(_, mutants)| mutants).copied()
    }
}

/// Puts mutants into the text of their file. Numbers count from `first`, in the order of the slice.
pub(super) fn embed(source: &str, mutants: &[(u32, &Mutant)]) -> anyhow::Result<Embedded> {
    let file = syn::parse_file(source)?;
    let lines = Lines::new(source);
    let mut by_place: BTreeMap<(usize, &str), Vec<(u32, &Mutant)>> = BTreeMap::new();
    let mut places = Vec::new();
    for (number, mutant) in mutants {
        match mutant.genre.as_str() {
            super::PLANTED => places.push(planted(source, *number, mutant)?),
            // Another type than the body's behind the same `impl`.
            "FnValue" if mutant.replacement.starts_with("::std::iter::") => {}
            "FnValue" => {
                let at = lines.byte(mutant.span.start)?;
                let text = format!(
                    "if crate::__mutants::chosen({number}, 1) == 1 {{ #[allow(unreachable_code)] return {}; }} ",
                    mutant.replacement
                );
                let parts = vec![Part::Only(*number, vec![Part::Text(text)])];
                places.push(Place { range: at..at, parts, mutants: vec![*number], apart: true });
            }
            genre => by_place.entry((lines.byte(mutant.span.start)?, genre)).or_default().push((*number, mutant)),
        }
    }
    let mut finder = Finder { by_place, places };
    finder.visit_file(&file);
    let mut places = finder.places;
    // Outer ones first; of what begins at one byte, what takes no room first.
    places.sort_by_key(|place| (place.range.start, !place.range.is_empty(), usize::MAX - place.range.end));
    let mut out = Embedded::default();
    for place in &places {
        let first = place.mutants.iter().min().copied().context("a place without mutants")?;
        out.inside.extend(place.mutants.iter().map(|mutant| (*mutant, if place.apart { *mutant } else { first })));
    }
    render(source, &places, 0..source.len(), &mut out)?;
    Ok(out)
}

/// Writes a stretch of the source with the places in it.
fn render(source: &str, places: &[Place], stretch: Range<usize>, out: &mut Embedded) -> anyhow::Result<()> {
    let mut at = stretch.start;
    let mut index = places.partition_point(|place| place.range.start < stretch.start);
    while let Some(place) = places.get(index).filter(|place| place.range.start <= stretch.end) {
        // What takes no room at the end of a stretch belongs behind it; what begins before is part of one already written.
        if place.range.start < at || place.range.end > stretch.end || place.range.start == stretch.end {
            index += 1;
            continue;
        }
        out.text.push_str(&source[at..place.range.start]);
        let begin = out.text.len();
        let inner = &places[index + 1..];
        parts(source, inner, &place.parts, out)?;
        out.owners.push((begin..out.text.len(), place.mutants.clone()));
        at = place.range.end;
        index += 1;
    }
    out.text.push_str(&source[at..stretch.end]);
    Ok(())
}

fn parts(source: &str, places: &[Place], parts: &[Part], out: &mut Embedded) -> anyhow::Result<()> {
    for part in parts {
        match part {
            Part::Text(text) => out.text.push_str(text),
            Part::Source(range) => render(source, places, range.clone(), out)?,
            Part::Only(mutant, inner) => {
                let begin = out.text.len();
                self::parts(source, places, inner, out)?;
                out.owners.push((begin..out.text.len(), vec![*mutant]));
            }
        }
    }
    Ok(())
}

/// A fault by hand: one text that stands once in the file, for another.
fn planted(source: &str, number: u32, fault: &Mutant) -> anyhow::Result<Place> {
    let mut found = source.match_indices(&fault.original);
    let (Some((at, _)), None) = (found.next(), found.next()) else {
        bail!("{}: its text does not stand exactly once in {}: {}", fault.name, fault.file, fault.original);
    };
    let range = at..at + fault.original.len();
    let ask = format!("match crate::__mutants::chosen({number}, 1) {{ 1 => {{ ");
    let statement = fault.original.trim_end().ends_with([';', '}']);
    let (open, close) = if statement { ("", "") } else { ("(", ")") };
    let parts = vec![
        Part::Text(format!("{open}{ask}")),
        Part::Only(number, vec![Part::Text(fault.replacement.clone())]),
        Part::Text(" } _ => { ".to_owned()),
        Part::Source(range.clone()),
        Part::Text(format!(" }} }}{close}")),
    ];
    Ok(Place { range, parts, mutants: vec![number], apart: true })
}

/// Bytes at which lines begin.
struct Lines<'a> {
    source: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(source: &'a str) -> Self {
        let starts = std::iter::once(0).chain(source.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { source, starts }
    }

    /// The byte of a line and a column, both from 1, columns in characters.
    fn byte(&self, at: super::Position) -> anyhow::Result<usize> {
        let line = self.starts.get(at.line.wrapping_sub(1)).context("a line beyond the end")?;
        let mut columns = self.source[*line..].char_indices();
        let (byte, _) = columns.nth(at.column.saturating_sub(1)).context("a column beyond the end")?;
        Ok(line + byte)
    }
}

/// Finds the expressions of the mutants.
struct Finder<'a> {
    by_place: BTreeMap<(usize, &'a str), Vec<(u32, &'a Mutant)>>,
    places: Vec<Place>,
}

fn bytes(of: &impl Spanned) -> Range<usize> {
    of.span().byte_range()
}

/// Whether a chain of conditions has a `let` in it, which can stand nowhere else.
fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) if matches!(binary.op, BinOp::And(_) | BinOp::Or(_)) => {
            has_let(&binary.left) || has_let(&binary.right)
        }
        _ => false,
    }
}

fn text(text: impl Into<String>) -> Part {
    Part::Text(text.into())
}

impl<'a> Finder<'a> {
    fn take(&mut self, at: usize, genre: &'a str) -> Option<Vec<(u32, &'a Mutant)>> {
        self.by_place.remove(&(at, genre))
    }

    fn add(&mut self, range: Range<usize>, parts: Vec<Part>, mutants: &[(u32, &Mutant)]) {
        let apart = false;
        self.places.push(Place { range, parts, mutants: mutants.iter().map(|(number, _)| *number).collect(), apart });
    }

    fn binary(&mut self, node: &syn::ExprBinary, mutants: &[(u32, &Mutant)], source_op: &str) {
        let (whole, left, right) = (bytes(node), Part::Source(bytes(&*node.left)), Part::Source(bytes(&*node.right)));
        // Numbers may be missing in between: the compiler refused them.
        let (first, count) = (mutants[0].0, mutants[mutants.len() - 1].0 - mutants[0].0 + 1);
        let ask = format!("crate::__mutants::chosen({first}, {count})");
        let arms = |left: &str, right: &str| {
            let mut parts = vec![text(format!("match {ask} {{ "))];
            for (number, mutant) in mutants {
                let arm = format!("{} => {left} {} {right}, ", number - first + 1, mutant.replacement);
                parts.push(Part::Only(*number, vec![text(arm)]));
            }
            parts.push(text(format!("_ => {left} {source_op} {right} }} }})")));
            parts
        };
        let parts = match node.op {
            BinOp::And(_) | BinOp::Or(_) => {
                if has_let(&node.left) || has_let(&node.right) {
                    return;
                }
                let when = if matches!(node.op, BinOp::And(_)) { "!=" } else { "==" };
                let end = text(" } else { __l } })");
                // `a && b` is `if a { b } else { a }`; the other way round it is `a || b`.
                let begin = text(format!(") {{ __l => if __l {when} ({ask} == 1) {{ "));
                vec![text("(match ("), left, begin, right, end]
            }
            BinOp::Eq(_) | BinOp::Ne(_) | BinOp::Lt(_) | BinOp::Le(_) | BinOp::Gt(_) | BinOp::Ge(_) => {
                let mut parts = vec![text("(match (&("), left, text("), &("), right, text(")) { (__l, __r) => ")];
                parts.extend(arms("*__l", "*__r"));
                parts
            }
            BinOp::AddAssign(_)
            | BinOp::SubAssign(_)
            | BinOp::MulAssign(_)
            | BinOp::DivAssign(_)
            | BinOp::RemAssign(_)
            | BinOp::BitAndAssign(_)
            | BinOp::BitOrAssign(_)
            | BinOp::BitXorAssign(_)
            | BinOp::ShlAssign(_)
            | BinOp::ShrAssign(_) => {
                let mut parts = vec![text(format!("(match {ask} {{ "))];
                let with = |op: &str| vec![left.clone(), text(format!(" {op} ")), right.clone()];
                for (number, mutant) in mutants {
                    let mut arm = vec![text(format!("{} => ", number - first + 1))];
                    arm.extend(with(&mutant.replacement));
                    arm.push(text(", "));
                    parts.push(Part::Only(*number, arm));
                }
                parts.push(text("_ => "));
                parts.extend(with(source_op));
                parts.push(text(" })"));
                parts
            }
            _ => {
                let mut parts = vec![text("(match ("), left, text(", "), right, text(") { (__l, __r) => ")];
                parts.extend(arms("__l", "__r"));
                parts
            }
        };
        self.add(whole, parts, mutants);
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_expr_binary(&mut self, node: &'ast syn::ExprBinary) {
        if let Some(mutants) = self.take(bytes(&node.op).start, "BinaryOperator") {
            let op = quoted(&node.op);
            self.binary(node, &mutants, op);
        }
        visit::visit_expr_binary(self, node);
    }

    fn visit_expr_unary(&mut self, node: &'ast syn::ExprUnary) {
        if let Some(mutants) = self.take(bytes(&node.op).start, "UnaryOperator") {
            let sign = if matches!(node.op, syn::UnOp::Neg(_)) { "-" } else { "!" };
            let number = mutants[0].0;
            let behind =
                format!(") {{ __x => if crate::__mutants::chosen({number}, 1) == 1 {{ __x }} else {{ {sign}__x }} }})");
            let parts = vec![text("(match ("), Part::Source(bytes(&*node.expr)), text(behind)];
            self.add(bytes(node), parts, &mutants);
        }
        visit::visit_expr_unary(self, node);
    }

    fn visit_expr_match(&mut self, node: &'ast syn::ExprMatch) {
        // Arms with guards do not count as patterns: without an arm for all else none can be asked for.
        let all_else = |arm: &syn::Arm| arm.guard.is_none() && matches!(arm.pat, syn::Pat::Wild(_));
        if !node.arms.iter().any(all_else) {
            node.arms.iter().for_each(|arm| drop(self.take(bytes(arm).start, "MatchArm")));
        }
        visit::visit_expr_match(self, node);
    }

    fn visit_arm(&mut self, node: &'ast syn::Arm) {
        let deleted = self.take(bytes(node).start, "MatchArm").unwrap_or_default();
        let delete = |(number, _): &(u32, &Mutant)| format!("crate::__mutants::chosen({number}, 1) == 0");
        match &node.guard {
            None => {
                if let Some(mutant) = deleted.first() {
                    let at = bytes(&node.pat).end;
                    self.add(at..at, vec![text(format!(" if {} ", delete(mutant)))], &deleted);
                }
            }
            Some((_, guard)) => {
                let mut all = self.take(bytes(&**guard).start, "MatchArmGuard").unwrap_or_default();
                let chain = has_let(guard);
                all.retain(|(_, mutant)| !chain || mutant.replacement != "true");
                let (open, close) = if chain { ("", "") } else { ("(", ")") };
                let (mut before, mut behind) = (String::from(open), String::from(close));
                for (number, mutant) in &all {
                    if mutant.replacement == "true" {
                        before.insert(0, '(');
                        let _ = write!(behind, " || crate::__mutants::chosen({number}, 1) == 1)");
                    }
                }
                for (number, _) in all.iter().filter(|(_, mutant)| mutant.replacement == "false") {
                    let _ = write!(behind, " && crate::__mutants::chosen({number}, 1) == 0");
                }
                deleted.iter().for_each(|mutant| behind += &format!(" && {}", delete(mutant)));
                all.extend(deleted);
                if !all.is_empty() {
                    let range = bytes(&**guard);
                    let parts = vec![text(before), Part::Source(range.clone()), text(behind)];
                    let mutants = all.iter().map(|(number, _)| *number).collect();
                    self.places.push(Place { range, parts, mutants, apart: true });
                }
            }
        }
        visit::visit_arm(self, node);
    }
}

fn quoted(op: &BinOp) -> &'static str {
    match op {
        BinOp::Add(_) => "+",
        BinOp::Sub(_) => "-",
        BinOp::Mul(_) => "*",
        BinOp::Div(_) => "/",
        BinOp::Rem(_) => "%",
        BinOp::And(_) => "&&",
        BinOp::Or(_) => "||",
        BinOp::BitXor(_) => "^",
        BinOp::BitAnd(_) => "&",
        BinOp::BitOr(_) => "|",
        BinOp::Shl(_) => "<<",
        BinOp::Shr(_) => ">>",
        BinOp::Eq(_) => "==",
        BinOp::Lt(_) => "<",
        BinOp::Le(_) => "<=",
        BinOp::Ne(_) => "!=",
        BinOp::Ge(_) => ">=",
        BinOp::Gt(_) => ">",
        BinOp::AddAssign(_) => "+=",
        BinOp::SubAssign(_) => "-=",
        BinOp::MulAssign(_) => "*=",
        BinOp::DivAssign(_) => "/=",
        BinOp::RemAssign(_) => "%=",
        BinOp::BitXorAssign(_) => "^=",
        BinOp::BitAndAssign(_) => "&=",
        BinOp::BitOrAssign(_) => "|=",
        BinOp::ShlAssign(_) => "<<=",
        BinOp::ShrAssign(_) => ">>=",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::mutants::{Position, Span};

    fn mutant(source: &str, at: &str, genre: &str, replacement: &str) -> Mutant {
        let byte = source.find(at).expect("the place");
        let before = &source[..byte];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Mutant {
            genre: genre.to_owned(),
            replacement: replacement.to_owned(),
            span: Span { start: Position { line, column } },
            ..Mutant::default()
        }
    }

    /// The text with the mutants inside, which is sound Rust.
    fn with(source: &str, mutants: &[Mutant]) -> Embedded {
        let numbered: Vec<(u32, &Mutant)> = (3..).zip(mutants).collect();
        let embedded = embed(source, &numbered).expect("embedded");
        syn::parse_file(&embedded.text).expect(&embedded.text);
        embedded
    }

    #[test]
    fn operators_are_asked_for_where_they_stand() {
        let source = "fn f(é: i32, b: i32) -> i32 {\n    é + b * 2\n}\n";
        let mutants = [
            mutant(source, "+", "BinaryOperator", "-"),
            mutant(source, "+", "BinaryOperator", "*"),
            mutant(source, "*", "BinaryOperator", "/"),
            mutant(source, "é + b", "FnValue", "0"),
        ];
        let embedded = with(source, &mutants);
        let inner =
            "(match (b, 2) { (__l, __r) => match crate::__mutants::chosen(5, 1) { 1 => __l / __r, _ => __l * __r } })";
        let outer = format!(
            "(match (é, {inner}) {{ (__l, __r) => match crate::__mutants::chosen(3, 2) {{ 1 => __l - __r, 2 => __l * __r, _ => __l + __r }} }})"
        );
        assert!(embedded.text.contains(&outer), "{}", embedded.text);
        assert!(embedded.text.contains("if crate::__mutants::chosen(6, 1) == 1 {"), "{}", embedded.text);
        // The mutants of a place are reached together.
        assert_eq!(embedded.inside, BTreeMap::from([(3, 3), (4, 3), (5, 5), (6, 6)]));
        let owners = |text: &str| {
            let at = embedded.text.find(text).expect(text);
            embedded.owners(at..at + text.len()).to_vec()
        };
        assert_eq!(owners("2 => __l * __r"), [4]);
        assert_eq!(owners("1 => __l / __r"), [5]);
        assert_eq!(owners("_ => __l + __r"), [3, 4]);
        assert_eq!(owners("fn f"), [0_u32; 0]);
    }

    #[test]
    fn what_is_lazy_stays_lazy_and_what_is_compared_is_not_moved() {
        let source = "fn f(a: &str, b: bool) -> bool { a == \"x\" && !b }";
        let mutants = [
            mutant(source, "==", "BinaryOperator", "!="),
            mutant(source, "&&", "BinaryOperator", "||"),
            mutant(source, "!b", "UnaryOperator", ""),
        ];
        let text = with(source, &mutants).text;
        assert!(text.contains("(match (&(a), &(\"x\")) { (__l, __r) =>"), "{text}");
        assert!(text.contains("{ __l => if __l != (crate::__mutants::chosen(4, 1) == 1) {"), "{text}");
        assert!(text.contains("if crate::__mutants::chosen(5, 1) == 1 { __x } else { !__x }"), "{text}");
        // A `let` stands in a chain alone.
        let chain = "fn f(a: Option<u8>) -> bool { if let Some(b) = a && b > 1 { true } else { false } }";
        let embedded =
            with(chain, &[mutant(chain, "&&", "BinaryOperator", "||"), mutant(chain, "> 1", "BinaryOperator", "<")]);
        assert_eq!(embedded.inside.len(), 1, "{}", embedded.text);
    }

    #[test]
    fn arms_are_deleted_by_their_guards() {
        let source = "fn f(a: u8) -> u8 { match a { 1 => 2, n if n > 3 => 4, _ => 5 } }";
        let mutants = [
            mutant(source, "1 =>", "MatchArm", ""),
            mutant(source, "n if", "MatchArm", ""),
            mutant(source, "n > 3", "MatchArmGuard", "true"),
            mutant(source, "n > 3", "MatchArmGuard", "false"),
        ];
        let embedded = with(source, &mutants);
        let text = &embedded.text;
        assert!(text.contains("1 if crate::__mutants::chosen(3, 1) == 0  => 2"), "{text}");
        let guard = "n if ((n > 3) || crate::__mutants::chosen(5, 1) == 1) && crate::__mutants::chosen(6, 1) == 0 && crate::__mutants::chosen(4, 1) == 0 => 4";
        assert!(text.contains(guard), "{text}");
        let from = text.find("match a").expect("the match");
        assert_eq!(embedded.in_braces(from).collect::<std::collections::BTreeSet<_>>(), [3, 4, 5, 6].into());
        // Arms with guards alone are not complete.
        let all = "fn f(a: bool) -> u8 { match a { true => 2, false => 4 } }";
        assert!(with(all, &[mutant(all, "true =>", "MatchArm", "")]).inside.is_empty());
    }

    #[test]
    fn a_planted_fault_stands_once() {
        let source = "fn f(a: f32) -> f32 { a.max(0.0) }";
        let fault = |from: &str| Mutant {
            genre: super::super::PLANTED.to_owned(),
            original: from.to_owned(),
            replacement: "if a < 0.0 { 0.0 } else { a }".to_owned(),
            ..Mutant::default()
        };
        let text = with(source, &[fault("a.max(0.0)")]).text;
        let expected =
            "(match crate::__mutants::chosen(3, 1) { 1 => { if a < 0.0 { 0.0 } else { a } } _ => { a.max(0.0) } })";
        assert!(text.contains(expected), "{text}");
        for from in ["a.min(0.0)", "f"] {
            assert!(embed(source, &[(3, &fault(from))]).is_err(), "{from}");
        }
    }
}
