//! One JSON record per cell: the only thing that reports are made from.
//!
//! Every process writes the records of the cells that it settled, atomically, into
//! `target/matrix/records/`. That works the same for one process with many threads (`cargo test`), a
//! process per cell (nextest) and several machines (shards): records merge by cell name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::axes::Cell;
use crate::metrics::Value;
use crate::provenance::HostInfo;
use crate::verdict::Outcome;

pub const SCHEMA: u32 = 1;

/// What is known about one cell after a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub schema: u32,
    pub name: String,
    pub outcome: Outcome,
    /// Why; absent only for a plain pass.
    pub reason: Option<String>,
    /// What would change the outcome, where that is known.
    pub remedy: Option<String>,
    /// The entry of `expect.toml` that matched.
    pub expected: Option<Expected>,
    pub metrics: BTreeMap<String, Value>,
    /// Seed of everything random, in hex (JSON readers lose 64-bit integers).
    pub seed: String,
    /// The kernel set that ran, as the check reports it.
    pub kernel: Option<String>,
    /// SHA-256 of the model's bytes, as the check reports it.
    pub model_sha256: Option<String>,
    /// Version of the reference, as the check reports it.
    pub reference: Option<String>,
    /// Wall time of the check, in milliseconds; 0 if it did not run.
    pub duration_ms: f64,
    pub host: HostInfo,
    pub harness: HarnessInfo,
    /// When it was settled, UTC.
    pub timestamp: String,
    /// The run, the same for all processes of one nextest run; absent elsewhere.
    pub run: Option<String>,
}

/// An expected failure, as the record keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// What the message must contain.
    pub reason: String,
    /// Why it is known and left so.
    pub why: String,
    pub link: Option<String>,
}

/// What judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HarnessInfo {
    pub version: String,
    /// Commit of the checkout, if known.
    pub commit: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("{path}: {source}", path = path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// A folder of records without the file that says what was to be run.
    #[error(
        "{path} has no run.json: no run of the matrix wrote it, so nobody knows what is missing in it; run `cargo test --test matrix`, or name the folder of a run",
        path = path.display()
    )]
    NoRun { path: PathBuf },
    #[error("{path} is not a record of schema {SCHEMA}: {problem}; remove it and run its cell again", path = path.display())]
    Malformed { path: PathBuf, problem: String },
}

impl Record {
    /// The cell of the record.
    pub fn cell(&self) -> Result<Cell, crate::axes::CellNameError> {
        self.name.parse()
    }
}

/// File name of a cell's record: `::` is not possible in file names everywhere.
pub fn file_name(cell: &Cell) -> String {
    format!("{}.json", cell.parts().join("__"))
}

/// Writes a record into `folder`.
pub fn write(folder: &Path, cell: &Cell, record: &Record) -> Result<(), RecordError> {
    let path = folder.join(file_name(cell));
    let mut text = serde_json::to_vec_pretty(record)
        .map_err(|e| RecordError::Malformed { path: path.clone(), problem: e.to_string() })?;
    text.push(b'\n');
    atomic::write(&path, &text).map_err(|source| RecordError::Io { path, source })
}

/// Reads one record and checks that it is one.
pub fn read(path: &Path) -> Result<Record, RecordError> {
    let malformed = |problem: String| RecordError::Malformed { path: path.to_owned(), problem };
    let text = std::fs::read_to_string(path).map_err(|source| RecordError::Io { path: path.to_owned(), source })?;
    let record: Record = serde_json::from_str(&text).map_err(|e| malformed(e.to_string()))?;
    if record.schema != SCHEMA {
        return Err(malformed(format!("it has schema {}", record.schema)));
    }
    let cell = record.cell().map_err(|e| malformed(e.to_string()))?;
    if path.file_name().is_none_or(|name| name != file_name(&cell).as_str()) {
        return Err(malformed(format!("it is about {cell}, which its file name denies")));
    }
    Ok(record)
}

/// All records of a folder, by cell name; the file that says what was to be run is not one. A folder that does not exist is an error: nothing ran there.
///
/// # Errors
/// [`RecordError`] for the first file that is not a record.
pub fn read_folder(folder: &Path) -> Result<Vec<Record>, RecordError> {
    let io = |source| RecordError::Io { path: folder.to_owned(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let about_the_run = path.file_name().is_some_and(|name| name == crate::run::FILE);
        if path.extension().is_some_and(|extension| extension == "json") && !about_the_run {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample(name: &str, outcome: Outcome) -> Record {
        Record {
            schema: SCHEMA,
            name: name.to_owned(),
            outcome,
            reason: (outcome != Outcome::Pass).then(|| "because <it> & \"that\"".to_owned()),
            remedy: (outcome == Outcome::Unavailable).then(|| "cargo xtask remedy".to_owned()),
            expected: None,
            metrics: BTreeMap::from([("tokens".to_owned(), Value::Int(32))]),
            seed: "00000000000000ff".to_owned(),
            kernel: Some("avx2".to_owned()),
            model_sha256: None,
            reference: None,
            duration_ms: 12.5,
            host: HostInfo::here(),
            harness: HarnessInfo { version: "0.1.0".to_owned(), commit: None },
            timestamp: "2026-01-02T03:04:05Z".to_owned(),
            run: None,
        }
    }

    #[test]
    fn a_record_survives_the_file() {
        let dir = tempfile::tempdir().expect("temp dir");
        let record = sample("m::q::d::b::c", Outcome::Fail);
        let cell = record.cell().expect("cell");
        write(dir.path(), &cell, &record).expect("write");
        assert_eq!(read_folder(dir.path()).expect("read"), [record]);
    }

    #[test]
    fn what_is_no_record_is_an_error() {
        let dir = tempfile::tempdir().expect("temp dir");
        let record = sample("m::q::d::b::c", Outcome::Pass);
        let text = serde_json::to_string(&record).expect("json");
        let cases = [
            ("m__q__d__b__c.json", text.replace("\"schema\":1", "\"schema\":9"), "schema 9"),
            ("m__q__d__b__x.json", text.clone(), "file name denies"),
            ("m__q__d__b__c.json", text.replace("m::q", "m:q"), "not a cell name"),
            ("m__q__d__b__c.json", text.replace("\"seed\"", "\"sed\""), "sed"),
        ];
        for (file, text, want) in cases {
            let path = dir.path().join(file);
            std::fs::write(&path, text).expect("write");
            let error = read(&path).expect_err(want);
            assert!(error.to_string().contains(want), "{error}");
        }
    }
}
