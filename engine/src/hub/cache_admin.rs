//! Looking after the cache: `bitnet cache list | verify | evict | clear`.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::cache::{Cache, CacheEntry, Record, inspect};
use super::digest::Digest;
use super::error::HubError;
use super::lock::try_lock;

/// Interrupted downloads that nobody resumed for this long are given up.
const PARTIAL_AGE: Duration = Duration::from_secs(14 * 86400);
/// Temporary files of this age belong to a dead process.
const TEMP_AGE: Duration = Duration::from_secs(3600);

/// The size of the cache.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CacheStats {
    /// Files of commits.
    pub entries: u64,
    /// Distinct contents.
    pub blobs: u64,
    /// Bytes of the contents of all entries, as if nothing were shared or compressed.
    pub logical: u64,
    /// Bytes on disk, interrupted downloads included.
    pub stored: u64,
}

/// What an eviction did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Eviction {
    /// Blobs that were removed, least recently used first.
    #[serde(serialize_with = "crate::shell::texts")]
    pub removed: Vec<PathBuf>,
    /// Bytes that this freed.
    pub freed: u64,
    /// Bytes that are left.
    pub left: u64,
}

/// What a check of the whole cache found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Entries with sound contents.
    pub sound: Vec<CacheEntry>,
    /// Entries with damaged contents, and what is wrong. Their blobs have been removed.
    pub damaged: Vec<(CacheEntry, String)>,
}

struct Blob {
    file: PathBuf,
    stored: u64,
    used: SystemTime,
}

impl Cache {
    /// All files, ordered by repository, commit and path.
    pub fn list(&self) -> Result<Vec<CacheEntry>, HubError> {
        let mut out: Vec<CacheEntry> =
            self.records()?.into_iter().filter_map(|(_, record)| self.with_blob(record)).collect();
        out.sort_by(|a, b| (&a.repo, &a.commit, &a.path).cmp(&(&b.repo, &b.commit, &b.path)));
        Ok(out)
    }

    /// Reads everything and compares checksums; removes what is damaged.
    pub fn verify(&self) -> Result<Verification, HubError> {
        let mut out = Verification::default();
        let mut known: HashMap<Digest, Option<String>> = HashMap::new();
        for entry in self.list()? {
            let wrong = match known.get(&entry.digest) {
                Some(wrong) => wrong.clone(),
                None => {
                    let wrong = inspect(&entry, |_| {}).map_err(|cause| HubError::io("read", &entry.file, cause))?;
                    if wrong.is_some() {
                        remove(&entry.file)?;
                    }
                    known.insert(entry.digest.clone(), wrong.clone());
                    wrong
                }
            };
            match wrong {
                None => out.sound.push(entry),
                Some(why) => out.damaged.push((entry, why)),
            }
        }
        self.sweep()?;
        Ok(out)
    }

    /// Removes the least recently used contents until at most `budget` bytes are left. `keep` stays whatever its size, so the file
    /// that somebody is about to open is not the one that makes room. One process evicts at a time; a second one has nothing to do.
    pub fn evict(&self, budget: u64, keep: &[Digest]) -> Result<Eviction, HubError> {
        let mut out = Eviction::default();
        if !self.root().exists() {
            return Ok(out);
        }
        let Some(_lock) = try_lock(&self.lock_file("evict"))? else {
            return Ok(out);
        };
        let keep: HashSet<String> = keep.iter().map(Digest::to_string).collect();
        let mut blobs = self.blobs()?;
        out.left = blobs.iter().map(|blob| blob.stored).sum();
        if out.left <= budget {
            return Ok(out);
        }
        blobs.sort_by(|a, b| (a.used, &a.file).cmp(&(b.used, &b.file)));
        for blob in blobs {
            if out.left <= budget {
                break;
            }
            if blob_name(&blob.file).is_some_and(|name| keep.contains(&name)) {
                continue;
            }
            remove(&blob.file)?;
            out.left -= blob.stored;
            out.freed += blob.stored;
            out.removed.push(blob.file);
        }
        self.sweep()?;
        Ok(out)
    }

    /// Removes every file, and says how many bytes that freed. What is being fetched at this moment stays, and so do the lock files.
    pub fn clear(&self) -> Result<u64, HubError> {
        let before = self.stats()?.stored;
        for (note, _) in self.records()? {
            remove(&note)?;
        }
        for name in ["refs", "lists"] {
            for repo in files(&self.root().join(name))? {
                for file in files(&repo)? {
                    remove(&file)?;
                }
            }
        }
        for repo in files(&self.root().join("absent"))? {
            for commit in files(&repo)? {
                for file in files(&commit)? {
                    remove(&file)?;
                }
            }
        }
        for name in ["blobs", "partial"] {
            for file in files(&self.root().join(name))? {
                // `<digest>`, `<digest>.zst`, `<digest>.part` and `<digest>.json` belong to the owner of `<digest>.lock`
                let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
                if let Some(_lock) = try_lock(&self.lock_file(&stem.unwrap_or_default()))? {
                    remove(&file)?;
                }
            }
        }
        Ok(before.saturating_sub(self.stats()?.stored))
    }

