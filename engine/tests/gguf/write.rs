//! The writer: a file appears whole or not at all, and wrong input is refused before a byte is written.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use bitnet_engine::gguf::{GgufError, GgufFile, GgufWriter, MetaValue, ValueType};

fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn small(value: u32) -> GgufWriter<'static> {
    let mut w = GgufWriter::new(3, 32).unwrap();
    w.meta("value", value).unwrap().tensor("t", &[64], 24, vec![value as u8; 64]).unwrap();
    w
}

/// Takes `left` bytes, then fails like a full disk.
struct Full {
    left: usize,
}

impl Write for Full {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let n = buf.len().min(self.left);
        self.left -= n;
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn replaces_a_file_that_is_still_mapped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let len = small(1).write_file(&path).unwrap();
    let first = GgufFile::open(&path).unwrap();
    assert_eq!(first.file_len(), len);
    small(2).write_file(&path).unwrap();
    let second = GgufFile::open(&path).unwrap();
    assert_eq!(first.metadata().u32("value").unwrap(), Some(1));
    assert_eq!(second.metadata().u32("value").unwrap(), Some(2));
    assert!(first.tensor("t").unwrap().data.iter().all(|b| *b == 1));
    assert_eq!(names_in(dir.path()), ["model.gguf"]);
    // Rewriting a file from its own map is the converter's everyday case.
    let mut w = GgufWriter::new(3, 64).unwrap();
    w.copy_all_meta(second.metadata(), |k| k != "value").unwrap().meta("value", 3_u32).unwrap();
    w.copy_tensor(second.tensor("t").unwrap()).unwrap();
    w.write_file(&path).unwrap();
    let third = GgufFile::open(&path).unwrap();
    assert_eq!((third.alignment(), third.metadata().u32("value").unwrap()), (64, Some(3)));
    assert_eq!(third.tensor("t").unwrap().data, second.tensor("t").unwrap().data);
}

#[test]
fn an_error_leaves_the_old_file_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let broken = || {
        let mut w = small(9);
        w.tensor_with("big", &[1 << 21], 24, 1 << 21, |out| {
            out.write_all(&vec![0; 1 << 20])?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        })
        .unwrap();
        w
    };
    let e = broken().write_file(&path).unwrap_err();
    assert!(matches!(e.cause(), GgufError::Output { .. }), "{e}");
    let text = e.to_string();
    for word in ["model.gguf", "tensor \"big\"", "free space"] {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert_eq!(names_in(dir.path()), [""; 0]);

    small(1).write_file(&path).unwrap();
    broken().write_file(&path).unwrap_err();
    assert_eq!(GgufFile::open(&path).unwrap().metadata().u32("value").unwrap(), Some(1));
    assert_eq!(names_in(dir.path()), ["model.gguf"]);
}

#[test]
fn a_panic_in_a_stream_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let mut w = small(1);
    w.tensor_with("t2", &[1], 24, 1, |_| panic!("planned")).unwrap();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| w.write_file(&path)));
    assert!(caught.is_err());
    assert_eq!(names_in(dir.path()), [""; 0]);
}

#[test]
fn a_full_disk_at_any_byte_is_an_error() {
    let mut whole = Vec::new();
    let len = small(1).write_to(&mut whole).unwrap() as usize;
    assert_eq!(len, whole.len());
    for left in 0..len {
        let e = small(1).write_to(Full { left }).unwrap_err();
        assert!(matches!(e, GgufError::Output { .. }), "{left}: {e}");
        assert!(e.to_string().contains("free space"), "{left}: {e}");
    }
    assert_eq!(small(1).write_to(Full { left: len }).unwrap(), len as u64);
}

#[cfg(target_os = "linux")]
#[test]
fn the_devices_of_linux() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let e = small(1).write_to(full).unwrap_err();
    assert!(matches!(&e, GgufError::Output { source, .. } if source.kind() == io::ErrorKind::StorageFull), "{e}");
    // A pipe of our own: a fault here would put a file in the place of the machine's device.
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let e = small(1).write_file(&pipe).unwrap_err();
    assert!(matches!(e.cause(), GgufError::NotAFile { kind: "a special file", .. }), "{e}");
}

#[test]
fn places_that_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let e = small(1).write_file(dir.path()).unwrap_err();
    assert!(matches!(e, GgufError::NotAFile { kind: "a directory", .. }), "{e}");
    let e = small(1).write_file(dir.path().join("no/such/folder.gguf")).unwrap_err();
    assert!(matches!(e, GgufError::Io { .. }) && e.to_string().contains("no/such"), "{e}");
    assert_eq!(names_in(dir.path()), [""; 0]);
}

#[cfg(unix)]
#[test]
fn a_link_stays_a_link() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("real")).unwrap();
    let (real, link) = (dir.path().join("real/model.gguf"), dir.path().join("link.gguf"));
    small(1).write_file(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    small(2).write_file(&link).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(GgufFile::open(&real).unwrap().metadata().u32("value").unwrap(), Some(2));
}

