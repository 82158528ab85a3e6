//! `mutants.toml`: which tests judge which files, and the mutants that no test can tell from the code.

use crate::{GoldenError, check_schema, read_toml};
use serde::Deserialize;
use std::path::Path;

/// The version of `mutants.toml` that this crate reads.
pub const SCHEMA: u32 = 1;

/// The data of mutation testing.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutants {
    schema: u32,
    /// Share of the mutants of each room that its tests must catch, 0 to 1. Those that are listed as equivalent do not count.
    pub goal: f64,
    /// Arguments of every `cargo` command, such as the optimisation.
    pub cargo_args: Vec<String>,
    /// The rooms.
    #[serde(rename = "room")]
    pub rooms: Vec<Room>,
    /// Mutants that no test can catch.
    #[serde(rename = "survivor", default)]
    pub survivors: Vec<Survivor>,
}

/// Files, and the tests that judge them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Room {
    /// Unique.
    pub name: String,
    /// The package of the files and of the tests.
    pub package: String,
    /// Patterns of paths from the root.
    pub files: Vec<String>,
    /// Arguments of `cargo test`.
    pub tests: Vec<String>,
    /// How the names of those tests begin that judge; all of them if there are none.
    #[serde(default)]
    pub only: Vec<String>,
    /// How the names of those begin that do not, since they take long.
    #[serde(default)]
    pub except: Vec<String>,
    /// Seconds after which a test run counts as a hang.
    pub timeout: u32,
}

impl Room {
    /// Whether a test of this name judges the room.
    #[must_use]
    pub fn judged_by(&self, test: &str) -> bool {
        let begins = |names: &[String]| names.iter().any(|start| test.starts_with(start.as_str()));
        (self.only.is_empty() || begins(&self.only)) && !begins(&self.except)
    }
}

/// A mutant that changes nothing that can be seen.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Survivor {
    /// `PATH: what is replaced`, as `cargo xtask mutants` prints it: without the line, which moves.
    pub mutant: String,
    /// Why it is equivalent.
    pub reason: String,
}

/// Reads the file.
///
/// # Errors
/// The file cannot be read or understood.
pub fn read(golden: &Path) -> Result<Mutants, GoldenError> {
    let path = golden.join("mutants.toml");
    let mutants: Mutants = read_toml(&path)?;
    check_schema(&path, mutants.schema, SCHEMA)?;
    Ok(mutants)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn the_committed_file_reads() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mutants = super::read(golden).expect("mutants.toml");
        assert!(mutants.goal > 0.9 && mutants.goal <= 1.0);
        let names: BTreeSet<&str> = mutants.rooms.iter().map(|room| room.name.as_str()).collect();
        assert_eq!(names.len(), mutants.rooms.len(), "names are unique");
        for room in &mutants.rooms {
            for file in &room.files {
                let fixed = file.split('*').next().unwrap_or_default().trim_end_matches('/');
                assert!(golden.join("..").join(fixed).exists(), "{file}");
            }
        }
        let judged = |room: &str, test| mutants.rooms.iter().find(|r| r.name == room).expect("a room").judged_by(test);
        assert!(judged("engine/ops", "ops::tests::x") && !judged("engine/ops", "tokenizer::ops::x"));
        assert!(
            judged("engine/tokenizer", "tokenizer::spm::any_x")
                && !judged("engine/tokenizer", "tokenizer::spm::nasty_x")
        );
        assert!(judged("kernels/quant", "anything"), "a room that names no tests is judged by all");
        for survivor in &mutants.survivors {
            assert!(survivor.reason.len() > 10 && survivor.mutant.contains(": "), "{survivor:?}");
        }
    }
}
