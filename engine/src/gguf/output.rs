//! A file that appears whole or not at all, and never in the place of one that others need.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::error::GgufError;
use crate::shell::folder_of;

/// Whether two paths name one file: by another way, through links, or by a second name (hard link).
pub fn same_file(a: &Path, b: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        if let (Ok(a), Ok(b)) = (fs::metadata(a), fs::metadata(b)) {
            return (a.dev(), a.ino()) == (b.dev(), b.ino());
        }
    }
    matches!((fs::canonicalize(a), fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}

/// Writes a file that a user named: through a link to its target, never in the place of a folder, a device or a pipe, and into a
/// folder that is there. It appears whole or not at all.
///
/// # Errors
/// Why it cannot be written, without the path itself.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), String> {
    write_file_by(path, |file| file.write_all(bytes))
}

/// [`write_file`] of what `write` writes.
pub(crate) fn write_file_by(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), String> {
    let write = |file: &mut File| write(file).map_err(|e| io_error(path, "write", e));
    replace_file(path, write, |_| Ok(())).map_err(|error| match error {
        GgufError::NotAFile { kind, .. } => format!("what is there is {kind}, not a regular file"),
        GgufError::PermissionDenied { .. } => "permission denied".to_owned(),
        GgufError::Io { path, action, source } => format!("cannot {action} {}: {source}", path.display()),
        GgufError::CannotWrite { why, .. } => why,
        other => other.to_string(),
    })
}

/// Calls `write` with a new file in the folder of `path`, forces it to the disk, calls `check` with its name, then renames it to
/// `path`. On any error, and on a panic, the new file is removed and what was at `path` stays.
pub(super) fn replace_file<T>(
    path: &Path,
    write: impl FnOnce(&mut File) -> Result<T, GgufError>,
    check: impl FnOnce(&Path) -> Result<(), GgufError>,
) -> Result<T, GgufError> {
    let target = resolve(path)?;
    let folder = folder_of(&target);
    remove_abandoned(folder);
    let (mut file, temp) = create_beside(folder)?;
    let result = write(&mut file)?;
    file.sync_all().map_err(|e| io_error(path, "force to the disk", e))?;
    // Elsewhere an open or locked file can be neither read nor renamed.
    #[cfg(not(unix))]
    drop(file);
    check(&temp.path)?;
    fs::rename(&temp.path, &target).map_err(|e| io_error(path, "rename the finished file to", e))?;
    temp.keep();
    // The rename itself reaches the disk with its folder. Some file systems cannot sync a folder; the
    // file is whole under either name, so that this is not a failure.
    #[cfg(unix)]
    let _ = File::open(folder).and_then(|f| f.sync_all());
    Ok(result)
}

/// Follows a link, so that the file is replaced and not the link; refuses what is not a regular file, and the files of
/// HuggingFace's cache: there a link leads to a blob, which belongs to every revision that has it.
fn resolve(path: &Path) -> Result<PathBuf, GgufError> {
    if path.file_name().is_none_or(OsStr::is_empty) {
        return Err(GgufError::NotAFile { path: path.to_owned(), kind: "a directory" });
    }
    let target = match fs::symlink_metadata(path) {
        Ok(m) if m.is_symlink() => {
            fs::canonicalize(path).map_err(|e| GgufError::from_io(path, "follow the link", e))?
        }
        _ => path.to_owned(),
    };
    if is_blob(&target) {
        return Err(GgufError::CannotWrite {
            what: path.display().to_string(),
            why: format!("it is {}, a file of a HuggingFace cache; choose another name", target.display()),
        });
    }
    match fs::metadata(&target) {
        Ok(m) if m.is_dir() => Err(GgufError::NotAFile { path: target, kind: "a directory" }),
        Ok(m) if !m.is_file() => Err(GgufError::NotAFile { path: target, kind: "a special file" }),
        _ => Ok(target),
    }
}

/// Whether a path lies in the folder `blobs` of a cached repository (`models--ORG--NAME/blobs`).
fn is_blob(target: &Path) -> bool {
    let Ok(folder) = fs::canonicalize(folder_of(target)) else { return false };
    let name = folder.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    folder.ends_with("blobs") && ["models--", "datasets--", "spaces--"].iter().any(|start| name.starts_with(start))
}

/// Removes what a process left here that was killed: its number is free again, and nobody holds the lock of the file. The lock
/// tells of processes in other containers, whose numbers are others.
fn remove_abandoned(folder: &Path) {
    // Where the processes cannot be seen, nothing is removed.
    if !Path::new("/proc/self").exists() {
        return;
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(owner) else { continue };
        if Path::new("/proc").join(pid.to_string()).exists() || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let path = entry.path();
        if File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
            // If it cannot be removed, the new file is written all the same.
            let _ = fs::remove_file(path);
        }
    }
}

/// The process in the name of an unfinished file.
fn owner(name: &str) -> Option<u32> {
    let (pid, n) = name.strip_prefix(".gguf-")?.strip_suffix(".part")?.split_once('-')?;
    n.parse::<u32>().ok()?;
    pid.parse().ok()
}

