//! Opening files by path, asking for metadata by type, naming types, hashing, sharing.

use std::fs;
use std::thread;

use crate::gguf_support::{Raw, sample};
use bitnet_engine::gguf::{ArrayView, GgufError, GgufFile, GgufWriter, MetaValue, Metadata, Value, ValueType};
use sha2::{Digest, Sha256};

#[test]
fn what_cannot_be_opened_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join("absent.gguf");
    let e = GgufFile::open(&absent).unwrap_err();
    assert!(matches!(e, GgufError::NotFound { .. }), "{e}");
    assert!(e.to_string().contains("absent.gguf: no such file"), "{e}");

    let e = GgufFile::open(dir.path()).unwrap_err();
    assert!(matches!(e, GgufError::NotAFile { kind: "a directory", .. }), "{e}");

    let empty = dir.path().join("empty.gguf");
    fs::write(&empty, b"").unwrap();
    let e = GgufFile::open(&empty).unwrap_err();
    assert!(matches!(e.cause(), GgufError::Empty), "{e}");
    assert!(e.to_string().contains("empty.gguf: the file is empty"), "{e}");

    let cut = dir.path().join("cut.gguf");
    fs::write(&cut, &sample().bytes[..100]).unwrap();
    let e = GgufFile::open(&cut).unwrap_err();
    assert!(matches!(e, GgufError::InFile { .. }), "{e}");
    assert!(e.to_string().contains("cut.gguf: "), "{e}");
}

#[cfg(unix)]
#[test]
fn special_files_and_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let e = GgufFile::open("/dev/null").unwrap_err();
    assert!(matches!(e, GgufError::NotAFile { kind: "a special file", .. }), "{e}");

    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret.gguf");
    fs::write(&secret, &sample().bytes).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
    // The superuser may read everything: then the file opens, and that is what must be seen.
    let readable = fs::read(&secret).is_ok();
    match GgufFile::open(&secret) {
        Ok(_) => assert!(readable),
        Err(e) => {
            assert!(!readable);
            assert!(matches!(e, GgufError::PermissionDenied { .. }), "{e}");
        }
    }
}

#[test]
fn a_mapped_file_is_what_its_bytes_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let bytes = sample().bytes;
    fs::write(&path, &bytes).unwrap();
    let file = GgufFile::open(&path).unwrap();
    assert_eq!(file.path(), Some(path.as_path()));
    assert_eq!(file.file_len(), bytes.len() as u64);
    let expected = hex::encode(Sha256::digest(&bytes));
    assert_eq!(file.content_hash(), expected);
    assert_eq!(GgufFile::from_vec(bytes.clone()).unwrap().content_hash(), expected);
    let leaked: &'static [u8] = Vec::leak(bytes);
    let fixed = GgufFile::from_static(leaked).unwrap();
    assert_eq!(fixed.path(), None);
    assert_eq!(fixed.data_start(), file.data_start());
    for (a, b) in file.views().zip(fixed.views()) {
        assert_eq!((a.info, a.data), (b.info, b.data));
        // Zero copy: the view lies inside the static bytes, at its announced place.
        assert!(std::ptr::eq(b.data.as_ptr(), leaked[b.info.file_offset as usize..].as_ptr()));
        assert_eq!(a.data.as_ptr() as usize % 64, 0, "mapped tensors are aligned");
    }
    let debug = format!("{file:?} {:?}", file.metadata());
    assert!(debug.contains("tensors: 3") && debug.contains("bitnet-b1.58"), "{debug}");
}

#[test]
fn shared_between_threads_and_outlived_by_metadata() {
    fn is_send_sync<T: Send + Sync + 'static>(_: &T) {}
    let file = GgufFile::from_vec(sample().bytes).unwrap();
    is_send_sync(&file);
    is_send_sync(file.metadata());
    let sums: Vec<u64> = thread::scope(|s| {
        let sum = |f: GgufFile| f.views().flat_map(|v| v.data.iter().map(|b| u64::from(*b))).sum();
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let f = file.clone();
                s.spawn(move || sum(f))
            })
            .collect();
        workers.into_iter().map(|w| w.join().unwrap()).collect()
    });
    assert_eq!(sums, [sums[0]; 4]);
    assert!(sums[0] > 0);
    let md: Metadata = file.metadata().clone();
    drop(file);
    assert_eq!(md.array("tokens").unwrap().unwrap().strings().unwrap().count(), 3);
}

fn with_values() -> GgufFile {
    let mut w = GgufWriter::new(3, 32).unwrap();
    w.meta("u8", 200_u8).unwrap().meta("i8", -3_i8).unwrap().meta("u64", 1_u64 << 40).unwrap();
    w.meta("i64", -1_i64).unwrap().meta("f64", 0.5_f64).unwrap().meta("f32", 1e-5_f32).unwrap();
    w.meta("text", "x".repeat(100)).unwrap().meta("bool", false).unwrap();
    w.meta("strings", MetaValue::strings([&b"ok"[..], b"bad\xff", b"fine"])).unwrap();
    w.meta("floats", vec![1.5_f32, -2.0]).unwrap().meta("none", Vec::<u64>::new()).unwrap();
    GgufFile::from_vec(w.into_vec().unwrap()).unwrap()
}

