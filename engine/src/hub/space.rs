//! Whether what is to come fits on the disk, asked before it comes.

use std::path::Path;

use super::error::HubError;

/// Refuses a download of more bytes than the disk of `dir` (which need not exist yet) has free. Where the system does not say
/// (Windows, some network drives), the disk is trusted.
pub(crate) fn check(dir: &Path, needed: u64) -> Result<(), HubError> {
    compare(dir, needed, free(dir))
}

fn compare(dir: &Path, needed: u64, free: Option<u64>) -> Result<(), HubError> {
    match free {
        Some(free) if free < needed => Err(HubError::Space { path: dir.to_owned(), needed, free }),
        _ => Ok(()),
    }
}

fn free(dir: &Path) -> Option<u64> {
    let there = dir.ancestors().find(|dir| dir.exists())?;
    #[cfg(unix)]
    {
        let said = rustix::fs::statvfs(there).ok()?;
        said.f_bavail.checked_mul(said.f_frsize)
    }
    #[cfg(not(unix))]
    {
        let _ = there;
        None
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn all_of_the_room_may_be_taken() {
        let enough = |needed, free| compare(Path::new("d"), needed, free).is_ok();
        assert_eq!(
            [enough(3, Some(2)), enough(3, Some(3)), enough(3, None), enough(0, Some(0))],
            [false, true, true, true]
        );
    }

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
