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
