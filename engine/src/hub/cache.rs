//! Our cache: contents under their checksum, compressed where that helps, found by repository, commit and path.
//!
//! ```text
//! <root>/blobs/sha256-<hex>.zst                  contents, zstd; without .zst as they are (big, or not compressible)
//!        entries/<org--name>/<commit>/<path>.json  which blob a file of a commit is
//!        absent/<org--name>/<commit>/<path>      empty: the hub says that the commit has no such file, which stays true
//!        lists/<org--name>/<commit>.json         the files of a commit, which never change
//!        refs/<org--name>/<revision>             the commit that a branch had; its mtime says when we saw that
//!        pins/<org--name>/<revision>.json        what a branch's tokenizer was when it was first used
//!        partial/<digest>.part, .json            what has arrived so far, and the server's ETag for If-Range
//!        locks/<digest>.lock                     one fetcher per blob
//!        tmp/                                    what is being written; old ones belong to the dead
//! ```
//!
//! Files appear by `rename` after `fsync`, so that a reader or a crash meets either all of a file or none. Contents are checked
//! against their checksum on every read. The blob's mtime is its last use, which is what eviction goes by; two commits with the
//! same file share one blob.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::error::HubError;
use super::names::{encode, folder, is_commit};
use super::partial::Slot;
use crate::shell::folder_of;

/// Bigger files are stored as they are: they are models, which do not compress and want to be mapped.
const COMPRESS_UP_TO: u64 = 64 << 20;
const LEVEL: i32 = 3;

/// The cache folder. Cheap to clone; any number of processes may share one folder.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// One file of one commit in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CacheEntry {
    /// The repository.
    pub repo: String,
    /// The commit, 40 hex digits.
    pub commit: String,
    /// The file's path in the repository.
    pub path: String,
    /// Its checksum.
    pub digest: Digest,
    /// Bytes of its contents.
    pub size: u64,
    /// Bytes on disk.
    pub stored: u64,
    /// Whether `file` is zstd.
    pub compressed: bool,
    /// Where it lies.
    #[serde(serialize_with = "crate::shell::text")]
    pub file: PathBuf,
    /// Last use.
    pub last_used: SystemTime,
}

/// What `entries/.../<path>.json` holds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) repo: String,
    pub(crate) commit: String,
    pub(crate) path: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

