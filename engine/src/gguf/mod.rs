//! GGUF: the file format of the models, read and written.
//!
//! The reader proves a file before anybody uses it: every length, count, name, shape, offset and size is
//! checked at [`GgufFile::open`], in bounded memory and without a panic, whatever the bytes are. After
//! that, tensors and arrays are views of the mapped file, so that opening a model costs milliseconds and
//! its weights are never copied. The writer streams, and replaces its target only when the new file is
//! complete on the disk.
//!
//! What the *values* of a tensor mean belongs to `bitnet-kernels`; here a tensor is a name, a shape, a
//! type number and bytes.
//!
//! ```text
//! byte 0  "GGUF"                         all numbers little-endian
//!      4  u32  version                   2 or 3; they differ in nothing that a little-endian file shows
//!      8  u64  tensor count
//!     16  u64  key count
//!     24  keys, one after the other:
//!           u64 length, key              UTF-8, at most 65535 bytes
//!           u32 value type               see ValueType
//!           value                        a number, a bool (one byte, 0 or 1)
//!                                        | u64 length, bytes
//!                                        | u32 element type, u64 count, elements
//!         tensor descriptions, one after the other:
//!           u64 length, name             UTF-8
//!           u32 dimension count          1 to 4
//!           u64 dimensions               ne0 (the row length) first
//!           u32 tensor type              see GGML_TYPES
//!           u64 offset                   from the start of the data section, a multiple of the alignment
//!         padding to the alignment       general.alignment, u32, 32 if absent
//!         data section: the tensors' bytes, each padded to the alignment
//! ```
//!
//! Source: the GGUF specification in ggml's documentation; deviations that real files show are noted
//! where they are handled. Version 1 (32-bit counts) and big-endian files are refused by name. A model may lie in several
//! such files ([`split`]), and some type numbers have more than one meaning ([`GgufFile::type_name`]).

mod bytes;
mod cursor;
mod encode;
mod entry;
mod error;
mod file;
mod hints;
mod identity;
mod meanings;
mod metadata;
mod output;
mod reader;
mod sink;
pub mod split;
mod tensor;
mod types;
mod value;
mod writer;

#[cfg(all(test, target_os = "linux"))]
pub(crate) use bytes::tests::resident;
pub(crate) use bytes::{FileBytes, begins_with, read_regular};
pub use encode::MetaValue;
pub use error::GgufError;
pub use file::{GgufFile, Part};
pub(crate) use identity::Identity;
pub use metadata::Metadata;
pub use output::same_file;
pub(crate) use output::{write_file, write_file_by};
pub use tensor::{TensorInfo, TensorView};
pub(crate) use types::with_numbers;
pub use types::{GGML_TYPES, Geometry, GgmlType, TYPE_39, TYPE_42, ValueType, ggml_type, tensor_size};
pub use value::{ArrayView, Number, NumberIter, StringIter, Value, ValueIter};
pub use writer::GgufWriter;

/// First four bytes of a file.
pub const MAGIC: [u8; 4] = *b"GGUF";

/// Whether a file begins as GGUF does. A folder, or what is shorter, does not.
pub fn is_gguf(path: &std::path::Path) -> bool {
    begins_with(path, &MAGIC)
}

/// Alignment of a file that does not name one.
pub const DEFAULT_ALIGNMENT: u64 = 32;
/// The key that names another.
pub const KEY_ALIGNMENT: &str = "general.alignment";
/// Largest alignment accepted: 1 MiB.
pub const MAX_ALIGNMENT: u64 = 1 << 20;
/// Most dimensions of a tensor.
pub const MAX_DIMS: usize = 4;
/// Longest key or tensor name, in bytes.
pub const MAX_KEY_BYTES: u64 = 65_535;
/// Deepest nesting of arrays: an array of numbers has depth 1.
pub const MAX_ARRAY_DEPTH: u32 = 4;

// Limits that no real model comes near. They bound the memory of an open even for a file of terabytes
// that is all header.
/// Most keys of a file.
pub const MAX_KEYS: u64 = 1 << 16;
/// Most tensors of a file.
pub const MAX_TENSORS: u64 = 1 << 20;
/// Most bytes of keys, tensor names and strings outside arrays, together: 256 MiB.
pub const MAX_HEADER_TEXT: u64 = 256 << 20;

/// Fewest bytes of a key: length, one byte of name, type, one byte of value.
const MIN_KEY_BYTES: u64 = 8 + 1 + 4 + 1;
/// Fewest bytes of a tensor: length, one byte of name, dimension count, a dimension, type, offset, and
/// one byte of data.
const MIN_TENSOR_BYTES: u64 = 8 + 1 + 4 + 8 + 4 + 8 + 1;
