//! Models in several files: read as one, written, damaged.

use crate::gguf_support::Raw;
use bitnet_engine::gguf::split::{PartName, SplitError};
use bitnet_engine::gguf::{GgufError, GgufFile, GgufWriter, Value};
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const U16: u32 = 2;
const I32: u32 = 5;

/// What a hand-made part says of itself, right or wrong.
#[derive(Clone)]
struct Said<'a> {
    no: Option<u16>,
    count: Option<u16>,
    tensors: Option<i32>,
    names: &'a [&'a str],
    alignment: u32,
    name_of_model: bool,
}

/// A part in which tensor `t` holds sixteen bytes of its first letter.
fn part(said: &Said<'_>) -> Raw {
    let keys = u64::from(said.no.is_some())
        + u64::from(said.count.is_some())
        + u64::from(said.tensors.is_some())
        + u64::from(said.alignment != 32)
        + u64::from(said.name_of_model);
    let mut raw = Raw::header(3, said.names.len() as u64, keys);
    if said.name_of_model {
        raw.key(0, "general.name", 8).string("name", "whole");
    }
    if said.alignment != 32 {
        raw.key_u32(1, "general.alignment", said.alignment);
    }
    for (key, value) in [("split.no", said.no), ("split.count", said.count)] {
        if let Some(value) = value {
            raw.key(2, key, U16).field(key, &value.to_le_bytes());
        }
    }
    if let Some(tensors) = said.tensors {
        raw.key(4, "split.tensors.count", I32).field("tensors", &tensors.to_le_bytes());
    }
    let step = 16_u64.next_multiple_of(said.alignment.into());
    for (i, name) in said.names.iter().enumerate() {
        raw.tensor(i, name, &[4, 4], 24, i as u64 * step);
    }
    raw.pad(said.alignment as usize);
    for name in said.names {
        raw.field("data", &[name.as_bytes()[0]; 16]).pad(said.alignment as usize);
    }
    raw
}

/// A model of three parts: the first without tensors, each with an alignment of its own.
fn three() -> [Said<'static>; 3] {
    let said = Said { no: Some(0), count: Some(3), tensors: Some(3), names: &[], alignment: 64, name_of_model: true };
    [
        said.clone(),
        Said { no: Some(1), names: &["b", "c"], alignment: 32, name_of_model: false, ..said.clone() },
        Said { no: Some(2), names: &["a"], alignment: 128, name_of_model: false, ..said },
    ]
}

fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("model-{number:05}-of-00003.gguf"))
}

/// The parts in a folder of their own.
fn lay(parts: &[Said<'_>]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (part_, number) in parts.iter().zip(1..) {
        fs::write(path(dir.path(), number), part(part_).bytes).unwrap();
    }
    dir
}

