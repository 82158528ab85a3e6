//! [`GgufFile`]: a file that was read, proved and can be shared.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};

use super::bytes::FileBytes;
use super::entry::TextBudget;
use super::error::GgufError;
use super::identity::Identity;
use super::metadata::Metadata;
use super::split::{self, Opened, SplitError};
use super::tensor::{self, TensorInfo, TensorView};
use super::writer::GgufWriter;
use super::{DEFAULT_ALIGNMENT, meanings};

/// An open model: one GGUF file, or the several parts of a split one ([`super::split`]). Headers are proved, tensors used
/// from the files' bytes without a copy.
///
/// Cloning shares everything; `Send + Sync`. The bytes live as long as any clone does (those of the first file as long as
/// any clone of its [`Metadata`]).
#[derive(Clone)]
pub struct GgufFile(Arc<Inner>);

struct Inner {
    /// At least one.
    parts: Vec<Stored>,
    metadata: Metadata,
    /// Of all parts, in the order of the files.
    tensors: Vec<TensorInfo>,
    /// Indices into `tensors`, sorted by name.
    by_name: Vec<u32>,
    hash: OnceLock<String>,
}

/// One file.
struct Stored {
    bytes: FileBytes,
    path: Option<PathBuf>,
    version: u32,
    alignment: u64,
    data_start: u64,
    /// Its share of the tensors.
    tensors: Range<usize>,
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

/// One file of a model.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// Where it was opened; `None` for bytes in memory.
    pub path: Option<&'a Path>,
    /// Length in bytes.
    pub len: u64,
    /// Its tensors.
    pub tensors: &'a [TensorInfo],
    /// Offsets of its tensors are multiples of this.
    pub alignment: u64,
    /// First byte of its data section.
    pub data_start: u64,
}

impl GgufFile {
    /// Maps and proves the file at `path`. Time grows with the header, not with the weights. If it is a part of a split
    /// model, whichever, the others are opened beside it.
    ///
    /// The files must not be truncated or rewritten in place while they are open.
    ///
    /// # Errors
    /// What is wrong, at which byte of which file; a part that is missing or belongs to another model.
    pub fn open(path: impl AsRef<Path>) -> Result<GgufFile, GgufError> {
        let path = path.as_ref();
        let mut budget = TextBudget::default();
        Opened::map(path, &mut budget)
            .and_then(|opened| GgufFile::assemble(opened, &mut budget))
            .map_err(|e| e.in_file(path))
    }

    /// Proves a file that is part of the program (`include_bytes!`).
    pub fn from_static(bytes: &'static [u8]) -> Result<GgufFile, GgufError> {
        GgufFile::from_bytes(FileBytes::from_static(bytes))
    }

    /// Proves a file in memory.
    pub fn from_vec(bytes: Vec<u8>) -> Result<GgufFile, GgufError> {
        GgufFile::from_bytes(FileBytes::from_vec(bytes))
    }

    fn from_bytes(bytes: FileBytes) -> Result<GgufFile, GgufError> {
        let mut budget = TextBudget::default();
        GgufFile::assemble(Opened::prove(bytes, None, &mut budget)?, &mut budget)
    }

    fn assemble(opened: Opened, budget: &mut TextBudget) -> Result<GgufFile, GgufError> {
        let mut parts = Vec::new();
        let mut first: Option<(Metadata, Vec<TensorInfo>, Vec<u32>)> = None;
        for (index, Opened { bytes, path, header }) in split::gather(opened, budget)?.into_iter().enumerate() {
            let Header { version, alignment, metadata, tensors: mut here, by_name, data_start } = header;
            let start = first.as_ref().map_or(0, |(_, tensors, _)| tensors.len());
            let tensors = start..start + here.len();
            parts.push(Stored { bytes, path, version, alignment, data_start, tensors });
            match &mut first {
                None => first = Some((metadata, here, by_name)),
                Some((_, tensors, _)) => {
                    here.iter_mut().for_each(|t| t.part = index);
                    tensors.append(&mut here);
                }
            }
        }
        let (metadata, tensors, mut by_name) = first.ok_or(GgufError::Empty)?;
        if parts.len() > 1 {
            by_name = tensor::index_parts(&tensors).map_err(|(tensor, [a, b])| {
                let path = |part: usize| parts.get(part).and_then(|p| p.path.clone()).unwrap_or_default();
                GgufError::from(SplitError::Twice { tensor, first: path(a) }).in_file(&path(b))
            })?;
        }
        Ok(GgufFile(Arc::new(Inner { parts, metadata, tensors, by_name, hash: OnceLock::new() })))
    }

    /// What the file with the metadata was known by when it was opened; `None` for bytes in memory.
    pub(crate) fn identity(&self) -> Option<Identity> {
        self.first()?.bytes.identity()
    }

    fn first(&self) -> Option<&Stored> {
        self.0.parts.first()
    }

