//! Reports, made from records alone, so that shards of several machines merge.
//!
//! [`Report::load`] reads any number of record folders; [`terminal`], [`markdown`], [`junit`] and
//! [`html`] show the result. Where two folders have a record of the same cell, the worse outcome that
//! *ran* wins (fail, xfail, pass), and a cell that ran anywhere beats one that was unavailable.
//!
//! Each folder says in its `run.json` what was to be run ([`crate::run`]). A cell that some run asked for and that has no
//! record in any folder is missing, and a report with a missing cell is red. So one shard by itself is red until the others
//! join it. Cells of devices that a run's host lacked are `elsewhere`, until another host's folder has their records.

mod html;
mod junit;
mod markdown;
mod terminal;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::account::Account;
use crate::record::{self, Record, RecordError};
use crate::run::{self, Elsewhere, Run};
use crate::verdict::{Outcome, Verdict};

pub use html::html;
pub use junit::junit;
pub use markdown::markdown;
pub use terminal::terminal;

/// Records of one or more runs, one per cell.
#[derive(Debug, Clone, Default)]
pub struct Report {
    records: BTreeMap<String, Record>,
    /// Of the same cells, what another record outweighs: the cell's history.
    others: BTreeMap<String, Vec<Record>>,
    declared: Option<BTreeSet<String>>,
    runs: Vec<Run>,
    problems: Vec<String>,
}

/// Reads record folders and merges them. Each path is a folder of records, or one that has a `records`
/// folder (`target/matrix`).
///
/// # Errors
/// [`RecordError`] for a folder that cannot be read or is not a run's, or the first file in it that is not a record.
pub fn load(folders: &[PathBuf]) -> Result<Report, RecordError> {
    Report::load(folders)
}

impl Report {
    /// A report of these records of a run against the declared cells.
    pub fn of(records: BTreeMap<String, Record>, run: Run, declared: impl IntoIterator<Item = String>) -> Self {
        Self { records, declared: Some(declared.into_iter().collect()), runs: vec![run], ..Self::default() }
    }

    /// See [`load`].
    pub fn load(folders: &[PathBuf]) -> Result<Self, RecordError> {
        let mut report = Self::default();
        for folder in folders {
            let inner = folder.join("records");
            let folder = if inner.is_dir() { &inner } else { folder };
            let run = run::read(folder)?;
            let asked: BTreeSet<&str> = run.cells.iter().map(String::as_str).collect();
            for record in record::read_folder(folder)? {
                if !asked.contains(record.name.as_str()) {
                    report.problems.push(format!(
                        "{}: {} was not asked for in this run",
                        folder.display(),
                        record.name
                    ));
                } else if run.id.is_some() && record.run.is_some() && record.run != run.id {
                    report.problems.push(format!(
                        "{}: the record of {} is of another run",
                        folder.display(),
                        record.name
                    ));
                }
                report.merge(record);
            }
            report.runs.push(run);
        }
        Ok(report)
    }

    /// Tells the report which cells are declared, so that it can count those that no run asked for (as
    /// filtered) and leave out records of cells that are gone.
    #[must_use]
    pub fn against(mut self, declared: impl IntoIterator<Item = String>) -> Self {
        let declared: BTreeSet<String> = declared.into_iter().collect();
        self.records.retain(|name, _| declared.contains(name));
        self.declared = Some(declared);
        self
    }

    fn merge(&mut self, record: Record) {
        let name = record.name.clone();
        let better = self.records.get(&name).is_none_or(|known| weight(known) < weight(&record));
        let other = if better { self.records.insert(name.clone(), record) } else { Some(record) };
        if let Some(other) = other {
            self.others.entry(name).or_default().push(other);
        }
    }

    /// The records of a cell that do not count, the latest first.
    fn others(&self, name: &str) -> Vec<&Record> {
        let mut others: Vec<&Record> = self.others.get(name).into_iter().flatten().collect();
        others.sort_by(|a, b| b.timestamp.cmp(&a.timestamp));
        others
    }

    pub fn records(&self) -> &BTreeMap<String, Record> {
        &self.records
    }

    /// What is wrong with the records as a whole: records of another run, or of cells that nobody asked for.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// The declared cells; without a declaration, all that any run speaks of.
    fn declared(&self) -> BTreeSet<&str> {
        match &self.declared {
            Some(declared) => declared.iter().map(String::as_str).collect(),
            None => {
                let elsewhere = self.runs.iter().flat_map(|run| run.elsewhere.values()).flat_map(|lack| &lack.cells);
                let asked = self.runs.iter().flat_map(|run| &run.cells);
                asked.chain(elsewhere).chain(self.records.keys()).map(String::as_str).collect()
            }
        }
    }

