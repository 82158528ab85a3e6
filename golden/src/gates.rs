//! `gates/`: what the kernels cost, and how much more is a regression.
//!
//! `gates/instructions-<arch>.toml` has exact counts of instructions, `gates/ratios-<arch>.toml` how many times faster one kernel
//! set is than a plainer one, and `gates/ratios-<arch>-<processor>.toml` the same of one more processor. All are written by `cargo xtask gate --bless` and held by `cargo xtask gate`. A file says what
//! its figures were measured with; with anything else they say nothing, and whoever reads them must say that.

use crate::{GoldenError, check_schema, read_toml};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub const SCHEMA: u32 = 1;

/// What figures were measured with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    pub rustc: String,
    pub profile: String,
    /// RUSTFLAGS.
    pub flags: String,
    /// The C library: it counts where something allocates or copies, in the set `any`.
    pub libc: String,
    /// The processor: vendor, family, model. Instruction counts do not depend on it.
    pub cpu: String,
    /// What counted, for instruction counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valgrind: Option<String>,
}

/// `instructions-<arch>.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instructions {
    pub schema: u32,
    /// A count that is more than so many percent above its baseline is a regression; so much below, an improvement to bless.
    pub limit_percent: f64,
    pub made: Made,
    /// Kernel sets that cannot be counted.
    #[serde(default)]
    pub elsewhere: Vec<Elsewhere>,
    /// Set, case, instructions.
    pub counts: BTreeMap<String, BTreeMap<String, u64>>,
}

/// A kernel set that is not measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elsewhere {
    pub set: String,
    /// Why, and what holds it instead.
    pub reason: String,
}

/// `ratios-<arch>.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ratios {
    pub schema: u32,
    /// How the limits follow from what was measured.
    pub reason: String,
    pub runs: usize,
    /// What they were measured with: they bind on this processor and with this compiler.
    pub made: Made,
    /// Kernel sets that no machine has timed yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elsewhere: Vec<Elsewhere>,
    pub pair: Vec<Pair>,
}

/// A kernel set and its yardstick.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    pub set: String,
    /// The plainer one.
    pub against: String,
    /// What no case may be below on any processor.
    pub floor: f64,
    /// Why the floor is where it is.
    pub floor_reason: String,
    #[serde(default)]
    pub cases: BTreeMap<String, Limit>,
}

/// How many times faster.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Median of the runs.
    pub measured: f64,
    /// How far three of four runs are from the median at most, in percent of it.
    pub spread_percent: f64,
    /// Below is a regression.
    pub limit: f64,
}

pub fn instructions_path(golden: &Path, arch: &str) -> PathBuf {
    golden.join(format!("gates/instructions-{arch}.toml"))
}

/// The name of the ratios of one processor: the architecture, and the processor in letters, digits and dashes.
///
/// Ratios of two processors differ by more than any limit, so each that is blessed has a file of its own.
pub fn of_processor(arch: &str, cpu: &str) -> String {
    let words = cpu.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    std::iter::once(arch.to_owned()).chain(words.map(str::to_ascii_lowercase)).collect::<Vec<_>>().join("-")
}

/// Where the ratios of an architecture lie, or of a processor by its name of [`of_processor`].
pub fn ratios_path(golden: &Path, arch: &str) -> PathBuf {
    golden.join(format!("gates/ratios-{arch}.toml"))
}

/// Reads the counts.
pub fn instructions(golden: &Path, arch: &str) -> Result<Instructions, GoldenError> {
    let path = instructions_path(golden, arch);
    let file: Instructions = read_toml(&path)?;
    check_schema(&path, file.schema, SCHEMA)?;
    Ok(file)
}

/// Reads the ratios.
pub fn ratios(golden: &Path, arch: &str) -> Result<Ratios, GoldenError> {
    let path = ratios_path(golden, arch);
    let file: Ratios = read_toml(&path)?;
    check_schema(&path, file.schema, SCHEMA)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTS: &str = "schema = 1\nlimit_percent = 2.0\n[made]\nrustc = \"rustc 1\"\nprofile = \"release\"\nflags = \"\"\n\
        libc = \"glibc 2\"\ncpu = \"one\"\n[[elsewhere]]\nset = \"avx512\"\nreason = \"why\"\n[counts.avx2]\nadd = 7\n";

    /// The files of the repository, by the architectures in their names.
    fn architectures(golden: &Path, kind: &str) -> Vec<String> {
        let Ok(files) = std::fs::read_dir(golden.join("gates")) else { return Vec::new() };
        let names = files.flatten().filter_map(|file| file.file_name().into_string().ok());
        names.filter_map(|name| Some(name.strip_prefix(kind)?.strip_suffix(".toml")?.to_owned())).collect()
    }

    #[test]
    fn what_is_misspelt_or_of_another_version_is_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        let read = |text: &str| {
            let path = instructions_path(dir.path(), "toy");
            std::fs::create_dir_all(path.parent().expect("folder")).expect("folder");
            std::fs::write(path, text).expect("file");
            instructions(dir.path(), "toy")
        };
        assert_eq!(read(COUNTS).expect("counts").counts["avx2"]["add"], 7);
        assert!(matches!(read(&COUNTS.replace("schema = 1", "schema = 2")), Err(GoldenError::Schema { .. })));
        assert!(matches!(read(&COUNTS.replace("limit_percent", "limit")), Err(GoldenError::Parse { .. })));
        assert!(matches!(instructions(dir.path(), "other"), Err(GoldenError::Read { .. })));
        assert_eq!(architectures(dir.path(), "instructions-"), ["toy"]);
        assert_eq!(of_processor("toy", "Maker family 6/../x"), "toy-maker-family-6-x");
    }

    /// Of what is committed. That something is, is the gate's to say: without its file it is not green.
    #[test]
    fn the_committed_files_bind() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR"));
        for arch in architectures(golden, "instructions-") {
            let counts = instructions(golden, &arch).expect("instructions");
            assert!(counts.limit_percent > 0.0 && counts.limit_percent <= 2.0 && counts.made.profile == "release");
            for set in ["any", "scalar"] {
                assert!(!counts.counts[set].is_empty() && counts.counts[set].values().all(|n| *n > 0), "{set}");
            }
            assert!(counts.elsewhere.iter().all(|e| !e.reason.is_empty() && !counts.counts.contains_key(&e.set)));
        }
        for arch in architectures(golden, "ratios-") {
            let ratios = ratios(golden, &arch).expect("ratios");
            let paired = |set: &str| ratios.pair.iter().any(|pair| pair.set == set);
            assert!(ratios.elsewhere.iter().all(|e| !e.reason.is_empty() && !paired(&e.set)));
            for pair in ratios.pair {
                assert!(pair.floor > 0.0 && !pair.floor_reason.is_empty() && !pair.cases.is_empty());
                for (case, limit) in &pair.cases {
                    assert!(limit.limit > 0.0 && limit.limit < limit.measured, "{case}");
                }
            }
        }
    }
}
