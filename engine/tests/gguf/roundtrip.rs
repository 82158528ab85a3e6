//! Whatever the writer takes, the reader gives back: any values, any tensors, any alignment.

use std::io::Write;

use bitnet_engine::gguf::{GgufFile, GgufWriter, MetaValue, Value, ValueType, ggml_type, tensor_size};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

/// Values of one element type, so that arrays are never mixed.
fn scalar(ty: ValueType) -> BoxedStrategy<MetaValue> {
    match ty {
        ValueType::U8 => any::<u8>().prop_map(MetaValue::U8).boxed(),
        ValueType::I8 => any::<i8>().prop_map(MetaValue::I8).boxed(),
        ValueType::U16 => any::<u16>().prop_map(MetaValue::U16).boxed(),
        ValueType::I16 => any::<i16>().prop_map(MetaValue::I16).boxed(),
        ValueType::U32 => any::<u32>().prop_map(MetaValue::U32).boxed(),
        ValueType::I32 => any::<i32>().prop_map(MetaValue::I32).boxed(),
        ValueType::U64 => any::<u64>().prop_map(MetaValue::U64).boxed(),
        ValueType::I64 => any::<i64>().prop_map(MetaValue::I64).boxed(),
        ValueType::Bool => any::<bool>().prop_map(MetaValue::Bool).boxed(),
        ValueType::F32 => {
            use proptest::num::f32::{INFINITE, NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
            (POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO | INFINITE).prop_map(MetaValue::F32).boxed()
        }
        ValueType::F64 => {
            any::<f64>().prop_filter("NaN is never equal", |v| !v.is_nan()).prop_map(MetaValue::F64).boxed()
        }
        ValueType::String | ValueType::Array => vec(any::<u8>(), 0..20).prop_map(MetaValue::Bytes).boxed(),
    }
}

fn flat_array() -> impl Strategy<Value = MetaValue> {
    prop::sample::select(ValueType::ALL)
        .prop_filter("nested below", |t| *t != ValueType::Array)
        .prop_flat_map(|element| vec(scalar(element), 0..8).prop_map(move |items| MetaValue::Array { element, items }))
}

fn value() -> impl Strategy<Value = MetaValue> {
    let array = flat_array().prop_recursive(3, 24, 3, |inner| {
        vec(inner, 0..3).prop_map(|items| MetaValue::Array { element: ValueType::Array, items })
    });
    prop_oneof![
        prop::sample::select(ValueType::ALL)
            .prop_filter("others below", |t| t.fixed_size().is_some())
            .prop_flat_map(scalar),
        any::<String>().prop_map(MetaValue::Str),
        array,
    ]
}

#[derive(Debug, Clone)]
struct Tensor {
    dims: Vec<u64>,
    ggml_type: u32,
    data: Vec<u8>,
}

fn tensor() -> impl Strategy<Value = Tensor> {
    let types = prop::sample::select(vec![0_u32, 1, 2, 3, 8, 14, 24, 28, 30, 34, 35, 36, 38, 39, 135]);
    (types, vec(1_u64..4, 1..=4), any::<u8>()).prop_map(|(ggml_type, mut dims, seed)| {
        let ne0 = match ggml_type {
            0 | 1 | 24 | 28 | 30 => 1,
            2 | 3 | 8 => 32,
            135 => 64,
            36 => 128,
            _ => 256,
        };
        dims[0] *= ne0;
        let size = tensor_size("t", 0, ggml_type, &dims).unwrap().unwrap_or(100);
        let data = (0..size).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect();
        Tensor { dims, ggml_type, data }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn everything_comes_back(
        version in 2_u32..=3,
        log_alignment in 0_u32..=12,
        keys in btree_map("[a-z]{1,8}(\\.[a-z]{1,8})?", value(), 0..12),
        tensors in btree_map("\\PC{1,12}", (tensor(), any::<bool>()), 0..12),
    ) {
        let alignment = 1_u64 << log_alignment;
        let mut w = GgufWriter::new(version, alignment).unwrap();
        for (key, value) in &keys {
            w.meta(key, value.clone()).unwrap();
        }
        for (name, (t, streamed)) in &tensors {
            if *streamed {
                // In pieces, as a converter would.
                let write = |out: &mut dyn Write| t.data.chunks(7).try_for_each(|c| out.write_all(c));
                w.tensor_with(name, &t.dims, t.ggml_type, t.data.len() as u64, write).unwrap();
            } else {
                w.tensor(name, &t.dims, t.ggml_type, &t.data[..]).unwrap();
            }
        }
        let mut bytes = Vec::new();
        let len = w.write_to(&mut bytes).unwrap();
        prop_assert_eq!(len, bytes.len() as u64);

        let file = GgufFile::from_vec(bytes.clone()).unwrap();
        prop_assert_eq!((file.version(), file.alignment()), (version, alignment));
        let own_alignment = usize::from(alignment != 32);
        prop_assert_eq!(file.metadata().len(), keys.len() + own_alignment);
        for (key, value) in &keys {
            let read = MetaValue::from(file.metadata().get(key).unwrap());
            prop_assert_eq!(&read, value);
        }
        prop_assert_eq!(file.tensors().len(), tensors.len());
        for (name, (t, _)) in &tensors {
            let view = file.tensor(name).unwrap();
            prop_assert_eq!(&view.info.dims, &t.dims);
            prop_assert_eq!(view.info.ggml_type, t.ggml_type);
            prop_assert_eq!(view.info.offset % alignment, 0);
            prop_assert_eq!(&view.data[..t.data.len()], &t.data[..]);
            if tensor_size(name, 0, t.ggml_type, &t.dims).unwrap().is_some() {
                prop_assert_eq!(view.data.len(), t.data.len());
            } else {
                // Its size is not in the file: padding is taken for data.
                prop_assert!(view.data.len() < t.data.len() + alignment as usize);
            }
        }

        // A copy through the copying functions is the same file, byte for byte.
        let mut copy = GgufWriter::new(version, alignment).unwrap();
        copy.copy_all_meta(file.metadata(), |_| true).unwrap();
        for view in file.views() {
            copy.copy_tensor(view).unwrap();
        }
        let again = copy.into_vec().unwrap();
        prop_assert_eq!(again, bytes);
    }
}

#[test]
fn every_value_type_by_hand() {
    let values: Vec<(ValueType, MetaValue)> = vec![
        (ValueType::U8, 255_u8.into()),
        (ValueType::I8, (-128_i8).into()),
        (ValueType::U16, 65_535_u16.into()),
        (ValueType::I16, (-32_768_i16).into()),
        (ValueType::U32, u32::MAX.into()),
        (ValueType::I32, i32::MIN.into()),
        (ValueType::F32, f32::MIN_POSITIVE.into()),
        (ValueType::Bool, true.into()),
        (ValueType::String, "naïve \u{1f600}".into()),
        (ValueType::Array, vec!["a", "", "c"].into()),
        (ValueType::U64, u64::MAX.into()),
        (ValueType::I64, i64::MIN.into()),
        (ValueType::F64, f64::MAX.into()),
    ];
    assert_eq!(values.iter().map(|(t, _)| *t).collect::<Vec<_>>(), ValueType::ALL);
    let mut w = GgufWriter::new(3, 32).unwrap();
    for (ty, v) in &values {
        w.meta(ty.name(), v.clone()).unwrap();
    }
    let bytes = w.into_vec().unwrap();
    let file = GgufFile::from_vec(bytes).unwrap();
    for ((key, read), (ty, wrote)) in file.metadata().iter().zip(&values) {
        assert_eq!((key, read.value_type()), (ty.name(), *ty));
        match (read, wrote) {
            // Strings inside arrays come back as bytes.
            (Value::Array(a), MetaValue::Array { .. }) => {
                assert_eq!(a.strings().unwrap().collect::<Vec<_>>(), [&b"a"[..], b"", b"c"]);
            }
            (read, wrote) => assert_eq!(&MetaValue::from(read), wrote),
        }
    }
}

#[test]
fn a_golden_file_byte_for_byte() {
    // The specification by hand: nothing here comes from the code under test.
    let mut w = GgufWriter::new(3, 32).unwrap();
    w.meta("a", 7_u32).unwrap().tensor("t", &[2], 0, vec![1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    let bytes = w.into_vec().unwrap();
    let mut expected = b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0".to_vec();
    expected.extend(b"\x01\0\0\0\0\0\0\0a\x04\0\0\0\x07\0\0\0");
    expected.extend(b"\x01\0\0\0\0\0\0\0t\x01\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    expected.resize(96, 0);
    expected.extend([1, 2, 3, 4, 5, 6, 7, 8]);
    expected.resize(128, 0);
    assert_eq!(bytes, expected);
    assert_eq!(ggml_type(0).unwrap().name, "f32");
}

#[test]
fn an_alignment_named_though_it_is_the_usual_one_is_copied_too() {
    let mut w = GgufWriter::new(3, 32).unwrap();
    w.meta("a", 1_u8).unwrap().meta("general.alignment", 32_u32).unwrap().meta("b", 2_u8).unwrap();
    let bytes = w.into_vec().unwrap();
    let file = GgufFile::from_vec(bytes.clone()).unwrap();
    for (alignment, keys) in [(32, 3), (64, 3), (8, 3)] {
        let mut copy = GgufWriter::new(3, alignment).unwrap();
        copy.copy_all_meta(file.metadata(), |_| true).unwrap();
        let again = copy.into_vec().unwrap();
        assert_eq!(again == bytes, alignment == 32);
        let file = GgufFile::from_vec(again).unwrap();
        assert_eq!((file.alignment(), file.metadata().len()), (alignment, keys));
    }
}
