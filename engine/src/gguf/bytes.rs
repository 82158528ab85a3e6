//! Where the bytes of a file live: mapped, static or owned; shared by everything that views them.

use std::fs::{self, File};
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::error::GgufError;
use super::identity::Identity;

/// Whether a regular file begins with these bytes. No other is opened: a named pipe would wait for its writer.
pub(crate) fn begins_with<const N: usize>(path: &Path, magic: &[u8; N]) -> bool {
    let mut start = [0; N];
    path.is_file() && File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == *magic
}

/// The contents of a regular file. No other is opened, as in [`begins_with`].
pub(crate) fn read_regular(path: &Path) -> std::io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    fs::read(path)
}

/// The bytes of one file. Clones share them.
#[derive(Clone)]
pub(crate) struct FileBytes(Arc<Source>);

enum Source {
    Mapped(memmap2::Mmap, Option<Identity>),
    Static(&'static [u8]),
    Owned(Vec<u8>),
}

impl FileBytes {
    pub(super) fn from_static(bytes: &'static [u8]) -> Self {
        FileBytes(Arc::new(Source::Static(bytes)))
    }

    pub(crate) fn from_vec(bytes: Vec<u8>) -> Self {
        FileBytes(Arc::new(Source::Owned(bytes)))
    }

    /// Maps a regular, non-empty file.
    pub(crate) fn map(path: &Path) -> Result<Self, GgufError> {
        // Asked before opening, because to open a named pipe would wait for its writer.
        let meta = fs::metadata(path).map_err(|e| GgufError::from_io(path, "open", e))?;
        if !meta.is_file() {
            let kind = if meta.is_dir() { "a directory" } else { "a special file" };
            return Err(GgufError::NotAFile { path: path.to_owned(), kind });
        }
        let file = File::open(path).map_err(|e| GgufError::from_io(path, "open", e))?;
        let about = file.metadata().map_err(|e| GgufError::from_io(path, "read the size of", e))?;
        let len = about.len();
        if len == 0 {
            return Err(GgufError::Empty);
        }
        if usize::try_from(len).is_err() {
            return Err(GgufError::TooLargeToMap { len });
        }
        // SAFETY: the map is read-only and private to this process's view; the invariant is that nobody
        // truncates or rewrites the file in place while it is mapped. Our own writer never does (it
        // renames a new file over the old one, which keeps the mapped one alive), and neither do
        // downloaders that rename. A foreign truncation would be a SIGBUS on access, a foreign rewrite a
        // change of values: no length or offset is read twice without being checked again.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| GgufError::from_io(path, "map", e))?;
        Ok(FileBytes(Arc::new(Source::Mapped(map, Identity::of(&about)))))
    }

    pub(super) fn is_mapped(&self) -> bool {
        matches!(&*self.0, Source::Mapped(..))
    }

    /// What the file was known by when it was mapped.
    pub(crate) fn identity(&self) -> Option<Identity> {
        match &*self.0 {
            Source::Mapped(_, identity) => *identity,
            Source::Static(_) | Source::Owned(_) => None,
        }
    }

