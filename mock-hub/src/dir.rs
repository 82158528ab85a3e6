//! A folder as a hub: `DIR/<org>/<name>/<files...>` becomes repository `<org>/<name>`, branch `main`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::repo::{Repo, Storage};

#[derive(Debug)]
pub struct DirError {
    pub path: PathBuf,
    pub cause: io::Error,
}

impl std::fmt::Display for DirError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot read {}: {}; the layout is DIR/<org>/<name>/<files>", self.path.display(), self.cause)
    }
}

impl std::error::Error for DirError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// Reads every repository of a folder into memory. Files of at least `lfs_from` bytes are stored as LFS (or Xet), the
/// others in git, as the real hub does by size and kind.
pub fn load_dir(dir: &Path, lfs_from: u64, xet: bool) -> Result<Vec<Repo>, DirError> {
    let mut repos = Vec::new();
    for org in children(dir)? {
        if !org.is_dir() {
            continue;
        }
        for home in children(&org)? {
            if !home.is_dir() {
                continue;
            }
            let mut repo = Repo::new(format!("{}/{}", name(&org), name(&home)));
            let mut open = vec![home.clone()];
            while let Some(folder) = open.pop() {
                for path in children(&folder)? {
                    if path.is_dir() {
                        open.push(path);
                        continue;
                    }
                    let bytes = fs::read(&path).map_err(|cause| DirError { path: path.clone(), cause })?;
                    let parts: Vec<String> = path
                        .strip_prefix(&home)
                        .unwrap_or(&path)
                        .iter()
                        .map(|part| part.to_string_lossy().into_owned())
                        .collect();
                    let storage = match (bytes.len() as u64 >= lfs_from, xet) {
                        (false, _) => Storage::Git,
                        (true, false) => Storage::Lfs,
                        (true, true) => Storage::Xet,
                    };
                    repo = repo.file(&parts.join("/"), bytes, storage);
                }
            }
            repos.push(repo);
        }
    }
    Ok(repos)
}

fn children(dir: &Path) -> Result<Vec<PathBuf>, DirError> {
    let fail = |cause| DirError { path: dir.to_owned(), cause };
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).map_err(fail)? {
        out.push(entry.map_err(fail)?.path());
    }
    out.sort();
    Ok(out)
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
