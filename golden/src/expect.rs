//! `expect.toml`: which cells are known to fail, how, and why.
//!
//! An expected failure is run like any other cell. It is `xfail` only if it fails with the reason given
//! here; a pass, or a failure for another reason, turns the run red. An entry that matches no cell is an
//! error, so the list cannot outlive what it describes.

use std::path::Path;

use serde::Deserialize;

use crate::GoldenError;
use crate::pattern::Pattern;

pub const SCHEMA: u32 = 1;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectations {
    pub schema: u32,
    #[serde(default, rename = "expect")]
    pub entries: Vec<Expectation>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    pub cells: Pattern,
    pub kind: Kind,
    /// Text that the failure's message must contain. Never empty: an empty one would match anything.
    pub reason: String,
    /// Why this is known and left so.
    pub why: String,
    /// Where it is discussed or reported.
    #[serde(default)]
    pub link: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The cell is run and must fail for the given reason.
    Xfail,
}

impl Expectations {
    /// Reads the file.
    ///
    /// # Errors
    /// [`GoldenError`] if it cannot be read, does not fit the schema, is of another version, or has an
    /// entry without a reason or explanation.
    pub fn read(path: &Path) -> Result<Self, GoldenError> {
        let file: Self = crate::read_toml(path)?;
        crate::check_schema(path, file.schema, SCHEMA)?;
        for entry in &file.entries {
            for (field, value) in [("reason", &entry.reason), ("why", &entry.why)] {
                if value.trim().is_empty() {
                    return Err(GoldenError::Parse {
                        path: path.to_owned(),
                        message: format!(
                            "the entry for `{}` has an empty `{field}`; say which failure is expected and why",
                            entry.cells
                        ),
                    });
                }
            }
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Expectations, GoldenError> {
        let dir = std::env::temp_dir().join(format!(
            "bitnet-expect-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::create_dir_all(&dir).expect("temp dir");
        let path = dir.join("expect.toml");
        std::fs::write(&path, text).expect("write");
        let result = Expectations::read(&path);
        std::fs::remove_dir_all(&dir).expect("clean up");
        result
    }

    #[test]
    fn an_entry_reads() {
        let file = read(
            "schema = 1\n[[expect]]\ncells = \"a::*::*::*::c\"\nkind = \"xfail\"\nreason = \"NaN\"\nwhy = \"known\"\n",
        )
        .expect("file");
        assert_eq!(file.entries.len(), 1);
        assert_eq!(file.entries[0].kind, Kind::Xfail);
    }

    #[test]
    fn an_empty_reason_is_refused() {
        let error = read(
            "schema = 1\n[[expect]]\ncells = \"a::*::*::*::c\"\nkind = \"xfail\"\nreason = \" \"\nwhy = \"known\"\n",
        )
        .expect_err("empty reason");
        assert!(error.to_string().contains("empty `reason`"), "{error}");
    }

    #[test]
    fn the_committed_file_reads() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("expect.toml");
        Expectations::read(&path).expect("golden/expect.toml");
    }
}
