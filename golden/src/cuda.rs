//! `gates/cuda.toml`: which architectures the CUDA kernels are compiled for, by which NVRTC, how much they may spill, and what
//! they ask for early.

use crate::{GoldenError, check_schema, read_toml};
use serde::Deserialize;
use std::path::{Path, PathBuf};

pub const SCHEMA: u32 = 1;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cuda {
    pub schema: u32,
    /// `sm_80`, `sm_90a`, ...
    pub architectures: Vec<String>,
    /// The most bytes that an entry may spill, stores and loads together.
    pub spill_bytes: u64,
    /// Entries that may spill more.
    #[serde(default, rename = "spill")]
    pub spills: Vec<Spill>,
    /// What entries ask for before they wait for earlier launches.
    #[serde(default)]
    pub early: Vec<Early>,
    /// The compiler, by host.
    pub nvrtc: Vec<Wheel>,
}

/// An entry that asks for its first weights before it waits for earlier launches, where launches overlap.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Early {
    pub entry: String,
    /// Loads and prefetches before the wait, in its machine code, at least.
    pub fetches: u64,
}

/// An entry that may spill more than others.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spill {
    pub entry: String,
    pub architecture: String,
    /// The most bytes, stores and loads together.
    pub bytes: u64,
    pub reason: String,
}

/// A Python wheel that holds NVRTC.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wheel {
    /// Processor and system: `x86_64-linux`.
    pub host: String,
    /// `name==version`.
    pub pip: String,
    pub licence: String,
    /// What is taken out of it: the library first, then what it opens beside itself.
    #[serde(rename = "file")]
    pub files: Vec<File>,
}

/// One file of a wheel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Path inside of the wheel.
    pub member: String,
    pub sha256: String,
}

impl File {
    /// The name without folders.
    pub fn name(&self) -> &str {
        self.member.rsplit('/').next().unwrap_or(&self.member)
    }
}

impl Wheel {
    /// Where its files lie in a build folder.
    pub fn folder(&self, target: &Path) -> PathBuf {
        target.join("nvrtc").join(self.pip.replace("==", "-"))
    }

    /// Where its library lies in a build folder.
    pub fn library(&self, target: &Path) -> Option<PathBuf> {
        self.files.first().map(|file| self.folder(target).join(file.name()))
    }
}

impl Cuda {
    /// The wheel for a processor and system, as Rust names them (`std::env::consts`).
    pub fn wheel(&self, processor: &str, system: &str) -> Option<&Wheel> {
        self.nvrtc.iter().find(|wheel| wheel.host == format!("{processor}-{system}"))
    }

    pub fn limit(&self, entry: &str, architecture: &str) -> u64 {
        let own = self.spills.iter().find(|spill| spill.entry == entry && spill.architecture == architecture);
        own.map_or(self.spill_bytes, |spill| spill.bytes)
    }
}

/// Reads the file.
///
/// # Errors
/// It cannot be read or understood, pins no version, or names nothing to compile for or with.
pub fn read(golden: &Path) -> Result<Cuda, GoldenError> {
    let path = golden.join("gates/cuda.toml");
    let cuda: Cuda = read_toml(&path)?;
    check_schema(&path, cuda.schema, SCHEMA)?;
    match problem(&cuda) {
        Some(message) => Err(GoldenError::Parse { path, message }),
        None => Ok(cuda),
    }
}

fn problem(cuda: &Cuda) -> Option<String> {
    if cuda.architectures.is_empty() {
        return Some("`architectures` is empty, so nothing would be compiled".to_owned());
    }
    if let Some(spill) = cuda.spills.iter().find(|spill| spill.reason.trim().is_empty()) {
        return Some(format!("`{}` may spill on {} without a reason", spill.entry, spill.architecture));
    }
    if let Some(early) = cuda.early.iter().find(|early| early.fetches == 0) {
        return Some(format!("`{}` is asked for no fetch at all", early.entry));
    }
    cuda.nvrtc.iter().find_map(|wheel| {
        if wheel.pip.split_once("==").is_none_or(|(_, version)| version.is_empty()) {
            return Some(format!("`{}` pins no version", wheel.pip));
        }
        let unpinned = wheel.files.iter().find(|file| file.sha256.len() != 64).map(|file| &file.member);
        let none = wheel.files.is_empty().then(|| format!("`{}` has no file", wheel.pip));
        unpinned.map(|member| format!("`{member}` is not pinned by a SHA-256")).or(none)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "schema = 1\narchitectures = [\"sm_80\"]\nspill_bytes = 8\n\
        [[spill]]\nentry = \"k\"\narchitecture = \"sm_80\"\nbytes = 16\nreason = \"why\"\n\
        [[nvrtc]]\nhost = \"x86_64-linux\"\npip = \"n==1\"\nlicence = \"l\"\n\
        [[nvrtc.file]]\nmember = \"a/b/lib.so\"\nsha256 = \"HASH\"\n";

    #[test]
    fn limits_and_names() {
        let cuda: Cuda = toml::from_str(TEXT).expect("understood");
        assert_eq!((cuda.limit("k", "sm_80"), cuda.limit("k", "sm_90a"), cuda.limit("j", "sm_80")), (16, 8, 8));
        let wheel = cuda.wheel("x86_64", "linux").expect("pinned");
        assert_eq!(wheel.library(Path::new("t")), Some(PathBuf::from("t/nvrtc/n-1/lib.so")));
        assert!(cuda.wheel("x86_64", "macos").is_none());
    }

    #[test]
    fn what_holds_nothing_is_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        std::fs::create_dir(dir.path().join("gates")).expect("folder");
        let whole = TEXT.replace("HASH", &"0".repeat(64));
        let go = |text: &str| {
            std::fs::write(dir.path().join("gates/cuda.toml"), text).expect("file");
            read(dir.path()).map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(go(&whole), Ok(()));
        for (from, to, want) in [
            ("schema = 1", "schema = 2", "schema 2"),
            ("[\"sm_80\"]", "[]", "`architectures` is empty"),
            ("\"why\"", "\" \"", "without a reason"),
            ("n==1", "n", "pins no version"),
            ("\"0", "\"", "not pinned by a SHA-256"),
            ("spill_bytes", "spills_bytes", "spills_bytes"),
            ("[[nvrtc]]", "[[early]]\nentry = \"k\"\nfetches = 0\n[[nvrtc]]", "`k` is asked for no fetch"),
        ] {
            let error = go(&whole.replace(from, to)).expect_err(want);
            assert!(error.contains(want), "{want}: {error}");
        }
        let no_file = whole.split("[[nvrtc.file]]").next().expect("a head");
        assert!(go(&format!("{no_file}file = []\n")).expect_err("no file").contains("has no file"));
    }

    #[test]
    fn the_committed_file_is_read() {
        let cuda = read(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("gates/cuda.toml");
        assert!(cuda.nvrtc.iter().any(|wheel| wheel.host == "x86_64-linux"));
    }
}
