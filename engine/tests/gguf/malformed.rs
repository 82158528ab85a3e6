//! Every way in which a file can be wrong is one row: the bytes, the error, the words in its message.

use crate::gguf_support::{ARRAY, BOOL, Raw, STRING, U32, U64, sample};
use bitnet_engine::gguf::{GgufError, Value};

#[test]
fn the_sample_itself_is_valid_and_says_what_was_put_in() {
    let file = sample().open().unwrap();
    assert_eq!((file.version(), file.alignment()), (3, 64));
    let md = file.metadata();
    assert_eq!(md.len(), 7);
    assert_eq!(md.str("general.architecture").unwrap(), Some("bitnet-b1.58"));
    assert_eq!(md.bool("flag").unwrap(), Some(true));
    assert_eq!(md.u64("big").unwrap(), Some(u64::MAX));
    let tokens = md.array("tokens").unwrap().unwrap();
    assert_eq!(tokens.strings().unwrap().collect::<Vec<_>>(), [&b"a"[..], b"", b"\xff\xfe!"]);
    let ids: Vec<i32> = md.array("ids").unwrap().unwrap().i32s().unwrap().collect();
    assert_eq!(ids, [1, -1, 3]);
    let nested: Vec<Vec<u32>> = md
        .array("nested")
        .unwrap()
        .unwrap()
        .iter()
        .map(|v| match v {
            Value::Array(a) => a.numbers::<u32>().unwrap().collect(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(nested, [vec![], vec![0x0707_0707]]);
    let data: Vec<u8> = (0..224).map(|i| i as u8).collect();
    assert_eq!(file.tensor("norm").unwrap().data, &data[..16]);
    assert_eq!(file.tensor("blk.0.ffn").unwrap().data, &data[64..160]);
    assert_eq!(file.tensor("embd").unwrap().data, &data[192..224]);
    assert!(file.tensor("nothing").is_none());
}

struct Case {
    name: &'static str,
    raw: Raw,
    is: fn(&GgufError) -> bool,
    says: &'static [&'static str],
}

#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn add(&mut self, case: Case) {
        self.0.push(case);
    }
}

macro_rules! case {
    ($cases:ident, $name:literal, $raw:expr, $pattern:pat, $($says:literal),+) => {
        $cases.add(Case { name: $name, raw: $raw, is: |e| matches!(e, $pattern), says: &[$($says),+] });
    };
}

fn one_key(ty: u32, value: &[u8]) -> Raw {
    let mut raw = Raw::header(3, 0, 1);
    raw.key(0, "some.key", ty).field("value", value).field("room", &[0; 64]);
    raw
}

fn one_tensor(dims: &[u64], ty: u32, offset: u64) -> Raw {
    let mut raw = Raw::header(3, 1, 0);
    raw.tensor(0, "blk.7.attn_q.weight", dims, ty, offset).pad(32).data(1024);
    raw
}

fn two_tensors(first: (&str, &[u64], u64), second: (&str, &[u64], u64)) -> Raw {
    let mut raw = Raw::header(3, 2, 0);
    raw.tensor(0, first.0, first.1, 0, first.2).tensor(1, second.0, second.1, 0, second.2).pad(32).data(1024);
    raw
}

fn array(element: u32, count: u64, bytes: &[u8]) -> Vec<u8> {
    let mut v = element.to_le_bytes().to_vec();
    v.extend(count.to_le_bytes());
    v.extend(bytes);
    v
}

fn raw_bytes(bytes: &[u8]) -> Raw {
    let mut raw = Raw::default();
    raw.field("bytes", bytes);
    raw
}