#[test]
fn any_part_opens_the_whole_model() {
    let dir = lay(&three());
    for number in 1..=3 {
        let file = GgufFile::open(path(dir.path(), number)).unwrap();
        assert_eq!(file.path(), Some(&*path(dir.path(), 1)));
        assert_eq!(file.metadata().str("general.name").unwrap(), Some("whole"));
        assert!(file.is_mapped());
        assert_eq!(file.alignment(), 64);
        let names: Vec<_> = file.tensors().iter().map(|t| (t.name.as_str(), t.part)).collect();
        assert_eq!(names, [("b", 1), ("c", 1), ("a", 2)]);
        for (index, name) in ["b", "c", "a"].iter().enumerate() {
            let (by_name, by_index) = (file.tensor(name).unwrap(), file.view_at(index).unwrap());
            assert!(std::ptr::eq(by_name.info, by_index.info));
            assert_eq!(by_name.data, [name.as_bytes()[0]; 16]);
            let holder = path(dir.path(), by_name.info.part as u32 + 1);
            assert_eq!(file.part_of(by_name.info), Some(&*holder));
            // The place is one in that file.
            let bytes = fs::read(&holder).unwrap();
            assert_eq!(bytes[by_name.info.file_offset as usize..][..16], *by_name.data);
        }
        assert!(file.tensor("d").is_none() && file.view_at(3).is_none());

        let parts: Vec<_> = file.parts().collect();
        assert_eq!(
            parts.iter().map(|p| (p.tensors.len(), p.alignment)).collect::<Vec<_>>(),
            [(0, 64), (2, 32), (1, 128)]
        );
        let bytes: Vec<u8> = (1..=3).flat_map(|n| fs::read(path(dir.path(), n)).unwrap()).collect();
        assert_eq!(file.file_len(), bytes.len() as u64);
        assert_eq!(parts.iter().map(|p| p.len).sum::<u64>(), bytes.len() as u64);
        assert_eq!(file.content_hash(), hex::encode(Sha256::digest(&bytes)));

        // Pages that were given back are read again.
        for view in file.views() {
            file.release(view.data);
        }
        file.release(&[1; 100]);
        assert!(file.views().all(|view| view.data == [view.info.name.as_bytes()[0]; 16]));

        // As one file: the same, without the keys of parts.
        let mut whole = Vec::new();
        file.copy_to(&mut whole).unwrap();
        let whole = GgufFile::from_vec(whole).unwrap();
        assert_eq!(whole.parts().len(), 1);
        assert_eq!(whole.part_of(&whole.tensors()[0]), None);
        assert!(whole.views().map(|v| (&v.info.name, v.data)).eq(file.views().map(|v| (&v.info.name, v.data))));
        let keys: Vec<_> = whole.metadata().iter().map(|(key, _)| key.to_owned()).collect();
        assert_eq!(keys, ["general.name", "general.alignment"]);
    }
}

#[test]
fn counts_of_none_or_one_are_ordinary_files() {
    for (count, name) in [(Some(0), "a.gguf"), (Some(1), "a.gguf"), (None, "a-00002-of-00007.gguf")] {
        let said = Said { no: Some(0), count, tensors: Some(1), names: &["a"], alignment: 32, name_of_model: true };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, part(&said).bytes).unwrap();
        let file = GgufFile::open(&path).unwrap();
        assert_eq!((file.parts().len(), file.path()), (1, Some(&*path)));
        assert!(part(&said).open().is_ok());
    }
}

/// Opens by every part; all must fail with words that name a file (by its number) and what would be right.
#[track_caller]
fn refused(dir: &TempDir, culprit: u32, words: &[&str], is: impl Fn(&GgufError) -> bool) {
    let mut opened = 0;
    for number in (1..=3).filter(|&number| path(dir.path(), number).exists()) {
        let error = GgufFile::open(path(dir.path(), number)).unwrap_err();
        let text = error.to_string();
        assert!(is(error.cause()), "opened by {number}: {error:?}");
        let name = path(Path::new(""), culprit);
        for word in words.iter().copied().chain(name.to_str()) {
            assert!(text.contains(word), "opened by {number}: no {word:?} in {text}");
        }
        opened += 1;
    }
    assert!(opened > 0);
}

macro_rules! is {
    ($pattern:pat) => {
        |error: &GgufError| matches!(error, GgufError::Split($pattern))
    };
}

