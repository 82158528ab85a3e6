//! Golden snapshots: read always, written only by the explicit command.
//!
//! The files are insta's (`golden/snapshots/*.snap`), read and compared through insta, so its tools can
//! show and review them. Its assertion macros are not used: they write pending files beside the truth and
//! follow `INSTA_UPDATE`, and here a missing snapshot must be a failure and never a write, whatever the
//! environment says.
//!
//! Writing needs `BITNET_BLESS=1`, which `cargo xtask bless` sets, the device `cpu-scalar` (the oracle)
//! and the backend `native`; it is refused under CI.

use std::path::{Path, PathBuf};

use insta::TextSnapshotKind;
use insta::internals::TextSnapshotContents;

use crate::atomic;
use crate::axes::Cell;
use crate::diff;
use crate::env::{self, Env};

/// The only device whose answers may become the truth.
pub const ORACLE_DEVICE: &str = "cpu-scalar";
/// The only backend from which they may.
pub const ORACLE_BACKEND: &str = "native";

/// Whether snapshots are compared or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The normal case.
    Compare,
    /// `cargo xtask bless`.
    Bless,
}

#[derive(Debug, Clone)]
pub struct Golden {
    folder: PathBuf,
    mode: Mode,
    ci: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error(
        "golden snapshot missing: golden/snapshots/{file}\n  the value would be:\n{preview}\n  if it is right, bless it from the oracle: {command}"
    )]
    Missing { file: String, preview: String, command: String },
    #[error(
        "golden snapshot differs: golden/snapshots/{file} (- golden, + now)\n{diff}\n  if the new value is right, bless it from the oracle: {command}"
    )]
    Differs { file: String, diff: String, command: String },
    #[error(
        "golden/snapshots/{file} cannot be read: {problem}; restore it with `git checkout -- golden/snapshots/{file}`"
    )]
    Unreadable { file: String, problem: String },
    #[error("blessing refused for {cell}: {why}; use `cargo xtask bless` on a developer's machine")]
    Refused { cell: String, why: String },
    #[error("cannot write golden/snapshots/{file}: {problem}")]
    Write { file: String, problem: String },
    /// A part of a cell's snapshots has a name that cannot be part of a file name.
    #[error("`{part}` cannot name a part of a snapshot: lower case letters, digits, `.`, `-` and single `_` only")]
    BadPart { part: String },
}

