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
#[allow(missing_docs, reason = "the messages name the fields")]
#[non_exhaustive]
pub enum GgufError {
    /// Any error below, with the file in which it was found.
    #[error("{}: {error}", path.display())]
    InFile {
        path: PathBuf,
        /// What is wrong with it; never `InFile` itself.
        #[source]
        error: Box<GgufError>,
    },

    // ---- opening ----
    /// No such file.
    #[error("{}: no such file; check the path, or download the model first", path.display())]
    NotFound { path: PathBuf },
    /// The path is a folder or a special file.
    #[error("{}: this is {kind}, not a regular file; give the path of the .gguf file itself", path.display())]
    NotAFile {
        path: PathBuf,
        /// "a directory" or "a special file".
        kind: &'static str,
    },
    /// The process may not read (or write) it.
    #[error("{}: permission denied; give yourself access (chmod u+rw) or run as the owner", path.display())]
    PermissionDenied { path: PathBuf },
    /// Zero bytes long.
    #[error("the file is empty (0 bytes), so the download or the copy never happened: download it again")]
    Empty,
    /// Larger than this machine can address.
    #[error("the file has {len} bytes, more than this {}-bit build can map; use a 64-bit build", usize::BITS)]
    TooLargeToMap { len: u64 },
    /// Another I/O failure.
    #[error("{}: cannot {action}: {source}{}", path.display(), io_hint(source))]
    Io {
        path: PathBuf,
        /// What was being done: "open", "map", "write"...
        action: &'static str,
        source: io::Error,
    },

