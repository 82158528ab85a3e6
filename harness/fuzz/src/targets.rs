//! The targets: one file for what is read by one room, or in one way.
//!
//! A target of several files takes them from one input, separated by lines of [`CUT`].

pub mod chat;
pub mod checkpoint;
pub mod compiled;
pub mod data;
pub mod gguf;
pub mod hub;
pub mod records;
pub mod tokenizers;
pub mod worker;

use std::fs::{self, DirBuilder, File};
use std::io;
use std::path::{Path, PathBuf};

/// Between the files of one input.
pub const CUT: &[u8] = b"\n--8<--\n";

/// The files of an input.
fn parts(mut input: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let Some(at) = input.windows(CUT.len()).position(|window| window == CUT) {
        parts.push(&input[..at]);
        input = &input[at + CUT.len()..];
    }
    parts.push(input);
    parts
}

/// Files as one input.
fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.join(CUT)
}

/// What somebody said who returns errors.
fn said<T>(result: Result<T, impl std::fmt::Display>) -> String {
    match result {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// What a target panics with where the machine keeps it from running: this is no finding.
#[derive(Debug)]
pub(crate) struct Unable(pub(crate) String);

fn unable(why: impl Into<String>) -> ! {
    std::panic::panic_any(Unable(why.into()))
}

/// A folder that is its owner's alone while the lock in it is held. A process that dies removes nothing: whoever takes the folder next
/// empties it.
#[derive(Debug)]
struct Folder {
    files: PathBuf,
    _lock: File,
}

/// Folders that are tried: a machine does not feed so many targets at a time.
const FOLDERS: usize = 256;

impl Folder {
    /// The first that nobody has.
    fn take(base: &Path) -> io::Result<Self> {
        let mut taken = Err(io::Error::from(io::ErrorKind::NotFound));
        for n in 0..FOLDERS {
            taken = Self::one(&base.join(format!("bitnet-fuzz-{n}")));
            if taken.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) || taken.is_ok() {
                break;
            }
        }
        taken
    }

    fn one(place: &Path) -> io::Result<Self> {
        own(place)?;
        let lock = File::options().write(true).create(true).truncate(false).open(place.join("lock"))?;
        lock.try_lock()?;
        let files = place.join("files");
        match fs::remove_dir_all(&files) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir(&files)?,
        }
        Ok(Self { files, _lock: lock })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // If something is left, the next owner removes it.
        let _ = fs::remove_dir_all(&self.files);
    }
}

/// Creates a folder that nobody else may enter, or finds it. Others may write where it lies: a link is refused.
fn own(place: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(place) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(place)?;
            #[cfg(unix)]
            let private = std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o777 == 0o700;
            #[cfg(not(unix))]
            let private = true;
            if found.is_dir() && private { Ok(()) } else { Err(error) }
        }
        made => made,
    }
}

/// A folder of this thread's, for readers that take paths: in memory where the system has such a place.
fn folder() -> PathBuf {
    thread_local! {
        static FOLDER: io::Result<Folder> =
            Folder::take(Path::new("/dev/shm")).or_else(|_| Folder::take(&std::env::temp_dir()));
    }
    FOLDER.with(|folder| match folder {
        Ok(folder) => folder.files.clone(),
        Err(error) => unable(format!("no folder for its files: {error}")),
    })
}

/// Writes a file for a reader that takes a path.
fn put(path: &Path, bytes: &[u8]) {
    let written = fs::write(path, bytes).or_else(|error| match path.parent() {
        Some(folder) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(folder).and_then(|()| fs::write(path, bytes))
        }
        _ => Err(error),
    });
    if let Err(error) = written {
        unable(format!("cannot write {}: {error}", path.display()));
    }
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden")
}

/// The files of a folder of `golden/` with an extension, smallest first, none above `most` bytes.
fn files(folder: &str, extension: &str, most: usize) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(golden().join(folder)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == extension));
    paths.sort();
    let mut files: Vec<Vec<u8>> = paths.iter().filter_map(|path| fs::read(path).ok()).collect();
    files.retain(|bytes| bytes.len() <= most);
    files.sort_by_key(Vec::len);
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Target;

    #[test]
    fn parts_come_back() {
        let all: [&[u8]; 3] = [b"a", b"", b"b\nc"];
        assert_eq!(parts(&joined(&all)), all);
        assert_eq!(parts(b""), [b""]);
    }

    #[test]
    fn a_folder_is_one_owners_and_what_somebody_left_is_gone() {
        let base = tempfile::tempdir().expect("a folder");
        let first = Folder::take(base.path()).expect("the first");
        let second = Folder::take(base.path()).expect("the second");
        assert_ne!(first.files, second.files);
        fs::write(second.files.join("old"), "old").expect("written");
        let files = first.files.clone();
        drop(first);
        // As a process leaves it that is killed.
        fs::create_dir(&files).expect("a folder");
        fs::write(files.join("old"), "old").expect("written");
        let third = Folder::take(base.path()).expect("the first again");
        assert_eq!(third.files, files);
        assert_eq!(fs::read_dir(&files).expect("a folder").count(), 0);
        assert!(second.files.join("old").exists());
        assert!(Folder::take(&base.path().join("missing")).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_others_may_change_is_not_taken() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let (base, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        symlink(other.path(), base.path().join("bitnet-fuzz-0")).expect("a link");
        let open = base.path().join("bitnet-fuzz-1");
        fs::create_dir(&open).expect("a folder");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).expect("set");
        let taken = Folder::take(base.path()).expect("a folder");
        assert_eq!(taken.files, base.path().join("bitnet-fuzz-2/files"));
        assert_eq!(fs::read_dir(other.path()).expect("a folder").count(), 0);
    }

    #[test]
    fn a_file_that_cannot_be_written_ends_the_run_and_is_no_finding() {
        let target = Target {
            name: "unwritten",
            about: "puts a file below a file",
            seeds: || vec![Vec::new()],
            run: |bytes| {
                put(&Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml/file"), bytes);
                String::new()
            },
        };
        let why = crate::run::execute(&target, b"").expect_err("unable").to_string();
        assert!(why.starts_with("`unwritten` cannot run here: cannot write"), "{why}");
    }
}
