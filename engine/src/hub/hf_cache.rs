//! Caches of HuggingFace's own tools, read only: `models--org--name/{refs/<revision>, snapshots/<commit>/<path>, blobs/<etag>}`.
//!
//! A blob's name is its ETag, and so its checksum: what such a cache gives us is verified like a download. Snapshots that are
//! copies instead of links (Windows) do not say their checksum; they are used only when the hub named it.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use super::digest::Digest;
use super::names::is_commit;

/// A verified file of a HuggingFace cache.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) file: PathBuf,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

fn home(root: &Path, repo: &str) -> PathBuf {
    root.join(format!("models--{}", repo.replace('/', "--")))
}

/// The commit that a branch had when that tool last asked.
pub(crate) fn commit_of(root: &Path, repo: &str, revision: &str) -> Option<String> {
    let commit = fs::read_to_string(home(root, repo).join("refs").join(revision)).ok()?.trim().to_owned();
    is_commit(&commit).then_some(commit)
}

/// A file of the commit that a branch had: that commit, and where the file lies. It is not opened.
pub(crate) fn present(root: &Path, repo: &str, revision: &str, path: &str) -> Option<(String, PathBuf)> {
    let commit = if is_commit(revision) { revision.to_owned() } else { commit_of(root, repo, revision)? };
    let file = home(root, repo).join("snapshots").join(&commit).join(path);
    file.is_file().then_some((commit, file))
}

/// A file of a commit; or, if the hub has named a checksum, the blob with that name. Reads all of it to verify it.
pub(crate) fn find(root: &Path, repo: &str, commit: &str, path: &str, wanted: Option<&Digest>) -> Option<Found> {
    let home = home(root, repo);
    let snapshot = home.join("snapshots").join(commit).join(path);
    let candidates = [fs::canonicalize(&snapshot).ok(), wanted.map(|digest| home.join("blobs").join(&digest.hex))];
    candidates.into_iter().flatten().find_map(|file| verify(file, wanted))
}

fn verify(file: PathBuf, wanted: Option<&Digest>) -> Option<Found> {
    let named = file.file_name().and_then(|name| name.to_str()).and_then(Digest::from_etag);
    let digest = match (named, wanted) {
        (Some(named), Some(wanted)) if named != *wanted => return None,
        (Some(named), _) => named,
        (None, wanted) => wanted?.clone(),
    };
    let open = File::open(&file).ok()?;
    let meta = open.metadata().ok().filter(fs::Metadata::is_file)?;
    let wrong = digest.check(BufReader::new(open), meta.len(), |_| {}).ok()?;
    wrong.is_none().then_some(Found { file, digest, size: meta.len() })
}
