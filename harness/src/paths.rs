//! Where the harness reads and writes.

use std::path::{Path, PathBuf};

use crate::env::{self, Env};

/// The folders of a run.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Root of the checkout.
    pub root: PathBuf,
    /// `matrix.toml`, `expect.toml`, `snapshots/`, `models/`.
    pub golden: PathBuf,
    /// Where `records/`, `summary.md` and reports go.
    pub out: PathBuf,
    /// Where fetched fixtures lie.
    pub fixtures: PathBuf,
    /// Cargo's build folder, in which `cargo xtask setup-cpp` puts the workers of the C++ references.
    pub target: PathBuf,
}

impl Paths {
    /// Finds the checkout: the one around cargo's `CARGO_MANIFEST_DIR` of now, else the one in which this
    /// crate was built.
    pub fn discover(env: &Env) -> Self {
        let now = env.get(env::CARGO_MANIFEST_DIR).map(PathBuf::from);
        let root = now
            .as_deref()
            .into_iter()
            .flat_map(Path::ancestors)
            .find(|dir| dir.join("golden/matrix.toml").is_file())
            .map_or_else(built_root, Path::to_owned);
        Self::below(root, env)
    }

    /// The usual layout below a root, with the overrides of the environment.
    pub fn below(root: PathBuf, env: &Env) -> Self {
        let target = env.get(env::CARGO_TARGET_DIR).map_or_else(|| root.join("target"), |dir| root.join(dir));
        let or = |name: &str, default: &str| env.get(name).map_or_else(|| target.join(default), |dir| root.join(dir));
        Self {
            golden: root.join("golden"),
            out: or(env::MATRIX_OUT, "matrix"),
            fixtures: or(env::MATRIX_FIXTURES, "fixtures"),
            target: target.clone(),
            root,
        }
    }

    pub fn records(&self) -> PathBuf {
        self.out.join("records")
    }

    /// Folder of the model files that are written for the C++ references, which take paths and not bytes.
    pub fn staged(&self) -> PathBuf {
        self.target.join("reference/models")
    }

    pub fn snapshots(&self) -> PathBuf {
        self.golden.join("snapshots")
    }
}

fn built_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkout_is_found() {
        let paths = Paths::discover(&Env::default());
        assert!(paths.golden.join("matrix.toml").is_file());
        assert!(paths.records().ends_with("target/matrix/records"));
    }

    #[test]
    fn overrides_are_relative_to_the_root() {
        let env = Env::from_pairs(&[(env::CARGO_TARGET_DIR, "t"), (env::MATRIX_OUT, "/abs/out")]);
        let paths = Paths::below(PathBuf::from("/r"), &env);
        assert_eq!(paths.fixtures, Path::new("/r/t/fixtures"));
        assert_eq!(paths.out, Path::new("/abs/out"));
    }
}