#[test]
fn streams_must_give_what_they_promised() {
    let write = |given: usize| {
        let mut w = GgufWriter::new(3, 32).unwrap();
        w.tensor_with("t", &[100], 24, 100, move |out| (0..given).try_for_each(|_| out.write_all(&[1]))).unwrap();
        w.write_to(io::sink())
    };
    assert!(write(100).is_ok());
    for (given, said) in [(0, 0), (99, 99), (101, 101), (200, 101)] {
        let e = write(given).unwrap_err();
        assert!(
            matches!(&e, GgufError::WrongDataSize { tensor, expected: 100, found } if tensor == "t" && *found == said),
            "{given}: {e}"
        );
    }
    // In pieces, of which the second is too long.
    let mut w = GgufWriter::new(3, 32).unwrap();
    w.tensor_with("t", &[100], 24, 100, |out| (0..2).try_for_each(|_| out.write_all(&[1; 60]))).unwrap();
    assert!(matches!(w.write_to(io::sink()), Err(GgufError::WrongDataSize { expected: 100, found: 120, .. })));
    // Even if the closure hides the refusal.
    let mut w = GgufWriter::new(3, 32).unwrap();
    w.tensor_with("t", &[4], 24, 4, |out| {
        let _ = out.write_all(&[0; 5]);
        out.write_all(&[0; 4])
    })
    .unwrap();
    assert!(matches!(w.write_to(io::sink()), Err(GgufError::WrongDataSize { .. })));
}

#[test]
fn wrong_input_is_refused_by_name() {
    for (version, alignment) in [(1, 32), (4, 32), (3, 0), (3, 48), (3, 1 << 21)] {
        assert!(GgufWriter::new(version, alignment).is_err(), "{version} {alignment}");
    }
    let refused = |what: &str, act: fn(&mut GgufWriter<'static>) -> Result<(), GgufError>, words: &[&str]| {
        let mut w = small(1);
        let e = act(&mut w).expect_err(what);
        for word in words {
            assert!(e.to_string().contains(word), "{what}: {word:?} is not in: {e}");
        }
        // The refusal changed nothing: the rest can still be written, and read.
        let bytes = w.into_vec().unwrap();
        let file = GgufFile::from_vec(bytes).unwrap();
        assert_eq!((file.metadata().len(), file.tensors().len()), (1, 1), "{what}");
    };
    refused("empty key", |w| w.meta("", 1_u8).map(drop), &["without a name"]);
    refused("long key", |w| w.meta(&"k".repeat(65_536), 1_u8).map(drop), &["65536", "65535"]);
    refused("key twice", |w| w.meta("value", 1_u8).map(drop), &["\"value\"", "unique"]);
    refused("alignment", |w| w.meta("general.alignment", 64_u32).map(drop), &["general.alignment", "u32 32"]);
    refused("alignment type", |w| w.meta("general.alignment", 32_u64).map(drop), &["general.alignment"]);
    refused("bytes outside an array", |w| w.meta("b", MetaValue::Bytes(vec![255])).map(drop), &["\"b\"", "UTF-8"]);
    refused(
        "mixed array",
        |w| w.meta("m", MetaValue::Array { element: ValueType::U8, items: vec![1_u8.into(), 1_i8.into()] }).map(drop),
        &["\"m\"", "array of u8", "i8"],
    );
    refused(
        "deep array",
        |w| {
            let wrap = |v: MetaValue| MetaValue::Array { element: v.value_type(), items: vec![v] };
            let deep = (0..5).fold(MetaValue::U8(1), |v, _| wrap(v));
            w.meta("d", deep).map(drop)
        },
        &["\"d\"", "four deep"],
    );
    refused("tensor twice", |w| w.tensor("t", &[1], 24, vec![0]).map(drop), &["\"t\"", "unique"]);
    refused("empty tensor name", |w| w.tensor("", &[1], 24, vec![0]).map(drop), &["without a name"]);
    refused("size", |w| w.tensor("x", &[2], 0, vec![0; 7]).map(drop), &["\"x\"", "8 bytes", "7 were given"]);
    refused("i2_s without its scale", |w| w.tensor("x", &[128], 36, vec![0; 32]).map(drop), &["64 bytes"]);
    refused("nothing", |w| w.tensor("x", &[64, 64], 38, vec![]).map(drop), &["\"x\""]);
    refused("type", |w| w.tensor("x", &[2], 5, vec![0; 8]).map(drop), &["\"x\"", "5 is not a known"]);
    refused("dims", |w| w.tensor("x", &[1; 5], 24, vec![0]).map(drop), &["5 dimensions"]);
    refused("no dims", |w| w.tensor("x", &[], 24, vec![0]).map(drop), &["0 dimensions"]);
    refused("zero", |w| w.tensor("x", &[0], 24, vec![]).map(drop), &["zero"]);
    refused("overflow", |w| w.tensor("x", &[1 << 40, 1 << 40], 24, vec![]).map(drop), &["2^63"]);
    refused("blocks", |w| w.tensor("x", &[255], 35, vec![0; 66]).map(drop), &["tq2_0", "256"]);
}

#[test]
fn a_large_tensor_is_streamed_sparse_and_read_back() {
    // 96 MiB through a 64 KiB piece; what matters is that the offsets behind it are right.
    const SIZE: u64 = 96 << 20;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.gguf");
    let mut w = GgufWriter::new(3, 32).unwrap();
    w.tensor_with("large", &[SIZE], 24, SIZE, |out| {
        let piece = [0x5a; 64 << 10];
        (0..SIZE / piece.len() as u64).try_for_each(|_| out.write_all(&piece))
    })
    .unwrap();
    w.tensor("after", &[3], 24, vec![1, 2, 3]).unwrap();
    let len = w.write_file(&path).unwrap();
    let file = GgufFile::open(&path).unwrap();
    assert_eq!(file.file_len(), len);
    assert_eq!(file.tensor("after").unwrap().data, [1, 2, 3]);
    let large = file.tensor("large").unwrap().data;
    assert_eq!((large.len() as u64, large[0], large[large.len() - 1]), (SIZE, 0x5a, 0x5a));
}
