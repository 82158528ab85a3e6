//! Reports, made from records alone, so that shards of several machines merge.
//!
//! [`Report::load`] reads any number of record folders; [`terminal`], [`markdown`], [`junit`] and
//! [`html`] show the result. Where two folders have a record of the same cell, the worse outcome that
//! *ran* wins (fail, xfail, pass), and a cell that ran anywhere beats one that was unavailable.

mod html;
mod junit;
mod markdown;
mod terminal;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::account::Account;
use crate::record::{self, Record, RecordError};
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
}

/// Reads record folders and merges them. Each path is a folder of records, or one that has a `records`
/// folder (`target/matrix`).
///
/// # Errors
/// [`RecordError`] for a folder that cannot be read, or the first file in it that is not a record.
pub fn load(folders: &[PathBuf]) -> Result<Report, RecordError> {
    Report::load(folders)
}

impl Report {
    /// A report of these records against the declared cells.
    pub fn of(records: BTreeMap<String, Record>, declared: impl IntoIterator<Item = String>) -> Self {
        Self { records, others: BTreeMap::new(), declared: Some(declared.into_iter().collect()) }
    }

    /// See [`load`].
    ///
    /// # Errors
    /// As [`load`].
    pub fn load(folders: &[PathBuf]) -> Result<Self, RecordError> {
        let mut report = Self::default();
        for folder in folders {
            let inner = folder.join("records");
            let folder = if inner.is_dir() { &inner } else { folder };
            for record in record::read_folder(folder)? {
                report.merge(record);
            }
        }
        Ok(report)
    }

    /// Tells the report which cells are declared, so that it can count those without a record (as
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

    /// The records by cell name.
    #[must_use]
    pub fn records(&self) -> &BTreeMap<String, Record> {
        &self.records
    }

    /// The accounting line of the records. Without a declaration the records are all there is.
    #[must_use]
    pub fn account(&self) -> Account {
        let declared = self.declared.as_ref().map_or(self.records.len(), BTreeSet::len);
        let filtered = declared.saturating_sub(self.records.len());
        Account::new(declared, filtered, self.records.values().map(|r| &r.outcome))
    }

    /// Whether any cell failed, or there is nothing at all.
    #[must_use]
    pub fn is_red(&self) -> bool {
        self.records.is_empty() || self.account().of(Outcome::Fail) > 0
    }

    fn with(&self, outcome: Outcome) -> impl Iterator<Item = &Record> {
        self.records.values().filter(move |record| record.outcome == outcome)
    }
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
    mend: Option<String>,
    cells: Vec<String>,
}

fn groups(settled: impl IntoIterator<Item = (String, Verdict)>) -> Vec<Group> {
    let mut groups: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for (name, verdict) in settled {
        let key = (verdict.outcome, verdict.reason.unwrap_or_default(), verdict.mend);
        groups.entry(key).or_default().push(name);
    }
    let group = |((outcome, reason, mend), cells)| Group { outcome, reason, mend, cells };
    groups.into_iter().map(group).collect()
}

/// The reasons for which cells are not run, grouped, each with the command that mends it.
#[must_use]
pub fn unavailable(settled: impl IntoIterator<Item = (String, Verdict)>) -> String {
    let mut out = String::new();
    for group in groups(settled) {
        let (count, what) = (group.cells.len(), group.outcome.name());
        let s = if count == 1 { "" } else { "s" };
        out += &format!("  {what}: {count} cell{s}: {}\n", group.reason);
        if let Some(mend) = group.mend {
            out += &format!("    to mend it: {mend}\n");
        }
    }
    out
}

/// The verdict that a record keeps.
fn verdict(record: &Record) -> (String, Verdict) {
    let verdict = Verdict { outcome: record.outcome, reason: record.reason.clone(), mend: record.mend.clone() };
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
