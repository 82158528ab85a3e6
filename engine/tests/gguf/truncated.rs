//! Files that end early: every byte of a valid file is a place to cut it.

use crate::gguf_support::{Raw, sample};
use bitnet_engine::gguf::{GgufError, GgufFile};

/// Cuts the sample at every byte: each cut is an error that names the field in which it fell (or the
/// count that the rest cannot hold, or the tensor that lost its end), and how to fix it.
#[test]
fn truncated_at_every_byte() {
    let raw = sample();
    let header_end = raw.fields.iter().find(|(n, _)| n == "padding").unwrap().1.start;
    let whole = raw.bytes.len();
    for (name, range) in &raw.fields {
        for cut in range.clone() {
            let result = GgufFile::from_vec(raw.bytes[..cut].to_vec());
            let e = result.expect_err(&format!("cut at {cut} in {name}"));
            let text = e.to_string();
            if cut == 0 {
                assert!(matches!(e, GgufError::Empty), "{text}");
            } else if cut >= header_end {
                let GgufError::TensorOutside { missing, file_len, .. } = e else { panic!("cut at {cut}: {text}") };
                assert_eq!((missing, file_len), ((whole - cut) as u64, cut as u64), "{text}");
                assert!(text.contains("tensor \"embd\"") && text.contains("download it again"), "{text}");
            } else if cut >= 24 && (cut - 24) / 14 < 7 {
                assert!(matches!(e, GgufError::ImpossibleCount { count: 7, at: 16, .. }), "cut at {cut}: {text}");
            } else if cut >= 24 && (cut - 24) / 34 < 3 {
                assert!(matches!(e, GgufError::ImpossibleCount { count: 3, at: 8, .. }), "cut at {cut}: {text}");
            } else if let GgufError::ImpossibleCount { what, .. } = &e {
                // An array's count is judged before its elements are looked at.
                let key = what.split("key ").nth(1).unwrap();
                assert_ne!(what.replace("the ", ""), *name, "a count that is cut itself cannot be judged");
                assert!(name.contains("element") && name.ends_with(key), "cut at {cut} in {name}: {text}");
            } else {
                assert!(matches!(e, GgufError::Truncated { .. }), "cut at {cut} in {name}: {text}");
                let bare = |s: &str| s.replace("the ", "");
                assert!(bare(&text).contains(&bare(name)), "cut at {cut} in {name}: {text}");
                assert!(text.contains("download it again"), "{text}");
            }
        }
    }
}

#[test]
fn a_cut_that_leaves_a_valid_file_is_accepted() {
    // Padding behind the last tensor belongs to nobody.
    let mut raw = Raw::header(3, 1, 0);
    raw.tensor(0, "t", &[1], 0, 0).pad(32).data(4);
    let shortest = raw.bytes.len();
    raw.pad(32);
    for cut in 0..=raw.bytes.len() {
        let result = GgufFile::from_vec(raw.bytes[..cut].to_vec());
        assert_eq!(result.is_ok(), cut >= shortest, "cut at {cut}");
    }
    // So does padding behind a header without tensors, and bytes behind the last tensor (TL2 hides a
    // scale there).
    assert!(Raw::header(2, 0, 0).open().is_ok());
    assert!(raw.clone().field("tail", &[1, 2, 3]).open().is_ok());
}
