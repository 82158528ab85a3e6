//! Whether what is to come fits on the disk, asked before it comes.

use std::path::Path;

use super::error::HubError;

/// Refuses a download of more bytes than the disk of `dir` (which need not exist yet) has free. Where the system does not say
/// (Windows, some network drives), the disk is trusted.
pub(crate) fn check(dir: &Path, needed: u64) -> Result<(), HubError> {
    match free(dir) {
        Some(free) if free < needed => Err(HubError::Space { path: dir.to_owned(), needed, free }),
        _ => Ok(()),
    }
}

#[cfg(unix)]
fn free(dir: &Path) -> Option<u64> {
    let there = dir.ancestors().find(|dir| dir.exists())?;
    let said = rustix::fs::statvfs(there).ok()?;
    said.f_bavail.checked_mul(said.f_frsize)
}

#[cfg(not(unix))]
fn free(_: &Path) -> Option<u64> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn no_disk_has_room_for_all() {
        let dir = tempfile::tempdir().unwrap();
        // A folder that is not there yet is on the disk of the one above.
        for dir in [dir.path().to_owned(), dir.path().join("a/b")] {
            check(&dir, 1).unwrap();
            match check(&dir, u64::MAX) {
                Err(HubError::Space { path, needed: u64::MAX, free }) => {
                    assert_eq!(path, dir);
                    assert!((1 << 20..1 << 60).contains(&free), "{free}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
