//! The small parts of reading: arrays step by step, integers of every width, copies.

use crate::gguf_support::{ARRAY, BOOL, Raw};
use bitnet_engine::gguf::{GgufError, GgufFile, GgufWriter, Value};
use std::path::PathBuf;

fn tiny() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../golden/models/tiny-bitnet.gguf")
}

#[test]
fn strings_are_skipped_as_they_are_read() {
    let file = GgufFile::open(tiny()).unwrap();
    let tokens = file.metadata().array("tokenizer.ggml.tokens").unwrap().unwrap();
    let all: Vec<&[u8]> = tokens.strings().unwrap().collect();
    assert_eq!((all.len(), tokens.len(), tokens.is_empty()), (2048, 2048, false));
    let mut some = tokens.strings().unwrap();
    assert_eq!((some.nth(5), some.len()), (Some(all[5]), 2042));
    assert_eq!((some.nth(1), some.nth(99), some.len()), (Some(all[7]), Some(all[107]), 1940));
    assert_eq!((some.nth(1939), some.nth(1), some.len()), (Some(all[2047]), None, 0));
    assert_eq!(tokens.strings().unwrap().nth(2048), None);
    let mut values = tokens.iter();
    assert_eq!(values.size_hint(), (2048, Some(2048)));
    values.next();
    assert_eq!(values.size_hint(), (2047, Some(2047)));
    let first = [(all[0].len() as u64).to_le_bytes().as_slice(), all[0]].concat();
    assert!(tokens.raw_bytes().starts_with(&first), "{first:?}");
}

#[test]
fn integers_of_every_width() {
    for (value, expected) in [
        (Value::U8(200), 200),
        (Value::I8(-3), -3),
        (Value::U16(60_000), 60_000),
        (Value::I16(-300), -300),
        (Value::U32(u32::MAX), i128::from(u32::MAX)),
        (Value::I32(i32::MIN), i128::from(i32::MIN)),
        (Value::U64(u64::MAX), i128::from(u64::MAX)),
        (Value::I64(i64::MIN), i128::from(i64::MIN)),
    ] {
        assert_eq!(value.as_integer(), Some(expected), "{value:?}");
    }
    assert_eq!((Value::F32(1.0).as_integer(), Value::Bool(true).as_integer()), (None, None));
}

#[test]
fn a_copy_is_the_file_and_a_folder_is_none() {
    let bytes = std::fs::read(tiny()).unwrap();
    let file = GgufFile::open(tiny()).unwrap();
    let mut copy = Vec::new();
    file.copy_to(&mut copy).unwrap();
    assert!(copy == bytes && file.is_mapped() && !file.metadata().is_empty());
    assert!(file.part_of(&file.tensors()[0]).is_none(), "there is only one file");
    assert!(!GgufFile::from_vec(bytes).unwrap().is_mapped());
    assert!(Raw::header(3, 0, 0).open().unwrap().metadata().is_empty());
    // Whatever lies behind the last tensor is copied too.
    let more = [&std::fs::read(tiny()).unwrap()[..], b"12345"].concat();
    let mut copy = Vec::new();
    GgufFile::from_vec(more.clone()).unwrap().copy_to(&mut copy).unwrap();
    assert!(copy == more);
    let folder = GgufFile::open(tiny().parent().unwrap()).unwrap_err().to_string();
    assert!(folder.contains("a directory"), "{folder}");
}

#[test]
fn a_flag_that_is_none_is_named_with_its_place() {
    let mut raw = Raw::header(3, 0, 1);
    raw.key(0, "flags", ARRAY).u32("type of elements", BOOL).u64("count", 4).field("value", &[0, 1, 9, 0]);
    let place = raw.bytes.len() as u64 - 2;
    match raw.open() {
        Err(GgufError::BadBool { at, found: 9, .. }) => assert_eq!(at, place),
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_have_a_longest_length() {
    let mut writer = GgufWriter::new(3, 32).unwrap();
    writer.meta(&"k".repeat(65_535), 1u32).unwrap();
    let error = writer.meta(&"k".repeat(65_536), 1u32).map(drop).unwrap_err().to_string();
    assert!(error.contains("65536 bytes, 65535 are the limit"), "{error}");
    assert!(writer.meta("", 1u32).is_err());
    let file = GgufFile::from_vec(writer.into_vec().unwrap()).unwrap();
    assert_eq!(file.metadata().u32(&"k".repeat(65_535)).unwrap(), Some(1));
}

#[test]
fn keys_have_a_largest_number() {
    let written = |keys: u32| {
        let mut writer = GgufWriter::new(3, 32).unwrap();
        for key in 0..keys {
            writer.meta(&key.to_string(), true).unwrap();
        }
        writer.into_vec()
    };
    assert_eq!(GgufFile::from_vec(written(65_536).unwrap()).unwrap().metadata().len(), 65_536);
    let error = written(65_537).unwrap_err().to_string();
    assert!(error.contains("65537 keys: 65536 is the most"), "{error}");
}

#[test]
fn values_are_described_by_their_beginning() {
    let text = |n: usize| Value::Str(&"é".repeat(n)).describe();
    assert_eq!(text(40), format!("string {:?}", "é".repeat(40)));
    assert_eq!(text(41), format!("string {:?}...", "é".repeat(40)));
    assert_eq!(Value::Bytes(b"ab").describe(), "string of 2 bytes");
}

#[test]
fn a_value_of_the_wrong_type_is_named_with_its_place() {
    let mut raw = Raw::header(3, 0, 2);
    raw.key_u32(0, "first", 1).key(1, "second", BOOL).field("value", &[1]);
    let place = raw.bytes.len() as u64 - 5;
    let file = raw.open().unwrap();
    assert_eq!((file.metadata().file_offset("second"), file.metadata().file_offset("third")), (Some(place), None));
    match file.metadata().u32("second") {
        Err(GgufError::WrongType { at, .. }) => assert_eq!(at, place),
        other => panic!("{other:?}"),
    }
}
