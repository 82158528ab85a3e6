//! What can be wrong before anything runs, and the check of the declaration that finds it.
//!
//! All mistakes are collected and shown at once. None of them is a skipped cell: a matrix that does not
//! mean what it says does not run at all (exit code 2).

mod expand;

use std::path::Path;

use bitnet_golden::GoldenError;
use bitnet_golden::expect::{Expectation, Expectations};
use bitnet_golden::matrix::Matrix;
use bitnet_golden::pattern::{Pattern, Segment};

use crate::axes::{self, Axes, Axis, Cell};

/// The check that reads `golden/reference/<backend>/`.
pub const RECORDED: &str = "recorded";

/// One mistake in data, registration or command line.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error(transparent)]
    Golden(#[from] GoldenError),
    #[error(
        "matrix.toml: the {axis} name `{name}` is not usable: lower case letters, digits, `.`, `-` and single `_` only",
        axis = axis.name()
    )]
    BadName { axis: Axis, name: String },
    #[error("matrix.toml: {axis} `{name}` is declared twice", axis = axis.name())]
    DuplicateValue { axis: Axis, name: String },
    #[error(
        "{place}: unknown {axis} `{value}`; valid: {valid}",
        axis = axis.name(),
        valid = valid.join(", ")
    )]
    UnknownValue { place: String, axis: Axis, value: String, valid: Vec<String> },
    #[error("matrix.toml: a rectangle of check `{check}` makes no cell: {rectangle}")]
    EmptyRectangle { check: String, rectangle: String },
    #[error("matrix.toml: the cell {cell} is declared twice; rectangles must not overlap")]
    DeclaredTwice { cell: String },
    #[error(
        "matrix.toml: the check `{check}` has {made} cells, its `count` says {count}; find out which cells came or went, then correct it"
    )]
    Count { check: String, count: usize, made: usize },
    #[error("{place}: the entry covers no model and weight format of the matrix: {reason}")]
    StaleFact { place: String, reason: String },
    #[error("matrix.toml declares no cell at all; a run of it would be green and mean nothing")]
    NoCells,
    #[error("{file}: the entry `{pattern}` is stale: it matches no declared cell; remove it or correct the pattern")]
    StaleEntry { file: &'static str, pattern: String },
    #[error("{cell} is matched by two entries, `{first}` and `{second}`; one cell, one entry")]
    TwoEntries { cell: String, first: String, second: String },
    #[error(
        "matrix.toml declares the {axis} `{name}`, but nothing implements it; add it to {place} or remove the declaration",
        axis = axis.name()
    )]
    NotImplemented { axis: Axis, name: String, place: &'static str },
    #[error(
        "{place} registers the {axis} `{name}`, but matrix.toml does not declare it, so nothing would run it; add a [[{axis}]] table",
        axis = axis.name()
    )]
    NotDeclared { axis: Axis, name: String, place: &'static str },
    #[error(
        "golden/snapshots/{file} belongs to no declared cell; remove it (`git rm golden/snapshots/{file}`) or declare its cell"
    )]
    OrphanSnapshot { file: String },
    #[error(
        "golden/{file} belongs to no declared cell of the check `recorded`; remove it (`git rm golden/{file}`) or declare its cell"
    )]
    OrphanRecording { file: String },
    #[error("cannot list {folder}: {source}")]
    Snapshots { folder: String, source: std::io::Error },
}

/// The declaration, read, expanded and found consistent.
#[derive(Debug)]
pub struct Declaration {
    /// `matrix.toml` as it was read.
    pub matrix: Matrix,
    pub axes: Axes,
    /// All declared cells with what the data say about them.
    pub cells: Vec<Declared>,
}

/// A declared cell and what the data files say about it.
#[derive(Debug, Clone)]
pub struct Declared {
    pub cell: Cell,
    /// Why nothing can run it, if so.
    pub unsupported: Option<String>,
    /// The failure that is expected of it, if so.
    pub expectation: Option<Expectation>,
}

