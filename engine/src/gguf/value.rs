//! Metadata values as the caller sees them: scalars by value, strings and arrays as views of the file.
//!
//! An array is never copied: a vocabulary of 128 k tokens is a byte range, walked once at open to prove
//! that every length in it is true, and again by each iterator.

use std::marker::PhantomData;

use super::MAX_ARRAY_DEPTH;
use super::cursor::Cursor;
use super::error::GgufError;
use super::types::{ValueType, with_numbers};

/// An enum of numbers and what else there is, and the [`ValueType`] of each variant.
macro_rules! values {
    ([$($t:ident $variant:ident),*] $(#[$meta:meta])* $name:ident $(<$life:lifetime>)? { $($more:tt)* } $($types:tt)*) => {
        $(#[$meta])*
        pub enum $name $(<$life>)? {
            $(#[doc = concat!("A number of type ", stringify!($t), ".")] $variant($t),)*
            $($more)*
        }

        impl $(<$life>)? $name $(<$life>)? {
            /// The type by which the file stores it.
            pub fn value_type(&self) -> ValueType {
                match self {
                    $(Self::$variant(_) => ValueType::$variant,)*
                    $($types)*
                }
            }
        }
    };
}
pub(super) use values;

with_numbers! { values
    /// One metadata value, borrowed from the file.
    #[derive(Debug, Clone, Copy, PartialEq)]
    #[non_exhaustive]
    Value<'a> {
        /// True or false.
        Bool(bool),
        /// A string outside arrays, which is UTF-8.
        Str(&'a str),
        /// A string inside an array: bytes, since vocabularies in the wild hold tokens that are not UTF-8.
        Bytes(&'a [u8]),
        /// An array.
        Array(ArrayView<'a>),
    }
    Self::Bool(_) => ValueType::Bool,
    Self::Str(_) | Self::Bytes(_) => ValueType::String,
    Self::Array(_) => ValueType::Array,
}

macro_rules! read_scalar {
    ([$($t:ident $variant:ident),*]) => {
        impl Value<'static> {
            /// Reads a value of a fixed-size type, which borrows nothing; `None` for strings and arrays, and if
            /// the bytes end early.
            pub(super) fn read_scalar(cursor: &mut Cursor<'_>, ty: ValueType) -> Option<Self> {
                fn raw<const N: usize>(cursor: &mut Cursor<'_>) -> Option<[u8; N]> {
                    cursor.take(N as u64, format_args!("element")).ok()?.try_into().ok()
                }
                Some(match ty {
                    $(ValueType::$variant => Value::$variant($t::from_le_bytes(raw(cursor)?)),)*
                    ValueType::Bool => Value::Bool(raw::<1>(cursor)? != [0]),
                    ValueType::String | ValueType::Array => return None,
                })
            }
        }
    };
}
with_numbers!(read_scalar);

impl<'a> Value<'a> {
    /// The value of any integer type.
    pub fn as_integer(&self) -> Option<i128> {
        match *self {
            Value::U8(v) => Some(v.into()),
            Value::I8(v) => Some(v.into()),
            Value::U16(v) => Some(v.into()),
            Value::I16(v) => Some(v.into()),
            Value::U32(v) => Some(v.into()),
            Value::I32(v) => Some(v.into()),
            Value::U64(v) => Some(v.into()),
            Value::I64(v) => Some(v.into()),
            _ => None,
        }
    }

    /// "u32 7", "string \"llama\"", "array of 3 f32": for messages.
    pub fn describe(&self) -> String {
        const SHOWN: usize = 40;
        let ty = self.value_type();
        match self {
            Value::Str(s) if s.chars().count() > SHOWN => {
                format!("{ty} {:?}...", s.chars().take(SHOWN).collect::<String>())
            }
            Value::Str(s) => format!("{ty} {s:?}"),
            Value::Bytes(b) => format!("{ty} of {} bytes", b.len()),
            Value::Array(a) => format!("{ty} of {} {}", a.len(), a.element_type()),
            Value::Bool(v) => format!("{ty} {v}"),
            Value::F32(v) => format!("{ty} {v}"),
            Value::F64(v) => format!("{ty} {v}"),
            other => format!("{ty} {}", other.as_integer().unwrap_or_default()),
        }
    }

    /// Reads an element of an array; `None` if the bytes end early (they were walked at open, so they do
    /// not, unless somebody changes the file under the map). `depth` counts the arrays around it.
    fn read(cursor: &mut Cursor<'a>, ty: ValueType, key: &'a str, depth: u32) -> Option<Value<'a>> {
        match ty {
            ValueType::String => cursor.string_bytes(format_args!("element")).ok().map(Value::Bytes),
            ValueType::Array if depth >= MAX_ARRAY_DEPTH => None,
            ValueType::Array => ArrayView::read(cursor, key, depth + 1).map(Value::Array),
            scalar => Value::read_scalar(cursor, scalar),
        }
    }
}

/// An array in the file: element type, count and bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ArrayView<'a> {
    pub(super) key: &'a str,
    pub(super) element: ValueType,
    pub(super) count: usize,
    pub(super) bytes: &'a [u8],
    pub(super) at: u64,
    /// 1 for the value of a key, 2 for an array in it...
    pub(super) depth: u32,
}

impl<'a> ArrayView<'a> {
    fn read(cursor: &mut Cursor<'a>, key: &'a str, depth: u32) -> Option<ArrayView<'a>> {
        let what = format_args!("nested array");
        let element = cursor.value_type(what).ok()?;
        let count = usize::try_from(cursor.count(element.min_size(), what).ok()?).ok()?;
        let at = cursor.at();
        let bytes = match element.fixed_size() {
            Some(size) => cursor.take(size.checked_mul(count as u64)?, what).ok()?,
            None => {
                let mut probe = cursor.clone();
                for _ in 0..count {
                    Value::read(&mut probe, element, key, depth)?;
                }
                cursor.take((probe.index() - cursor.index()) as u64, what).ok()?
            }
        };
        Some(ArrayView { key, element, count, bytes, at, depth })
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Type of the elements.
    pub fn element_type(&self) -> ValueType {
        self.element
    }

    /// The elements' bytes as they are in the file (little-endian; strings with their u64 lengths).
    pub fn raw_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Absolute position of the first element.
    pub fn file_offset(&self) -> u64 {
        self.at
    }

    /// All elements, whatever their type. Strings come as [`Value::Bytes`], arrays as [`Value::Array`].
    pub fn iter(&self) -> ValueIter<'a> {
        ValueIter {
            cursor: Cursor::new(self.bytes, self.at),
            element: self.element,
            left: self.count,
            key: self.key,
            depth: self.depth,
        }
    }

    /// The elements as byte strings; an error unless this is an array of strings.
    pub fn strings(&self) -> Result<StringIter<'a>, GgufError> {
        self.expect(ValueType::String)?;
        Ok(StringIter { cursor: Cursor::new(self.bytes, self.at), left: self.count })
    }

    /// The elements as text: each is an error where it is not UTF-8; the whole call is, unless this is
    /// an array of strings.
    pub fn strs(&self) -> Result<impl ExactSizeIterator<Item = Result<&'a str, GgufError>> + use<'a>, GgufError> {
        let (key, start, base) = (self.key, self.bytes.as_ptr() as usize, self.at);
        Ok(self.strings()?.enumerate().map(move |(i, bytes)| {
            std::str::from_utf8(bytes).map_err(|e| {
                // The position of a view of the file is its distance from the start of the array.
                let at = base + (bytes.as_ptr() as usize).saturating_sub(start) as u64;
                GgufError::NotUtf8 {
                    what: format!("element {i} of key {key:?}"),
                    at,
                    bad_at: at + e.valid_up_to() as u64,
                }
            })
        }))
    }

    /// The elements, if they are of exactly the type `T` (u8, i8, ... f64).
    pub fn numbers<T: Number>(&self) -> Result<NumberIter<'a, T>, GgufError> {
        self.expect(T::TYPE)?;
        Ok(NumberIter { bytes: self.bytes, _type: PhantomData })
    }

    /// The elements of an array of i32.
    pub fn i32s(&self) -> Result<NumberIter<'a, i32>, GgufError> {
        self.numbers()
    }

    /// The elements of an array of f32.
    pub fn f32s(&self) -> Result<NumberIter<'a, f32>, GgufError> {
        self.numbers()
    }

    fn expect(&self, wanted: ValueType) -> Result<(), GgufError> {
        if self.element == wanted {
            return Ok(());
        }
        Err(GgufError::WrongType {
            key: self.key.to_owned(),
            at: self.at,
            expected: format!("an array of {wanted}"),
            found: Value::Array(*self).describe(),
        })
    }
}