    /// The cache's size.
    pub fn stats(&self) -> Result<CacheStats, HubError> {
        let entries = self.list()?;
        let blobs = self.blobs()?;
        let partial: u64 = files(&self.root().join("partial"))?
            .iter()
            .filter_map(|file| fs::metadata(file).ok())
            .map(|meta| meta.len())
            .sum();
        Ok(CacheStats {
            entries: entries.len() as u64,
            blobs: blobs.len() as u64,
            logical: entries.iter().map(|entry| entry.size).sum(),
            stored: partial + blobs.iter().map(|blob| blob.stored).sum::<u64>(),
        })
    }

    fn blobs(&self) -> Result<Vec<Blob>, HubError> {
        let mut out = Vec::new();
        for file in files(&self.root().join("blobs"))? {
            if let (Some(_), Ok(meta)) = (blob_name(&file), fs::metadata(&file)) {
                out.push(Blob { stored: meta.len(), used: meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), file });
            }
        }
        Ok(out)
    }

    /// Every readable note with its file.
    fn records(&self) -> Result<Vec<(PathBuf, Record)>, HubError> {
        let mut out = Vec::new();
        for repo in files(&self.root().join("entries"))? {
            for commit in files(&repo)? {
                for note in files(&commit)? {
                    if let Some(record) = fs::read(&note).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
                        out.push((note, record));
                    }
                }
            }
        }
        Ok(out)
    }

    /// Removes what points nowhere or was left by the dead: notes without contents, old temporary files, old partial files.
    fn sweep(&self) -> Result<(), HubError> {
        for (note, record) in self.records()? {
            if self.with_blob(record).is_none() {
                remove(&note)?;
            }
        }
        let older = |file: &Path, age| {
            fs::metadata(file)
                .and_then(|meta| meta.modified())
                .is_ok_and(|time| time.elapsed().is_ok_and(|passed| passed > age))
        };
        for file in files(&self.root().join("tmp"))? {
            if older(&file, TEMP_AGE) {
                remove(&file)?;
            }
        }
        for file in files(&self.root().join("partial"))? {
            let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            if older(&file, PARTIAL_AGE)
                && let Some(_lock) = try_lock(&self.lock_file(&stem))?
            {
                remove(&file)?;
            }
        }
        Ok(())
    }
}

/// The checksum's text, if the file is a blob and not a temporary file.
fn blob_name(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_str()?;
    let name = name.strip_suffix(".zst").unwrap_or(name);
    Digest::from_name(name).map(|digest| digest.to_string())
}

/// The children of a folder; none if it does not exist.
fn files(dir: &Path) -> Result<Vec<PathBuf>, HubError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(cause) if matches!(cause.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(cause) => return Err(HubError::io("read", dir, cause)),
    };
    let mut out: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    out.sort();
    Ok(out)
}

/// Removes a file that another process may have removed before.
fn remove(file: &Path) -> Result<(), HubError> {
    match fs::remove_file(file) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(HubError::io("remove", file, cause)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_dead_left_is_removed_when_it_is_old() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path());
        let minute = Duration::from_secs(60);
        let ages = [("tmp", TEMP_AGE), ("partial", PARTIAL_AGE)];
        for (folder, age) in ages {
            fs::create_dir(dir.path().join(folder)).unwrap();
            for (name, age) in [("old", age + minute), ("young", age - minute)] {
                let file = fs::File::create(dir.path().join(folder).join(name)).unwrap();
                file.set_modified(SystemTime::now() - age).unwrap();
            }
        }
        // One that somebody fetches is not old, whatever its time says.
        let held = dir.path().join("partial/held");
        fs::File::create(&held).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        let _lock = try_lock(&cache.lock_file("held")).unwrap().unwrap();
        cache.verify().unwrap();
        let left = |folder: &str| files(&dir.path().join(folder)).unwrap();
        assert_eq!(left("tmp"), [dir.path().join("tmp/young")]);
        assert_eq!(left("partial"), [held, dir.path().join("partial/young")]);
    }

    #[test]
    fn only_what_is_missing_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(files(&dir.path().join("missing")).unwrap(), [""; 0].map(PathBuf::from));
        assert_eq!(files(&file).unwrap(), [""; 0].map(PathBuf::from));
        let error = files(&dir.path().join("x".repeat(300))).unwrap_err().to_string();
        assert!(error.starts_with("cannot read "), "{error}");
        remove(&dir.path().join("missing")).unwrap();
        let error = remove(dir.path()).unwrap_err().to_string();
        assert!(error.starts_with("cannot remove "), "{error}");
        remove(&file).unwrap();
        assert!(!file.exists());
    }
}