/// Reads and validates the golden folder.
///
/// # Errors
/// Every mistake that was found; never an empty list.
pub fn declare(golden: &Path) -> Result<Declaration, Vec<Problem>> {
    let matrix = Matrix::read(&golden.join("matrix.toml"));
    let expectations = Expectations::read(&golden.join("expect.toml"));
    let (matrix, expectations) = match (matrix, expectations) {
        (Ok(matrix), Ok(expectations)) => (matrix, expectations),
        (matrix, expectations) => {
            let errors = [matrix.err(), expectations.err()];
            return Err(errors.into_iter().flatten().map(Problem::Golden).collect());
        }
    };
    let mut problems = Vec::new();
    names(&matrix, &mut problems);
    let axes = Axes::of(&matrix);
    let cells = expand::expand(&matrix, &axes, &mut problems);
    let cells = annotate(cells, &matrix, &expectations, &axes, &mut problems);
    orphans(&golden.join("snapshots"), &cells, &mut problems);
    for backend in &matrix.backends {
        recordings(golden, &backend.name, &cells, &mut problems);
    }
    if cells.is_empty() && problems.is_empty() {
        problems.push(Problem::NoCells);
    }
    if problems.is_empty() { Ok(Declaration { matrix, axes, cells }) } else { Err(problems) }
}

fn names(matrix: &Matrix, problems: &mut Vec<Problem>) {
    let mut axis_names: Vec<(Axis, Vec<&String>)> = vec![
        (Axis::Model, matrix.models.iter().map(|m| &m.name).collect()),
        (Axis::Device, matrix.devices.iter().map(|d| &d.name).collect()),
        (Axis::Backend, matrix.backends.iter().map(|b| &b.name).collect()),
        (Axis::Check, matrix.checks.iter().map(|c| &c.name).collect()),
    ];
    // A model's quants are a list of their own: two models may share a format, one may not list it twice.
    axis_names.extend(matrix.models.iter().map(|m| (Axis::Quant, m.quants.iter().collect())));
    for (axis, list) in axis_names {
        for (i, name) in list.iter().enumerate() {
            if !axes::valid_name(name) {
                problems.push(Problem::BadName { axis, name: (*name).clone() });
            }
            if list[..i].contains(name) {
                problems.push(Problem::DuplicateValue { axis, name: (*name).clone() });
            }
        }
    }
}