impl Cache {
    /// A cache at `root`. Nothing is created before something is stored.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn lock_file(&self, name: &str) -> PathBuf {
        self.root.join("locks").join(format!("{name}.lock"))
    }

    /// The partial file and its note, for contents with this checksum.
    pub(crate) fn partial(&self, digest: &Digest) -> Slot {
        let dir = self.root.join("partial");
        Slot { part: dir.join(format!("{digest}.part")), note: dir.join(format!("{digest}.json")) }
    }

    fn entry_file(&self, repo: &str, commit: &str, path: &str) -> PathBuf {
        self.root.join("entries").join(folder(repo)).join(commit).join(format!("{}.json", encode(path, false)))
    }

    fn ref_file(&self, repo: &str, revision: &str) -> PathBuf {
        self.root.join("refs").join(folder(repo)).join(encode(revision, false))
    }

    /// What is remembered of the first use of a branch. Not part of what is evicted or cleared.
    pub(crate) fn pin_file(&self, repo: &str, revision: &str) -> PathBuf {
        self.root.join("pins").join(folder(repo)).join(format!("{}.json", encode(revision, false)))
    }

    fn absent_file(&self, repo: &str, commit: &str, path: &str) -> PathBuf {
        self.root.join("absent").join(folder(repo)).join(commit).join(encode(path, false))
    }

    /// Whether the hub has said that a commit lacks a file.
    pub(crate) fn is_absent(&self, repo: &str, commit: &str, path: &str) -> bool {
        self.absent_file(repo, commit, path).is_file()
    }

    pub(crate) fn set_absent(&self, repo: &str, commit: &str, path: &str) -> Result<(), HubError> {
        self.write(&self.absent_file(repo, commit, path), b"")
    }

    fn list_file(&self, repo: &str, commit: &str) -> PathBuf {
        self.root.join("lists").join(folder(repo)).join(format!("{commit}.json"))
    }

    /// The files of a commit, if the hub has said so before.
    pub(crate) fn files_of(&self, repo: &str, commit: &str) -> Option<Vec<String>> {
        serde_json::from_slice(&fs::read(self.list_file(repo, commit)).ok()?).ok()
    }

    pub(crate) fn set_files(&self, repo: &str, commit: &str, files: &[String]) -> Result<(), HubError> {
        let file = self.list_file(repo, commit);
        let text = serde_json::to_vec(files).map_err(|cause| HubError::io("write", &file, cause))?;
        self.write(&file, &text)
    }

    /// Contents with this checksum, whatever file they are, copied to `to`: not a byte of them if they are damaged or not here.
    pub(crate) fn copy_blob(&self, digest: &Digest, size: u64, to: &Path) -> Result<bool, HubError> {
        let record =
            Record { repo: String::new(), commit: String::new(), path: String::new(), digest: digest.clone(), size };
        let Some(entry) = self.with_blob(record) else { return Ok(false) };
        let temp = Temp::beside(to);
        let fail = |cause| HubError::io("write", to, cause);
        let mut file = File::create(&temp.0).map_err(fail)?;
        let mut written = Ok(());
        let sound = inspect(&entry, |part| {
            if written.is_ok() {
                written = file.write_all(part);
            }
        });
        written.map_err(fail)?;
        if !matches!(sound, Ok(None)) {
            return Ok(false); // whoever reads it under its own name removes it
        }
        temp.publish(to).map_err(fail)?;
        Ok(true)
    }

    /// The commit that a branch or tag had when we last asked, and how long ago that was.
    pub fn commit_of(&self, repo: &str, revision: &str) -> Option<(String, Duration)> {
        let file = self.ref_file(repo, revision);
        let commit = fs::read_to_string(&file).ok()?.trim().to_owned();
        let seen = fs::metadata(&file).and_then(|meta| meta.modified()).ok()?;
        is_commit(&commit).then(|| (commit, seen.elapsed().unwrap_or_default()))
    }

    pub(crate) fn set_commit(&self, repo: &str, revision: &str, commit: &str) -> Result<(), HubError> {
        self.write(&self.ref_file(repo, revision), commit.as_bytes())
    }

    /// No branch or tag is this commit any more: the hub does not have it. Whoever asks for one of them next asks the hub.
    pub(crate) fn forget_commit(&self, repo: &str, commit: &str) {
        for entry in fs::read_dir(self.root.join("refs").join(folder(repo))).into_iter().flatten().flatten() {
            if fs::read_to_string(entry.path()).is_ok_and(|known| known.trim() == commit) {
                // What stays is asked for again when it is old.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// A file of a commit, if it is here. Its contents are not looked at; [`Cache::read`] does that.
    pub fn find(&self, repo: &str, commit: &str, path: &str) -> Option<CacheEntry> {
        let record: Record = serde_json::from_slice(&fs::read(self.entry_file(repo, commit, path)).ok()?).ok()?;
        // the note must be about what it is filed under
        (record.repo == repo && record.commit == commit && record.path == path)
            .then(|| self.with_blob(record))
            .flatten()
    }

    /// Contents that are here under another name become this file of this commit.
    pub(crate) fn adopt(
        &self,
        repo: &str,
        commit: &str,
        path: &str,
        digest: &Digest,
        size: u64,
    ) -> Result<Option<CacheEntry>, HubError> {
        let record = Record {
            repo: repo.to_owned(),
            commit: commit.to_owned(),
            path: path.to_owned(),
            digest: digest.clone(),
            size,
        };
        if self.blob(digest).is_none() {
            return Ok(None);
        }
        let text = serde_json::to_vec(&record).map_err(|cause| HubError::io("write", &self.root, cause))?;
        self.write(&self.entry_file(repo, commit, path), &text)?;
        Ok(self.with_blob(record))
    }

    pub(crate) fn with_blob(&self, record: Record) -> Option<CacheEntry> {
        let (file, compressed) = self.blob(&record.digest)?;
        let meta = fs::metadata(&file).ok()?;
        let Record { repo, commit, path, digest, size } = record;
        let last_used = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        Some(CacheEntry { repo, commit, path, digest, size, stored: meta.len(), compressed, file, last_used })
    }

    fn blob(&self, digest: &Digest) -> Option<(PathBuf, bool)> {
        let dir = self.root.join("blobs");
        let packed = dir.join(format!("{digest}.zst"));
        if packed.is_file() {
            return Some((packed, true));
        }
        let plain = dir.join(digest.to_string());
        plain.is_file().then_some((plain, false))
    }

    fn temp(&self) -> io::Result<Temp> {
        let dir = self.root.join("tmp");
        fs::create_dir_all(&dir)?;
        Ok(Temp::beside(&dir.join("file")))
    }

    /// Writes a small file of the cache so that it is seen whole or not at all.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), HubError> {
        self.temp().and_then(|temp| publish(&temp, path, bytes)).map_err(|cause| HubError::io("write", path, cause))
    }

    /// Moves a verified file into the cache. `partial` is gone afterwards.
    pub(crate) fn store(&self, partial: &Path, digest: &Digest, size: u64) -> Result<(), HubError> {
        let dir = self.root.join("blobs");
        fs::create_dir_all(&dir).map_err(|cause| HubError::io("create", &dir, cause))?;
        if size <= COMPRESS_UP_TO {
            let packed = dir.join(format!("{digest}.zst"));
            let pack = || -> io::Result<bool> {
                let temp = self.temp()?;
                let mut encoder = zstd::Encoder::new(File::create(&temp.0)?, LEVEL)?;
                io::copy(&mut File::open(partial)?, &mut encoder)?;
                let file = encoder.finish()?;
                if file.metadata()?.len() > size - size / 20 {
                    return Ok(false); // less than 5 % won
                }
                file.sync_all()?;
                temp.publish(&packed)?;
                Ok(true)
            };
            if pack().map_err(|cause| HubError::io("write", &packed, cause))? {
                return fs::remove_file(partial).map_err(|cause| HubError::io("remove", partial, cause));
            }
        }
        let plain = dir.join(digest.to_string());
        fs::rename(partial, &plain).and_then(|()| sync_dir(&dir)).map_err(|cause| HubError::io("write", &plain, cause))
    }

    /// The contents, checked against their checksum. A damaged blob is removed, so that the next download replaces it.
    pub fn read(&self, entry: &CacheEntry) -> Result<Vec<u8>, HubError> {
        let mut bytes = Vec::with_capacity(usize::try_from(entry.size.min(COMPRESS_UP_TO)).unwrap_or(0));
        self.check(entry, |part| bytes.extend_from_slice(part))?;
        Ok(bytes)
    }

    /// Checks the contents and marks the blob as used. A damaged blob is removed.
    pub(crate) fn check(&self, entry: &CacheEntry, sink: impl FnMut(&[u8])) -> Result<(), HubError> {
        match inspect(entry, sink) {
            Ok(None) => {
                touch(&entry.file);
                Ok(())
            }
            Ok(Some(why)) => {
                let _ = fs::remove_file(&entry.file); // if that fails, the next read finds the damage again
                Err(HubError::Corrupt { path: entry.file.clone(), why })
            }
            Err(cause) => Err(HubError::io("read", &entry.file, cause)),
        }
    }
}

/// `Ok(None)`: sound. `Ok(Some(..))`: damaged.
pub(crate) fn inspect(entry: &CacheEntry, sink: impl FnMut(&[u8])) -> io::Result<Option<String>> {
    let file = File::open(&entry.file)?;
    if !entry.compressed {
        return entry.digest.check(BufReader::new(file), entry.size, sink);
    }
    // one byte more than promised is enough to notice a bomb; what zstd cannot decode is damage, not an I/O error
    let checked = zstd::Decoder::new(file)
        .and_then(|decoder| entry.digest.check(decoder.take(entry.size.saturating_add(1)), entry.size, sink));
    match checked {
        Ok(result) => Ok(result),
        Err(cause) if cause.raw_os_error().is_none() => Ok(Some(format!("not zstd: {cause}"))),
        Err(cause) => Err(cause),
    }
}

/// Marks a blob as used now. On a read-only cache this fails, and nothing is ever evicted there either.
pub(crate) fn touch(path: &Path) {
    if let Ok(file) = File::options().append(true).open(path) {
        let _ = file.set_modified(SystemTime::now());
    }
}

/// A temporary file that is removed unless it was published.
pub(super) struct Temp(pub(super) PathBuf);

impl Temp {
    pub(super) fn beside(path: &Path) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        Temp(path.with_file_name(format!(".tmp-{}-{n}", std::process::id())))
    }

    pub(super) fn publish(&self, path: &Path) -> io::Result<()> {
        fs::rename(&self.0, path)?;
        sync_dir(folder_of(path))
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0); // gone already if it was published
    }
}

