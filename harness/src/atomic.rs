//! Files that are either old or new, never half: several test processes write side by side.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

static NEXT: AtomicU64 = AtomicU64::new(0);

/// Writes `bytes` to a temporary file beside `path` and renames it there, making folders as needed.
///
/// # Errors
/// Whatever the operating system says; the temporary file is removed then.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    let unique = NEXT.fetch_add(1, Ordering::Relaxed);
    name.push(format!(".{}-{unique}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let result = std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, path));
    if result.is_err() {
        // The first error is the one to report; a temporary file that cannot be removed adds nothing.
        let _ = std::fs::remove_file(&temporary);
    }
    result
}

#[cfg(test)]
mod tests {
    #[test]
    fn leaves_only_the_file() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("a/b.json");
        super::write(&path, b"1").expect("write");
        super::write(&path, b"2").expect("overwrite");
        assert_eq!(std::fs::read(&path).expect("read"), b"2");
        assert_eq!(std::fs::read_dir(dir.path().join("a")).expect("list").count(), 1);
    }
}
