//! The one place of the harness that reads environment variables.
//!
//! nextest cannot pass flags to a test binary while it lists, so every selection flag has an environment
//! twin. Reading them once, into a value, keeps the rest of the harness testable without touching the
//! process. An empty value is the same as an unset variable.

use std::collections::BTreeMap;

/// Selection twins of `--model`, `--quant`, `--device`, `--backend`, `--check`: see [`crate::axes::Axis::env`].
pub const MATRIX_REQUIRE: &str = "MATRIX_REQUIRE";
/// Twin of `--all-devices`.
pub const MATRIX_ALL_DEVICES: &str = "MATRIX_ALL_DEVICES";
/// Folder for records and summaries instead of `<target>/matrix`.
pub const MATRIX_OUT: &str = "MATRIX_OUT";
/// Folder of fetched fixtures instead of `<target>/fixtures`.
pub const MATRIX_FIXTURES: &str = "MATRIX_FIXTURES";
/// A model that `cargo bench` measures beside the embedded one.
pub const BITNET_BENCH_MODEL: &str = "BITNET_BENCH_MODEL";
/// The card that `cargo bench --bench cuda` measures: `cuda` (unless it is set), `cuda:N` or `cuda-emu`.
pub const BITNET_BENCH_DEVICE: &str = "BITNET_BENCH_DEVICE";
/// The commit to write into records where the checkout cannot say it.
pub const MATRIX_COMMIT: &str = "MATRIX_COMMIT";
/// Set by `cargo xtask bless`, and by nothing else: write snapshots instead of comparing.
pub const BITNET_BLESS: &str = "BITNET_BLESS";
/// Set by CI systems; blessing is refused there.
pub const CI: &str = "CI";
/// Set by nextest for the test binaries that it lists and runs.
pub const NEXTEST: &str = "NEXTEST";
/// Set by nextest: the same for all processes of a run.
pub const NEXTEST_RUN_ID: &str = "NEXTEST_RUN_ID";
/// Set by cargo and nextest for test binaries: where the package lies now, which after a nextest archive
/// is not where it was built.
pub const CARGO_MANIFEST_DIR: &str = "CARGO_MANIFEST_DIR";
pub const CARGO_TARGET_DIR: &str = "CARGO_TARGET_DIR";

/// A copy of the process environment.
#[derive(Debug, Clone, Default)]
pub struct Env {
    vars: BTreeMap<String, String>,
}

impl Env {
    /// Copies the environment of the process. Variables that are not UTF-8 are left out: none of ours can
    /// mean anything then.
    pub fn read() -> Self {
        let vars = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { vars }
    }

    /// An environment of exactly these variables.
    pub fn from_pairs(pairs: &[(&str, &str)]) -> Self {
        let vars = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { vars }
    }

    /// The value, unless it is unset or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A switch: unset, empty, `0`, `false` and `off` mean off.
    pub fn on(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| !["0", "false", "off"].iter().any(|off| value.eq_ignore_ascii_case(off)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn off_has_many_spellings() {
        let env = Env::from_pairs(&[("A", ""), ("B", "0"), ("C", "False"), ("D", "off"), ("E", "1")]);
        for name in ["A", "B", "C", "D", "F"] {
            assert!(!env.on(name), "{name}");
        }
        assert!(env.on("E"));
        assert_eq!(env.get("A"), None);
    }
}