#[test]
fn headers_that_cannot_be() {
    use GgufError as E;
    let mut c = Cases::default();
    case! { c, "empty", Raw::default(), E::Empty, "0 bytes", "download it again" }
    case! { c, "wrong magic", raw_bytes(b"GGUX\x03\0\0\0"), E::NotGguf { .. }, "not a GGUF file", ".gguf" }
    case! { c, "lfs", raw_bytes(b"version https://git-lfs.github.com/spec/v1"),
    E::NotGguf { .. }, "git lfs pull" }
    case! { c, "html", raw_bytes(b"<!DOCTYPE html><html>"), E::NotGguf { .. }, "web page" }
    case! { c, "zip", raw_bytes(b"PK\x03\x04\0\0\0\0\0\0"), E::NotGguf { .. }, "zip" }
    case! { c, "ggjt", raw_bytes(b"tjgg\x03\0\0\0"), E::NotGguf { .. }, "GGJT" }
    case! { c, "safetensors", raw_bytes(b"\x10\0\0\0\0\0\0\0{\"a\":{}}"), E::NotGguf { .. }, "safetensors" }
    case! { c, "v1", Raw::header(1, 0, 0),
    E::UnsupportedVersion { version: 1 }, "version 1 at byte 4", "convert" }
    case! { c, "v0", Raw::header(0, 0, 0), E::UnsupportedVersion { version: 0 }, "versions 2 and 3" }
    case! { c, "v4", Raw::header(4, 0, 0), E::UnsupportedVersion { version: 4 }, "update this program" }
    case! { c, "big-endian 3", Raw::header(3 << 24, 0, 0),
    E::BigEndian { version: 3 }, "big-endian", "byte 4" }
    case! { c, "big-endian 2", Raw::header(2 << 24, 0, 0), E::BigEndian { version: 2 }, "little-endian" }
    for n in [u64::MAX, 1 << 63, 1 << 32] {
        case! { c, "keys", Raw::header(3, 0, n), E::ImpossibleCount { at: 16, .. }, "key count at byte 16" }
        case! { c, "tensors", Raw::header(3, n, 0),
        E::ImpossibleCount { at: 8, .. }, "tensor count at byte 8" }
    }
    run(c);
}

