//! Tensor descriptions: read, then proved to lie inside the data section without touching each other.

use super::cursor::Cursor;
use super::entry::TextBudget;
use super::error::GgufError;
use super::metadata::Metadata;
use super::types::tensor_size;
use super::{MAX_DIMS, MAX_KEY_BYTES, meanings};

/// What the file says of one tensor. Proved at open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name, unique in the file.
    pub name: String,
    /// Shape in ggml order: `dims[0]` (ne0) is the length of a row, 1 to 4 entries, none zero.
    pub dims: Vec<u64>,
    /// Type number; see [`super::ggml_type`] and [`super::GgufFile::type_name`].
    pub ggml_type: u32,
    /// First byte, counted from the start of the data section; a multiple of the file's alignment.
    pub offset: u64,
    /// Bytes of data. For types whose size does not follow from the shape, all bytes up to the next
    /// tensor or the end of the file, padding included.
    pub size: u64,
    /// First byte, counted from the start of the file (of the part that holds it).
    pub file_offset: u64,
    /// Index of the part that holds it in [`super::GgufFile::parts`]; 0 for a model in one file.
    pub part: usize,
}

impl TensorInfo {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.dims.iter().product()
    }

    /// Length of a row (ne0).
    pub fn cols(&self) -> u64 {
        self.dims.first().copied().unwrap_or(1)
    }

    /// Number of rows: the product of all dimensions but the first.
    pub fn rows(&self) -> u64 {
        self.dims.iter().skip(1).product()
    }
}

/// One tensor: its description and its bytes in the file.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// The description.
    pub info: &'a TensorInfo,
    /// Its `info.size` bytes. In a mapped file they start at a multiple of the file's alignment (or of
    /// the page size, if that is less); in bytes handed over by the caller they may start anywhere.
    pub data: &'a [u8],
}

/// A description as read, and where its fields are.
pub(super) struct Described {
    pub(super) info: TensorInfo,
    /// Position of the description.
    at: u64,
    /// Whether `info.size` is still to be found from the next tensor.
    to_next: bool,
}

impl Described {
    /// Reads one description; checks everything that can be said of it alone.
    pub(super) fn parse(
        cursor: &mut Cursor<'_>,
        index: u64,
        alignment: u64,
        budget: &mut TextBudget,
    ) -> Result<Described, GgufError> {
        let at = cursor.at();
        let name = cursor.text(MAX_KEY_BYTES, format_args!("name of tensor number {index}"))?;
        if name.is_empty() {
            return Err(GgufError::EmptyName { what: format!("name of tensor number {index}"), at });
        }
        budget.add(name, at, format_args!("tensor {name:?}"))?;
        let dims_at = cursor.at();
        let n_dims = cursor.u32(format_args!("dimension count of tensor {name:?}"))?;
        if n_dims == 0 || n_dims as usize > MAX_DIMS {
            return Err(GgufError::BadDimCount { tensor: name.to_owned(), at: dims_at, found: n_dims.into() });
        }
        let shape_at = cursor.at();
        let dims = (0..n_dims)
            .map(|d| cursor.u64(format_args!("dimension {d} of tensor {name:?}")))
            .collect::<Result<Vec<_>, _>>()?;
        let type_at = cursor.at();
        let ggml_type = cursor.u32(format_args!("type of tensor {name:?}"))?;
        let size = tensor_size(name, shape_at, ggml_type, &dims).map_err(|e| match e {
            GgufError::UnknownTensorType { tensor, found, .. } => {
                GgufError::UnknownTensorType { tensor, at: type_at, found }
            }
            other => other,
        })?;
        let offset_at = cursor.at();
        let offset = cursor.u64(format_args!("offset of tensor {name:?}"))?;
        if !offset.is_multiple_of(alignment) {
            return Err(GgufError::Misaligned { tensor: name.to_owned(), at: offset_at, offset, alignment });
        }
        let name = name.to_owned();
        let info = TensorInfo { name, dims, ggml_type, offset, size: size.unwrap_or(0), file_offset: 0, part: 0 };
        Ok(Described { info, at, to_next: size.is_none() })
    }
}

