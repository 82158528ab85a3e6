//! Type numbers with two meanings: found by the bytes that are there, named, explained.

use crate::gguf_support::Raw;
use bitnet_engine::gguf::{GgufError, GgufFile, GgufWriter, ggml_type, tensor_size};

/// Tensors of type 42 of `rows` rows of `cols` weights, each in so many bytes, and a byte behind them.
fn q2(alignment: usize, tensors: &[([u64; 2], usize)], tail: Option<u64>) -> Raw {
    let mut raw = Raw::header(3, tensors.len() as u64 + u64::from(tail.is_some()), 2);
    raw.key_u32(0, "general.alignment", alignment as u32);
    // Whatever it says, it is not believed.
    raw.key_u32(1, "general.file_type", 41);
    let mut at = 0;
    for (i, (dims, bytes)) in tensors.iter().enumerate() {
        raw.tensor(i, format!("t{i}"), dims, 42, at);
        at += bytes.next_multiple_of(alignment) as u64;
    }
    if tail.is_some() {
        raw.tensor(tensors.len(), "tail", &[1], 24, at);
    }
    raw.pad(alignment);
    for (i, (_, bytes)) in tensors.iter().enumerate() {
        // The last of all needs no padding.
        raw.data(*bytes);
        if tail.is_some() || i + 1 < tensors.len() {
            raw.pad(alignment);
        }
    }
    if tail.is_some() {
        raw.data(1);
    }
    raw
}

fn found(file: &GgufFile) -> Vec<(&'static str, u64)> {
    let q2 = file.tensors().iter().filter(|t| t.ggml_type == 42);
    q2.map(|t| (file.type_name(t), t.size)).collect()
}

#[test]
fn groups_of_q2_0_are_found_by_the_next_tensor_or_the_end() {
    // 256 x 8 weights: 576 bytes in groups of 64, 544 in groups of 128.
    for (bytes, name, other) in [(576, "q2_0", "groups of 128 need 544"), (544, "q2_0-g128", "groups of 64 need 576")] {
        for tail in [None, Some(1)] {
            let raw = q2(32, &[([256, 8], bytes)], tail);
            let file = raw.open().unwrap();
            assert_eq!(found(&file), [(name, bytes as u64)]);
            let view = file.tensor("t0").unwrap();
            assert_eq!(view.data.len(), bytes);
            let note = file.type_note(view.info).unwrap();
            let to = if tail.is_some() { "to the next tensor" } else { "to the end of the file" };
            let groups = if name == "q2_0" { "groups of 64:" } else { "groups of 128:" };
            for word in [groups, &format!("{bytes} bytes {to}"), other] {
                assert!(note.contains(word), "{note}");
            }
            // Padding at the end of the file is usual.
            let mut padded = raw.clone();
            assert_eq!(found(&padded.pad(32).open().unwrap()), [(name, bytes as u64)]);
        }
    }
}

#[test]
fn small_tensors_follow_the_others() {
    // 128 weights: 36 or 34 bytes, both of them padded to 64. Alone they are ggml's.
    let small = |bytes| ([128, 1], bytes);
    let file = q2(32, &[small(36), small(36)], Some(1)).open().unwrap();
    assert_eq!(found(&file), [("q2_0", 36), ("q2_0", 36)]);
    let note = file.type_note(&file.tensors()[0]).unwrap();
    assert!(note.contains("groups of 128 fit too"), "{note}");
    for (bytes, name, one) in [(544, "q2_0-g128", 34), (576, "q2_0", 36)] {
        let file = q2(32, &[small(one), ([256, 8], bytes), small(one)], Some(1)).open().unwrap();
        assert_eq!(found(&file), [(name, one as u64), (name, bytes as u64), (name, one as u64)]);
    }
    // With a large alignment everything is small.
    let file = q2(4096, &[([256, 8], 544), ([4096, 256], 4096 * 256 / 128 * 34)], Some(1)).open().unwrap();
    assert_eq!(found(&file), [("q2_0-g128", 544), ("q2_0-g128", 278_528)]);
}

#[test]
fn rows_of_an_odd_number_of_64s_have_groups_of_64() {
    let file = q2(32, &[([192, 3], 162)], Some(1)).open().unwrap();
    assert_eq!(found(&file), [("q2_0", 162)]);
    assert!(file.type_note(&file.tensors()[0]).unwrap().contains("rows of 192 weights"));
    let error = q2(32, &[([96, 3], 162)], None).open().unwrap_err();
    assert!(matches!(error, GgufError::NotWholeBlocks { block: 64, found: 96, .. }), "{error}");
}

#[test]
fn a_truncated_q2_0_is_noticed() {
    // The tensors before the last tell which form it is, so the end cannot pass for the shorter one.
    let raw = q2(32, &[([256, 8], 576), ([256, 8], 576)], None);
    assert_eq!(found(&raw.open().unwrap()), [("q2_0", 576), ("q2_0", 576)]);
    for missing in 1..=100 {
        let bytes = raw.bytes[..raw.bytes.len() - missing].to_vec();
        let error = GgufFile::from_vec(bytes).unwrap_err();
        let GgufError::TensorOutside { tensor, missing: said, .. } = &error else { panic!("{missing}: {error}") };
        assert_eq!((tensor.as_str(), *said), ("t1", missing as u64));
    }
    // Neither form fits: the sizes of ggml's overlap.
    let error = q2(32, &[([256, 8], 128), ([256, 8], 576)], None).open().unwrap_err();
    assert!(matches!(error, GgufError::Overlap { .. }), "{error}");
}

