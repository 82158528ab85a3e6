//! What the mock hub holds: repositories, their revisions, files and who may read them.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha1::{Digest as _, Sha1};
use sha2::Sha256;

/// How the hub stores one file, which decides the headers and redirects that a client meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// A small file in git: 200 from the hub itself, the ETag is the git blob's SHA-1.
    Git,
    /// As [`Storage::Git`], but with the hub's relative 307 to `/api/resolve-cache/...` before it.
    GitCached,
    /// Git LFS: a 302 to the CDN; `X-Linked-Etag` is the content's SHA-256.
    Lfs,
    /// As LFS, with the Xet headers beside it (a client without Xet ignores them).
    Xet,
}

/// Who may read a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Public,
    /// Only the bearer of this token; others are told that the repository does not exist.
    Private(String),
    /// Metadata for everybody, files only for the bearer of this token (the others must accept the terms first).
    Gated(String),
}

/// One file of one revision.
#[derive(Debug, Clone)]
pub struct File {
    pub bytes: Arc<Vec<u8>>,
    pub storage: Storage,
    pub sha256: String,
    /// SHA-1 of the git blob (`blob <length>\0` and the contents), hex.
    pub git_sha1: String,
    /// The size that the hub names, which is that of the contents unless [`Repo::claims`] says otherwise.
    pub size: u64,
}

impl File {
    /// A file with its checksums.
    pub fn new(bytes: impl Into<Vec<u8>>, storage: Storage) -> Self {
        let bytes = bytes.into();
        let (sha256, git_sha1) = (sha256_hex(&bytes), git_blob_sha1(&bytes));
        Self { size: bytes.len() as u64, bytes: Arc::new(bytes), storage, sha256, git_sha1 }
    }

    /// The ETag that the hub names for it: SHA-256 for LFS and Xet, git's SHA-1 otherwise.
    pub fn etag(&self) -> &str {
        match self.storage {
            Storage::Git | Storage::GitCached => &self.git_sha1,
            Storage::Lfs | Storage::Xet => &self.sha256,
        }
    }
}

/// A model repository.
#[derive(Debug, Clone)]
pub struct Repo {
    /// `org/name` (or a bare `name`, as `gpt2`).
    pub name: String,
    pub access: Access,
    revisions: BTreeMap<String, BTreeMap<String, File>>,
}

impl Repo {
    /// An empty, public repository.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), access: Access::Public, revisions: BTreeMap::new() }
    }

    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    pub fn file(self, path: &str, bytes: impl Into<Vec<u8>>, storage: Storage) -> Self {
        self.file_at("main", path, bytes, storage)
    }

    /// Adds a file to a branch or tag.
    pub fn file_at(mut self, revision: &str, path: &str, bytes: impl Into<Vec<u8>>, storage: Storage) -> Self {
        self.revisions.entry(revision.to_owned()).or_default().insert(path.to_owned(), File::new(bytes, storage));
        self
    }

    /// The hub says that a file of `main` has so many bytes: a file too big for any disk need not be in memory.
    pub fn claims(mut self, path: &str, size: u64) -> Self {
        if let Some(file) = self.revisions.get_mut("main").and_then(|files| files.get_mut(path)) {
            file.size = size;
        }
        self
    }

    /// The commit that a branch, tag or (abbreviated, at least 7 digits) commit names, with its files.
    pub fn find(&self, revision: &str) -> Option<(String, &BTreeMap<String, File>)> {
        if let Some(files) = self.revisions.get(revision) {
            return Some((commit_of(&self.name, files), files));
        }
        self.revisions
            .values()
            .map(|files| (commit_of(&self.name, files), files))
            .find(|(commit, _)| revision.len() >= 7 && commit.starts_with(revision))
    }

    /// The commit of branch `main`; empty for a repository without files.
    pub fn head(&self) -> String {
        self.find("main").map(|(commit, _)| commit).unwrap_or_default()
    }

    /// The file with this checksum, whatever revision holds it.
    pub(crate) fn by_sha256(&self, sha256: &str) -> Option<&File> {
        self.revisions.values().flat_map(BTreeMap::values).find(|file| file.sha256 == sha256)
    }
}

/// A commit id that depends on the name and the contents only.
fn commit_of(name: &str, files: &BTreeMap<String, File>) -> String {
    let mut hash = Sha1::new();
    hash.update(name.as_bytes());
    for (path, file) in files {
        hash.update([0]);
        hash.update(path.as_bytes());
        hash.update([0]);
        hash.update(file.git_sha1.as_bytes());
    }
    hex::encode(hash.finalize())
}

pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// SHA-1 of `bytes` as a git blob, hex.
pub fn git_blob_sha1(bytes: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(format!("blob {}\0", bytes.len()).as_bytes());
    hash.update(bytes);
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_equal_git_and_sha256sum() {
        // `printf hello | git hash-object --stdin`, `printf hello | sha256sum`
        assert_eq!(git_blob_sha1(b"hello"), "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0");
        assert_eq!(sha256_hex(b"hello"), "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
    }

    #[test]
    fn a_commit_is_found_by_branch_hash_and_prefix() {
        let repo = Repo::new("a/b").file("x", "1", Storage::Git).file_at("dev", "x", "2", Storage::Git);
        let (main, _) = repo.find("main").unwrap();
        let (dev, files) = repo.find("dev").unwrap();
        assert_ne!(main, dev);
        assert_eq!(files["x"].bytes.as_slice(), b"2");
        assert_eq!(repo.find(&dev).unwrap().0, dev);
        assert_eq!(repo.find(&dev[..7]).unwrap().0, dev);
        assert!(repo.find("nope").is_none());
    }
}
