//! Metadata values to be written, and their bytes.

use super::MAX_ARRAY_DEPTH;
use super::error::GgufError;
use super::types::{ValueType, with_numbers};
use super::value::{Value, values};

with_numbers! { values
    /// A metadata value that owns its data. Made `From` numbers, bools, strings and vectors of them.
    #[derive(Debug, Clone, PartialEq)]
    #[non_exhaustive]
    MetaValue {
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
    }
    Self::Bool(_) => ValueType::Bool,
    Self::Str(_) | Self::Bytes(_) => ValueType::String,
    Self::Array { .. } => ValueType::Array,
}

macro_rules! of_numbers {
    ([$($t:ident $variant:ident),*]) => {
        impl MetaValue {
            /// Bytes of a number.
            fn number(&self) -> Option<Vec<u8>> {
                match self {
                    $(Self::$variant(v) => Some(v.to_le_bytes().to_vec()),)*
                    _ => None,
                }
            }
        }

        impl From<Value<'_>> for MetaValue {
            fn from(value: Value<'_>) -> MetaValue {
                match value {
                    $(Value::$variant(v) => v.into(),)*
                    Value::Bool(v) => v.into(),
                    Value::Str(s) => s.into(),
                    Value::Bytes(b) => MetaValue::Bytes(b.to_vec()),
                    Value::Array(a) => {
                        MetaValue::Array { element: a.element_type(), items: a.iter().map(MetaValue::from).collect() }
                    }
                }
            }
        }

        from!($($t $variant),*, bool Bool);
    };
}

impl MetaValue {
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
        let mut out = (self.value_type() as u32).to_le_bytes().to_vec();
        self.payload(key, 0, &mut out)?;
        Ok(out)
    }

    fn payload(&self, key: &str, depth: u32, out: &mut Vec<u8>) -> Result<(), GgufError> {
        match self {
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
            number => out.extend(number.number().unwrap_or_default()),
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
    ($($t:ident $variant:ident),*) => {$(
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
with_numbers!(of_numbers);

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
