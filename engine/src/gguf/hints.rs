//! From raw failures to advice: which error a system call means, and what a file that is not a GGUF is.

use std::io;
use std::path::Path;

use super::error::GgufError;
use super::split::SplitError;

impl GgufError {
    /// The error itself, without the file in which it was found.
    pub fn cause(&self) -> &GgufError {
        match self {
            GgufError::InFile { error, .. } => error.cause(),
            other => other,
        }
    }

    /// Names the file. Errors that already name one stay as they are.
    pub(super) fn in_file(self, path: &Path) -> GgufError {
        match self {
            GgufError::InFile { .. }
            | GgufError::NotFound { .. }
            | GgufError::NotAFile { .. }
            | GgufError::PermissionDenied { .. }
            | GgufError::Io { .. }
            | GgufError::Split(SplitError::Missing { .. }) => self,
            error => GgufError::InFile { path: path.to_owned(), error: Box::new(error) },
        }
    }

    /// Sorts a failed system call into the variant that a person can act on.
    pub(super) fn from_io(path: &Path, action: &'static str, source: io::Error) -> GgufError {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => GgufError::NotFound { path },
            io::ErrorKind::PermissionDenied => GgufError::PermissionDenied { path },
            io::ErrorKind::IsADirectory => GgufError::NotAFile { path, kind: "a directory" },
            _ => GgufError::Io { path, action, source },
        }
    }
}

pub(super) fn io_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free space on that disk, or choose another folder, and run it again"
        }
        _ => "",
    }
}

/// What the file probably is instead: the usual accidents of a download.
pub(super) fn magic_hint(found: &[u8]) -> &'static str {
    const KNOWN: &[(&[u8], &str)] = &[
        (b"version https://", "; this is a Git LFS pointer: run `git lfs pull`, or download the file itself"),
        (b"<!DOCTYPE", "; this is a web page: download the file itself, not the page about it"),
        (b"<!doctype", "; this is a web page: download the file itself, not the page about it"),
        (b"<html", "; this is a web page: download the file itself, not the page about it"),
        (b"PK\x03\x04", "; this is a zip archive (a PyTorch checkpoint?): convert the model to GGUF"),
        (b"FUGG", "; the magic is byte-swapped: this is a big-endian file, get the little-endian one"),
        (b"tjgg", "; this is GGML's old GGJT format: convert the model again to GGUF"),
        (b"lmgg", "; this is GGML's old unversioned format: convert the model again to GGUF"),
        (b"fmgg", "; this is GGML's old GGMF format: convert the model again to GGUF"),
    ];
    for (start, hint) in KNOWN {
        if found.starts_with(start) {
            return hint;
        }
    }
    match found.get(8..) {
        Some([b'{', ..]) => "; this looks like safetensors: convert the model to GGUF",
        _ => "; give the path of a .gguf file",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_refuses_is_sorted() {
        let told = |kind: io::ErrorKind| GgufError::from_io(Path::new("m"), "open", kind.into()).to_string();
        for (kind, words) in [
            (io::ErrorKind::NotFound, "m: no such file"),
            (io::ErrorKind::PermissionDenied, "m: permission denied"),
            (io::ErrorKind::IsADirectory, "m: this is a directory"),
            (io::ErrorKind::StorageFull, "m: cannot open: "),
        ] {
            assert!(told(kind).starts_with(words), "{}", told(kind));
            assert_eq!(told(kind).contains("free space on that disk"), kind == io::ErrorKind::StorageFull);
        }
    }
}
