//! What can be wrong with a GGUF file, with everything needed to act on it.
//!
//! Each message says what was read (tensor or key), at which byte of the file, what was expected,
//! what was found and what fixes it. Sizes are bytes and positions are absolute file offsets.

use std::io;
use std::path::PathBuf;

use super::hints::{io_hint, magic_hint};
use super::split::SplitError;
use super::types::ValueType;

const DOWNLOAD_AGAIN: &str =
    "the file is damaged or was not written by a GGUF tool: download it again, or convert the model again";

/// Error of reading, querying or writing a GGUF file.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
#[non_exhaustive]
pub enum GgufError {
    #[error("{}: {error}", path.display())]
    InFile {
        path: PathBuf,
        /// What is wrong with it; never `InFile` itself.
        #[source]
        error: Box<GgufError>,
    },

    // ---- opening ----
    #[error("{}: no such file; check the path, or download the model first", path.display())]
    NotFound { path: PathBuf },
    #[error("{}: this is {kind}, not a regular file; give the path of the .gguf file itself", path.display())]
    NotAFile { path: PathBuf, kind: &'static str },
    #[error("{}: permission denied; give yourself access (chmod u+rw) or run as the owner", path.display())]
    PermissionDenied { path: PathBuf },
    #[error("the file is empty (0 bytes), so the download or the copy never happened: download it again")]
    Empty,
    #[error("the file has {len} bytes, more than this {}-bit build can map; use a 64-bit build", usize::BITS)]
    TooLargeToMap { len: u64 },
    #[error("{}: cannot {action}: {source}{}", path.display(), io_hint(source))]
    Io { path: PathBuf, action: &'static str, source: io::Error },

    // ---- header ----
    #[error("not a GGUF file: byte 0 should start \"GGUF\", found {found:02x?}{}", magic_hint(found))]
    NotGguf { found: Vec<u8> },
    #[error(
        "big-endian GGUF (version field at byte 4 reads {version} when byte-swapped): only little-endian files are supported; get the little-endian file, or convert it with gguf-py's gguf_convert_endian.py"
    )]
    BigEndian { version: u32 },
    #[error(
        "GGUF version {version} at byte 4: versions 2 and 3 are supported; convert the model again with a current converter{}",
        if *version > 3 { " or update this program" } else { "" }
    )]
    UnsupportedVersion { version: u32 },
    #[error(
        "{what} at byte {at} needs {needed} bytes, the file has {available} left: {} bytes are missing. The file is truncated, or this length is damaged; download it again",
        needed.saturating_sub(*available)
    )]
    Truncated { what: String, at: u64, needed: u64, available: u64 },
    #[error(
        "{what} at byte {at} says {count}, but at most {most} are possible here: {why}; download the file again, or convert the model again"
    )]
    ImpossibleCount { what: String, at: u64, count: u64, most: u64, why: &'static str },
    #[error("{what} at byte {at} has {len} bytes, the limit is {limit}: {DOWNLOAD_AGAIN}")]
    StringTooLong { what: String, at: u64, len: u64, limit: u64 },
    #[error("{what} at byte {at} is empty, a name is expected: {DOWNLOAD_AGAIN}")]
    EmptyName { what: String, at: u64 },
    #[error("{what} at byte {at} is not UTF-8 (first bad byte at {bad_at}): {DOWNLOAD_AGAIN}")]
    NotUtf8 { what: String, at: u64, bad_at: u64 },
    #[error("key {key:?} occurs twice, the second time at byte {at}; keys are unique: {DOWNLOAD_AGAIN}")]
    DuplicateKey { key: String, at: u64 },
    #[error(
        "tensor {tensor:?} is described twice, the second time at byte {at}; tensor names are unique: {DOWNLOAD_AGAIN}"
    )]
    DuplicateTensor { tensor: String, at: u64 },
    #[error("{what} at byte {at} is {found}; GGUF knows the value types 0 to 12: {DOWNLOAD_AGAIN}")]
    UnknownValueType { what: String, at: u64, found: u32 },
    #[error("{what} at byte {at} is {found}; a bool is 0 or 1: {DOWNLOAD_AGAIN}")]
    BadBool { what: String, at: u64, found: u8 },
    #[error("{what} at byte {at} nests arrays more than {limit} deep: {DOWNLOAD_AGAIN}")]
    NestedTooDeep { what: String, at: u64, limit: u32 },
    #[error("general.alignment is {found}; a power of two of at most {limit} is expected: {DOWNLOAD_AGAIN}")]
    BadAlignment { found: u64, limit: u64 },

    // ---- tensors ----
    #[error("tensor {tensor:?} has {found} dimensions at byte {at}; 1 to 4 are expected: {DOWNLOAD_AGAIN}")]
    BadDimCount { tensor: String, at: u64, found: u64 },
    #[error(
        "tensor {tensor:?} has the shape {dims:?} (byte {at}), every dimension must be at least 1: {DOWNLOAD_AGAIN}"
    )]
    ZeroDim { tensor: String, at: u64, dims: Vec<u64> },
    #[error("tensor {tensor:?} of shape {dims:?} (byte {at}) has more than 2^63 elements or bytes: {DOWNLOAD_AGAIN}")]
    ShapeOverflow { tensor: String, at: u64, dims: Vec<u64> },
    #[error(
        "tensor {tensor:?} has the type {found} at byte {at}, which is not a known ggml type (0 to 42, 134, 135, 142, 143, 335); update this program, or convert the model to i2_s, tq2_0 or f16"
    )]
    UnknownTensorType { tensor: String, at: u64, found: u32 },
    #[error(
        "tensor {tensor:?} of type {type_name} has rows of {found} elements (byte {at}); a multiple of {block} is expected: {DOWNLOAD_AGAIN}"
    )]
    NotWholeBlocks { tensor: String, at: u64, type_name: &'static str, found: u64, block: u64 },
    #[error(
        "tensor {tensor:?}: offset {offset} (field at byte {at}) is not a multiple of the alignment {alignment}: {DOWNLOAD_AGAIN}"
    )]
    Misaligned { tensor: String, at: u64, offset: u64, alignment: u64 },
    #[error(
        "tensor {tensor:?} should occupy {size} bytes from byte {start}, but the file has only {file_len}: the file is truncated, {missing} bytes are missing; download it again"
    )]
    TensorOutside { tensor: String, start: u64, size: u64, file_len: u64, missing: u64 },
    #[error(
        "tensor {second:?} begins at byte {start} inside tensor {first:?}, whose data ends at byte {first_end}; tensors must not overlap: {DOWNLOAD_AGAIN}"
    )]
    Overlap { first: String, first_end: u64, second: String, start: u64 },

    // ---- models in several files ----
    #[error(transparent)]
    Split(#[from] SplitError),

    // ---- queries ----
    #[error(
        "key {key:?} is missing from the metadata; this model was converted incompletely: convert it again with a current converter"
    )]
    MissingKey { key: String },
    #[error(
        "key {key:?} (value at byte {at}) is {found}, {expected} is expected; the model was converted wrongly: convert it again"
    )]
    WrongType { key: String, at: u64, expected: String, found: String },

    // ---- writing ----
    #[error("cannot write {what}: {why}")]
    CannotWrite { what: String, why: String },
    #[error("cannot write key {key:?}: array of {expected} has an element of type {found}")]
    MixedArray { key: String, expected: ValueType, found: ValueType },
    #[error("cannot write tensor {tensor:?}: its shape and type need {expected} bytes, {found} were given")]
    WrongDataSize {
        tensor: String,
        expected: u64,
        /// Bytes given; for a stream that was stopped, at least this many.
        found: u64,
    },
    #[error("cannot write {what}: {source}{}", io_hint(source))]
    Output { what: String, source: io::Error },
}
