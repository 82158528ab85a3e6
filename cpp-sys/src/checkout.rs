//! A user's own checkout of a reference: what its files were when the worker was built, `checkout.json` beside the program.
//!
//! A checkout lives on after the build. A worker of other sources than lie there now is stale, and says so, since a comparison
//! with it would be about code that nobody sees.

use std::collections::HashMap;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::BuildInfo;

/// How a build names a checkout as its source.
const SOURCE: &str = "the checkout ";

/// What a build is made from: the same parts as those for which cargo builds a worker again.
const PARTS: [&str; 5] = ["CMakeLists.txt", "include", "src", "ggml", "3rdparty"];

/// The files of a checkout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkout {
    pub folder: PathBuf,
    /// The git commit, and whether files were changed since.
    pub commit: String,
    /// SHA-256 over names and contents of the files that a build reads.
    pub sha256: String,
}

impl Checkout {
    /// The folder of a build from a checkout; `None` for one from a crate.
    pub fn folder(build: &BuildInfo) -> Option<&Path> {
        build.source.strip_prefix(SOURCE).map(Path::new)
    }

    /// The files as they are now.
    ///
    /// # Errors
    /// A file or folder cannot be read, or there is nothing.
    pub fn read(folder: &Path, commit: &str) -> Result<Self> {
        let mut hash = Sha256::new();
        let mut count = 0;
        for part in PARTS {
            add(folder, Path::new(part), &mut hash, &mut count)?;
        }
        if count == 0 {
            return Err(Error::other(format!("{} has no sources", folder.display())));
        }
        let sha256 = hex::encode(hash.finalize());
        Ok(Self { folder: folder.to_owned(), commit: commit.to_owned(), sha256 })
    }

    /// Whether the files are those of the build: asked for every cell of a matrix, so they are read once a process.
    pub fn is_as_built(&self) -> std::result::Result<(), String> {
        type Known = HashMap<PathBuf, std::result::Result<String, String>>;
        static KNOWN: OnceLock<Mutex<Known>> = OnceLock::new();
        let mut known = KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        let now = known.entry(self.folder.clone()).or_insert_with(|| {
            Self::read(&self.folder, &self.commit).map(|now| now.sha256).map_err(|error| error.to_string())
        });
        let (place, commit) = (self.folder.display(), &self.commit);
        match now {
            Ok(sha256) if *sha256 == self.sha256 => Ok(()),
            Ok(_) => {
                Err(format!("it is stale: the checkout {place} (built at {commit}) was edited since it was built"))
            }
            Err(error) => Err(format!("it cannot be told whether the checkout {place} is as it was built: {error}")),
        }
    }
}

impl BuildInfo {
    /// Where the C++ came from, for people: the crate with its version, or the checkout with its commit.
    pub fn origin(&self) -> String {
        // A crate's name has its version.
        if self.source.contains(&self.version) {
            self.source.clone()
        } else {
            format!("{}, {}", self.source, self.version)
        }
    }
}

/// Adds a file, or all files of a folder in the order of their names. What git keeps for itself is not a source.
fn add(root: &Path, path: &Path, hash: &mut Sha256, count: &mut usize) -> Result<()> {
    let full = root.join(path);
    let Ok(meta) = std::fs::symlink_metadata(&full) else { return Ok(()) };
    if meta.is_dir() {
        let mut names = std::fs::read_dir(&full)?.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>>>()?;
        names.sort();
        for name in names.iter().filter(|name| *name != ".git") {
            add(root, &path.join(name), hash, count)?;
        }
        return Ok(());
    }
    // A link counts by where it points, and a broken one is none of the build's.
    let bytes = match meta.is_symlink() {
        true => std::fs::read_link(&full)?.to_string_lossy().into_owned().into_bytes(),
        false => std::fs::read(&full)?,
    };
    let name = path.to_string_lossy();
    for part in [name.as_bytes(), &bytes] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    *count += 1;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_and_a_checkout_are_named_with_their_version() {
        let origin = |source: &str, version: &str| {
            BuildInfo { source: source.to_owned(), version: version.to_owned(), ..BuildInfo::default() }.origin()
        };
        assert_eq!(origin("the crate a 0.1.5", "0.1.5"), "the crate a 0.1.5");
        assert_eq!(origin("the checkout of a", "abc123"), "the checkout of a, abc123");
    }

    #[test]
    fn an_edit_a_new_file_and_a_lost_one_show() {
        let dir = tempfile::tempdir().expect("folder");
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
            std::fs::write(path, text).expect("write");
        };
        let hash = || Checkout::read(dir.path(), "abc").map(|checkout| checkout.sha256);
        assert!(hash().is_err(), "nothing is not a checkout");
        write("src/llama.cpp", "int rope_base = 10000;");
        write("include/llama.h", "");
        let built = hash().expect("hash");
        write("README.md", "of no part");
        write("src/.git", "gitdir: elsewhere");
        assert_eq!(hash().expect("hash"), built);
        write("src/llama.cpp", "int rope_base = 10200;");
        assert_ne!(hash().expect("hash"), built, "edited");
        write("src/llama.cpp", "int rope_base = 10000;");
        assert_eq!(hash().expect("hash"), built);
        write("src/new.cpp", "");
        assert_ne!(hash().expect("hash"), built, "new");
        std::fs::remove_file(dir.path().join("src/new.cpp")).expect("remove");
        std::fs::remove_file(dir.path().join("include/llama.h")).expect("remove");
        assert_ne!(hash().expect("hash"), built, "lost");
    }
}
