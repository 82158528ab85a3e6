//! Type numbers with two meanings, and how the bytes tell which one it is.
//!
//! - 39 is TL2 in bitnet.cpp's fork and MXFP4 in today's llama.cpp. MXFP4 needs 17 bytes for 32 weights, TL2 less than half
//!   of that; where there is room for both, `general.architecture` and `general.file_type` (the fork's 39) decide.
//! - 42 is Q2_0: an f16 scale and two bits a weight. ggml's blocks have 64 weights (18 bytes), those of PrismML's llama.cpp,
//!   which had the number first, 128 (34 bytes). The size is exact to the padding in one of the two, unless a tensor is so
//!   small that its padding hides the difference; one program wrote the file, so its tensors decide together. If none tells,
//!   ggml's own meaning is taken. `general.file_type` is of no use: the fork's numbers mean other types in ggml.

use super::metadata::Metadata;
use super::tensor::{Described, TensorInfo};
use super::types::{TYPE_39, TYPE_42, ggml_type};

/// A block of Q2_0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Groups {
    name: &'static str,
    len: u64,
    bytes: u64,
}

const BY_64: Groups = Groups { name: "q2_0", len: 64, bytes: 18 };
const BY_128: Groups = Groups { name: "q2_0-g128", len: 128, bytes: 34 };

impl Groups {
    /// Bytes of a tensor; `None` if its rows are not whole blocks.
    fn size(self, info: &TensorInfo) -> Option<u64> {
        info.cols().is_multiple_of(self.len).then(|| (info.elements() / self.len).saturating_mul(self.bytes))
    }

    /// Whether a tensor of this size, and nothing but padding, fills `distance` bytes.
    fn fills(self, info: &TensorInfo, distance: u64, alignment: u64) -> bool {
        self.size(info).and_then(|size| distance.checked_sub(size)).is_some_and(|padding| padding < alignment)
    }
}

/// The sizes that a tensor of type 42 may have; at most two.
pub(super) fn sizes_42(cols: u64, elements: u64) -> impl Iterator<Item = u64> {
    [BY_64, BY_128].into_iter().filter(move |g| cols.is_multiple_of(g.len)).map(move |g| elements / g.len * g.bytes)
}

/// Gives tensors of type 42, and those of type 39 that are MXFP4, their size; padding is not a part of it. `order` is that of
/// the offsets; the last tensor lasts to `data_len`, the length of the data section.
pub(super) fn settle(tensors: &mut [Described], order: &[usize], data_len: u64, alignment: u64, metadata: &Metadata) {
    if !tensors.iter().any(|t| [TYPE_39, TYPE_42].contains(&t.info.ggml_type)) {
        return;
    }
    let says_tl2 = says_tl2(metadata);
    let mut sized = Vec::new();
    let of = |i: usize| tensors.get(i).map(|t| &t.info);
    let (mut by_64, mut by_128) = (0, 0);
    for (place, &i) in order.iter().enumerate() {
        let Some(info) = of(i) else { continue };
        let next = order.get(place + 1).and_then(|&next| of(next)).map_or(data_len, |next| next.offset);
        let distance = next.saturating_sub(info.offset);
        match info.ggml_type {
            TYPE_39 => {
                // With more than TL2 would need it is a truncated one.
                let fits = |&size: &u64| size <= distance || distance > size / 2 + alignment + 64;
                sized.extend(mxfp4(info).filter(|size| !says_tl2 && fits(size)).map(|size| (i, size)));
            }
            TYPE_42 => match (BY_64.fills(info, distance, alignment), BY_128.fills(info, distance, alignment)) {
                (true, false) => by_64 += 1,
                (false, true) => by_128 += 1,
                _ => {}
            },
            _ => {}
        }
    }
    for (i, size) in sized {
        if let Some(t) = tensors.get_mut(i) {
            t.set_size(size);
        }
    }
    let usual = if by_128 > by_64 { BY_128 } else { BY_64 };
    for t in tensors.iter_mut().filter(|t| t.info.ggml_type == TYPE_42) {
        // Rows of an odd number of 64s can only be of the smaller blocks; other rows were refused.
        t.set_size(usual.size(&t.info).or_else(|| BY_64.size(&t.info)).unwrap_or(0));
    }
}

/// The name of a tensor's type.
pub(super) fn name(info: &TensorInfo, metadata: &Metadata) -> &'static str {
    match info.ggml_type {
        TYPE_39 if is_tl2(info, metadata) => "tl2",
        TYPE_39 => "mxfp4",
        TYPE_42 => groups(info).name,
        other => ggml_type(other).map_or("unknown", |t| t.name),
    }
}

fn groups(info: &TensorInfo) -> Groups {
    // The two sizes differ whatever the shape.
    if BY_128.size(info) == Some(info.size) { BY_128 } else { BY_64 }
}

fn is_tl2(info: &TensorInfo, metadata: &Metadata) -> bool {
    too_small_for_mxfp4(info) || says_tl2(metadata)
}

/// Whether the file's type 39 is bitnet.cpp's by its own word.
fn says_tl2(metadata: &Metadata) -> bool {
    let of_bitnet = metadata.str("general.architecture").ok().flatten();
    let file_type = metadata.u32("general.file_type").ok().flatten();
    of_bitnet.is_some_and(|a| a.starts_with("bitnet")) && file_type == Some(39)
}

/// Bytes as MXFP4; `None` if the rows are not whole blocks.
fn mxfp4(info: &TensorInfo) -> Option<u64> {
    // Fewer bytes than elements, which fit in 63 bits.
    info.cols().is_multiple_of(32).then(|| info.elements() / 32 * 17)
}

fn too_small_for_mxfp4(info: &TensorInfo) -> bool {
    mxfp4(info).is_none_or(|size| info.size < size)
}

/// Why a number with two meanings was taken for one. `distance` reaches to the next tensor, if `followed`, or to the end of
/// the file.
pub(super) fn note(
    info: &TensorInfo,
    metadata: &Metadata,
    distance: u64,
    followed: bool,
    alignment: u64,
) -> Option<String> {
    let to = if followed { "the next tensor" } else { "the end of the file" };
    match info.ggml_type {
        TYPE_39 => Some(match (is_tl2(info, metadata), too_small_for_mxfp4(info)) {
            (true, true) => format!("type 39 as tl2: {distance} bytes to {to}, too few for mxfp4"),
            (true, false) => "type 39 as tl2: general.architecture and general.file_type say so".to_owned(),
            (false, _) => format!("type 39 as mxfp4: {distance} bytes to {to}"),
        }),
        TYPE_42 => {
            let found = groups(info);
            let other = if found == BY_64 { BY_128 } else { BY_64 };
            let start = format!("q2_0 with groups of {}: {distance} bytes to {to}", found.len);
            Some(match other.size(info) {
                None => format!("q2_0 with groups of 64: rows of {} weights", info.cols()),
                Some(_) if other.fills(info, distance, alignment) => {
                    format!(
                        "{start}, which groups of {} fit too; the file's other tensors, or else ggml, decide",
                        other.len
                    )
                }
                Some(size) => format!("{start}, groups of {} need {size}", other.len),
            })
        }
        _ => None,
    }
}
