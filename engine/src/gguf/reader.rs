//! The header from its first byte to the data section. Nothing is allocated for a count or a length
//! before it was compared with the bytes that are left.

use super::bytes::FileBytes;
use super::cursor::Cursor;
use super::entry::TextBudget;
use super::error::GgufError;
use super::file::Header;
use super::metadata::Metadata;
use super::tensor::{self, Described};
use super::value::Value;
use super::{
    DEFAULT_ALIGNMENT, KEY_ALIGNMENT, MAGIC, MAX_ALIGNMENT, MAX_KEYS, MAX_TENSORS, MIN_KEY_BYTES, MIN_TENSOR_BYTES,
};

/// Reads and proves everything but the tensors' values. `budget` bounds the text of all files of a model.
pub(super) fn read_header(bytes: &FileBytes, budget: &mut TextBudget) -> Result<Header, GgufError> {
    let all = bytes.as_slice();
    if all.is_empty() {
        return Err(GgufError::Empty);
    }
    let mut cursor = Cursor::new(all, 0);
    let version = read_version(&mut cursor)?;

    let tensors_at = cursor.at();
    let n_tensors = cursor.u64(format_args!("tensor count"))?;
    let keys_at = cursor.at();
    let n_keys = cursor.u64(format_args!("key count"))?;
    check_count("key count", keys_at, n_keys, MAX_KEYS, cursor.remaining() / MIN_KEY_BYTES)?;
    check_count("tensor count", tensors_at, n_tensors, MAX_TENSORS, cursor.remaining() / MIN_TENSOR_BYTES)?;

    let metadata = Metadata::parse(bytes, &mut cursor, n_keys, budget)?;
    let alignment = alignment(&metadata)?;

    let mut described = Vec::new();
    for i in 0..n_tensors {
        described.push(Described::parse(&mut cursor, i, alignment, budget)?);
    }
    let by_name = tensor::index_by_name(&described)?;
    // Cannot overflow: a position in memory plus at most 1 MiB.
    let data_start = cursor.at().next_multiple_of(alignment);
    tensor::place(&mut described, data_start, all.len() as u64, alignment, &metadata)?;

    Ok(Header {
        version,
        alignment,
        metadata,
        tensors: described.into_iter().map(|d| d.info).collect(),
        by_name,
        data_start: data_start.min(all.len() as u64),
    })
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<u32, GgufError> {
    let mut peek = cursor.clone();
    let start = peek.take(peek.remaining().min(16), format_args!("magic"))?;
    if !start.starts_with(&MAGIC) && !MAGIC.starts_with(start) {
        return Err(GgufError::NotGguf { found: start.to_vec() });
    }
    cursor.take(MAGIC.len() as u64, format_args!("magic \"GGUF\""))?;
    let version = cursor.u32(format_args!("version"))?;
    match version {
        2 | 3 => Ok(version),
        // A plausible version only after swapping: all known ones fit in the low byte.
        swapped if swapped != 0 && swapped & 0xffff == 0 => Err(GgufError::BigEndian { version: swapped.swap_bytes() }),
        version => Err(GgufError::UnsupportedVersion { version }),
    }
}

fn check_count(what: &str, at: u64, count: u64, limit: u64, room: u64) -> Result<(), GgufError> {
    let (most, why) = if room < limit {
        (room, "the rest of the file cannot hold more; it is truncated or the count is damaged")
    } else {
        (limit, "no model has more")
    };
    if count > most {
        return Err(GgufError::ImpossibleCount { what: what.to_owned(), at, count, most, why });
    }
    Ok(())
}

fn alignment(metadata: &Metadata) -> Result<u64, GgufError> {
    let found = match metadata.get(KEY_ALIGNMENT) {
        None => return Ok(DEFAULT_ALIGNMENT),
        Some(Value::U32(n)) => u64::from(n),
        Some(other) => {
            return Err(GgufError::WrongType {
                key: KEY_ALIGNMENT.to_owned(),
                at: metadata.file_offset(KEY_ALIGNMENT).unwrap_or_default(),
                expected: "u32".to_owned(),
                found: other.describe(),
            });
        }
    };
    if !found.is_power_of_two() || found > MAX_ALIGNMENT {
        return Err(GgufError::BadAlignment { found, limit: MAX_ALIGNMENT });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_bounded_by_the_file_or_by_the_limit() {
        let check = |count, limit, room| check_count("key count", 16, count, limit, room).map_err(|e| e.to_string());
        for (limit, room, why) in
            [(4, 3, "the rest of the file"), (4, 4, "no model has more"), (4, 5, "no model has more")]
        {
            let most = room.min(limit);
            assert_eq!(check(most, limit, room), Ok(()));
            let error = check(most + 1, limit, room).unwrap_err();
            let words = format!("key count at byte 16 says {}, but at most {most} are possible here: {why}", most + 1);
            assert!(error.starts_with(&words), "{error}");
        }
    }
}