    // ---- header ----
    /// The magic number is missing.
    #[error("not a GGUF file: byte 0 should start \"GGUF\", found {found:02x?}{}", magic_hint(found))]
    NotGguf { found: Vec<u8> },
    /// Written on or for a big-endian machine.
    #[error(
        "big-endian GGUF (version field at byte 4 reads {version} when byte-swapped): only little-endian files are supported; get the little-endian file, or convert it with gguf-py's gguf_convert_endian.py"
    )]
    BigEndian { version: u32 },
    /// A version other than 2 and 3.
    #[error(
        "GGUF version {version} at byte 4: versions 2 and 3 are supported; convert the model again with a current converter{}",
        if *version > 3 { " or update this program" } else { "" }
    )]
    UnsupportedVersion { version: u32 },
    /// The header ends early, or a length field points past the end of the file.
    #[error(
        "{what} at byte {at} needs {needed} bytes, the file has {available} left: {} bytes are missing. The file is truncated, or this length is damaged; download it again",
        needed.saturating_sub(*available)
    )]
    Truncated { what: String, at: u64, needed: u64, available: u64 },
    /// A count that the rest of the file cannot hold, or that no model has.
    #[error(
        "{what} at byte {at} says {count}, but at most {most} are possible here: {why}; download the file again, or convert the model again"
    )]
    ImpossibleCount { what: String, at: u64, count: u64, most: u64, why: &'static str },
    /// A string that is longer than its kind may be.
    #[error("{what} at byte {at} has {len} bytes, the limit is {limit}: {DOWNLOAD_AGAIN}")]
    StringTooLong { what: String, at: u64, len: u64, limit: u64 },
    /// An empty key or tensor name.
    #[error("{what} at byte {at} is empty, a name is expected: {DOWNLOAD_AGAIN}")]
    EmptyName { what: String, at: u64 },
    /// Bytes that should be UTF-8 are not.
    #[error("{what} at byte {at} is not UTF-8 (first bad byte at {bad_at}): {DOWNLOAD_AGAIN}")]
    NotUtf8 { what: String, at: u64, bad_at: u64 },
    /// The same key twice.
    #[error("key {key:?} occurs twice, the second time at byte {at}; keys are unique: {DOWNLOAD_AGAIN}")]
    DuplicateKey { key: String, at: u64 },
    /// The same tensor name twice.
    #[error(
        "tensor {tensor:?} is described twice, the second time at byte {at}; tensor names are unique: {DOWNLOAD_AGAIN}"
    )]
    DuplicateTensor { tensor: String, at: u64 },
    /// A metadata value type that GGUF does not define.
    #[error("{what} at byte {at} is {found}; GGUF knows the value types 0 to 12: {DOWNLOAD_AGAIN}")]
    UnknownValueType { what: String, at: u64, found: u32 },
    /// A bool that is neither 0 nor 1.
    #[error("{what} at byte {at} is {found}; a bool is 0 or 1: {DOWNLOAD_AGAIN}")]
    BadBool { what: String, at: u64, found: u8 },
    /// Arrays inside arrays, too deep.
    #[error("{what} at byte {at} nests arrays more than {limit} deep: {DOWNLOAD_AGAIN}")]
    NestedTooDeep { what: String, at: u64, limit: u32 },
    /// `general.alignment` cannot be used.
    #[error("general.alignment is {found}; a power of two of at most {limit} is expected: {DOWNLOAD_AGAIN}")]
    BadAlignment { found: u64, limit: u64 },

    // ---- tensors ----
    /// Not 1 to 4 dimensions.
    #[error("tensor {tensor:?} has {found} dimensions at byte {at}; 1 to 4 are expected: {DOWNLOAD_AGAIN}")]
    BadDimCount { tensor: String, at: u64, found: u64 },
    /// A dimension of zero.
    #[error(
        "tensor {tensor:?} has the shape {dims:?} (byte {at}), every dimension must be at least 1: {DOWNLOAD_AGAIN}"
    )]
    ZeroDim { tensor: String, at: u64, dims: Vec<u64> },
    /// Elements or bytes do not fit in 64 bits.
    #[error("tensor {tensor:?} of shape {dims:?} (byte {at}) has more than 2^63 elements or bytes: {DOWNLOAD_AGAIN}")]
    ShapeOverflow { tensor: String, at: u64, dims: Vec<u64> },
    /// A tensor type that this program has never heard of.
    #[error(
        "tensor {tensor:?} has the type {found} at byte {at}, which is not a known ggml type (0 to 42, 134, 135, 142, 143, 335); update this program, or convert the model to i2_s, tq2_0 or f16"
    )]
    UnknownTensorType { tensor: String, at: u64, found: u32 },
    /// Rows that do not divide into whole blocks.
    #[error(
        "tensor {tensor:?} of type {type_name} has rows of {found} elements (byte {at}); a multiple of {block} is expected: {DOWNLOAD_AGAIN}"
    )]
    NotWholeBlocks { tensor: String, at: u64, type_name: &'static str, found: u64, block: u64 },
    /// A tensor's offset is not aligned.
    #[error(
        "tensor {tensor:?}: offset {offset} (field at byte {at}) is not a multiple of the alignment {alignment}: {DOWNLOAD_AGAIN}"
    )]
    Misaligned { tensor: String, at: u64, offset: u64, alignment: u64 },
    /// A tensor's data is not wholly inside the file.
    #[error(
        "tensor {tensor:?} should occupy {size} bytes from byte {start}, but the file has only {file_len}: the file is truncated, {missing} bytes are missing; download it again"
    )]
    TensorOutside { tensor: String, start: u64, size: u64, file_len: u64, missing: u64 },
    /// Two tensors share bytes.
    #[error(
        "tensor {second:?} begins at byte {start} inside tensor {first:?}, whose data ends at byte {first_end}; tensors must not overlap: {DOWNLOAD_AGAIN}"
    )]
    Overlap { first: String, first_end: u64, second: String, start: u64 },

    // ---- models in several files ----
    /// Sound files that are not the parts of one model.
    #[error(transparent)]
    Split(#[from] SplitError),

    // ---- queries ----
    /// A key that the caller needs is absent.
    #[error(
        "key {key:?} is missing from the metadata; this model was converted incompletely: convert it again with a current converter"
    )]
    MissingKey { key: String },
    /// A key has another type than the caller needs.
    #[error(
        "key {key:?} (value at byte {at}) is {found}, {expected} is expected; the model was converted wrongly: convert it again"
    )]
    WrongType { key: String, at: u64, expected: String, found: String },

    // ---- writing ----
    /// Something that the caller handed to the writer cannot be a GGUF file.
    #[error("cannot write {what}: {why}")]
    CannotWrite { what: String, why: String },
    /// A metadata array whose elements are not all of its element type.
    #[error("cannot write key {key:?}: array of {expected} has an element of type {found}")]
    MixedArray { key: String, expected: ValueType, found: ValueType },
    /// The data of a tensor has another length than its shape and type demand.
    #[error("cannot write tensor {tensor:?}: its shape and type need {expected} bytes, {found} were given")]
    WrongDataSize {
        tensor: String,
        expected: u64,
        /// Bytes given; for a stream that was stopped, at least this many.
        found: u64,
    },
    /// The output refused bytes.
    #[error("cannot write {what}: {source}{}", io_hint(source))]
    Output { what: String, source: io::Error },
}
