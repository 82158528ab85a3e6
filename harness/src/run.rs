//! What a run was to do, as it says itself before the first cell: the selection, the cells, and what this host cannot run.
//!
//! Records alone cannot tell a run that lost a cell from one that never had it. So each folder of records has one `run.json`,
//! written before anything runs, and a report holds the records against it. A run begins by removing what an older one left:
//! a folder is about one run.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::provenance::HostInfo;
use crate::record::{HarnessInfo, RecordError};

pub const SCHEMA: u32 = 1;

/// Its name, in the folder of the records.
pub const FILE: &str = "run.json";

/// What a run was to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    pub schema: u32,
    /// Its name, the same in all of its records; absent where only the processes of single cells know it.
    pub id: Option<String>,
    /// The selection as flags; empty for everything.
    pub selection: String,
    pub host: HostInfo,
    pub harness: HarnessInfo,
    /// When it began, UTC.
    pub timestamp: String,
    /// Names of the cells that must have a record afterwards.
    pub cells: Vec<String>,
    /// Cells of devices that this host does not have, by device.
    pub elsewhere: BTreeMap<String, Elsewhere>,
}

/// Why a device's cells cannot run on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elsewhere {
    pub reason: String,
    pub remedy: String,
    pub cells: Vec<String>,
}

impl Run {
    pub fn origin(&self) -> String {
        origin(&self.host, &self.harness)
    }
}

/// A machine and a commit, for people.
pub fn origin(host: &HostInfo, harness: &HarnessInfo) -> String {
    let commit: String = harness.commit.as_deref().unwrap_or("unknown").chars().take(12).collect();
    format!("{} {} ({}) at commit {commit}", host.os, host.arch, host.features.join(" "))
}

/// Begins a run in a folder of records: removes the records that are there, and says what is to come.
///
/// # Errors
/// [`RecordError::Io`] if the folder cannot be cleared or written.
pub fn begin(folder: &Path, run: &Run) -> Result<(), RecordError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| RecordError::Io { path, source }
    };
    if let Ok(entries) = std::fs::read_dir(folder) {
        for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
            if path.is_file() && path.extension().is_some_and(|extension| extension == "json") {
                std::fs::remove_file(&path).map_err(io(&path))?;
            }
        }
    }
    let path = folder.join(FILE);
    let mut text = serde_json::to_vec_pretty(run)
        .map_err(|e| RecordError::Malformed { path: path.clone(), problem: e.to_string() })?;
    text.push(b'\n');
    atomic::write(&path, &text).map_err(io(&path))
}

/// Reads what a run was to do.
///
/// # Errors
/// [`RecordError`]: a folder without this file is not a run's, and nobody knows what is missing in it.
pub fn read(folder: &Path) -> Result<Run, RecordError> {
    let path = folder.join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(RecordError::NoRun { path: folder.to_owned() });
        }
        Err(source) => return Err(RecordError::Io { path, source }),
    };
    let run: Run = serde_json::from_str(&text)
        .map_err(|e| RecordError::Malformed { path: path.clone(), problem: e.to_string() })?;
    if run.schema == SCHEMA {
        Ok(run)
    } else {
        Err(RecordError::Malformed { path, problem: format!("it has schema {}", run.schema) })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample(cells: &[&str], elsewhere: &[(&str, &[&str])]) -> Run {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        let lack = |(device, cells): &(&str, &[&str])| {
            let lack = Elsewhere {
                reason: "no such thing".to_owned(),
                remedy: "run it there".to_owned(),
                cells: names(cells),
            };
            ((*device).to_owned(), lack)
        };
        Run {
            schema: SCHEMA,
            id: None,
            selection: String::new(),
            host: HostInfo::here(),
            harness: HarnessInfo { version: "0.1.0".to_owned(), commit: Some("0123456789abcdef".to_owned()) },
            timestamp: "2026-01-02T03:04:05Z".to_owned(),
            cells: names(cells),
            elsewhere: elsewhere.iter().map(lack).collect(),
        }
    }

    #[test]
    fn a_run_begins_with_an_empty_folder() {
        let dir = tempfile::tempdir().expect("temp dir");
        let error = read(dir.path()).expect_err("no run").to_string();
        assert!(error.contains("has no run.json"), "{error}");
        std::fs::write(dir.path().join("old.json"), "{}").expect("write");
        std::fs::write(dir.path().join("notes.txt"), "mine").expect("write");
        let run = sample(&["m::q::d::b::c"], &[("e", &["m::q::e::b::c"])]);
        begin(dir.path(), &run).expect("begin");
        assert_eq!(read(dir.path()).expect("run"), run);
        assert!(!dir.path().join("old.json").exists() && dir.path().join("notes.txt").exists());
        assert!(run.origin().ends_with("at commit 0123456789ab"), "{}", run.origin());
        std::fs::write(dir.path().join(FILE), "{}").expect("write");
        assert!(read(dir.path()).expect_err("not a run").to_string().contains("run.json"));
    }
}
