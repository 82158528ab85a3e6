//! Metadata values to be written, and their bytes.

use super::error::GgufError;
use super::types::ValueType;
use super::value::Value;
use super::{MAX_ARRAY_DEPTH, MAX_HEADER_TEXT};

/// A metadata value that owns its data. Made `From` numbers, bools, strings and vectors of them.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum MetaValue {
    /// Unsigned 8 bits.
    U8(u8),
    /// Signed 8 bits.
    I8(i8),
    /// Unsigned 16 bits.
    U16(u16),
    /// Signed 16 bits.
    I16(i16),
    /// Unsigned 32 bits.
    U32(u32),
    /// Signed 32 bits.
    I32(i32),
    /// IEEE single.
    F32(f32),
    /// True or false.
    Bool(bool),
    /// A string.
    Str(String),
    /// A string that need not be UTF-8; allowed as an element of an array only, as the reader expects.
    Bytes(Vec<u8>),
    /// An array; every item must be of the element type.
    Array {
        /// Type of the elements, needed because the array may be empty.
        element: ValueType,
        /// The elements.
        items: Vec<MetaValue>,
    },
    /// Unsigned 64 bits.
    U64(u64),
    /// Signed 64 bits.
    I64(i64),
    /// IEEE double.
    F64(f64),
}

impl MetaValue {
    /// The type by which the file stores it.
    pub fn value_type(&self) -> ValueType {
        match self {
            MetaValue::U8(_) => ValueType::U8,
            MetaValue::I8(_) => ValueType::I8,
            MetaValue::U16(_) => ValueType::U16,
            MetaValue::I16(_) => ValueType::I16,
            MetaValue::U32(_) => ValueType::U32,
            MetaValue::I32(_) => ValueType::I32,
            MetaValue::F32(_) => ValueType::F32,
            MetaValue::Bool(_) => ValueType::Bool,
            MetaValue::Str(_) | MetaValue::Bytes(_) => ValueType::String,
            MetaValue::Array { .. } => ValueType::Array,
            MetaValue::U64(_) => ValueType::U64,
            MetaValue::I64(_) => ValueType::I64,
            MetaValue::F64(_) => ValueType::F64,
        }
    }

    /// An array of byte strings, such as a vocabulary.
    pub fn strings<S: AsRef<[u8]>>(items: impl IntoIterator<Item = S>) -> MetaValue {
        MetaValue::Array {
            element: ValueType::String,
            items: items.into_iter().map(|s| MetaValue::Bytes(s.as_ref().to_vec())).collect(),
        }
    }

    /// Type field and value, as the file stores them.
    pub(super) fn encode(&self, key: &str) -> Result<Vec<u8>, GgufError> {
        if let MetaValue::Bytes(_) = self {
            return Err(refuse(key, "bytes that need not be UTF-8 are allowed inside arrays only"));
        }
        if let MetaValue::Str(s) = self
            && s.len() as u64 > MAX_HEADER_TEXT
        {
            return Err(refuse(key, "a string outside arrays may have 256 MiB at most"));
        }
        let mut out = (self.value_type() as u32).to_le_bytes().to_vec();
        self.payload(key, 0, &mut out)?;
        Ok(out)
    }

    fn payload(&self, key: &str, depth: u32, out: &mut Vec<u8>) -> Result<(), GgufError> {
        match self {
            MetaValue::U8(v) => out.extend(v.to_le_bytes()),
            MetaValue::I8(v) => out.extend(v.to_le_bytes()),
            MetaValue::U16(v) => out.extend(v.to_le_bytes()),
            MetaValue::I16(v) => out.extend(v.to_le_bytes()),
            MetaValue::U32(v) => out.extend(v.to_le_bytes()),
            MetaValue::I32(v) => out.extend(v.to_le_bytes()),
            MetaValue::F32(v) => out.extend(v.to_le_bytes()),
            MetaValue::U64(v) => out.extend(v.to_le_bytes()),
            MetaValue::I64(v) => out.extend(v.to_le_bytes()),
            MetaValue::F64(v) => out.extend(v.to_le_bytes()),
            MetaValue::Bool(v) => out.push(u8::from(*v)),
            MetaValue::Str(s) => string(s.as_bytes(), out),
            MetaValue::Bytes(b) => string(b, out),
            MetaValue::Array { element, items } => {
                if depth >= MAX_ARRAY_DEPTH {
                    return Err(refuse(key, "arrays may be nested four deep at most"));
                }
                out.extend((*element as u32).to_le_bytes());
                out.extend((items.len() as u64).to_le_bytes());
                for item in items {
                    if item.value_type() != *element {
                        return Err(GgufError::MixedArray {
                            key: key.to_owned(),
                            expected: *element,
                            found: item.value_type(),
                        });
                    }
                    item.payload(key, depth + 1, out)?;
                }
            }
        }
        Ok(())
    }
}

fn string(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend(bytes);
}

fn refuse(key: &str, why: &str) -> GgufError {
    GgufError::CannotWrite { what: format!("key {key:?}"), why: why.to_owned() }
}

macro_rules! from {
    ($($t:ty => $variant:ident),* $(,)?) => {$(
        impl From<$t> for MetaValue {
            fn from(v: $t) -> MetaValue {
                MetaValue::$variant(v)
            }
        }
        impl From<Vec<$t>> for MetaValue {
            fn from(items: Vec<$t>) -> MetaValue {
                MetaValue::Array {
                    element: ValueType::$variant,
                    items: items.into_iter().map(MetaValue::$variant).collect(),
                }
            }
        }
    )*};
}
from!(u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, f32 => F32, bool => Bool,
      u64 => U64, i64 => I64, f64 => F64);

impl From<String> for MetaValue {
    fn from(s: String) -> MetaValue {
        MetaValue::Str(s)
    }
}

impl From<&str> for MetaValue {
    fn from(s: &str) -> MetaValue {
        MetaValue::Str(s.to_owned())
    }
}

impl From<Vec<String>> for MetaValue {
    fn from(items: Vec<String>) -> MetaValue {
        MetaValue::Array { element: ValueType::String, items: items.into_iter().map(MetaValue::Str).collect() }
    }
}

impl From<Vec<&str>> for MetaValue {
    fn from(items: Vec<&str>) -> MetaValue {
        items.into_iter().map(str::to_owned).collect::<Vec<_>>().into()
    }
}

impl From<Value<'_>> for MetaValue {
    fn from(value: Value<'_>) -> MetaValue {
        match value {
            Value::U8(v) => v.into(),
            Value::I8(v) => v.into(),
            Value::U16(v) => v.into(),
            Value::I16(v) => v.into(),
            Value::U32(v) => v.into(),
            Value::I32(v) => v.into(),
            Value::F32(v) => v.into(),
            Value::Bool(v) => v.into(),
            Value::Str(s) => s.into(),
            Value::Bytes(b) => MetaValue::Bytes(b.to_vec()),
            Value::Array(a) => {
                MetaValue::Array { element: a.element_type(), items: a.iter().map(MetaValue::from).collect() }
            }
            Value::U64(v) => v.into(),
            Value::I64(v) => v.into(),
            Value::F64(v) => v.into(),
        }
    }
}