#[test]
fn the_writer_takes_both_forms_and_no_other() {
    let write = |size: usize| -> Result<GgufFile, GgufError> {
        let mut w = GgufWriter::new(3, 32).unwrap();
        w.tensor("w", &[256, 8], 42, vec![0_u8; size])?;
        GgufFile::from_vec(w.into_vec()?)
    };
    assert_eq!(found(&write(576).unwrap()), [("q2_0", 576)]);
    assert_eq!(found(&write(544).unwrap()), [("q2_0-g128", 544)]);
    for size in [543, 545, 575, 577, 0] {
        assert!(matches!(write(size), Err(GgufError::WrongDataSize { .. })), "{size}");
    }
}

#[test]
fn sizes_and_names_of_the_other_block_formats() {
    // Source: the layouts of ggml-common.h, ik_llama.cpp and PrismML's llama.cpp, for 256 x 2 weights.
    for (id, name, bytes) in [
        (6, "q5_0", 16 * 22),
        (7, "q5_1", 16 * 24),
        (10, "q2_k", 2 * 84),
        (11, "q3_k", 2 * 110),
        (13, "q5_k", 2 * 176),
        (20, "iq4_nl", 16 * 18),
        (41, "q1_0", 4 * 18),
        (134, "iq1_bn", 2 * (2 + 4 * 13)),
        (135, "iq2_bn", 2 * (4 + 4 * 16)),
        (142, "q2_0-g128", 4 * 34),
        (143, "ptq1_0", 4 * 28),
    ] {
        assert_eq!(tensor_size("t", 0, id, &[256, 2]).unwrap(), Some(bytes), "{name}");
        assert_eq!(ggml_type(id).unwrap().name, name);
        let mut raw = Raw::header(3, 1, 0);
        raw.tensor(0, "t", &[256, 2], id, 0).pad(32).data(bytes as usize);
        let file = raw.open().unwrap();
        assert_eq!((file.type_name(&file.tensors()[0]), file.type_note(&file.tensors()[0])), (name, None));
        let short = GgufFile::from_vec(raw.bytes[..raw.bytes.len() - 1].to_vec()).unwrap_err();
        assert!(matches!(short, GgufError::TensorOutside { missing: 1, .. }), "{short}");
    }
}

#[test]
fn every_format_that_is_computed_with_is_found_by_its_name() {
    for format in bitnet_kernels::quant::FORMATS {
        let bytes = format.matrix_bytes(8, 256).unwrap();
        for &id in format.also.iter().chain([&format.ggml_type]) {
            let mut raw = Raw::header(3, 1, 0);
            raw.tensor(0, "t", &[256, 8], id, 0).pad(32).data(bytes);
            let file = raw.pad(32).open().unwrap();
            let info = &file.tensors()[0];
            // The layouts of I2_S are not in the file.
            let name = if id == 36 { "i2_s" } else { format.name };
            assert_eq!((file.type_name(info), info.size), (name, bytes as u64), "type {id} of {}", format.name);
        }
    }
}

#[test]
fn type_39_is_sized_and_explained() {
    // 64 x 2 weights: 68 bytes as MXFP4, and 28 of padding.
    let file = |keys: &[(&str, u32)], bytes: usize| {
        let mut raw = Raw::header(3, 2, 1 + keys.len() as u64);
        raw.key(0, "general.architecture", 8).string("architecture", "bitnet");
        for (key, value) in keys {
            raw.key_u32(1, key, *value);
        }
        let next = bytes.next_multiple_of(32);
        raw.tensor(0, "t", &[64, 2], 39, 0).tensor(1, "next", &[1], 24, next as u64).pad(32).data(next + 1);
        raw.open().unwrap()
    };
    for (keys, bytes, name, size, why) in [
        (&[][..], 68, "mxfp4", 68, "96 bytes to the next tensor"),
        (&[("general.file_type", 38)], 68, "mxfp4", 68, "96 bytes"),
        (&[("general.file_type", 39)], 68, "tl2", 96, "general.file_type"),
        (&[], 64, "tl2", 64, "64 bytes to the next tensor, too few"),
    ] {
        let file = file(keys, bytes);
        let info = file.tensor("t").unwrap().info;
        assert_eq!((file.type_name(info), info.size), (name, size), "{keys:?}");
        let note = file.type_note(info).unwrap();
        assert!(note.contains(why), "{note}");
    }
}

/// 64 x 32 weights are 1,088 bytes as MXFP4. As TL2 they have half of that at most, a scale and padding.
#[test]
fn a_truncated_mxfp4_is_no_tl2() {
    let file = |bytes: usize| {
        let mut raw = Raw::header(3, 1, 0);
        raw.tensor(0, "t", &[64, 32], 39, 0).pad(32).data(bytes);
        raw.open()
    };
    let most = 1088 / 2 + 32 + 64;
    for (bytes, name, size) in [(64, "tl2", 64), (most, "tl2", most), (1088, "mxfp4", 1088), (1100, "mxfp4", 1088)] {
        let file = file(bytes).unwrap();
        assert_eq!((file.type_name(&file.tensors()[0]), file.tensors()[0].size), (name, size as u64), "{bytes}");
    }
    for bytes in [most + 1, 1087] {
        match file(bytes) {
            Err(GgufError::TensorOutside { missing, .. }) => assert_eq!(missing, 1088 - bytes as u64),
            other => panic!("{bytes}: {other:?}"),
        }
    }
}
