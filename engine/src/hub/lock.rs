//! Advisory file locks (`flock`, `LockFileEx`). The kernel drops them with the process that holds them, so a dead owner never blocks
//! anybody, and the lock files themselves may lie around for ever.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::error::HubError;

/// A held lock; released on drop.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "closing the file releases the lock")] File);

/// Whose turn it is inside a process, by name. A file lock cannot tell a task from another process.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits for the turn; it ends when the guard is dropped.
    pub(crate) async fn take(&self, name: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_default().clone();
        turn.lock_owned().await
    }
}

fn open(path: &Path) -> Result<File, HubError> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(|cause| HubError::io("create", dir, cause))?;
    }
    // asked before opening, because to open a named pipe would wait for its reader
    if std::fs::metadata(path).is_ok_and(|about| !about.is_file()) {
        return Err(HubError::io("open", path, "it is not a regular file"));
    }
    // never truncated, never removed: two processes must meet at one inode
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|cause| HubError::io("open", path, cause))
}

/// Takes the lock if it is free.
pub(crate) fn try_lock(path: &Path) -> Result<Option<Lock>, HubError> {
    let file = open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(cause)) => Err(HubError::io("lock", path, cause)),
    }
}

/// Waits for the lock; the caller's deadline bounds the wait. `on_wait` is called once if it is taken.
pub(crate) async fn lock(path: PathBuf, on_wait: impl FnOnce()) -> Result<Lock, HubError> {
    let mut on_wait = Some(on_wait);
    let mut pause = Duration::from_millis(5);
    loop {
        if let Some(lock) = try_lock(&path)? {
            return Ok(lock);
        }
        if let Some(tell) = on_wait.take() {
            tell();
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
