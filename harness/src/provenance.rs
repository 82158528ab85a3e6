//! Where and when a record was made.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::env::{self, Env};

/// The machine, as far as it matters to a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostInfo {
    pub os: String,
    /// Architecture of the build.
    pub arch: String,
    /// Instruction sets that kernels may use, of those that matter.
    pub features: Vec<String>,
}

impl HostInfo {
    pub fn here() -> Self {
        Self {
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            features: features().into_iter().map(str::to_owned).collect(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn features() -> Vec<&'static str> {
    let table = [
        ("sse4.1", is_x86_feature_detected!("sse4.1")),
        ("avx", is_x86_feature_detected!("avx")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
        // Rust does not detect it on stable; the set is there where its tiles may be used and compute what they must.
        ("amx-int8", bitnet_kernels::by_name("amx").is_ok()),
    ];
    present(&table)
}

#[cfg(target_arch = "aarch64")]
fn features() -> Vec<&'static str> {
    let table = [
        ("neon", std::arch::is_aarch64_feature_detected!("neon")),
        ("dotprod", std::arch::is_aarch64_feature_detected!("dotprod")),
        ("i8mm", std::arch::is_aarch64_feature_detected!("i8mm")),
    ];
    present(&table)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn present(table: &[(&'static str, bool)]) -> Vec<&'static str> {
    table.iter().filter(|(_, here)| *here).map(|(name, _)| *name).collect()
}

/// The commit of the checkout: `MATRIX_COMMIT`, else what `.git` says, else unknown. It says nothing of
/// changes that are not committed.
pub fn commit(root: &Path, env: &Env) -> Option<String> {
    if let Some(commit) = env.get(env::MATRIX_COMMIT) {
        return Some(commit.to_owned());
    }
    let dot_git = root.join(".git");
    // In a linked worktree `.git` is a file that names the real folder, and branches lie in `commondir`.
    let git = match std::fs::read_to_string(&dot_git) {
        Ok(text) => root.join(text.strip_prefix("gitdir:")?.trim()),
        Err(_) => dot_git,
    };
    let head = std::fs::read_to_string(git.join("HEAD")).ok()?;
    let Some(branch) = head.trim().strip_prefix("ref:").map(str::trim) else {
        return Some(head.trim().to_owned());
    };
    let common =
        std::fs::read_to_string(git.join("commondir")).map_or_else(|_| git.clone(), |dir| git.join(dir.trim()));
    let loose = |folder: &PathBuf| std::fs::read_to_string(folder.join(branch)).ok();
    if let Some(text) = loose(&common).or_else(|| loose(&git)) {
        return Some(text.trim().to_owned());
    }
    let packed = std::fs::read_to_string(common.join("packed-refs")).ok()?;
    packed.lines().find_map(|line| {
        let (hash, name) = line.split_once(' ')?;
        (name == branch).then(|| hash.to_owned())
    })
}

/// The time now in UTC, as `2026-11-21T21:42:43Z`.
pub fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    rfc3339(seconds)
}

/// Seconds since 1970 as a date of the Gregorian calendar, counted in 400-year cycles from 1 March 0000.
fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_gregorian() {
        let known = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ];
        for (seconds, text) in known {
            assert_eq!(rfc3339(seconds), text);
        }
    }

    #[test]
    fn the_commit_can_be_given_read_or_unknown() {
        let dir = tempfile::tempdir().expect("temp dir");
        let none = Env::default();
        assert_eq!(commit(dir.path(), &none), None);
        let env = Env::from_pairs(&[(env::MATRIX_COMMIT, "abc")]);
        assert_eq!(commit(dir.path(), &env).as_deref(), Some("abc"));
        let git = dir.path().join(".git");
        std::fs::create_dir_all(&git).expect("folder");
        std::fs::write(git.join("HEAD"), "ref: refs/heads/main\n").expect("HEAD");
        std::fs::write(git.join("packed-refs"), "# pack\n123 refs/heads/main\n").expect("refs");
        assert_eq!(commit(dir.path(), &none).as_deref(), Some("123"));
        std::fs::create_dir_all(git.join("refs/heads")).expect("folder");
        std::fs::write(git.join("refs/heads/main"), "456\n").expect("ref");
        assert_eq!(commit(dir.path(), &none).as_deref(), Some("456"));
    }
}