/// Makes a rename in `dir` survive a power failure, where the system can.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

/// Writes a file outside the cache so that it is seen whole or not at all.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), HubError> {
    write_whole(path, bytes).map_err(|cause| HubError::io("write", path, cause))
}

/// [`write_atomic`] for our caches that have nothing to do with the hub. It makes folders and replaces what is there: a file that a user
/// names is written by `gguf::write_file`.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    publish(&Temp::beside(path), path, bytes)
}

fn publish(temp: &Temp, path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let mut file = File::create(&temp.0)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    temp.publish(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::digest::Algorithm;
    use sha2::Digest as _;

    fn stored(cache: &Cache, contents: &[u8]) -> (Digest, bool) {
        let digest = Digest { algorithm: Algorithm::Sha256, hex: hex::encode(sha2::Sha256::digest(contents)) };
        let arrived = cache.root().with_file_name("arrived");
        fs::write(&arrived, contents).unwrap();
        cache.store(&arrived, &digest, contents.len() as u64).unwrap();
        assert!(!arrived.exists());
        let (_, compressed) = cache.blob(&digest).unwrap();
        (digest, compressed)
    }

    /// Bytes of which zstd saves the zeros and nothing else.
    fn contents(noise: usize, zeros: usize) -> Vec<u8> {
        let mut random = crate::random::SplitMix64(7);
        let mut bytes: Vec<u8> = (0..noise).map(|_| random.bits() as u8).collect();
        bytes.resize(noise + zeros, 0);
        bytes
    }

    #[test]
    fn a_twentieth_must_be_won_and_what_is_copied_is_sound() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().join("cache"));
        for (noise, zeros, compressed) in [(2_900, 100, false), (2_700, 300, true), (3_000, 0, false)] {
            let bytes = contents(noise, zeros);
            let (digest, packed) = stored(&cache, &bytes);
            assert_eq!(packed, compressed, "{noise} + {zeros}");
            let (size, copy) = (bytes.len() as u64, dir.path().join("copy"));
            assert!(cache.copy_blob(&digest, size, &copy).unwrap());
            assert_eq!(fs::read(&copy).unwrap(), bytes);
            fs::remove_file(&copy).unwrap();
            let (file, _) = cache.blob(&digest).unwrap();
            fs::write(&file, b"damaged").unwrap();
            assert!(!cache.copy_blob(&digest, size, &copy).unwrap());
            assert!(!copy.exists() && fs::read_dir(dir.path()).unwrap().count() == 1, "not a byte of it");
            fs::remove_file(file).unwrap();
            assert!(!cache.copy_blob(&digest, size, &copy).unwrap());
        }
        sync_dir(dir.path()).unwrap();
        assert!(!cfg!(unix) || sync_dir(&dir.path().join("missing")).is_err());
    }

    #[test]
    fn each_file_has_its_place() {
        let cache = Cache::new("root");
        let digest = Digest::from_etag(&"a".repeat(40)).unwrap();
        let slot = cache.partial(&digest);
        let name = format!("git-sha1-{}", "a".repeat(40));
        for (file, place) in [
            (cache.lock_file("x"), "locks/x.lock"),
            (slot.part, &format!("partial/{name}.part")),
            (slot.note, &format!("partial/{name}.json")),
            (cache.entry_file("o/n", "c", "d/t.json"), "entries/o--n/c/d%2Ft.json.json"),
            (cache.absent_file("o/n", "c", "d/t.json"), "absent/o--n/c/d%2Ft.json"),
            (cache.list_file("o/n", "c"), "lists/o--n/c.json"),
            (cache.ref_file("o/n", "refs/pr/1"), "refs/o--n/refs%2Fpr%2F1"),
            (cache.pin_file("o/n", "main"), "pins/o--n/main.json"),
        ] {
            assert_eq!(file, Path::new("root").join(place));
        }
    }

    /// What cannot be read may be sound: only what was read and is wrong is damage.
    #[cfg(unix)]
    #[test]
    fn what_cannot_be_read_is_not_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let entry = |file: &Path, compressed| CacheEntry {
            repo: "o/n".to_owned(),
            commit: "c".to_owned(),
            path: "p".to_owned(),
            digest: Digest::from_etag(&"a".repeat(64)).unwrap(),
            size: 3,
            stored: 3,
            compressed,
            file: file.to_owned(),
            last_used: SystemTime::UNIX_EPOCH,
        };
        let file = dir.path().join("file");
        fs::write(&file, "abc").unwrap();
        for compressed in [true, false] {
            assert!(inspect(&entry(dir.path(), compressed), |_| {}).is_err(), "a folder");
            assert!(matches!(inspect(&entry(&file, compressed), |_| {}), Ok(Some(_))));
        }
    }
}