fn annotate(
    cells: Vec<Cell>,
    matrix: &Matrix,
    expectations: &Expectations,
    axes: &Axes,
    problems: &mut Vec<Problem>,
) -> Vec<Declared> {
    let unsupported = matrix.unsupported.iter().map(|u| ("matrix.toml", &u.cells));
    let expected = expectations.entries.iter().map(|e| ("expect.toml", &e.cells));
    let patterns: Vec<(&'static str, &Pattern)> = unsupported.chain(expected).collect();
    for (file, pattern) in &patterns {
        pattern_values(file, pattern, axes, problems);
        if !cells.iter().any(|cell| pattern.matches(&cell.parts())) {
            problems.push(Problem::StaleEntry { file, pattern: pattern.to_string() });
        }
    }
    let annotate = |cell: Cell| {
        let parts = cell.parts();
        let mut hits = patterns.iter().filter(|(_, p)| p.matches(&parts));
        if let (Some((_, first)), Some((_, second))) = (hits.next(), hits.next()) {
            problems.push(Problem::TwoEntries {
                cell: cell.to_string(),
                first: first.to_string(),
                second: second.to_string(),
            });
        }
        let unsupported = matrix.unsupported.iter().find(|u| u.cells.matches(&parts));
        let expected = expectations.entries.iter().find(|e| e.cells.matches(&parts));
        Declared { unsupported: unsupported.map(|u| u.reason.clone()), expectation: expected.cloned(), cell }
    };
    cells.into_iter().map(annotate).collect()
}

fn pattern_values(file: &str, pattern: &Pattern, axes: &Axes, problems: &mut Vec<Problem>) {
    for (axis, segment) in Axis::ALL.into_iter().zip(pattern.segments()) {
        let Segment::OneOf(values) = segment else {
            continue;
        };
        for value in values {
            if !axes.has(axis, value) {
                problems.push(Problem::UnknownValue {
                    place: format!("{file}, entry `{pattern}`"),
                    axis,
                    value: value.clone(),
                    valid: axes.values(axis).to_vec(),
                });
            }
        }
    }
}

/// Truth that nothing reads is as misleading as truth that is missing.
fn orphans(folder: &Path, cells: &[Declared], problems: &mut Vec<Problem>) {
    for file in files(folder, problems) {
        let key: Option<Vec<&str>> = file.strip_suffix(".snap").map(|stem| stem.split("__").collect());
        let known = key.is_some_and(|key| match key.as_slice() {
            [model, quant, check, ..] => cells.iter().any(|declared| {
                let cell = &declared.cell;
                cell.model == *model && cell.quant == *quant && cell.check == *check
            }),
            _ => false,
        });
        if !known {
            problems.push(Problem::OrphanSnapshot { file });
        }
    }
}

/// The same for what a reference answered.
fn recordings(golden: &Path, backend: &str, cells: &[Declared], problems: &mut Vec<Problem>) {
    for file in files(&golden.join("reference").join(backend), problems) {
        let key = file.strip_suffix(".json").and_then(|stem| stem.split_once("__"));
        let reads = |declared: &Declared, (model, quant): (&str, &str)| {
            let cell = &declared.cell;
            cell.check == RECORDED
                && cell.backend == backend
                && cell.model == model
                && cell.quant == quant
                && declared.unsupported.is_none()
        };
        if !key.is_some_and(|key| cells.iter().any(|declared| reads(declared, key))) {
            problems.push(Problem::OrphanRecording { file: format!("reference/{backend}/{file}") });
        }
    }
}

/// Names of the files in a folder, sorted; none if there is no such folder.
fn files(folder: &Path, problems: &mut Vec<Problem>) -> Vec<String> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        // git keeps no empty folders; what is missing is the failure of the cell that wants it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(source) => {
            problems.push(Problem::Snapshots { folder: folder.display().to_string(), source });
            return Vec::new();
        }
    };
    let mut files: Vec<String> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.'))
        .collect();
    files.sort();
    files
}

/// Compares what the data declare with what the code registers, both ways.
pub fn implementations(
    axis: Axis,
    declared: &[String],
    registered: &[&str],
    place: &'static str,
    problems: &mut Vec<Problem>,
) {
    for name in declared {
        if !registered.contains(&name.as_str()) {
            problems.push(Problem::NotImplemented { axis, name: name.clone(), place });
        }
    }
    for name in registered {
        if !declared.iter().any(|known| known == name) {
            problems.push(Problem::NotDeclared { axis, name: (*name).to_owned(), place });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_declaration_is_consistent() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden");
        match declare(&golden) {
            Ok(declaration) => {
                assert!(!declaration.cells.is_empty());
                let uncounted = declaration.matrix.checks.iter().filter(|check| check.count.is_none());
                let names: Vec<&str> = uncounted.map(|check| check.name.as_str()).collect();
                assert_eq!(names, Vec::<&str>::new(), "checks without a count could lose cells unseen");
            }
            Err(problems) => {
                let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
                panic!("{}", lines.join("\n"));
            }
        }
    }

    #[test]
    fn declared_and_registered_must_agree_both_ways() {
        let mut problems = Vec::new();
        let declared = ["a".to_owned(), "b".to_owned()];
        implementations(Axis::Check, &declared, &["b", "c"], "here", &mut problems);
        let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("declares the check `a`"), "{lines:?}");
        assert!(lines[1].contains("registers the check `c`"), "{lines:?}");
    }
}
