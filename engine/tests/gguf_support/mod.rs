//! A second, independent maker of GGUF bytes: it knows no rule of the writer, so that it can break each.
#![allow(dead_code, unreachable_pub)]

use bitnet_engine::gguf::{GgufError, GgufFile};

/// Value type numbers of the specification.
pub const U32: u32 = 4;
pub const BOOL: u32 = 7;
pub const STRING: u32 = 8;
pub const ARRAY: u32 = 9;
pub const U64: u32 = 10;

/// Bytes in the making, with the name and the range of every field.
#[derive(Default, Clone)]
pub struct Raw {
    pub bytes: Vec<u8>,
    pub fields: Vec<(String, std::ops::Range<usize>)>,
}

impl Raw {
    pub fn field(&mut self, name: impl Into<String>, bytes: &[u8]) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.fields.push((name.into(), start..self.bytes.len()));
        self
    }

    pub fn u32(&mut self, name: impl Into<String>, v: u32) -> &mut Self {
        self.field(name, &v.to_le_bytes())
    }

    pub fn u64(&mut self, name: impl Into<String>, v: u64) -> &mut Self {
        self.field(name, &v.to_le_bytes())
    }

    /// Length field and bytes; both under `name`.
    pub fn string(&mut self, name: &str, s: impl AsRef<[u8]>) -> &mut Self {
        let s = s.as_ref();
        self.u64(format!("length of {name}"), s.len() as u64).field(name, s)
    }

    pub fn header(version: u32, tensors: u64, keys: u64) -> Raw {
        let mut raw = Raw::default();
        raw.field("magic", b"GGUF").u32("version", version);
        raw.u64("tensor count", tensors).u64("key count", keys);
        raw
    }

    /// A key and its type; the value follows.
    pub fn key(&mut self, index: usize, key: &str, ty: u32) -> &mut Self {
        self.string(&format!("name of key number {index}"), key);
        self.u32(format!("type of value of key {key:?}"), ty)
    }

    pub fn key_u32(&mut self, index: usize, key: &str, v: u32) -> &mut Self {
        self.key(index, key, U32).u32(format!("value of key {key:?}"), v)
    }

    pub fn tensor(&mut self, index: usize, name: impl AsRef<[u8]>, dims: &[u64], ty: u32, offset: u64) -> &mut Self {
        let name = name.as_ref();
        let shown = String::from_utf8_lossy(name).into_owned();
        self.string(&format!("name of tensor number {index}"), name);
        self.u32(format!("dimension count of tensor {shown:?}"), dims.len() as u32);
        for (i, d) in dims.iter().enumerate() {
            self.u64(format!("dimension {i} of tensor {shown:?}"), *d);
        }
        self.u32(format!("type of tensor {shown:?}"), ty);
        self.u64(format!("offset of tensor {shown:?}"), offset)
    }

    pub fn pad(&mut self, alignment: usize) -> &mut Self {
        let n = self.bytes.len().next_multiple_of(alignment) - self.bytes.len();
        self.field("padding", &vec![0; n])
    }

    pub fn data(&mut self, n: usize) -> &mut Self {
        let bytes: Vec<u8> = (0..n).map(|i| i as u8).collect();
        self.field("data", &bytes)
    }

    pub fn open(&self) -> Result<GgufFile, GgufError> {
        GgufFile::from_vec(self.bytes.clone())
    }
}

/// A valid file with every structure: scalars, strings, arrays, nested arrays, tensors of several types,
/// the last of which needs no padding behind it.
pub fn sample() -> Raw {
    let mut raw = Raw::header(3, 3, 7);
    raw.key(0, "general.architecture", STRING).string("value of key \"general.architecture\"", "bitnet-b1.58");
    raw.key_u32(1, "general.alignment", 64);
    raw.key(2, "flag", BOOL).field("value of key \"flag\"", &[1]);
    raw.key(3, "big", U64).u64("value of key \"big\"", u64::MAX);
    raw.key(4, "tokens", ARRAY)
        .u32("type of elements of the value of key \"tokens\"", STRING)
        .u64("element count of the value of key \"tokens\"", 3);
    for (i, t) in [&b"a"[..], b"", b"\xff\xfe!"].iter().enumerate() {
        raw.string(&format!("element {i} of the value of key \"tokens\""), t);
    }
    raw.key(5, "ids", ARRAY)
        .u32("type of elements of the value of key \"ids\"", 5)
        .u64("element count of the value of key \"ids\"", 3)
        .field("elements of the value of key \"ids\"", &[1, 0, 0, 0, 255, 255, 255, 255, 3, 0, 0, 0]);
    raw.key(6, "nested", ARRAY)
        .u32("type of elements of the value of key \"nested\"", ARRAY)
        .u64("element count of the value of key \"nested\"", 2);
    for i in 0..2_u32 {
        raw.u32(format!("type of elements of element {i} of the value of key \"nested\""), U32)
            .u64(format!("element count of element {i} of the value of key \"nested\""), u64::from(i))
            .field(format!("elements of the element {i} of the value of key \"nested\""), &vec![7; 4 * i as usize]);
    }
    raw.tensor(0, "norm", &[4], 0, 0); // 16 bytes
    raw.tensor(1, "blk.0.ffn", &[128, 2], 36, 64); // 256/4 + 32 = 96 bytes
    raw.tensor(2, "embd", &[8, 2, 1, 1], 1, 192); // 32 bytes
    raw.pad(64).data(192 + 32);
    raw
}
