//! [`GgufFile`]: a file that was read, proved and can be shared.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};

use super::bytes::FileBytes;
use super::error::GgufError;
use super::metadata::Metadata;
use super::reader;
use super::tensor::{TensorInfo, TensorView};
use super::types::{TYPE_39, ggml_type};

/// An open GGUF file: header proved, tensors used from its bytes without a copy.
///
/// Cloning shares everything; `Send + Sync`. The bytes live as long as any clone, or any clone of its
/// [`Metadata`], does.
#[derive(Clone)]
pub struct GgufFile(Arc<Inner>);

struct Inner {
    bytes: FileBytes,
    path: Option<PathBuf>,
    header: Header,
    hash: OnceLock<String>,
}

/// What the header says, proved.
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) alignment: u64,
    pub(super) metadata: Metadata,
    /// In the order of the file.
    pub(super) tensors: Vec<TensorInfo>,
    /// Indices into `tensors`, sorted by name.
    pub(super) by_name: Vec<u32>,
    /// First byte of the data section; at most the file's length.
    pub(super) data_start: u64,
}

impl GgufFile {
    /// Maps and proves the file at `path`. Time grows with the header, not with the weights.
    ///
    /// The file must not be truncated or rewritten in place while it is open.
    pub fn open(path: impl AsRef<Path>) -> Result<GgufFile, GgufError> {
        let path = path.as_ref();
        FileBytes::map(path)
            .and_then(|bytes| GgufFile::from_bytes(bytes, Some(path.to_owned())))
            .map_err(|e| e.in_file(path))
    }

    /// Proves a file that is part of the program (`include_bytes!`).
    pub fn from_static(bytes: &'static [u8]) -> Result<GgufFile, GgufError> {
        GgufFile::from_bytes(FileBytes::from_static(bytes), None)
    }

    /// Proves a file in memory.
    pub fn from_vec(bytes: Vec<u8>) -> Result<GgufFile, GgufError> {
        GgufFile::from_bytes(FileBytes::from_vec(bytes), None)
    }

    fn from_bytes(bytes: FileBytes, path: Option<PathBuf>) -> Result<GgufFile, GgufError> {
        let header = reader::read_header(&bytes)?;
        Ok(GgufFile(Arc::new(Inner { bytes, path, header, hash: OnceLock::new() })))
    }

    /// 2 or 3.
    pub fn version(&self) -> u32 {
        self.0.header.version
    }

    /// Every tensor's offset is a multiple of this.
    pub fn alignment(&self) -> u64 {
        self.0.header.alignment
    }

    /// Key/value pairs.
    pub fn metadata(&self) -> &Metadata {
        &self.0.header.metadata
    }

    /// Descriptions of all tensors, in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.0.header.tensors
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let Header { tensors, by_name, .. } = &self.0.header;
        let get = |i: &u32| tensors.get(*i as usize);
        let found = by_name.binary_search_by(|i| get(i).map(|t| t.name.as_str()).cmp(&Some(name))).ok()?;
        by_name.get(found).and_then(get).map(|info| self.view(info))
    }

    /// The tensor at `index` of [`tensors`](Self::tensors).
    pub fn view_at(&self, index: usize) -> Option<TensorView<'_>> {
        self.tensors().get(index).map(|info| self.view(info))
    }

    /// All tensors with their bytes, in the order of the file.
    pub fn views(&self) -> impl ExactSizeIterator<Item = TensorView<'_>> {
        self.tensors().iter().map(|info| self.view(info))
    }

    fn view<'a>(&'a self, info: &'a TensorInfo) -> TensorView<'a> {
        // Proved at open: both ends are inside the bytes, whose length is a usize.
        let start = info.file_offset as usize;
        let data = start
            .checked_add(info.size as usize)
            .and_then(|end| self.0.bytes.as_slice().get(start..end))
            .unwrap_or_default();
        TensorView { info, data }
    }

    /// Whether the bytes are a mapping of a file, and not memory of this process.
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        self.0.bytes.is_mapped()
    }

    /// Gives the pages of a part of the file's bytes back to the system until they are read again, where the file is mapped. For
    /// tensors that were copied and lie cold. Bytes that are not the file's are left alone.
    pub fn release(&self, part: &[u8]) {
        let start = (part.as_ptr() as usize).checked_sub(self.0.bytes.as_slice().as_ptr() as usize);
        if let Some(start) = start
            && let Some(end) = start.checked_add(part.len())
        {
            self.0.bytes.release(start..end);
        }
    }

    /// The name of a tensor's type, for people.
    ///
    /// The number 39 is TL2 in bitnet.cpp's fork and MXFP4 in today's llama.cpp; it is told apart by
    /// the bytes that are there (MXFP4 needs 17 for 32 elements, TL2 less than half of that), then by
    /// `general.architecture` and `general.file_type` (the fork's 39).
    pub fn type_name(&self, info: &TensorInfo) -> &'static str {
        if info.ggml_type == TYPE_39 {
            return if self.is_tl2(info) { "tl2" } else { "mxfp4" };
        }
        ggml_type(info.ggml_type).map_or("unknown", |t| t.name)
    }

    fn is_tl2(&self, info: &TensorInfo) -> bool {
        let elements = info.elements();
        if !info.cols().is_multiple_of(32) || u128::from(info.size) < u128::from(elements) * 17 / 32 {
            return true;
        }
        let of_bitnet = self.metadata().str("general.architecture").ok().flatten();
        let file_type = self.metadata().u32("general.file_type").ok().flatten();
        of_bitnet.is_some_and(|a| a.starts_with("bitnet")) && file_type == Some(39)
    }

    /// First byte of the data section.
    pub fn data_start(&self) -> u64 {
        self.0.header.data_start
    }

    /// Length of the file in bytes.
    pub fn file_len(&self) -> u64 {
        self.0.bytes.as_slice().len() as u64
    }

    /// Where it was opened; `None` for bytes in memory.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// SHA-256 of the whole file, in hex. Reads every byte the first time, remembers the answer.
    pub fn content_hash(&self) -> &str {
        const CHUNK: usize = 1 << 20;
        self.0.hash.get_or_init(|| {
            let mut hasher = Sha256::new();
            for chunk in self.0.bytes.as_slice().chunks(CHUNK) {
                hasher.update(chunk);
            }
            hex::encode(hasher.finalize())
        })
    }

    /// Writes the whole file, unchanged.
    pub fn copy_to(&self, out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(self.0.bytes.as_slice())
    }
}

impl fmt::Debug for GgufFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GgufFile")
            .field("path", &self.path())
            .field("version", &self.version())
            .field("keys", &self.metadata().len())
            .field("tensors", &self.tensors().len())
            .field("file_len", &self.file_len())
            .finish()
    }
}