fn create_beside(folder: &Path) -> Result<(File, Temp), GgufError> {
    const TRIES: u32 = 1000;
    let pid = std::process::id();
    for n in 0..TRIES {
        let path = folder.join(format!(".gguf-{pid}-{n}.part"));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => {
                // A file system without locks has none that could be abandoned either.
                #[cfg(unix)]
                let _ = file.try_lock();
                return Ok((file, Temp { path, kept: false }));
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(io_error(folder, "create a file in the folder", e)),
        }
    }
    let many = io::Error::new(io::ErrorKind::AlreadyExists, "it is full of .gguf-*.part files; remove them");
    Err(io_error(folder, "create a file in the folder", many))
}

fn io_error(path: &Path, action: &'static str, source: io::Error) -> GgufError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => GgufError::PermissionDenied { path: path.to_owned() },
        _ => GgufError::Io { path: path.to_owned(), action, source },
    }
}

/// Removes the unfinished file unless told to keep it.
struct Temp {
    path: PathBuf,
    kept: bool,
}

impl Temp {
    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing more can be done from here; the error that led here is on its way to the caller.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_denies_is_told_from_what_fails() {
        let told = |kind: io::ErrorKind| io_error(Path::new("m"), "write", kind.into()).to_string();
        assert!(told(io::ErrorKind::PermissionDenied).starts_with("m: permission denied"));
        assert!(told(io::ErrorKind::StorageFull).starts_with("m: cannot write: "));
    }

    fn put(path: &Path) -> Result<(), GgufError> {
        replace_file(path, |file| file.write_all(b"new").map_err(|e| io_error(path, "write", e)), |_| Ok(()))
    }

    #[cfg(unix)]
    #[test]
    fn what_a_user_names_is_written_through_links_and_nothing_else_is_replaced() {
        use std::os::unix::fs::FileTypeExt;
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (file, link, pipe, folder) = (at("file"), at("link"), at("pipe"), at("folder"));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        fs::create_dir(&folder).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());

        write_file(&link, b"new").unwrap();
        assert!(link.is_symlink() && fs::read(&file).unwrap() == b"new");
        write_file(&at("fresh"), b"fresh").unwrap();
        assert_eq!(fs::read(at("fresh")).unwrap(), b"fresh");

        assert_eq!(write_file(&pipe, b"new").unwrap_err(), "what is there is a special file, not a regular file");
        assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
        let to_pipe = at("to pipe");
        std::os::unix::fs::symlink(&pipe, &to_pipe).unwrap();
        assert!(write_file(&to_pipe, b"new").unwrap_err().contains("a special file"));
        assert!(to_pipe.is_symlink() && fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
        assert!(write_file(&folder, b"new").unwrap_err().contains("a directory"));
        let missing = at("missing");
        let error = write_file(&missing.join("file"), b"new").unwrap_err();
        assert!(error.contains(&missing.display().to_string()) && !missing.exists(), "{error}");
        assert!(!error.contains(".part"), "the folder is not full: {error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 6, "nothing unfinished stays");
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_but_not_into_the_blobs_of_a_cache() {
        let dir = tempfile::tempdir().unwrap();
        let repository = dir.path().join("models--o--r");
        let (blob, link) = (repository.join("blobs/abc"), repository.join("snapshots/c/model.safetensors"));
        for path in [&blob, &link] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        fs::write(&blob, "old").unwrap();
        std::os::unix::fs::symlink("../../blobs/abc", &link).unwrap();
        let elsewhere = dir.path().join("link");
        std::os::unix::fs::symlink(&link, &elsewhere).unwrap();
        for path in [&blob, &link, &elsewhere] {
            let error = put(path).unwrap_err().to_string();
            assert!(error.contains("HuggingFace cache"), "{error}");
            assert_eq!(fs::read_to_string(&blob).unwrap(), "old");
            assert!(same_file(path, &blob));
        }
        for path in [repository.join("other/file"), dir.path().join("blobs/file")] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            put(&path).unwrap();
        }
        let (file, own) = (dir.path().join("file"), dir.path().join("own"));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &own).unwrap();
        put(&own).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert!(own.is_symlink());
        let second = dir.path().join("second");
        fs::hard_link(&file, &second).unwrap();
        assert!(same_file(&second, &own) && !same_file(&second, &blob));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn unfinished_files_of_dead_processes_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        // Larger than any process number of Linux.
        let dead = u32::MAX;
        let path = |name: String| dir.path().join(name);
        let (gone, held) = (path(format!(".gguf-{dead}-0.part")), path(format!(".gguf-{dead}-1.part")));
        let kept = [
            path(format!(".gguf-{}-7.part", std::process::id())),
            // The first name that the new file would have.
            path(format!(".gguf-{}-0.part", std::process::id())),
            path(format!(".gguf-{dead}.part")),
            path(format!("x.gguf-{dead}-0.part")),
            held.clone(),
        ];
        fs::write(&gone, "").unwrap();
        kept.iter().for_each(|path| fs::write(path, "").unwrap());
        let lock = File::open(&held).unwrap();
        lock.lock().unwrap();
        put(&path("model.gguf".into())).unwrap();
        assert!(!gone.exists());
        assert!(kept.iter().all(|path| path.exists()));
    }
}