#[test]
fn a_missing_part_is_named() {
    for missing in 1..=3 {
        let dir = lay(&three());
        fs::remove_file(path(dir.path(), missing)).unwrap();
        let number = format!("part {missing} of the 3");
        refused(&dir, missing, &["no such file", &number, "one folder"], is!(SplitError::Missing { .. }));
    }
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let mut wrong = three();
    wrong[1].no = Some(2);
    refused(&lay(&wrong), 2, &["split.no is 2, 1 is expected"], is!(SplitError::Number { found: 2, expected: 1 }));

    // Parts 2 and 3 swapped; the first part twice.
    let [a, b, c] = three();
    for (parts, culprits) in [([a.clone(), c, b.clone()], &[2, 3][..]), ([a.clone(), a.clone(), b], &[2, 3])] {
        let dir = lay(&parts);
        let texts: Vec<_> = (1..=3).map(|n| GgufFile::open(path(dir.path(), n)).unwrap_err().to_string()).collect();
        for text in texts {
            let named = culprits.iter().any(|&n| text.starts_with(path(dir.path(), n).to_str().unwrap()));
            assert!(named && text.contains("split.no is"), "{text}");
        }
    }

    let mut wrong = three();
    wrong[2].count = Some(4);
    refused(&lay(&wrong), 3, &["split.count is 4, 3 is expected"], is!(SplitError::Count { found: 4, expected: 3 }));
    wrong[2].tensors = Some(4);
    wrong[2].count = Some(3);
    refused(&lay(&wrong), 3, &["split.tensors.count is 4, the first part says 3"], is!(SplitError::OtherModel { .. }));

    let mut wrong = three();
    wrong[2].names = &["a", "z"];
    let words = ["split.tensors.count is 3", "have 4 tensors"];
    refused(&lay(&wrong), 1, &words, is!(SplitError::Tensors { found: 4, expected: 3, .. }));
    wrong[2].names = &["c"];
    let words = ["tensor \"c\" is in", "model-00002-of-00003.gguf"];
    refused(&lay(&wrong), 3, &words, is!(SplitError::Twice { .. }));

    for key in ["split.no", "split.tensors.count"] {
        let mut wrong = three();
        match key {
            "split.no" => wrong[1].no = None,
            _ => wrong[1].tensors = None,
        }
        refused(&lay(&wrong), 2, &[key, "is missing"], is!(SplitError::NotAPart { .. }));
    }
    // Without the count a part is an ordinary file, but not one that the others can use.
    let mut wrong = three();
    wrong[1].count = None;
    let dir = lay(&wrong);
    assert!(GgufFile::open(path(dir.path(), 2)).is_ok());
    let error = GgufFile::open(path(dir.path(), 1)).unwrap_err();
    assert!(matches!(error.cause(), GgufError::Split(SplitError::NotAPart { key: "split.count" })), "{error}");
}

#[test]
fn names_must_lead_to_the_other_parts() {
    let dir = lay(&three());
    for (number, name) in [(2, "renamed.gguf"), (3, "model-3-of-3.gguf")] {
        let renamed = dir.path().join(name);
        fs::copy(path(dir.path(), number), &renamed).unwrap();
        let error = GgufFile::open(&renamed).unwrap_err();
        assert!(matches!(error.cause(), GgufError::Split(SplitError::Name { count: 3, .. })), "{error}");
        let text = error.to_string();
        let right = format!("`-0000{number}-of-00003.gguf`");
        assert!(
            text.contains(name) && text.contains(&right) && text.contains(&format!("part {number} of 3")),
            "{text}"
        );
    }
    let other = dir.path().join("model-00002-of-00004.gguf");
    fs::copy(path(dir.path(), 2), &other).unwrap();
    let text = GgufFile::open(&other).unwrap_err().to_string();
    assert!(text.contains("split.count is 3, 4 is expected") && text.contains("-00002-of-00004.gguf"), "{text}");

    let error = part(&three()[1]).open().unwrap_err();
    assert!(matches!(error, GgufError::Split(SplitError::Alone { number: 2, count: 3 })), "{error}");
    assert!(error.to_string().contains("open it by its path"), "{error}");
}

#[test]
fn a_damaged_part_is_named() {
    let dir = lay(&three());
    let bytes = fs::read(path(dir.path(), 3)).unwrap();
    for cut in 0..bytes.len() - 112 {
        fs::write(path(dir.path(), 3), &bytes[..cut]).unwrap();
        for number in [1, 3] {
            let error = GgufFile::open(path(dir.path(), number)).unwrap_err().to_string();
            assert!(error.contains("model-00003-of-00003.gguf"), "cut at {cut}: {error}");
        }
    }
}

/// A model with a key of every kind that matters and `tensors` tensors of several types.
fn writer(tensors: usize, alignment: u64) -> GgufWriter<'static> {
    let mut w = GgufWriter::new(3, alignment).unwrap();
    w.meta("general.architecture", "test").unwrap().meta("list", vec![1_u32, 2, 3]).unwrap();
    for i in 0..tensors {
        let (dims, ty, bytes) = [(&[5_u64, 3][..], 0, 60), (&[128, 1], 36, 64), (&[64, 2], 8, 136)][i % 3];
        let data: Vec<u8> = (0..bytes).map(|b| (b * 7 + i) as u8).collect();
        w.tensor(&format!("t{i}"), dims, ty, data).unwrap();
    }
    w
}

