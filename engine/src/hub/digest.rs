//! The hub's checksums. An ETag of 64 hex digits is the SHA-256 of the contents (LFS, Xet), one of 40 is git's SHA-1 of the blob
//! `"blob " length "\0" contents`. Both can be computed while the bytes arrive, because the size is known before.

use std::fmt;
use std::io::Read;

use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// The kind of a checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// SHA-256 of the contents.
    Sha256,
    /// SHA-1 of the git blob.
    GitSha1,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::GitSha1 => "git-sha1",
        })
    }
}

/// A checksum of one file. Its text, `sha256-<hex>` or `git-sha1-<hex>`, names the blob in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Digest {
    /// The kind.
    pub algorithm: Algorithm,
    /// Lower-case hex digits: 64 or 40.
    pub hex: String,
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.algorithm, self.hex)
    }
}

impl Digest {
    /// From an ETag as it stands in a header (`W/` and quotes allowed); `None` if it is not a checksum.
    pub fn from_etag(etag: &str) -> Option<Self> {
        let hex = etag.trim().trim_start_matches("W/").trim_matches('"');
        if !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let algorithm = match hex.len() {
            64 => Algorithm::Sha256,
            40 => Algorithm::GitSha1,
            _ => return None,
        };
        Some(Self { algorithm, hex: hex.to_owned() })
    }

    /// From the text form.
    pub fn from_name(name: &str) -> Option<Self> {
        let hex = name.strip_prefix("sha256-").or_else(|| name.strip_prefix("git-sha1-"))?;
        Self::from_etag(hex).filter(|digest| digest.to_string() == name)
    }

    /// Starts computing a checksum of this kind for a file of `size` bytes.
    pub(crate) fn hasher(&self, size: u64) -> Hasher {
        match self.algorithm {
            Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
            Algorithm::GitSha1 => {
                let mut hash = Sha1::new();
                hash.update(format!("blob {size}\0").as_bytes());
                Hasher::GitSha1(hash)
            }
        }
    }

    /// Checks everything that `reader` gives: `Ok(None)` if size and checksum are right, otherwise what is wrong.
    pub(crate) fn check(
        &self,
        mut reader: impl Read,
        size: u64,
        mut sink: impl FnMut(&[u8]),
    ) -> std::io::Result<Option<String>> {
        let mut hasher = self.hasher(size);
        let (mut buffer, mut seen) = (vec![0; 128 << 10], 0u64);
        loop {
            let n = reader.read(&mut buffer)?;
            let part = &buffer[..n];
            if part.is_empty() {
                break;
            }
            seen += n as u64;
            if seen > size {
                return Ok(Some(format!("more than the {size} bytes that were stored")));
            }
            hasher.update(part);
            sink(part);
        }
        let got = hasher.hex();
        Ok(if seen != size {
            Some(format!("{seen} bytes instead of {size}"))
        } else if got != self.hex {
            Some(format!("{} {got} instead of {}", self.algorithm, self.hex))
        } else {
            None
        })
    }
}

/// A checksum in the making.
#[derive(Clone)]
pub(crate) enum Hasher {
    Sha256(Sha256),
    GitSha1(Sha1),
}

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hash) => hash.update(bytes),
            Hasher::GitSha1(hash) => hash.update(bytes),
        }
    }

    pub(crate) fn hex(self) -> String {
        match self {
            Hasher::Sha256(hash) => hex::encode(hash.finalize()),
            Hasher::GitSha1(hash) => hex::encode(hash.finalize()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_of_both_kinds_verify_what_git_and_sha256sum_say() {
        for (etag, algorithm) in [
            ("\"b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0\"", Algorithm::GitSha1),
            ("W/\"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824\"", Algorithm::Sha256),
        ] {
            let digest = Digest::from_etag(etag).unwrap();
            assert_eq!(digest.algorithm, algorithm);
            assert_eq!(digest.check(&b"hello"[..], 5, |_| {}).unwrap(), None);
            assert!(digest.check(&b"hellO"[..], 5, |_| {}).unwrap().is_some());
            assert!(digest.check(&b"hell"[..], 5, |_| {}).unwrap().is_some());
            assert!(digest.check(&b"hello!"[..], 5, |_| {}).unwrap().is_some());
            assert_eq!(Digest::from_name(&digest.to_string()), Some(digest));
        }
        // In several pieces; of what is too long not a byte more than was promised is handed on.
        let long = vec![7; 300 << 10];
        let digest = Digest { algorithm: Algorithm::Sha256, hex: hex::encode(Sha256::digest(&long)) };
        let mut seen = 0;
        assert_eq!(digest.check(&long[..], 300 << 10, |part| seen += part.len()).unwrap(), None);
        assert_eq!(seen, 300 << 10);
        let mut seen = 0;
        let wrong = digest.check(&long[..], 200 << 10, |part| seen += part.len()).unwrap().unwrap();
        assert_eq!(wrong, "more than the 204800 bytes that were stored");
        assert!(seen <= 200 << 10, "{seen}");
        let wrong = digest.check(&long[..], 400 << 10, |_| {}).unwrap().unwrap();
        assert_eq!(wrong, "307200 bytes instead of 409600");
        for no in ["", "\"of-the-redirect\"", "B6FC4C620B67D95F953A5C1C1230AAAB5DB5A1B0", "123"] {
            assert_eq!(Digest::from_etag(no), None, "{no}");
        }
        assert_eq!(Digest::from_name("sha256-b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0"), None);
    }
}