impl Described {
    /// Gives it a size that the shape alone does not tell.
    pub(super) fn set_size(&mut self, size: u64) {
        self.info.size = size;
        self.to_next = false;
    }
}

/// Indices of the tensors of several parts sorted by name; a name that occurs twice is returned with the two parts.
pub(super) fn index_parts(tensors: &[TensorInfo]) -> Result<Vec<u32>, (String, [usize; 2])> {
    index(tensors, |t| t).map_err(|[a, b]| (a.name.clone(), [a.part, b.part]))
}

/// Indices of the tensors sorted by name; two equal names are an error.
pub(super) fn index_by_name(tensors: &[Described]) -> Result<Vec<u32>, GgufError> {
    index(tensors, |t| &t.info)
        .map_err(|[_, second]| GgufError::DuplicateTensor { tensor: second.info.name.clone(), at: second.at })
}

fn index<T>(tensors: &[T], info: impl Fn(&T) -> &TensorInfo) -> Result<Vec<u32>, [&T; 2]> {
    let get = |i: &u32| tensors.get(*i as usize);
    let name = |i: &u32| get(i).map(|t| info(t).name.as_str());
    // The file, or `split`, proved that there are no more than an i32 can count.
    let mut by_name: Vec<u32> = (0..tensors.len() as u32).collect();
    by_name.sort_by(|a, b| name(a).cmp(&name(b)));
    let twice = by_name.windows(2).find_map(|pair| match pair {
        [a, b] if name(a) == name(b) => Some([get(a)?, get(b)?]),
        _ => None,
    });
    twice.map_or(Ok(by_name), Err)
}

/// Gives every tensor its absolute place and, where the shape does not tell, its size; proves that all
/// lie inside the file and apart. `data_start` is the data section's first byte.
pub(super) fn place(
    tensors: &mut [Described],
    data_start: u64,
    file_len: u64,
    alignment: u64,
    metadata: &Metadata,
) -> Result<(), GgufError> {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&i| tensors.get(i).map(|t| t.info.offset));
    meanings::settle(tensors, &order, file_len.saturating_sub(data_start), alignment, metadata);

    // From the last to the first, so that the start of the next tensor is known.
    let mut next: Option<(u64, usize)> = None;
    let mut furthest: Option<(u64, usize)> = None;
    for &i in order.iter().rev() {
        let Some(t) = tensors.get_mut(i) else {
            continue;
        };
        let start = data_start.checked_add(t.info.offset).ok_or_else(|| GgufError::TensorOutside {
            tensor: t.info.name.clone(),
            start: u64::MAX,
            size: t.info.size,
            file_len,
            missing: u64::MAX,
        })?;
        if t.to_next {
            let end = next.map_or(file_len, |(at, _)| at.min(file_len));
            // Even an empty answer claims a byte: a tensor that starts at the end of the file was cut off.
            t.info.size = end.saturating_sub(start).max(1);
        }
        let end = start.saturating_add(t.info.size);
        t.info.file_offset = start;
        if let Some((next_start, next_i)) = next
            && end > next_start
        {
            let name = |i: usize| tensors.get(i).map(|t| t.info.name.clone()).unwrap_or_default();
            return Err(GgufError::Overlap { first: name(i), first_end: end, second: name(next_i), start: next_start });
        }
        if end > file_len {
            // Tensors do not overlap, so the one with the highest offset, which this loop meets first, also ends last.
            furthest.get_or_insert((end, i));
        }
        next = Some((start, i));
    }
    if let Some((end, i)) = furthest
        && let Some(t) = tensors.get(i)
    {
        return Err(GgufError::TensorOutside {
            tensor: t.info.name.clone(),
            start: t.info.file_offset,
            size: t.info.size,
            file_len,
            missing: end - file_len,
        });
    }
    Ok(())
}
