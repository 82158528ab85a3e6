//! A position in the file's bytes that cannot leave them.
//!
//! All arithmetic is in `u64`, so that a length of 2^32 + 3 is not taken for 3 on a 32-bit machine; a
//! length becomes a `usize` only after it was compared with the bytes that are there.

use std::fmt;

use super::error::GgufError;
use super::types::ValueType;

/// Reads little-endian values from `bytes`, whose first byte is byte `base` of the file.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    pos: usize,
    base: u64,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], base: u64) -> Self {
        Cursor { bytes, pos: 0, base }
    }

    /// Absolute position in the file.
    pub(super) fn at(&self) -> u64 {
        self.base + self.pos as u64
    }

    /// Index into the bytes that the cursor was made of.
    pub(super) fn index(&self) -> usize {
        self.pos
    }

    /// Bytes from here to the end.
    pub(super) fn remaining(&self) -> u64 {
        (self.bytes.len() - self.pos) as u64
    }

    /// The next `n` bytes. `what` is formatted only for an error.
    pub(super) fn take(&mut self, n: u64, what: fmt::Arguments<'_>) -> Result<&'a [u8], GgufError> {
        let taken = usize::try_from(n)
            .ok()
            .and_then(|n| self.pos.checked_add(n))
            .and_then(|end| self.bytes.get(self.pos..end).map(|bytes| (bytes, end)));
        match taken {
            Some((bytes, end)) => {
                self.pos = end;
                Ok(bytes)
            }
            None => Err(GgufError::Truncated {
                what: what.to_string(),
                at: self.at(),
                needed: n,
                available: self.remaining(),
            }),
        }
    }

    fn array<const N: usize>(&mut self, what: fmt::Arguments<'_>) -> Result<[u8; N], GgufError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, what)?);
        Ok(out)
    }

    pub(super) fn u32(&mut self, what: fmt::Arguments<'_>) -> Result<u32, GgufError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: fmt::Arguments<'_>) -> Result<u64, GgufError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A u64 length and that many bytes.
    pub(super) fn string_bytes(&mut self, what: fmt::Arguments<'_>) -> Result<&'a [u8], GgufError> {
        let len = self.u64(format_args!("length of {what}"))?;
        self.take(len, what)
    }

    /// Moves behind up to `count` strings, as many as are whole; gives their number. A vocabulary has hundreds of thousands.
    pub(super) fn skip_strings(&mut self, count: u64) -> u64 {
        let mut done = 0;
        while done < count && self.string().is_some() {
            done += 1;
        }
        done
    }

    /// The next string, if it is whole.
    #[inline]
    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        let (len, rest) = self.bytes.get(self.pos..)?.split_first_chunk()?;
        let text = rest.get(..usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
        self.pos += 8 + text.len();
        Some(text)
    }

    /// A string of at most `limit` bytes that must be UTF-8.
    pub(super) fn text(&mut self, limit: u64, what: fmt::Arguments<'_>) -> Result<&'a str, GgufError> {
        let at = self.at();
        let len = self.u64(format_args!("length of {what}"))?;
        if len > limit && len <= self.remaining() {
            return Err(GgufError::StringTooLong { what: what.to_string(), at, len, limit });
        }
        let at = self.at();
        let bytes = self.take(len, what)?;
        std::str::from_utf8(bytes).map_err(|e| GgufError::NotUtf8 {
            what: what.to_string(),
            at,
            bad_at: at + e.valid_up_to() as u64,
        })
    }

    pub(super) fn value_type(&mut self, what: fmt::Arguments<'_>) -> Result<ValueType, GgufError> {
        let at = self.at();
        let found = self.u32(format_args!("type of {what}"))?;
        ValueType::from_u32(found).ok_or_else(|| GgufError::UnknownValueType {
            what: format!("type of {what}"),
            at,
            found,
        })
    }

    /// A u64 count of things that take at least `min_bytes` each; more than the rest of the file can
    /// hold is an error here, before anything is allocated.
    pub(super) fn count(&mut self, min_bytes: u64, what: fmt::Arguments<'_>) -> Result<u64, GgufError> {
        let at = self.at();
        let count = self.u64(format_args!("{what}"))?;
        let most = self.remaining() / min_bytes.max(1);
        if count > most {
            return Err(GgufError::ImpossibleCount {
                what: what.to_string(),
                at,
                count,
                most,
                why: "the rest of the file cannot hold more; it is truncated or the count is damaged",
            });
        }
        Ok(count)
    }
}
