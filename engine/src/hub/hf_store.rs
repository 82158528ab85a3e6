//! Writing into HuggingFace's cache, so that other tools find what we fetched and we what they did:
//!
//! ```text
//! <root>/.locks/models--org--name/<etag>.lock             held while a blob is fetched (flock, as huggingface_hub does)
//!        models--org--name/blobs/<etag>                   contents; the ETag is the hub's checksum
//!                          blobs/<etag>.incomplete        what has arrived of them
//!                          snapshots/<commit>/<path>      a relative link to the blob
//!                          refs/<revision>                the commit of a branch or tag
//! ```
//!
//! Source: huggingface_hub, `file_download.py`. A blob gets its name only when it is complete and verified. Where there are no links
//! (a file system without them, `HF_HUB_DISABLE_SYMLINKS`), the snapshot holds the file itself, as that tool does it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::cache::{Temp, sync_dir, write_atomic};
use super::digest::Digest;
use super::error::HubError;
use super::hf_cache::home;
use super::names::is_commit;

/// One repository in a cache of HuggingFace's layout.
#[derive(Debug, Clone)]
pub(crate) struct HfStore {
    pub(crate) root: PathBuf,
    repo: String,
    links: bool,
}

impl HfStore {
    pub(crate) fn new(root: &Path, repo: &str, links: bool) -> Self {
        Self { root: root.to_owned(), repo: repo.to_owned(), links }
    }

    fn home(&self) -> PathBuf {
        home(&self.root, &self.repo)
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.home().join("blobs").join(&digest.hex)
    }

    pub(crate) fn partial(&self, digest: &Digest) -> PathBuf {
        self.home().join("blobs").join(format!("{}.incomplete", digest.hex))
    }

    pub(crate) fn lock_file(&self, digest: &Digest) -> PathBuf {
        let folder = self.home().file_name().map(PathBuf::from).unwrap_or_default();
        self.root.join(".locks").join(folder).join(format!("{}.lock", digest.hex))
    }

    /// The folder of a commit.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.home().join("snapshots").join(commit)
    }

    /// Where a file of a commit lies for whoever reads it.
    pub(crate) fn file(&self, commit: &str, path: &str) -> PathBuf {
        self.snapshot(commit).join(path)
    }

    /// The verified partial file becomes a file of the commit.
    pub(crate) fn publish(&self, digest: &Digest, commit: &str, path: &str) -> Result<(), HubError> {
        let blob = self.blob(digest);
        let dir = self.home().join("blobs");
        fs::rename(self.partial(digest), &blob)
            .and_then(|()| sync_dir(&dir))
            .map_err(|cause| HubError::io("write", &blob, cause))?;
        self.link_or(digest, commit, path, |file| fs::rename(&blob, file))
    }

    /// A blob that is there becomes a file of the commit.
    pub(crate) fn link(&self, digest: &Digest, commit: &str, path: &str) -> Result<(), HubError> {
        let blob = self.blob(digest);
        if !blob.is_file() {
            return Ok(()); // the snapshot holds the file itself
        }
        self.link_or(digest, commit, path, |file| {
            let temp = Temp::beside(file);
            fs::copy(&blob, &temp.0)?;
            File::open(&temp.0)?.sync_all()?;
            temp.publish(file)
        })
    }

    fn link_or(
        &self,
        digest: &Digest,
        commit: &str,
        path: &str,
        otherwise: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<(), HubError> {
        let file = self.file(commit, path);
        let up = "../".repeat(path.split('/').count() + 1);
        let target = PathBuf::from(format!("{up}blobs/{}", digest.hex));
        let work = || -> io::Result<()> {
            if fs::read_link(&file).is_ok_and(|there| there == target) {
                return Ok(());
            }
            if let Some(dir) = file.parent() {
                fs::create_dir_all(dir)?;
            }
            let temp = Temp::beside(&file);
            match self.links.then(|| symlink(&target, &temp.0)) {
                Some(Ok(())) => temp.publish(&file),
                // what is wrong with more than links (space, rights) is wrong with the file too, and said then
                _ => otherwise(&file),
            }
        };
        work().map_err(|cause| HubError::io("write", &file, cause))
    }

    /// Notes the commit of a branch or tag.
    pub(crate) fn set_ref(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        let file = self.home().join("refs").join(revision);
        if is_commit(revision) || fs::read_to_string(&file).is_ok_and(|there| there.trim() == commit) {
            return Ok(());
        }
        write_atomic(&file, commit.as_bytes())
    }
}

fn symlink(target: &Path, at: &Path) -> io::Result<()> {
    #[cfg(unix)]
    use std::os::unix::fs::symlink;
    #[cfg(windows)]
    use std::os::windows::fs::symlink_file as symlink;
    symlink(target, at)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn a_file_of_a_commit_leads_to_its_blob() {
        let dir = tempfile::tempdir().unwrap();
        for links in [true, false] {
            let store = HfStore::new(&dir.path().join(links.to_string()), "o/n", links);
            let digests = ["a", "b"].map(|digit| Digest::from_etag(&digit.repeat(64)).unwrap());
            fs::create_dir_all(store.home().join("blobs")).unwrap();
            for digest in &digests {
                fs::write(store.blob(digest), &digest.hex[..1]).unwrap();
            }
            let file = store.file(COMMIT, "d/f");
            // One that leads elsewhere is replaced, one that is right stays.
            for digest in [&digests[0], &digests[1], &digests[1]] {
                store.link(digest, COMMIT, "d/f").unwrap();
                assert_eq!(fs::read_to_string(&file).unwrap(), digest.hex[..1]);
                let target = PathBuf::from(format!("../../../blobs/{}", digest.hex));
                assert_eq!(fs::read_link(&file).ok(), links.then_some(target));
            }
            assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "nothing unfinished stays");
        }
    }

    #[test]
    fn a_branch_is_noted_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = HfStore::new(dir.path(), "o/n", true);
        let file = dir.path().join("models--o--n/refs/main");
        store.set_ref("main", COMMIT).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), COMMIT);
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        File::options().append(true).open(&file).unwrap().set_modified(old).unwrap();
        store.set_ref("main", COMMIT).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), old, "it is not written again");
        let other = COMMIT.replace('0', "f");
        store.set_ref("main", &other).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), other);
        // A commit is no branch.
        store.set_ref(COMMIT, COMMIT).unwrap();
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
    }
}