/// Iterator over the elements of any array.
#[derive(Debug, Clone)]
pub struct ValueIter<'a> {
    cursor: Cursor<'a>,
    element: ValueType,
    left: usize,
    key: &'a str,
    depth: u32,
}

impl<'a> Iterator for ValueIter<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        Value::read(&mut self.cursor, self.element, self.key, self.depth)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// Iterator over an array of strings, as bytes. Yields exactly as many as the array has.
#[derive(Debug, Clone)]
pub struct StringIter<'a> {
    cursor: Cursor<'a>,
    left: usize,
}

impl<'a> Iterator for StringIter<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        // The lengths were proved at open. Should the file have been changed under the map, an empty
        // string keeps the promised count.
        Some(self.cursor.string().unwrap_or_default())
    }

    fn nth(&mut self, n: usize) -> Option<&'a [u8]> {
        let skipped = n.min(self.left);
        self.cursor.skip_strings(skipped as u64);
        self.left -= skipped;
        self.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for StringIter<'_> {}

/// A number that an array can hold.
pub trait Number: Copy + sealed::Sealed {
    /// Its type in the file.
    const TYPE: ValueType;
    /// Its value from the first little-endian bytes of `bytes`, and the rest.
    #[doc(hidden)]
    fn split(bytes: &[u8]) -> Option<(Self, &[u8])>;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! numbers {
    ([$($t:ident $variant:ident),*]) => {$(
        impl sealed::Sealed for $t {}
        impl Number for $t {
            const TYPE: ValueType = ValueType::$variant;
            fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
                bytes.split_first_chunk().map(|(b, rest)| ($t::from_le_bytes(*b), rest))
            }
        }
    )*};
}
with_numbers!(numbers);

/// Iterator over an array of numbers.
#[derive(Debug, Clone)]
pub struct NumberIter<'a, T> {
    bytes: &'a [u8],
    _type: PhantomData<T>,
}

impl<T: Number> Iterator for NumberIter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let (value, rest) = T::split(self.bytes)?;
        self.bytes = rest;
        Some(value)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let n = self.bytes.len() / size_of::<T>();
        (n, Some(n))
    }
}

impl<T: Number> ExactSizeIterator for NumberIter<'_, T> {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that somebody changes under the map must not take all of the stack.
    #[test]
    fn arrays_lie_four_deep_at_most() {
        let bytes = [ValueType::U8 as u32 as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let read = |depth| Value::read(&mut Cursor::new(&bytes, 0), ValueType::Array, "k", depth);
        assert!(matches!(read(3), Some(Value::Array(ArrayView { count: 0, depth: 4, .. }))));
        assert_eq!(read(4), None);
    }
}