#[test]
fn what_write_parts_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("m.gguf");
    let text = writer(3, 32).write_parts(&whole, 0).unwrap_err().to_string();
    assert!(text.contains("at least one tensor"), "{text}");
    // Nothing that is there is replaced, and nothing else is left behind.
    let third = PartName::first_of(&whole, 3).path(3);
    fs::write(&third, "mine").unwrap();
    let text = writer(3, 32).write_parts(&whole, 1).unwrap_err().to_string();
    assert!(text.contains("m-00003-of-00003.gguf is there already"), "{text}");
    assert_eq!(fs::read(&third).unwrap(), b"mine");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    // A tensor that fails takes the parts before it along.
    fs::remove_file(&third).unwrap();
    let mut w = writer(2, 32);
    w.tensor_with("bad", &[4], 24, 4, |_| Err(std::io::Error::other("no"))).unwrap();
    assert!(matches!(w.write_parts(&whole, 1).unwrap_err().cause(), GgufError::Output { .. }));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn parts_hold_what_the_whole_holds(tensors in 0_usize..12, most in 1_usize..14, alignment in prop::sample::select(vec![32_u64, 64, 4096]), by in any::<prop::sample::Index>()) {
        let dir = tempfile::tempdir().unwrap();
        let bytes = writer(tensors, alignment).into_vec().unwrap();
        let whole = GgufFile::from_vec(bytes.clone()).unwrap();
        let parts = writer(tensors, alignment).write_parts(&dir.path().join("m.gguf"), most).unwrap();
        prop_assert_eq!(parts.paths.len(), tensors.div_ceil(most).max(1));
        let split = GgufFile::open(by.get(&parts.paths)).unwrap();
        prop_assert_eq!(split.file_len(), parts.bytes);
        prop_assert!(split.views().map(|v| (v.info.name.clone(), v.info.dims.clone(), v.info.ggml_type, v.data))
            .eq(whole.views().map(|v| (v.info.name.clone(), v.info.dims.clone(), v.info.ggml_type, v.data))));
        let count = split.metadata().get("split.tensors.count");
        prop_assert!(matches!(count, Some(Value::I32(n)) if n as usize == tensors));
        // And back: the very same file.
        let merged = split.writer().unwrap().into_vec().unwrap();
        prop_assert!(merged == bytes);
    }

    /// Truncated, swapped, doubled, removed, flipped: an error that names a file of the set, or the right bytes.
    #[test]
    fn damaged_sets_are_refused_by_name(
        damage in prop::collection::vec((0_u8..5, any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..4),
        open in any::<prop::sample::Index>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let paths = writer(7, 32).write_parts(&dir.path().join("m.gguf"), 2).unwrap().paths;
        for (kind, a, b, place, byte) in damage {
            let (a, b) = (a.get(&paths), b.get(&paths));
            let (Ok(mut first), Ok(second)) = (fs::read(a), fs::read(b)) else { continue };
            match kind {
                0 => first.truncate(place.index(first.len() + 1)),
                1 => { fs::write(b, &first).unwrap(); first = second; }
                2 => first = second,
                3 => { fs::remove_file(a).unwrap(); continue }
                _ if first.is_empty() => {}
                _ => { let at = place.index(first.len()); first[at] = byte; }
            }
            fs::write(a, first).unwrap();
        }
        match GgufFile::open(open.get(&paths)) {
            Ok(file) => {
                // Damage of values is not visible, and a part whose count was damaged is a file of its own.
                prop_assert!(matches!(file.parts().len(), 1 | 4));
                prop_assert!(file.views().all(|v| v.data.len() as u64 == v.info.size));
            }
            Err(error) => {
                let text = error.to_string();
                prop_assert!(paths.iter().any(|p| text.contains(p.to_str().unwrap())), "{}", text);
                prop_assert!(text.len() > 60, "{}", text);
            }
        }
    }
}
