//! Cubins on disk, so that a source is compiled once for a kind of card and not at every start.
//!
//! An entry is a file named by its key, the SHA-256 of all that decides about its bytes: the source, what it includes, the
//! options (the architecture among them) and NVRTC's version. So nothing ever goes stale: another source is another name.
//! An entry is written beside its place and renamed, so a reader finds all of it or nothing, however many processes start
//! at once; two that compile the same thing write the same bytes. What a disk or a person damages is seen by the
//! checksum at its head, and rebuilt.
//!
//! A cache that cannot be read or written costs time and nothing else: the cubin is made, and [`Cubin::note`] says why it
//! was not kept.

use super::architecture::Architecture;
use super::nvrtc::{Nvrtc, NvrtcError, Program, options};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The first bytes of an entry. After them 32 bytes of SHA-256, of the key and the cubin, and the cubin.
const MAGIC: &[u8] = b"bitnet cubin 1\n";
const DIGEST: usize = 32;

/// A folder of cubins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    folder: PathBuf,
}

/// What an entry is named by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(String);

/// A compiled source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cubin {
    /// The ELF file that the driver loads.
    pub bytes: Vec<u8>,
    /// Whether it came from the cache.
    pub cached: bool,
    /// What was wrong with the cache, if anything was: a damaged entry that was rebuilt, a folder that cannot be written.
    pub note: Option<String>,
}

/// Why an entry is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    Short,
    Head,
    Digest,
}

impl Damage {
    fn text(self) -> &'static str {
        match self {
            Self::Short => "it is cut off",
            Self::Head => "it does not begin as an entry does",
            Self::Digest => "its checksum is not that of its bytes",
        }
    }
}

impl Key {
    /// The key of a source, compiled with [`options`] by NVRTC of this version.
    pub fn new(program: &Program<'_>, architecture: Architecture, more: &[&str], nvrtc: (u32, u32)) -> Self {
        let mut hash = Sha256::new();
        // Each part with its length, so that no two lists of parts read the same.
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        part(format!("nvrtc {}.{}", nvrtc.0, nvrtc.1).as_bytes());
        part(program.name.as_bytes());
        part(program.text.as_bytes());
        for (name, text) in program.headers {
            part(name.as_bytes());
            part(text.as_bytes());
        }
        for option in options(architecture, more) {
            part(option.as_bytes());
        }
        Self(hex(&hash.finalize()))
    }

    /// The file name, without its ending.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl Cache {
    /// A cache in this folder, which is made when something is first kept.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where an entry lies.
    pub fn path(&self, key: &Key) -> PathBuf {
        self.folder.join(format!("{}.cubin", key.0))
    }

    /// The cubin of a source for an architecture: from the folder, else compiled and kept.
    ///
    /// # Errors
    /// It does not compile, or NVRTC fails. Never for the sake of the cache.
    pub fn compile(
        &self,
        nvrtc: &Nvrtc,
        program: &Program<'_>,
        architecture: Architecture,
    ) -> Result<Cubin, NvrtcError> {
        let key = Key::new(program, architecture, &[], nvrtc.version());
        self.get_or_make(&key, || Ok(nvrtc.compile(program, architecture, &[])?.cubin))
    }

    /// The bytes of an entry: from the folder, else made and kept.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn get_or_make<E>(&self, key: &Key, make: impl FnOnce() -> Result<Vec<u8>, E>) -> Result<Cubin, E> {
        let path = self.path(key);
        let mut notes = Vec::new();
        match std::fs::read(&path) {
            Ok(file) => match open(key, file) {
                Ok(bytes) => return Ok(Cubin { bytes, cached: true, note: None }),
                Err(damage) => notes.push(format!("{} was damaged ({}) and rebuilt", path.display(), damage.text())),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => notes.push(format!("{} cannot be read: {error}", path.display())),
        }
        let bytes = make()?;
        if let Err(error) = self.keep(key, &path, &bytes) {
            notes.push(format!("{} cannot be written, so the next start compiles again: {error}", path.display()));
        }
        let note = (!notes.is_empty()).then(|| notes.join("; "));
        Ok(Cubin { bytes, cached: false, note })
    }

    fn keep(&self, key: &Key, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        std::fs::create_dir_all(&self.folder)?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // Containers that share a folder may count processes alike: the time tells them apart.
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |passed| passed.as_nanos());
        let beside = self.folder.join(format!(".{}.{}.{count}.{now}.part", key.0, std::process::id()));
        let written = write(&beside, key, bytes).and_then(|()| std::fs::rename(&beside, path));
        if written.is_err() {
            // Best effort: the error is what there is to say.
            let _ = std::fs::remove_file(&beside);
        }
        written
    }
}

fn write(path: &Path, key: &Key, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::File::create_new(path)?;
    file.write_all(MAGIC)?;
    file.write_all(&digest(key, bytes))?;
    file.write_all(bytes)
}

/// The cubin in an entry.
fn open(key: &Key, mut file: Vec<u8>) -> Result<Vec<u8>, Damage> {
    let head = file.get(..MAGIC.len()).ok_or(Damage::Short)?;
    if head != MAGIC {
        return Err(Damage::Head);
    }
    let start = MAGIC.len() + DIGEST;
    let want = file.get(MAGIC.len()..start).ok_or(Damage::Short)?;
    // Nothing compiles to nothing.
    let bytes = file.get(start..).filter(|bytes| !bytes.is_empty()).ok_or(Damage::Short)?;
    if want != digest(key, bytes).as_slice() {
        return Err(Damage::Digest);
    }
    file.drain(..start);
    Ok(file)
}

fn digest(key: &Key, bytes: &[u8]) -> [u8; DIGEST] {
    let mut hash = Sha256::new();
    hash.update(key.0.as_bytes());
    hash.update(bytes);
    hash.finalize().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
