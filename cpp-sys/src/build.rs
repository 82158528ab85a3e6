//! How a worker was built: `build.json` beside the program, and part of its hello.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The receipt of a build. A receipt that does not fit its program is worth nothing: see [`crate::Workers::preflight`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildInfo {
    /// `bitnet` or `llama`.
    pub backend: String,
    /// Where the C++ came from: `bitnet-cpp-sys 0.0.5`, or a user's checkout with its git revision.
    pub source: String,
    /// The reference's own version, as far as its sources tell.
    pub version: String,
    /// What was changed in our copy of the sources; empty: nothing.
    pub edits: Vec<String>,
    /// C++ compiler and its version.
    pub compiler: String,
    /// CMake's version.
    pub cmake: String,
    /// What CMake was told.
    pub flags: Vec<String>,
    /// Libraries linked into the program.
    pub libraries: Vec<String>,
    /// Architectures that the sources know and that concern us.
    pub architectures: Vec<String>,
    /// The CPU that "native" meant.
    pub cpu: String,
    /// [`crate::fingerprint`] of the worker's own sources.
    pub worker_sources: String,
    /// SHA-256 of the program; empty in a hello, since a program cannot hold its own hash.
    #[serde(default)]
    pub program_sha256: String,
    /// When, in seconds since 1970; 0 in a hello.
    #[serde(default)]
    pub built_at: u64,
    /// Seconds that the build took; 0 in a hello.
    #[serde(default)]
    pub build_seconds: u64,
    /// What else is worth knowing.
    #[serde(default)]
    pub notes: BTreeMap<String, String>,
}