#[test]
fn typed_getters_widen_and_refuse() {
    let file = with_values();
    let md = file.metadata();
    assert_eq!(md.u32("u8").unwrap(), Some(200));
    assert_eq!(md.usize("u8").unwrap(), Some(200));
    assert_eq!(md.i32("i8").unwrap(), Some(-3));
    assert_eq!(md.u64("u64").unwrap(), Some(1 << 40));
    assert_eq!(md.f32("f32").unwrap(), Some(1e-5));
    assert_eq!(md.f32("f64").unwrap(), Some(0.5));
    assert_eq!(md.bool("bool").unwrap(), Some(false));
    assert_eq!(md.u32("absent").unwrap(), None);
    assert!(md.contains("u8") && !md.contains("u9"));
    assert_eq!(md.get("i64"), Some(Value::I64(-1)));

    for (e, words) in [
        (md.u32("u64").unwrap_err(), ["\"u64\"", "u64 1099511627776", "u32 is expected"]),
        (md.u64("i64").unwrap_err(), ["\"i64\"", "i64 -1", "u64 is expected"]),
        (md.i32("text").unwrap_err(), ["\"text\"", "xxx\"...", "i32 is expected"]),
        (md.f32("u8").unwrap_err(), ["\"u8\"", "u8 200", "f32 is expected"]),
        (md.str("bool").unwrap_err(), ["\"bool\"", "bool false", "a string is expected"]),
        (md.bool("f32").unwrap_err(), ["\"f32\"", "f32 0.00001", "bool is expected"]),
        (md.array("text").map(|_| ()).unwrap_err(), ["\"text\"", "string", "an array is expected"]),
        (md.str("floats").map(|_| ()).unwrap_err(), ["\"floats\"", "array of 2 f32", "a string is expected"]),
    ] {
        assert!(matches!(e, GgufError::WrongType { .. }), "{e}");
        for word in words {
            assert!(e.to_string().contains(word), "{word:?} is not in: {e}");
        }
    }
    assert_eq!(md.required("text", Metadata::str).unwrap().len(), 100);
    let e = md.required("llama.block_count", Metadata::u32).unwrap_err();
    assert!(matches!(&e, GgufError::MissingKey { key } if key == "llama.block_count"), "{e}");
}

#[test]
fn arrays_are_asked_for_by_element_type() {
    let file = with_values();
    let array = |key| -> ArrayView<'_> { file.metadata().array(key).unwrap().unwrap() };
    assert_eq!(array("floats").f32s().unwrap().collect::<Vec<_>>(), [1.5, -2.0]);
    assert_eq!(array("floats").f32s().unwrap().len(), 2);
    let e = array("floats").i32s().map(|_| ()).unwrap_err();
    assert!(e.to_string().contains("\"floats\"") && e.to_string().contains("an array of i32"), "{e}");
    let e = array("floats").strings().map(|_| ()).unwrap_err();
    assert!(matches!(e, GgufError::WrongType { .. }), "{e}");
    assert!(array("none").is_empty());
    assert_eq!(array("none").element_type(), ValueType::U64);
    assert_eq!(array("none").numbers::<u64>().unwrap().next(), None);

    let strings = array("strings");
    assert_eq!(strings.strings().unwrap().len(), 3);
    let strs: Vec<_> = strings.strs().unwrap().collect();
    assert_eq!(strs[0].as_ref().unwrap(), &"ok");
    assert_eq!(strs[2].as_ref().unwrap(), &"fine");
    // Elements begin behind their lengths: 8 + "ok" + 8 bytes into the array, the bad byte 3 further.
    let bad = strs[1].as_ref().unwrap_err();
    let place = strings.file_offset() + 8 + 2 + 8;
    assert!(matches!(bad, GgufError::NotUtf8 { at, bad_at, .. } if (*at, *bad_at) == (place, place + 3)), "{bad}");
    assert!(bad.to_string().contains("element 1 of key \"strings\""), "{bad}");
}

#[test]
fn type_39_is_told_apart() {
    let model = |architecture: &str, file_type: u32, dims: &[u64], bytes: usize| {
        let mut w = GgufWriter::new(3, 32).unwrap();
        w.meta("general.architecture", architecture).unwrap().meta("general.file_type", file_type).unwrap();
        w.tensor("w", dims, 39, vec![0_u8; bytes]).unwrap().tensor("n", &[1], 0, vec![0_u8; 4]).unwrap();
        let out = w.into_vec().unwrap();
        let file = GgufFile::from_vec(out).unwrap();
        assert_eq!(file.type_name(file.tensor("n").unwrap().info), "f32");
        file.type_name(file.tensor("w").unwrap().info)
    };
    // 96 x 64 elements need 3264 bytes as MXFP4.
    assert_eq!(model("bitnet", 39, &[96, 64], 1504), "tl2");
    assert_eq!(model("llama", 2, &[96, 64], 1504), "tl2", "too few bytes for MXFP4");
    assert_eq!(model("llama", 38, &[96, 64], 3264), "mxfp4");
    assert_eq!(model("bitnet", 39, &[96, 64], 3264), "tl2", "the metadata says so");
    assert_eq!(model("bitnet", 38, &[96, 64], 3264), "mxfp4");
    assert_eq!(model("llama", 38, &[97, 64], 3520), "tl2", "MXFP4 has rows of 32");
}

#[test]
fn sizes_that_the_shape_does_not_tell_reach_to_the_next_tensor() {
    let mut raw = Raw::header(3, 3, 0);
    raw.tensor(0, "last", &[64, 64], 38, 192).tensor(1, "first", &[64, 64], 38, 0).tensor(2, "mid", &[4], 0, 128);
    raw.pad(32).data(500);
    let file = raw.open().unwrap();
    let size = |name| file.tensor(name).unwrap().info.size;
    assert_eq!((size("first"), size("mid"), size("last")), (128, 16, 308));
    assert_eq!(file.tensor("last").unwrap().data.len(), 308);
    let info = file.tensor("first").unwrap().info;
    assert_eq!((info.elements(), info.cols(), info.rows()), (4096, 64, 64));
    assert_eq!(info.file_offset, file.data_start());
}
