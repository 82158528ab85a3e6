//! Models in several files, read and written as one.
//!
//! The parts of a split model lie in one folder and are called `PREFIX-00001-of-00003.gguf` and so on. Each is a GGUF of
//! its own, with its own header, alignment and offsets. Only the first has the model's metadata (and perhaps no
//! tensor). Every part has three keys:
//!
//! ```text
//! split.no             u16   number of the part, from 0 (the name counts from 1)
//! split.count          u16   number of parts; 0 or 1 is an ordinary file
//! split.tensors.count  i32   tensors of all parts together
//! ```
//!
//! Source: llama.cpp's tool `gguf-split`. Nothing else ties the parts together, so all that can be checked is checked:
//! names, numbers, counts, that no tensor is there twice and that none is missing.

mod error;
mod name;
mod write;

use std::path::{Path, PathBuf};

use super::bytes::FileBytes;
use super::entry::TextBudget;
use super::error::GgufError;
use super::file::Header;
use super::metadata::Metadata;
use super::reader;

pub use error::SplitError;
pub use name::PartName;

/// Number of the part, from 0.
pub(super) const KEY_NO: &str = "split.no";
/// Number of parts.
pub(super) const KEY_COUNT: &str = "split.count";
/// Tensors of all parts.
pub(super) const KEY_TENSORS: &str = "split.tensors.count";

/// Whether a key is about the parts of a model, and not about the model.
pub(crate) fn is_split_key(key: &str) -> bool {
    [KEY_NO, KEY_COUNT, KEY_TENSORS].contains(&key)
}

/// A file whose header is proved.
pub(super) struct Opened {
    pub(super) bytes: FileBytes,
    pub(super) header: Header,
    /// `None` for bytes in memory.
    pub(super) path: Option<PathBuf>,
}

impl Opened {
    pub(super) fn map(path: &Path, budget: &mut TextBudget) -> Result<Opened, GgufError> {
        FileBytes::map(path)
            .and_then(|bytes| Opened::prove(bytes, Some(path.to_owned()), budget))
            .map_err(|e| e.in_file(path))
    }

    pub(super) fn prove(bytes: FileBytes, path: Option<PathBuf>, budget: &mut TextBudget) -> Result<Opened, GgufError> {
        let header = reader::read_header(&bytes, budget)?;
        Ok(Opened { bytes, header, path })
    }
}

/// All parts of the model that `opened` belongs to, in their order; `opened` alone if it is an ordinary file.
pub(super) fn gather(opened: Opened, budget: &mut TextBudget) -> Result<Vec<Opened>, GgufError> {
    let Some(count) = parts_of(&opened.header.metadata)? else {
        return Ok(vec![opened]);
    };
    let no = number(&opened.header.metadata, KEY_NO)?;
    let Some(path) = opened.path.clone() else {
        return Err(SplitError::Alone { number: no + 1, count }.into());
    };
    let name = PartName::parse(&path).ok_or(SplitError::Name { number: no.saturating_add(1), count })?;
    let mut declared = None;
    let mut first = check(&opened.header.metadata, name.number, name.count, &mut declared).map(|()| Some(opened))?;
    // What the part that was opened says of the tensors counts only if it is the first.
    declared = None;
    let mut parts: Vec<Opened> = Vec::new();
    let mut tensors = 0_u64;
    for number in 1..=name.count {
        let part = match first.take_if(|_| number == name.number) {
            Some(part) => part,
            None => open_part(&path, &name, number, budget)?,
        };
        let here = || part.path.as_deref().unwrap_or(&path);
        check(&part.header.metadata, number, name.count, &mut declared).map_err(|e| e.in_file(here()))?;
        tensors += part.header.tensors.len() as u64;
        parts.push(part);
    }
    if let Some(expected) = declared
        && tensors != expected
    {
        let error = GgufError::from(SplitError::Tensors { found: tensors, expected, count: name.count });
        return Err(error.in_file(&name.path(1)));
    }
    Ok(parts)
}

fn open_part(opened: &Path, name: &PartName, number: u32, budget: &mut TextBudget) -> Result<Opened, GgufError> {
    Opened::map(&name.path(number), budget).map_err(|e| match e {
        GgufError::NotFound { path } => {
            SplitError::Missing { path, number, count: name.count, opened: opened.to_owned() }.into()
        }
        other => other,
    })
}

/// How many parts the model has; `None` for a file that is whole.
fn parts_of(metadata: &Metadata) -> Result<Option<u32>, GgufError> {
    Ok(metadata.u32(KEY_COUNT)?.filter(|&count| count > 1))
}

fn number(metadata: &Metadata, key: &'static str) -> Result<u32, GgufError> {
    metadata.u32(key)?.ok_or_else(|| SplitError::NotAPart { key }.into())
}

/// Compares the keys of a part with what its name says. `tensors` is what the first part says of all tensors.
fn check(metadata: &Metadata, number_: u32, count: u32, tensors: &mut Option<u64>) -> Result<(), GgufError> {
    let found = number(metadata, KEY_COUNT)?;
    if found != count {
        return Err(SplitError::Count { found, expected: count }.into());
    }
    let found = number(metadata, KEY_NO)?;
    if found != number_ - 1 {
        return Err(SplitError::Number { found, expected: number_ - 1 }.into());
    }
    let found = u64::from(number(metadata, KEY_TENSORS)?);
    match *tensors.get_or_insert(found) {
        expected if found != expected => Err(SplitError::OtherModel { found, expected }.into()),
        _ => Ok(()),
    }
}
