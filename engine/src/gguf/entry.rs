//! One key and its value: read and proved, arrays to the last element.

use std::fmt;
use std::ops::Range;

use super::cursor::Cursor;
use super::error::GgufError;
use super::types::ValueType;
use super::value::Value;
use super::{MAX_ARRAY_DEPTH, MAX_HEADER_TEXT, MAX_KEY_BYTES};

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Box<str>,
    /// Absolute position of the value's type field.
    pub(super) at: u64,
    /// Type field and value, in the file.
    pub(super) raw: Range<usize>,
    pub(super) value: Stored,
}

#[derive(Debug)]
pub(super) enum Stored {
    Scalar(Value<'static>),
    Str(Box<str>),
    Array { element: ValueType, count: usize, range: Range<usize> },
}

/// Counts the bytes of text that a header makes us own.
#[derive(Debug, Default)]
pub(super) struct TextBudget {
    used: u64,
}

impl TextBudget {
    pub(super) fn add(&mut self, text: &str, at: u64, what: fmt::Arguments<'_>) -> Result<(), GgufError> {
        self.used = self.used.saturating_add(text.len() as u64);
        if self.used > MAX_HEADER_TEXT {
            return Err(GgufError::StringTooLong {
                what: format!("all text of the header up to {what}"),
                at,
                len: self.used,
                limit: MAX_HEADER_TEXT,
            });
        }
        Ok(())
    }
}

impl Entry {
    pub(super) fn parse(cursor: &mut Cursor<'_>, index: u64, budget: &mut TextBudget) -> Result<Entry, GgufError> {
        let key_at = cursor.at();
        let key = cursor.text(MAX_KEY_BYTES, format_args!("name of key number {index}"))?;
        if key.is_empty() {
            return Err(GgufError::EmptyName { what: format!("name of key number {index}"), at: key_at });
        }
        budget.add(key, key_at, format_args!("key {key:?}"))?;
        let at = cursor.at();
        let start = cursor.index();
        let what = format_args!("value of key {key:?}");
        let value = match cursor.value_type(what)? {
            ValueType::String => {
                let text_at = cursor.at();
                let text = cursor.text(MAX_HEADER_TEXT, what)?;
                budget.add(text, text_at, what)?;
                Stored::Str(text.into())
            }
            ValueType::Array => parse_array(cursor, what)?,
            scalar => Stored::Scalar(parse_scalar(cursor, scalar, what)?),
        };
        Ok(Entry { key: key.into(), at, raw: start..cursor.index(), value })
    }
}

fn parse_scalar(cursor: &mut Cursor<'_>, ty: ValueType, what: fmt::Arguments<'_>) -> Result<Value<'static>, GgufError> {
    let at = cursor.at();
    let bytes = cursor.take(ty.fixed_size().unwrap_or_default(), what)?;
    check_bools(ty, bytes, at, what)?;
    Value::read_scalar(&mut Cursor::new(bytes, at), ty).ok_or_else(|| GgufError::UnknownValueType {
        what: what.to_string(),
        at,
        found: ty as u32,
    })
}

fn parse_array(cursor: &mut Cursor<'_>, what: fmt::Arguments<'_>) -> Result<Stored, GgufError> {
    let element = cursor.value_type(format_args!("elements of the {what}"))?;
    let count_at = cursor.at();
    let count = cursor.count(element.min_size(), format_args!("element count of the {what}"))?;
    let start = cursor.index();
    walk_elements(cursor, element, count, 1, what)?;
    let count = usize::try_from(count).map_err(|_| GgufError::ImpossibleCount {
        what: format!("element count of the {what}"),
        at: count_at,
        count,
        most: usize::MAX as u64,
        why: "this build cannot address more",
    })?;
    Ok(Stored::Array { element, count, range: start..cursor.index() })
}

/// Proves that `count` elements are there, and moves behind them. `depth` counts the arrays around them.
fn walk_elements(
    cursor: &mut Cursor<'_>,
    element: ValueType,
    count: u64,
    depth: u32,
    what: fmt::Arguments<'_>,
) -> Result<(), GgufError> {
    if let Some(size) = element.fixed_size() {
        let at = cursor.at();
        // `count` was compared with the rest of the file, so that this product cannot overflow.
        let bytes = cursor.take(size.saturating_mul(count), format_args!("elements of the {what}"))?;
        return check_bools(element, bytes, at, what);
    }
    if element == ValueType::String {
        let whole = cursor.skip_strings(count);
        if whole < count {
            cursor.string_bytes(format_args!("element {whole} of the {what}"))?;
        }
        return Ok(());
    }
    for i in 0..count {
        let at = cursor.at();
        let what = format_args!("element {i} of the {what}");
        if depth >= MAX_ARRAY_DEPTH {
            return Err(GgufError::NestedTooDeep { what: what.to_string(), at, limit: MAX_ARRAY_DEPTH });
        }
        let inner = cursor.value_type(format_args!("elements of {what}"))?;
        let inner_count = cursor.count(inner.min_size(), format_args!("element count of {what}"))?;
        walk_elements(cursor, inner, inner_count, depth + 1, what)?;
    }
    Ok(())
}

fn check_bools(ty: ValueType, bytes: &[u8], at: u64, what: fmt::Arguments<'_>) -> Result<(), GgufError> {
    if ty != ValueType::Bool {
        return Ok(());
    }
    match bytes.iter().enumerate().find(|(_, b)| **b > 1) {
        Some((i, &found)) => Err(GgufError::BadBool { what: what.to_string(), at: at + i as u64, found }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_text_of_a_header_has_a_largest_size() {
        let mut budget = TextBudget { used: MAX_HEADER_TEXT - 3 };
        budget.add("abc", 7, format_args!("key 1")).unwrap();
        match budget.add("d", 9, format_args!("key 2")) {
            Err(GgufError::StringTooLong { what, at: 9, len, limit: MAX_HEADER_TEXT }) => {
                assert_eq!((what.as_str(), len), ("all text of the header up to key 2", MAX_HEADER_TEXT + 1));
            }
            other => panic!("{other:?}"),
        }
    }
}