#[test]
fn metadata_that_cannot_be() {
    use GgufError as E;
    let mut c = Cases::default();
    let mut raw = Raw::header(3, 0, 1);
    raw.u64("length", 5 << 30).field("room", &[b'a'; 64]);
    case! { c, "5 GB key", raw,
    E::Truncated { needed: 5_368_709_120, .. }, "name of key number 0", "bytes are missing" }
    // The low half of the length is small: it must not be cut to 32 bits anywhere.
    case! { c, "string of 2^32 + 1", one_key(STRING, &((1_u64 << 32) + 1).to_le_bytes()),
    E::Truncated { needed: 4_294_967_297, .. }, "some.key", "truncated" }
    case! { c, "string of 5 GB", one_key(STRING, &(5_u64 << 30).to_le_bytes()),
    E::Truncated { .. }, "some.key" }
    case! { c, "string of 2^64-1", one_key(STRING, &u64::MAX.to_le_bytes()), E::Truncated { .. }, "some.key" }
    let mut raw = Raw::header(3, 0, 1);
    raw.key(0, &"k".repeat(65_536), BOOL).field("value", &[1]);
    case! { c, "key too long", raw, E::StringTooLong { len: 65_536, limit: 65_535, .. }, "65536", "65535" }
    let mut raw = Raw::header(3, 0, 1);
    raw.key(0, "", BOOL).field("value", &[1; 32]);
    case! { c, "empty key", raw, E::EmptyName { at: 24, .. }, "key number 0 at byte 24" }
    let mut raw = Raw::header(3, 0, 1);
    raw.string("key", b"ab\xffcd").u32("type", BOOL).field("value", &[1; 32]);
    case! { c, "key not UTF-8", raw, E::NotUtf8 { at: 32, bad_at: 34, .. }, "not UTF-8", "34" }
    let mut value = 3_u64.to_le_bytes().to_vec();
    value.extend(b"a\xc3\x28");
    case! { c, "string not UTF-8", one_key(STRING, &value), E::NotUtf8 { .. }, "value of key \"some.key\"" }
    for ty in [13, 255, u32::MAX] {
        case! { c, "value type", one_key(ty, &[0; 8]), E::UnknownValueType { .. }, "some.key", "0 to 12" }
    }
    case! { c, "bool 2", one_key(BOOL, &[2]), E::BadBool { found: 2, .. }, "some.key", "0 or 1" }
    case! { c, "bool in array", one_key(ARRAY, &array(BOOL, 3, &[0, 1, 9])),
    E::BadBool { found: 9, .. }, "some.key" }
    case! { c, "element type", one_key(ARRAY, &array(13, 1, &[0; 8])),
    E::UnknownValueType { found: 13, .. }, "some.key" }
    for n in [u64::MAX, 1 << 63, 1 << 61, 9] {
        case! { c, "strings", one_key(ARRAY, &array(STRING, n, &[])),
        E::ImpossibleCount { .. }, "element count", "some.key" }
        case! { c, "numbers", one_key(ARRAY, &array(U64, n, &[])), E::ImpossibleCount { .. }, "some.key" }
        case! { c, "arrays", one_key(ARRAY, &array(ARRAY, n, &[])), E::ImpossibleCount { .. }, "some.key" }
        case! { c, "nested", one_key(ARRAY, &array(ARRAY, 1, &array(U64, n, &[]))),
        E::ImpossibleCount { .. }, "element 0", "some.key" }
    }
    let long = array(STRING, 2, &u64::MAX.to_le_bytes());
    case! { c, "string in array", one_key(ARRAY, &long),
    E::Truncated { needed: u64::MAX, .. }, "element 0", "some.key" }
    let mut deep = array(U32, 0, &[]);
    for _ in 0..3 {
        deep = array(ARRAY, 1, &deep);
    }
    assert!(one_key(ARRAY, &deep).open().is_ok(), "depth 4 is allowed");
    let deep = array(ARRAY, 1, &deep);
    case! { c, "depth 5", one_key(ARRAY, &deep), E::NestedTooDeep { limit: 4, .. }, "some.key", "4 deep" }
    let mut raw = Raw::header(3, 0, 3);
    raw.key_u32(0, "twice", 1).key_u32(1, "other", 1).key_u32(2, "twice", 1);
    case! { c, "duplicate key", raw, E::DuplicateKey { .. }, "\"twice\"", "occurs twice" }
    for (n, ok) in [(0, false), (1, true), (8, true), (24, false), (1 << 20, true), (1 << 21, false), (u32::MAX, false)]
    {
        let mut raw = Raw::header(3, 0, 1);
        raw.key_u32(0, "general.alignment", n);
        if ok {
            assert_eq!(raw.open().unwrap().alignment(), u64::from(n));
        } else {
            case! { c, "alignment", raw, E::BadAlignment { .. }, "general.alignment", "power of two" }
        }
    }
    let mut raw = Raw::header(3, 0, 1);
    raw.key(0, "general.alignment", U64).u64("value", 32);
    case! { c, "alignment of type u64", raw,
    E::WrongType { .. }, "general.alignment", "u64 32", "u32 is expected" }
    run(c);
}

