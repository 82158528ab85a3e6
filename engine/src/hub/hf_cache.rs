//! Reading caches of HuggingFace's own tools: `models--org--name/{refs/<revision>, snapshots/<commit>/<path>, blobs/<etag>}`.
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

pub(super) fn home(root: &Path, repo: &str) -> PathBuf {
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

/// Whether a HuggingFace tool was told that a commit has no such file.
pub(crate) fn is_absent(root: &Path, repo: &str, commit: &str, path: &str) -> bool {
    home(root, repo).join(".no_exist").join(commit).join(path).is_file()
}

/// What looking for a file came to.
#[derive(Debug)]
pub(crate) enum Look {
    /// It is not here.
    Nothing,
    /// It is here, but not what its name says.
    Damaged {
        /// Where it lies.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It is here and verified.
    Found(Found),
}

/// A file of a commit; or, if the hub has named a checksum, the blob with that name. Reads all of it to verify it.
pub(crate) fn find(root: &Path, repo: &str, commit: &str, path: &str, wanted: Option<&Digest>) -> Look {
    let home = home(root, repo);
    let snapshot = home.join("snapshots").join(commit).join(path);
    let candidates = [fs::canonicalize(&snapshot).ok(), wanted.map(|digest| home.join("blobs").join(&digest.hex))];
    let mut out = Look::Nothing;
    for file in candidates.into_iter().flatten() {
        match verify(file, wanted) {
            found @ Look::Found(_) => return found,
            damaged @ Look::Damaged { .. } => out = damaged,
            Look::Nothing => {}
        }
    }
    out
}

fn verify(file: PathBuf, wanted: Option<&Digest>) -> Look {
    let named = file.file_name().and_then(|name| name.to_str()).and_then(Digest::from_etag);
    let digest = match (named, wanted) {
        (Some(named), Some(wanted)) if named != *wanted => return Look::Nothing,
        (Some(named), _) => named,
        (None, Some(wanted)) => wanted.clone(),
        (None, None) => return Look::Nothing,
    };
    let Ok(open) = File::open(&file) else { return Look::Nothing };
    let Some(meta) = open.metadata().ok().filter(fs::Metadata::is_file) else { return Look::Nothing };
    match digest.check(BufReader::new(open), meta.len(), |_| {}) {
        Ok(None) => Look::Found(Found { file, digest, size: meta.len() }),
        Ok(Some(why)) => Look::Damaged { file, why },
        Err(cause) => Look::Damaged { file, why: format!("it cannot be read: {cause}") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn files_are_found_under_their_commit_or_branch() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let put = |path: &str, text: &str| {
            let file = home(root, "o/n").join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, text).unwrap();
            file
        };
        let file = put(&format!("snapshots/{COMMIT}/d/f"), "text");
        put("refs/main", &format!("{COMMIT}\n"));
        put("refs/odd", "no commit");
        put(&format!(".no_exist/{COMMIT}/gone"), "");
        for revision in ["main", COMMIT] {
            assert_eq!(present(root, "o/n", revision, "d/f"), Some((COMMIT.to_owned(), file.clone())));
            assert_eq!(present(root, "o/n", revision, "d"), None, "a folder");
        }
        assert_eq!((present(root, "o/n", "odd", "d/f"), present(root, "o/other", "main", "d/f")), (None, None));
        let absent = ["gone", "d/f"].map(|path| is_absent(root, "o/n", COMMIT, path));
        assert_eq!(absent, [true, false]);
    }

    /// A file whose name says another checksum than the one that is wanted is none, sound or not.
    #[test]
    fn a_name_that_is_a_checksum_decides() {
        let dir = tempfile::tempdir().unwrap();
        let digests = ["a", "b"].map(|digit| Digest::from_etag(&digit.repeat(64)).unwrap());
        let file = |name: &str| {
            let file = dir.path().join(name);
            fs::write(&file, "text").unwrap();
            file
        };
        let named = || file(&digests[0].hex);
        assert!(matches!(verify(named(), None), Look::Damaged { .. }));
        assert!(matches!(verify(named(), Some(&digests[0])), Look::Damaged { .. }));
        assert!(matches!(verify(named(), Some(&digests[1])), Look::Nothing));
        assert!(matches!(verify(file("f"), None), Look::Nothing));
        assert!(matches!(verify(file("f"), Some(&digests[1])), Look::Damaged { .. }));
        let sound = Digest::from_etag("982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1").unwrap();
        for (name, wanted) in [("f", Some(&sound)), (&*sound.hex, Some(&sound)), (&*sound.hex, None)] {
            let Look::Found(found) = verify(file(name), wanted) else { panic!("{name} {wanted:?}") };
            assert_eq!((found.digest, found.size), (sound.clone(), 4));
        }
    }
}
