//! The part of a file that has arrived, on disk: it survives us, and the next run goes on where it ends.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use reqwest::header::HeaderValue;
use serde::{Deserialize, Serialize};

use super::cache::write_atomic;
use super::digest::Hasher;
use super::error::HubError;
use super::failure::Failure;
use super::http::Metadata;

/// The note beside a partial file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Note {
    /// The ETag under which the first bytes came, for If-Range. A CDN's differs from the hub's.
    validator: Option<String>,
}

/// Where a partial file and its note lie.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) part: PathBuf,
    pub(crate) note: PathBuf,
}

/// A partial file that is being filled.
pub(crate) struct Partial {
    pub(crate) file: File,
    pub(crate) part: PathBuf,
    pub(crate) note: PathBuf,
    fresh: Hasher,
    pub(crate) hasher: Hasher,
    pub(crate) done: u64,
    /// Whether some of `done` is from an earlier attempt, so that a wrong checksum may be its fault.
    pub(crate) mixed: bool,
    pub(crate) validator: Option<String>,
}

impl Partial {
    /// Opens what there is and hashes it.
    pub(crate) fn open(slot: Slot, meta: &Metadata) -> Result<Self, HubError> {
        let Slot { part, note } = slot;
        let fail = |cause: io::Error| HubError::io("open", &part, cause);
        if let Some(dir) = part.parent() {
            fs::create_dir_all(dir).map_err(fail)?;
        }
        let mut file = File::options().create(true).truncate(false).read(true).write(true).open(&part).map_err(fail)?;
        let fresh = meta.digest.hasher(meta.size);
        let mut hasher = fresh.clone();
        let mut done = file.metadata().map_err(fail)?.len();
        if done > meta.size {
            file.set_len(0).map_err(fail)?;
            done = 0;
        }
        let (mut buffer, mut left) = (vec![0; 128 << 10], done);
        while left > 0 {
            let n = file.read(&mut buffer).map_err(fail)?;
            if n == 0 {
                return Err(HubError::io("read", &part, "it became shorter while it was read"));
            }
            hasher.update(&buffer[..n]);
            left = left.saturating_sub(n as u64);
        }
        let validator = fs::read(&note)
            .ok()
            .and_then(|text| serde_json::from_slice::<Note>(&text).ok())
            .and_then(|note| note.validator)
            .filter(|validator| HeaderValue::from_str(validator).is_ok());
        Ok(Self { file, fresh, hasher, done, mixed: done > 0, validator: validator.filter(|_| done > 0), part, note })
    }

    fn fail(&self, cause: impl std::fmt::Display) -> Failure {
        Failure::fatal(HubError::io("write", &self.part, cause))
    }

    /// Back to byte 0; `validator` is the ETag of what comes now.
    pub(crate) fn restart(&mut self, validator: Option<String>) -> Result<(), Failure> {
        self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0))).map_err(|cause| self.fail(cause))?;
        self.hasher = self.fresh.clone();
        (self.done, self.mixed) = (0, false);
        self.validator = validator.clone();
        // before the first byte: a note without bytes is harmless, bytes without their note lose If-Range
        let text = serde_json::to_vec(&Note { validator }).map_err(|cause| self.fail(cause))?;
        write_atomic(&self.note, &text).map_err(Failure::fatal)
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(|cause| self.fail(cause))?;
        self.hasher.update(bytes);
        self.done += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::digest::Digest;

    #[test]
    fn what_an_earlier_run_left_is_known_with_its_note() {
        let dir = tempfile::tempdir().unwrap();
        let slot = Slot { part: dir.path().join("part"), note: dir.path().join("note") };
        fs::write(&slot.note, r#"{"validator": "\"x\""}"#).unwrap();
        // SHA-1 of git's blobs of five bytes: "hello".
        let digest = Digest::from_etag("b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0").unwrap();
        let meta = Metadata { commit: String::new(), digest: digest.clone(), size: 5 };
        for (there, done) in [(None, 0), (Some(""), 0), (Some("hel"), 3), (Some("hello"), 5), (Some("hello!"), 0)] {
            let _ = fs::remove_file(&slot.part);
            if let Some(there) = there {
                fs::write(&slot.part, there).unwrap();
            }
            let mut partial = Partial::open(slot.clone(), &meta).unwrap();
            assert_eq!((partial.done, partial.mixed), (done, done > 0), "{there:?}");
            assert_eq!(partial.validator.as_deref(), (done > 0).then_some("\"x\""), "{there:?}");
            partial.write(&b"hello"[done as usize..]).unwrap();
            assert_eq!((partial.done, partial.hasher.hex()), (5, digest.hex.clone()));
            assert_eq!(fs::read(&slot.part).unwrap(), b"hello");
        }
    }
}