#[test]
fn tensors_that_cannot_be() {
    use GgufError as E;
    let mut c = Cases::default();
    case! { c, "no dimensions", one_tensor(&[], 0, 0),
    E::BadDimCount { found: 0, .. }, "blk.7.attn_q.weight" }
    case! { c, "five dimensions", one_tensor(&[1; 5], 0, 0), E::BadDimCount { found: 5, .. }, "1 to 4" }
    let mut raw = Raw::header(3, 1, 0);
    raw.string("name", "t").u32("dims", u32::MAX).data(128);
    case! { c, "2^32-1 dimensions", raw, E::BadDimCount { .. }, "4294967295" }
    case! { c, "zero", one_tensor(&[32, 0], 0, 0), E::ZeroDim { .. }, "[32, 0]", "blk.7.attn_q.weight" }
    case! { c, "overflow", one_tensor(&[1 << 33, 1 << 33], 0, 0), E::ShapeOverflow { .. }, "2^63" }
    case! { c, "byte overflow", one_tensor(&[1 << 62], 0, 0), E::ShapeOverflow { .. }, "2^63" }
    case! { c, "2^32 elements", one_tensor(&[1 << 32], 24, 0),
    E::TensorOutside { size: 4_294_967_296, .. }, "truncated" }
    for ty in [4, 5, 43, 200, u32::MAX] {
        case! { c, "unknown type", one_tensor(&[32], ty, 0),
        E::UnknownTensorType { .. }, "blk.7.attn_q.weight", "known ggml type" }
    }
    case! { c, "partial block", one_tensor(&[100, 2], 35, 0),
    E::NotWholeBlocks { found: 100, block: 256, .. }, "tq2_0" }
    case! { c, "partial byte", one_tensor(&[3, 3], 36, 0), E::NotWholeBlocks { .. }, "i2_s" }
    case! { c, "misaligned", one_tensor(&[4], 0, 16),
    E::Misaligned { offset: 16, alignment: 32, .. }, "multiple of the alignment 32" }
    case! { c, "offset outside", one_tensor(&[4], 0, 1024),
    E::TensorOutside { missing: 16, .. }, "16 bytes are missing" }
    case! { c, "offset far outside", one_tensor(&[4], 0, 1 << 40), E::TensorOutside { .. }, "truncated" }
    case! { c, "offset overflows", one_tensor(&[4], 0, u64::MAX - 31),
    E::TensorOutside { .. }, "blk.7.attn_q.weight" }
    case! { c, "one byte too long", one_tensor(&[1025], 24, 0),
    E::TensorOutside { missing: 1, .. }, "1 bytes are missing" }
    case! { c, "i2_s without its scale", one_tensor(&[4096 - 64], 36, 0),
    E::TensorOutside { missing: 16, .. }, "truncated" }
    case! { c, "tl1 with nothing", one_tensor(&[64, 64], 38, 1024), E::TensorOutside { .. }, "truncated" }
    let mut raw = Raw::header(3, 1, 0);
    raw.tensor(0, "", &[1], 0, 0).pad(32).data(64);
    case! { c, "empty name", raw, E::EmptyName { .. }, "tensor number 0" }
    let mut raw = Raw::header(3, 1, 0);
    raw.tensor(0, b"a\xff", &[1], 0, 0).pad(32).data(64);
    case! { c, "name not UTF-8", raw, E::NotUtf8 { bad_at: 33, .. }, "tensor number 0" }
    let mut raw = Raw::header(3, 1, 0);
    raw.u64("length", 5 << 30).data(128);
    case! { c, "5 GB name", raw, E::Truncated { .. }, "name of tensor number 0" }
    case! { c, "duplicate", two_tensors(("a", &[4], 0), ("a", &[4], 32)),
    E::DuplicateTensor { .. }, "\"a\"", "twice" }
    case! { c, "same place", two_tensors(("a", &[4], 0), ("b", &[4], 0)),
    E::Overlap { .. }, "\"a\"", "\"b\"" }
    case! { c, "overlap", two_tensors(("a", &[9], 0), ("b", &[4], 32)),
    E::Overlap { .. }, "must not overlap" }
    case! { c, "overlap, listed backwards", two_tensors(("b", &[4], 32), ("a", &[9], 0)),
    E::Overlap { .. }, "inside tensor \"a\"" }
    case! { c, "a large one over all", two_tensors(("a", &[256], 0), ("b", &[1], 992)),
    E::Overlap { .. }, "inside tensor \"a\"" }
    run(c);
    assert!(two_tensors(("b", &[4], 32), ("a", &[8], 0)).open().is_ok(), "touching, listed backwards, is fine");
    assert!(one_tensor(&[1024], 24, 0).open().is_ok(), "to the last byte is fine");
}

fn run(cases: Cases) {
    for Case { name, raw, is, says } in cases.0 {
        let e = raw.open().expect_err(name);
        let text = e.to_string();
        assert!(is(&e), "{name}: {e:?}");
        for word in says {
            assert!(text.contains(word), "{name}: {word:?} is not in: {text}");
        }
    }
}
