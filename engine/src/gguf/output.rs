//! A file that appears whole or not at all.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::error::GgufError;

/// Calls `write` with a new file in the folder of `path`, forces it to the disk, calls `check` with its name, then renames it to
/// `path`. On any error, and on a panic, the new file is removed and what was at `path` stays.
pub(super) fn replace_file<T>(
    path: &Path,
    write: impl FnOnce(&mut File) -> Result<T, GgufError>,
    check: impl FnOnce(&Path) -> Result<(), GgufError>,
) -> Result<T, GgufError> {
    let target = resolve(path)?;
    let folder = match target.parent() {
        Some(p) if p != Path::new("") => p.to_owned(),
        _ => PathBuf::from("."),
    };
    let (mut file, temp) = create_beside(&folder)?;
    let result = write(&mut file)?;
    file.sync_all().map_err(|e| io_error(path, "force to the disk", e))?;
    drop(file);
    check(&temp.path)?;
    fs::rename(&temp.path, &target).map_err(|e| io_error(path, "rename the finished file to", e))?;
    temp.keep();
    // The rename itself reaches the disk with its folder. Some file systems cannot sync a folder; the
    // file is whole under either name, so that this is no failure.
    #[cfg(unix)]
    let _ = File::open(&folder).and_then(|f| f.sync_all());
    Ok(result)
}

/// Follows a link, so that the file is replaced and not the link; refuses what is not a regular file.
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
    match fs::metadata(&target) {
        Ok(m) if m.is_dir() => Err(GgufError::NotAFile { path: target, kind: "a directory" }),
        Ok(m) if !m.is_file() => Err(GgufError::NotAFile { path: target, kind: "a special file" }),
        _ => Ok(target),
    }
}

fn create_beside(folder: &Path) -> Result<(File, Temp), GgufError> {
    const TRIES: u32 = 1000;
    let pid = std::process::id();
    for n in 0..TRIES {
        let path = folder.join(format!(".gguf-{pid}-{n}.part"));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((file, Temp { path, kept: false })),
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
