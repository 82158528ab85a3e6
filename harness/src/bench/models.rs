//! The models of the benches: the trained tiny one always, and one of real size where there is one.

use crate::env::{self, Env};
use crate::failure::Failure;
use crate::models::pool;
use crate::paths::Paths;
use bitnet_engine::gguf::GgufFile;
use bitnet_engine::load::{LoadOptions, Loaded, load_with};
use bitnet_engine::settings::layouts_from_env;
use bitnet_kernels::best;
use std::path::{Path, PathBuf};

/// What makes the model of real size.
pub const MAKE: &str = "cargo xtask make-model --shape 2b4t --as microsoft";
/// Its file, as that command names it.
const FILE: &str = "2b4t-i2_s-seed1-microsoft.gguf";

/// The folder of generated models.
pub fn folder(target: &Path) -> PathBuf {
    target.join("bench/models")
}

/// The model of real size: `BITNET_BENCH_MODEL`, else the generated one if it is there.
///
/// # Errors
/// There is none, and how to make one.
pub fn large(paths: &Paths, env: &Env) -> Result<PathBuf, String> {
    let named = env.get(env::BITNET_BENCH_MODEL).map(|path| paths.root.join(path));
    let path = named.clone().unwrap_or_else(|| folder(&paths.target).join(FILE));
    match (path.is_file(), named) {
        (true, _) => Ok(path),
        (false, None) => Err(format!("unavailable: no model of real size; {MAKE}")),
        (false, Some(_)) => {
            let name = env::BITNET_BENCH_MODEL;
            Err(format!("unavailable: {name} names {}, which is not a file; unset it, or {MAKE}", path.display()))
        }
    }
}

/// The models of a bench with their names: the embedded one, and that of real size. Where there is none, stderr says how to
/// make it.
pub fn paths() -> Vec<(String, PathBuf)> {
    let env = Env::read();
    let paths = Paths::discover(&env);
    let mut found = vec![named(embedded(&paths))];
    match large(&paths, &env) {
        Ok(path) => found.push(named(path)),
        Err(why) => eprintln!("{why}"),
    }
    found
}

pub fn embedded(paths: &Paths) -> PathBuf {
    paths.golden.join("models/tiny-bitnet.gguf")
}

/// A model with the name that a bench gives it.
pub fn named(path: PathBuf) -> (String, PathBuf) {
    (path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), path)
}

/// A model of [`paths`], loaded. The layout that was found out once is remembered, as `bitnet` does: noise tells none.
pub fn open(path: &Path) -> Result<Loaded, Failure> {
    let layouts = layouts_from_env();
    let options = LoadOptions { layouts: layouts.as_deref(), ..LoadOptions::default() };
    Ok(load_with(GgufFile::open(path)?, options, best(), &pool(2)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_large_model_is_named_found_or_missing() {
        let dir = tempfile::tempdir().expect("a folder");
        let paths = |env: &Env| Paths::below(dir.path().to_owned(), env);
        let none = Env::default();
        let missing = large(&paths(&none), &none).expect_err("nothing there");
        assert!(missing.ends_with(MAKE), "{missing}");
        let named = Env::from_pairs(&[(env::BITNET_BENCH_MODEL, "a.gguf")]);
        let missing = large(&paths(&named), &named).expect_err("nothing there");
        assert!(missing.contains("a.gguf, which is not a file"), "{missing}");
        std::fs::write(dir.path().join("a.gguf"), "").expect("a file");
        assert_eq!(large(&paths(&named), &named), Ok(dir.path().join("a.gguf")));
        let folder = folder(&paths(&none).target);
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join(FILE), "").expect("a file");
        assert_eq!(large(&paths(&none), &none), Ok(folder.join(FILE)));
    }
}
