//! The key/value section: parsed and proved once at open, queried by key afterwards.
//!
//! Keys and scalar strings are owned, so that a query cannot fail; arrays stay in the file.

use std::fmt;
use std::sync::Arc;

use super::MAX_KEYS;
use super::bytes::FileBytes;
use super::cursor::Cursor;
use super::entry::{Entry, Stored, TextBudget};
use super::error::GgufError;
use super::value::{ArrayView, Value};

/// All metadata of a file. Cheap to clone; keeps the file's bytes alive.
#[derive(Clone)]
pub struct Metadata {
    bytes: FileBytes,
    entries: Arc<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    /// In the order of the file.
    list: Vec<Entry>,
    /// Indices into `list`, sorted by key.
    by_key: Vec<u32>,
}

impl Metadata {
    /// Reads `count` entries from `cursor`, which walks the whole of `bytes`.
    pub(super) fn parse(
        bytes: &FileBytes,
        cursor: &mut Cursor<'_>,
        count: u64,
        budget: &mut TextBudget,
    ) -> Result<Metadata, GgufError> {
        debug_assert!(count <= MAX_KEYS);
        let mut list = Vec::new();
        for i in 0..count {
            list.push(Entry::parse(cursor, i, budget)?);
        }
        let key = |i: &u32| list.get(*i as usize).map(|e: &Entry| &*e.key);
        let mut by_key: Vec<u32> = (0..list.len() as u32).collect();
        // Stable: of two equal keys the later one in the file comes second.
        by_key.sort_by(|a, b| key(a).cmp(&key(b)));
        for pair in by_key.windows(2) {
            if let [a, b] = pair
                && key(a) == key(b)
                && let Some(entry) = list.get(*b as usize)
            {
                return Err(GgufError::DuplicateKey { key: entry.key.to_string(), at: entry.at });
            }
        }
        Ok(Metadata { bytes: bytes.clone(), entries: Arc::new(Entries { list, by_key }) })
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.entries.list.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.entries.list.is_empty()
    }

    /// All entries in the order of the file.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, Value<'_>)> {
        self.entries.list.iter().map(|e| (&*e.key, self.value(e)))
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        self.entry(key).map(|e| self.value(e))
    }

    /// Whether `key` is there.
    pub fn contains(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// Absolute file position of the value of `key` (of its type field).
    pub fn file_offset(&self, key: &str) -> Option<u64> {
        self.entry(key).map(|e| e.at)
    }

    /// The entry's type field and value as they are in the file.
    pub fn raw(&self, key: &str) -> Option<&[u8]> {
        self.entry(key).and_then(|e| self.bytes.as_slice().get(e.raw.clone()))
    }

    /// The string at `key`; `None` if absent, an error for any other type.
    pub fn str(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.typed(key, "a string", |v| if let Value::Str(s) = v { Some(s) } else { None })
    }

    /// The integer at `key`, of whatever integer type, if it fits into `u32`.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        self.integer(key, "u32")
    }

    /// The integer at `key`, of whatever integer type, if it fits into `i32`.
    pub fn i32(&self, key: &str) -> Result<Option<i32>, GgufError> {
        self.integer(key, "i32")
    }

    /// The integer at `key`, of whatever integer type, if it fits into `u64`.
    pub fn u64(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.integer(key, "u64")
    }

    /// The integer at `key`, of whatever integer type, if it fits into `usize`.
    pub fn usize(&self, key: &str) -> Result<Option<usize>, GgufError> {
        self.integer(key, "usize")
    }

    /// The float at `key`; an f64 is rounded.
    pub fn f32(&self, key: &str) -> Result<Option<f32>, GgufError> {
        self.typed(key, "f32", |v| match v {
            Value::F32(x) => Some(x),
            Value::F64(x) => Some(x as f32),
            _ => None,
        })
    }

    /// The bool at `key`.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "bool", |v| if let Value::Bool(b) = v { Some(b) } else { None })
    }

    /// The array at `key`, of whatever element type.
    pub fn array(&self, key: &str) -> Result<Option<ArrayView<'_>>, GgufError> {
        self.typed(key, "an array", |v| if let Value::Array(a) = v { Some(a) } else { None })
    }

    /// As a getter, but an absent key is an error too: `md.required("general.architecture", Metadata::str)`.
    pub fn required<'a, T>(
        &'a self,
        key: &str,
        getter: fn(&'a Metadata, &str) -> Result<Option<T>, GgufError>,
    ) -> Result<T, GgufError> {
        getter(self, key)?.ok_or_else(|| GgufError::MissingKey { key: key.to_owned() })
    }

    fn integer<T: TryFrom<i128>>(&self, key: &str, expected: &str) -> Result<Option<T>, GgufError> {
        self.typed(key, expected, |v| v.as_integer().and_then(|i| T::try_from(i).ok()))
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        pick: impl FnOnce(Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(entry) = self.entry(key) else {
            return Ok(None);
        };
        let value = self.value(entry);
        pick(value).map(Some).ok_or_else(|| GgufError::WrongType {
            key: key.to_owned(),
            at: entry.at,
            expected: expected.to_owned(),
            found: value.describe(),
        })
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        let Entries { list, by_key } = &*self.entries;
        let found = by_key.binary_search_by(|i| list.get(*i as usize).map(|e| &*e.key).cmp(&Some(key))).ok()?;
        by_key.get(found).and_then(|i| list.get(*i as usize))
    }

    fn value<'a>(&'a self, entry: &'a Entry) -> Value<'a> {
        match &entry.value {
            Stored::Scalar(v) => *v,
            Stored::Str(s) => Value::Str(s),
            Stored::Array { element, count, range } => Value::Array(ArrayView {
                key: &entry.key,
                element: *element,
                count: *count,
                bytes: self.bytes.as_slice().get(range.clone()).unwrap_or_default(),
                at: range.start as u64,
                depth: 1,
            }),
        }
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(k, v)| (k, v.describe()))).finish()
    }
}