    /// Lets the system take the pages of a range out of this process; they come back from the file when they are read.
    /// Nothing happens to bytes that are not a mapping.
    pub(crate) fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Source::Mapped(map, _) = &*self.0
            && range.start < range.end
            && range.end <= map.len()
        {
            // SAFETY: the mapping is read-only and of a file, so what is dropped is read again from there, by any thread at any
            // time, with the same bytes; the invariant of `map` holds for that too.
            let advised = unsafe {
                map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.end - range.start)
            };
            // Advice that is not taken costs memory, and nothing else.
            drop(advised);
        }
        #[cfg(not(unix))]
        let _ = range;
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        match &*self.0 {
            Source::Mapped(map, _) => map,
            Source::Static(bytes) => bytes,
            Source::Owned(bytes) => bytes,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::gguf::{GgufFile, GgufWriter, is_gguf};

    #[test]
    fn a_file_begins_as_it_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for (bytes, gguf) in [("GGUF", true), ("GGUF and more", true), ("GGU", false), ("gguf", false), ("", false)] {
            fs::write(&path, bytes).unwrap();
            assert_eq!(is_gguf(&path), gguf, "{bytes}");
        }
        let missing = dir.path().join("missing");
        assert!(!is_gguf(dir.path()) && !is_gguf(&missing));
        assert_eq!(read_regular(&path).unwrap(), b"");
        fs::write(&path, "bytes").unwrap();
        assert_eq!(read_regular(&path).unwrap(), b"bytes");
        assert_eq!(read_regular(dir.path()).unwrap_err().to_string(), "it is not a regular file");
        assert_eq!(read_regular(&missing).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    }

    #[test]
    fn a_mapping_knows_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "bytes").unwrap();
        let mapped = FileBytes::map(&path).unwrap();
        assert_eq!(mapped.identity(), Identity::of(&fs::metadata(&path).unwrap()));
        assert!(mapped.is_mapped());
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let (about, numbers) = (fs::metadata(&path).unwrap(), mapped.identity().unwrap().numbers());
            assert_eq!(numbers[..3], [about.dev(), about.ino(), 5]);
            assert_eq!(numbers[3] / 1_000_000_000, about.mtime() as u64);
            assert_eq!(numbers[4] % 1_000_000_000, about.ctime_nsec() as u64);
        }
        let model = dir.path().join("m.gguf");
        GgufWriter::new(3, 32).unwrap().write_file(&model).unwrap();
        let opened = GgufFile::open(&model).unwrap();
        assert_eq!(opened.identity(), Identity::of(&fs::metadata(&model).unwrap()));
        for other in [FileBytes::from_vec(b"bytes".to_vec()), FileBytes::from_static(b"bytes")] {
            assert!(other.identity().is_none() && !other.is_mapped() && other.as_slice() == mapped.as_slice());
        }
    }

    /// Kilobytes of the mapping of these bytes that are in memory, by what the kernel says of the address.
    #[cfg(target_os = "linux")]
    pub(crate) fn resident(bytes: &[u8]) -> usize {
        let text = fs::read_to_string("/proc/self/smaps").unwrap();
        let number = |text: &str| usize::from_str_radix(text, 16).ok();
        let holds = |line: &&str| {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let range = range.and_then(|(start, end)| Some(number(start)?..number(end)?));
            range.is_some_and(|range| range.contains(&(bytes.as_ptr() as usize)))
        };
        let mut lines = text.lines().skip_while(|line| !holds(line));
        let line = lines.find(|line| line.starts_with("Rss:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn pages_are_given_back_and_come_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, vec![7; 1 << 20]).unwrap();
        let mapped = FileBytes::map(&path).unwrap();
        let sum = || mapped.as_slice().iter().map(|b| u64::from(*b)).sum::<u64>();
        let left_of = |release: &Range<usize>| {
            let sum = sum();
            mapped.release(release.clone());
            (sum, resident(mapped.as_slice()))
        };
        // Of no bytes and beyond the end: nothing happens.
        for (release, left) in
            [(4096..4096, 1024), (0..(1 << 20) + 1, 1024), (256 << 10..512 << 10, 768), (0..1 << 20, 0)]
        {
            // The system may take pages back by itself.
            let found = (0..10).map(|_| left_of(&release)).find(|found| found.1 == left);
            assert_eq!(found, Some((7 << 20, left)), "{release:?}");
        }
        assert_eq!(sum(), 7 << 20);
        // Of a model as of any file.
        let model = dir.path().join("m.gguf");
        let mut writer = GgufWriter::new(3, 4096).unwrap();
        writer.tensor("t", &[1 << 20], 24, vec![7; 1 << 20]).unwrap();
        writer.write_file(&model).unwrap();
        let model = GgufFile::open(&model).unwrap();
        let data = model.tensor("t").unwrap().data;
        let released = || {
            assert_eq!(data.iter().map(|b| u64::from(*b)).sum::<u64>(), 7 << 20);
            let before = resident(data);
            model.release(&data[256 << 10..512 << 10]);
            before.saturating_sub(resident(data))
        };
        assert!((0..10).any(|_| released() == 256));
    }
}