    /// Cells that some run asked for and that have no record.
    pub fn missing(&self) -> BTreeSet<&str> {
        let declared = self.declared();
        let asked = self.runs.iter().flat_map(|run| &run.cells).map(String::as_str);
        asked.filter(|name| declared.contains(name) && !self.records.contains_key(*name)).collect()
    }

    /// What no host of these runs could run, by device and reason.
    pub fn elsewhere(&self) -> BTreeMap<(&str, &str, &str), BTreeSet<&str>> {
        let (declared, missing) = (self.declared(), self.missing());
        let mut taken = BTreeSet::new();
        let mut out: BTreeMap<_, BTreeSet<&str>> = BTreeMap::new();
        for (device, Elsewhere { reason, remedy, cells }) in self.runs.iter().flat_map(|run| &run.elsewhere) {
            let open =
                |name: &&str| declared.contains(name) && !self.records.contains_key(*name) && !missing.contains(name);
            for name in cells.iter().map(String::as_str).filter(open) {
                if taken.insert(name) {
                    out.entry((device.as_str(), reason.as_str(), remedy.as_str())).or_default().insert(name);
                }
            }
        }
        out
    }

    /// The accounting line of the records. Without a declaration all that the runs speak of is declared.
    pub fn account(&self) -> Account {
        let (declared, missing) = (self.declared().len(), self.missing().len());
        let elsewhere = self.elsewhere().values().map(BTreeSet::len).sum();
        let filtered = declared.saturating_sub(self.records.len() + missing + elsewhere);
        Account { elsewhere, missing, ..Account::new(declared, filtered, self.records.values().map(|r| &r.outcome)) }
    }

    /// Whether any cell failed or is missing, the records are not those of their runs, or there is nothing at all.
    pub fn is_red(&self) -> bool {
        let account = self.account();
        let nothing = self.records.is_empty() || self.runs.is_empty();
        nothing || account.of(Outcome::Fail) > 0 || account.missing > 0 || !self.problems.is_empty()
    }

    fn with(&self, outcome: Outcome) -> impl Iterator<Item = &Record> {
        self.records.values().filter(move |record| record.outcome == outcome)
    }

    /// The runs, one line each: machine, commit, selection, and how many of their cells have a record.
    fn runs(&self) -> Vec<String> {
        let line = |run: &Run| {
            let there = run.cells.iter().filter(|name| self.records.contains_key(*name)).count();
            let selection = if run.selection.is_empty() { "all cells" } else { &run.selection };
            format!("{}, {}: {selection}, {there} of {} records", run.origin(), run.timestamp, run.cells.len())
        };
        self.runs.iter().map(line).collect()
    }
}

/// One line for each device that no host of the runs has, and the step that would run its cells.
pub fn elsewhere(report: &Report) -> String {
    let line = |((device, reason, remedy), cells): (&(&str, &str, &str), &BTreeSet<&str>)| {
        let (count, s) = (cells.len(), if cells.len() == 1 { "" } else { "s" });
        format!("  elsewhere: {device}: {count} cell{s}: {reason}\n    to run them: {remedy}\n")
    };
    report.elsewhere().iter().map(line).collect()
}

fn weight(record: &Record) -> (u8, &str) {
    let rank = match record.outcome {
        Outcome::Fail => 4,
        Outcome::Xfail => 3,
        Outcome::Pass => 2,
        Outcome::Unavailable => 1,
        Outcome::Unsupported => 0,
    };
    (rank, &record.timestamp)
}

/// Cells that share outcome, reason and remedy.
struct Group {
    outcome: Outcome,
    reason: String,
    remedy: Option<String>,
    cells: Vec<String>,
}

fn groups(settled: impl IntoIterator<Item = (String, Verdict)>) -> Vec<Group> {
    let mut groups: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for (name, verdict) in settled {
        let key = (verdict.outcome, verdict.reason.unwrap_or_default(), verdict.remedy);
        groups.entry(key).or_default().push(name);
    }
    let group = |((outcome, reason, remedy), cells)| Group { outcome, reason, remedy, cells };
    groups.into_iter().map(group).collect()
}

/// The reasons for which cells are not run, grouped, each with the command that fixes it.
pub fn unavailable(settled: impl IntoIterator<Item = (String, Verdict)>) -> String {
    let mut out = String::new();
    for group in groups(settled) {
        let (count, what) = (group.cells.len(), group.outcome.name());
        let s = if count == 1 { "" } else { "s" };
        out += &format!("  {what}: {count} cell{s}: {}\n", group.reason);
        if let Some(remedy) = group.remedy {
            out += &format!("    to fix it: {remedy}\n");
        }
    }
    out
}

/// The verdict that a record keeps.
fn verdict(record: &Record) -> (String, Verdict) {
    let verdict = Verdict { outcome: record.outcome, reason: record.reason.clone(), remedy: record.remedy.clone() };
    (record.name.clone(), verdict)
}

/// Text for HTML and XML, attribute values included. Characters that XML forbids become U+FFFD.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests;