    /// The files that the model lies in: one, or the parts of a split model in their order.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = Part<'_>> {
        self.0.parts.iter().map(|p| Part {
            path: p.path.as_deref(),
            len: p.bytes.as_slice().len() as u64,
            tensors: self.0.tensors.get(p.tensors.clone()).unwrap_or_default(),
            alignment: p.alignment,
            data_start: p.data_start,
        })
    }

    /// The file that holds a tensor, if the model lies in several: for messages that say where something is.
    pub fn part_of(&self, info: &TensorInfo) -> Option<&Path> {
        let part = self.0.parts.get(info.part).filter(|_| self.0.parts.len() > 1)?;
        part.path.as_deref()
    }

    /// 2 or 3: that of the (first) file.
    pub fn version(&self) -> u32 {
        self.first().map_or(3, |part| part.version)
    }

    /// Every tensor's offset in the (first) file is a multiple of this.
    pub fn alignment(&self) -> u64 {
        self.first().map_or(DEFAULT_ALIGNMENT, |part| part.alignment)
    }

    /// Key/value pairs: those of the (first) file.
    pub fn metadata(&self) -> &Metadata {
        &self.0.metadata
    }

    /// Descriptions of all tensors, in the order of the files.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.0.tensors
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let Inner { tensors, by_name, .. } = &*self.0;
        let get = |i: &u32| tensors.get(*i as usize);
        let found = by_name.binary_search_by(|i| get(i).map(|t| t.name.as_str()).cmp(&Some(name))).ok()?;
        by_name.get(found).and_then(get).map(|info| self.view(info))
    }

    /// The tensor at `index` of [`tensors`](Self::tensors).
    pub fn view_at(&self, index: usize) -> Option<TensorView<'_>> {
        self.tensors().get(index).map(|info| self.view(info))
    }

    /// All tensors with their bytes, in the order of the files.
    pub fn views(&self) -> impl ExactSizeIterator<Item = TensorView<'_>> {
        self.tensors().iter().map(|info| self.view(info))
    }

    fn view<'a>(&'a self, info: &'a TensorInfo) -> TensorView<'a> {
        // Proved at open: both ends are inside the part's bytes, whose length is a usize.
        let start = info.file_offset as usize;
        let part = self.0.parts.get(info.part);
        let data = start
            .checked_add(info.size as usize)
            .and_then(|end| part?.bytes.as_slice().get(start..end))
            .unwrap_or_default();
        TensorView { info, data }
    }

    /// Whether the bytes are mappings of files, and not memory of this process.
    pub fn is_mapped(&self) -> bool {
        self.0.parts.iter().all(|part| part.bytes.is_mapped())
    }

    /// Gives the pages of a part of the file's bytes back to the system until they are read again, where the file is mapped. For
    /// tensors that were copied and lie cold. Bytes that are not the file's are left alone.
    pub fn release(&self, part: &[u8]) {
        for Stored { bytes, .. } in &self.0.parts {
            let start = (part.as_ptr() as usize).checked_sub(bytes.as_slice().as_ptr() as usize);
            if let Some(start) = start
                && let Some(end) = start.checked_add(part.len())
            {
                // Nothing happens where the range is not inside these bytes.
                bytes.release(start..end);
            }
        }
    }

    /// The name of a tensor's type, for people and for choosing a format.
    ///
    /// Two numbers have two meanings: 39 is TL2 in bitnet.cpp's fork and MXFP4 in today's llama.cpp, 42 has groups of 64 or
    /// of 128 weights (`q2_0`, `q2_0-g128`). Which one it is was decided by the bytes that are there; see
    /// [`type_note`](Self::type_note).
    pub fn type_name(&self, info: &TensorInfo) -> &'static str {
        meanings::name(info, self.metadata())
    }

    /// Why a number with two meanings was taken for this one; `None` for all other types.
    pub fn type_note(&self, info: &TensorInfo) -> Option<String> {
        let part = self.parts().nth(info.part)?;
        let next = part.tensors.iter().map(|t| t.offset).filter(|&offset| offset > info.offset).min();
        let end = next.map_or(part.len, |offset| part.data_start + offset);
        meanings::note(info, self.metadata(), end.saturating_sub(info.file_offset), next.is_some(), part.alignment)
    }

    /// First byte of the (first) file's data section.
    pub fn data_start(&self) -> u64 {
        self.first().map_or(0, |part| part.data_start)
    }

    /// Length of the file in bytes, or of all parts together.
    pub fn file_len(&self) -> u64 {
        self.parts().map(|part| part.len).sum()
    }

    /// Where it was opened; `None` for bytes in memory. Of a split model the first part, whichever was asked for.
    pub fn path(&self) -> Option<&Path> {
        self.first().and_then(|part| part.path.as_deref())
    }

    /// SHA-256 of the whole file, or of all parts one after the other, in hex. Reads every byte the first time, remembers the
    /// answer.
    pub fn content_hash(&self) -> &str {
        const CHUNK: usize = 1 << 20;
        self.0.hash.get_or_init(|| {
            let mut hasher = Sha256::new();
            for part in &self.0.parts {
                part.bytes.as_slice().chunks(CHUNK).for_each(|chunk| hasher.update(chunk));
            }
            hex::encode(hasher.finalize())
        })
    }

    /// Writes the whole file, unchanged; a split model as one file, with the same keys and tensors.
    pub fn copy_to(&self, out: &mut dyn io::Write) -> io::Result<()> {
        match &*self.0.parts {
            [file] => out.write_all(file.bytes.as_slice()),
            _ => self.writer().and_then(|writer| writer.write_to(out)).map(drop).map_err(io::Error::other),
        }
    }

    /// A writer of the same keys and tensors in one file, in the same order.
    ///
    /// # Errors
    /// A header that only several files together can have.
    pub fn writer(&self) -> Result<GgufWriter<'_>, GgufError> {
        let mut writer = GgufWriter::new(self.version(), self.alignment())?;
        writer.copy_all_meta(self.metadata(), |_| true)?;
        for view in self.views() {
            writer.copy_tensor(view)?;
        }
        Ok(writer)
    }
}

impl fmt::Debug for GgufFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GgufFile")
            .field("path", &self.path())
            .field("version", &self.version())
            .field("keys", &self.metadata().len())
            .field("tensors", &self.tensors().len())
            .field("parts", &self.0.parts.len())
            .field("file_len", &self.file_len())
            .finish()
    }
}
