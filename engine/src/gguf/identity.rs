//! What a file is known by without reading it.

use std::fs::Metadata;

/// Device, number on it (inode), size, and the times of the last change of its bytes and of itself. The kernel sets the last one
/// whenever anything about the file changes, and no program can set it back: of one inode the same identity means the same bytes,
/// but for changes within one tick of the clock ([`Identity::settled`]) and for what happens beneath the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    /// Nanoseconds since 1970.
    modified: i64,
    /// As `modified`.
    changed: i64,
}

impl Identity {
    /// `None` where the system has no such numbers.
    pub(crate) fn of(about: &Metadata) -> Option<Self> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let nanos = |seconds: i64, nanos: i64| seconds.checked_mul(1_000_000_000)?.checked_add(nanos);
            Some(Self {
                device: about.dev(),
                inode: about.ino(),
                size: about.size(),
                modified: nanos(about.mtime(), about.mtime_nsec())?,
                changed: nanos(about.ctime(), about.ctime_nsec())?,
            })
        }
        #[cfg(not(unix))]
        {
            let _ = about;
            None
        }
    }

    /// Whether the last change is so long ago that another one would have another time: 2 seconds, the coarsest clock of a file
    /// system (FAT).
    pub(crate) fn settled(&self) -> bool {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.ok().and_then(|now| i64::try_from(now.as_nanos()).ok());
        now.is_some_and(|now| now.saturating_sub(self.modified.max(self.changed)) > 2_000_000_000)
    }

    /// Which file it is, whatever is in it.
    pub(crate) fn place(&self) -> [u64; 2] {
        [self.device, self.inode]
    }

    /// All of it.
    pub(crate) fn numbers(&self) -> [u64; 5] {
        [self.device, self.inode, self.size, self.modified as u64, self.changed as u64]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    #[test]
    fn what_changed_two_seconds_ago_has_settled() {
        let ago = |seconds| {
            let time = SystemTime::now() - Duration::from_secs(seconds);
            time.duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64
        };
        for (modified, changed, settled) in [(3, 3, true), (1, 3, false), (3, 1, false), (60, 60, true)] {
            let identity = Identity { modified: ago(modified), changed: ago(changed), ..Identity::default() };
            assert_eq!(identity.settled(), settled, "{modified} {changed}");
        }
        let identity = Identity { device: 1, inode: 2, size: 3, modified: 4, changed: 5 };
        assert_eq!((identity.place(), identity.numbers()), ([1, 2], [1, 2, 3, 4, 5]));
    }
}