impl Golden {
    /// The snapshots in `folder`; the environment says whether they are blessed.
    pub fn new(folder: PathBuf, env: &Env) -> Self {
        Self { folder, mode: if env.on(env::BITNET_BLESS) { Mode::Bless } else { Mode::Compare }, ci: env.on(env::CI) }
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The file of a cell's snapshot: `model__quant__check.snap` or `model__quant__check__part.snap`.
    ///
    /// # Errors
    /// If `part` cannot be part of a file name.
    pub fn file(&self, cell: &Cell, part: &str) -> Result<String, SnapshotError> {
        let stem = cell.golden_key().replace("::", "__");
        if part.is_empty() {
            Ok(format!("{stem}.snap"))
        } else if crate::axes::valid_name(part) {
            Ok(format!("{stem}__{part}.snap"))
        } else {
            Err(SnapshotError::BadPart { part: part.to_owned() })
        }
    }

    /// Compares `actual` with the snapshot, or writes it when blessing.
    pub fn assert(&self, cell: &Cell, part: &str, actual: &str) -> Result<(), SnapshotError> {
        let file = self.file(cell, part)?;
        let path = self.folder.join(&file);
        let golden = read(&path, &file)?;
        let now = TextSnapshotContents::new(actual.to_owned(), TextSnapshotKind::File);
        if golden.as_ref().is_some_and(|golden| golden.matches_latest(&now)) {
            return Ok(());
        }
        if self.mode == Mode::Bless {
            return self.bless(cell, &path, &file, &now);
        }
        let command = format!("cargo xtask bless --model {} --quant {} --check {}", cell.model, cell.quant, cell.check);
        Err(match golden {
            None => SnapshotError::Missing { file, preview: diff::head(&now.to_string()), command },
            Some(golden) => {
                SnapshotError::Differs { file, diff: diff::lines(&golden.to_string(), &now.to_string()), command }
            }
        })
    }

    fn bless(&self, cell: &Cell, path: &Path, file: &str, now: &TextSnapshotContents) -> Result<(), SnapshotError> {
        let refused = |why: String| SnapshotError::Refused { cell: cell.to_string(), why };
        if self.ci {
            return Err(refused("CI is set, and CI runs with updates off".to_owned()));
        }
        if cell.device != ORACLE_DEVICE || cell.backend != ORACLE_BACKEND {
            return Err(refused(format!("only {ORACLE_DEVICE} against {ORACLE_BACKEND} may write the truth")));
        }
        let write_error = |problem: String| SnapshotError::Write { file: file.to_owned(), problem };
        // insta's own layout; `description` is where its tools show what a snapshot is about.
        let text = format!(
            "---\nsource: harness/src/check/{}.rs\ndescription: \"{}\"\n---\n{now}\n",
            cell.check,
            cell.golden_key()
        );
        atomic::write(path, text.as_bytes()).map_err(|error| write_error(error.to_string()))?;
        let back = read(path, file)?;
        if back.is_some_and(|back| back.matches_latest(now)) {
            Ok(())
        } else {
            Err(write_error("the value does not survive the file (carriage returns?); snapshot it as JSON".to_owned()))
        }
    }
}

/// The text of a snapshot file, `None` if there is no such file.
fn read(path: &Path, file: &str) -> Result<Option<TextSnapshotContents>, SnapshotError> {
    if !path.exists() {
        return Ok(None);
    }
    let unreadable = |problem: String| SnapshotError::Unreadable { file: file.to_owned(), problem };
    let snapshot = insta::Snapshot::from_file(path).map_err(|e| unreadable(e.to_string()))?;
    match snapshot.as_text() {
        Some(text) => Ok(Some(text.clone())),
        None => Err(unreadable("it is not a text snapshot".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(device: &str) -> Cell {
        format!("m::q::{device}::native::c").parse().expect("cell")
    }

    fn golden(dir: &Path, pairs: &[(&str, &str)]) -> Golden {
        Golden::new(dir.to_owned(), &Env::from_pairs(pairs))
    }

    #[test]
    fn missing_is_a_failure_and_writes_nothing() {
        let dir = tempfile::tempdir().expect("temp dir");
        let golden = golden(dir.path(), &[("INSTA_UPDATE", "always")]);
        let error = golden.assert(&cell(ORACLE_DEVICE), "", "1 2 3").expect_err("missing");
        let text = error.to_string();
        assert!(text.contains("missing: golden/snapshots/m__q__c.snap"), "{text}");
        assert!(text.contains("cargo xtask bless --model m --quant q --check c"), "{text}");
        assert_eq!(std::fs::read_dir(dir.path()).expect("list").count(), 0);
    }

    #[test]
    fn blessed_once_then_compared() {
        let dir = tempfile::tempdir().expect("temp dir");
        let bless = golden(dir.path(), &[(env::BITNET_BLESS, "1")]);
        let value = "---\na \"quoted\" line\n\n  tail";
        bless.assert(&cell(ORACLE_DEVICE), "ids", value).expect("blessed");
        let compare = golden(dir.path(), &[]);
        compare.assert(&cell("cpu-avx2"), "ids", value).expect("same truth on every device");
        let error = compare.assert(&cell("cpu-avx2"), "ids", "---\nother").expect_err("differs");
        let text = error.to_string();
        assert!(text.contains("differs: golden/snapshots/m__q__c__ids.snap"), "{text}");
        assert!(text.contains("+ other") && text.contains("- a \"quoted\" line"), "{text}");
    }

    #[test]
    fn leading_white_space_counts() {
        let dir = tempfile::tempdir().expect("temp dir");
        let bless = golden(dir.path(), &[(env::BITNET_BLESS, "1")]);
        bless.assert(&cell(ORACLE_DEVICE), "", "\n  x").expect("blessed");
        let compare = golden(dir.path(), &[]);
        compare.assert(&cell(ORACLE_DEVICE), "", "\n  x").expect("same");
        compare.assert(&cell(ORACLE_DEVICE), "", "x").expect_err("differs");
    }

    #[test]
    fn only_the_oracle_blesses_and_never_in_ci() {
        let dir = tempfile::tempdir().expect("temp dir");
        let bless = golden(dir.path(), &[(env::BITNET_BLESS, "1")]);
        let error = bless.assert(&cell("cpu-avx2"), "", "1").expect_err("not the oracle");
        assert!(error.to_string().contains("only cpu-scalar"), "{error}");
        let ci = golden(dir.path(), &[(env::BITNET_BLESS, "1"), (env::CI, "true")]);
        let error = ci.assert(&cell(ORACLE_DEVICE), "", "1").expect_err("CI");
        assert!(error.to_string().contains("CI is set"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).expect("list").count(), 0);
    }

    #[test]
    fn a_part_must_fit_into_a_file_name() {
        let dir = tempfile::tempdir().expect("temp dir");
        let error = golden(dir.path(), &[]).assert(&cell(ORACLE_DEVICE), "../x", "1").expect_err("part name");
        assert!(error.to_string().contains("`../x` cannot name"), "{error}");
    }
}
