//! The writer: metadata and tensors are announced, then everything is streamed in one pass.
//!
//! A tensor may be a closure that writes its bytes when its turn comes, so that a model larger than the
//! memory can be written. What the writer accepts, the reader accepts.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::encode::MetaValue;
use super::error::GgufError;
use super::metadata::Metadata;
use super::output::replace_file;
use super::sink::{Counted, Limited, pad};
use super::tensor::TensorView;
use super::types::{TYPE_42, ValueType, tensor_size};
use super::{
    DEFAULT_ALIGNMENT, KEY_ALIGNMENT, MAGIC, MAX_ALIGNMENT, MAX_HEADER_TEXT, MAX_KEY_BYTES, MAX_KEYS, MAX_TENSORS,
    meanings, split,
};

const BUFFER: usize = 1 << 20;

type Stream<'a> = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + 'a>;

/// A GGUF file to be written. `'a` is the life of borrowed tensors and copied metadata.
pub struct GgufWriter<'a> {
    version: u32,
    alignment: u64,
    /// Key; type field and value.
    keys: Vec<(String, Cow<'a, [u8]>)>,
    seen_keys: HashSet<String>,
    tensors: Vec<Pending<'a>>,
    seen_tensors: HashSet<String>,
    text: u64,
}

struct Pending<'a> {
    name: String,
    dims: Vec<u64>,
    ggml_type: u32,
    size: u64,
    data: Data<'a>,
}

enum Data<'a> {
    Bytes(Cow<'a, [u8]>),
    Stream(Stream<'a>),
}

impl<'a> GgufWriter<'a> {
    /// A file of `version` 2 or 3 whose tensors are aligned to `alignment` bytes (a power of two, at most
    /// 1 MiB; 32 is usual). `general.alignment` is written where it differs from 32.
    pub fn new(version: u32, alignment: u64) -> Result<Self, GgufError> {
        if !matches!(version, 2 | 3) {
            return Err(refuse(format!("GGUF version {version}"), "versions 2 and 3 can be written"));
        }
        if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
            return Err(GgufError::BadAlignment { found: alignment, limit: MAX_ALIGNMENT });
        }
        Ok(GgufWriter {
            version,
            alignment,
            keys: Vec::new(),
            seen_keys: HashSet::new(),
            tensors: Vec::new(),
            seen_tensors: HashSet::new(),
            text: 0,
        })
    }

    /// Adds a key. Errors: a second value for a key, an empty or too long key, an array of mixed types,
    /// a `general.alignment` other than the writer's own.
    pub fn meta(&mut self, key: &str, value: impl Into<MetaValue>) -> Result<&mut Self, GgufError> {
        let value = value.into();
        let text = if let MetaValue::Str(s) = &value { s.len() } else { 0 };
        self.add_key(key, Cow::Owned(value.encode(key)?), text as u64)
    }

    /// Adds a key with its value in another file, byte for byte.
    pub fn copy_meta(&mut self, from: &'a Metadata, key: &str) -> Result<&mut Self, GgufError> {
        let raw = from.raw(key).ok_or_else(|| GgufError::MissingKey { key: key.to_owned() })?;
        let text = from.str(key).ok().flatten().map_or(0, str::len);
        self.add_key(key, Cow::Borrowed(raw), text as u64)
    }

    /// Adds every key of another file that `keep` accepts, except a `general.alignment` other than this
    /// writer's own and the keys that number the parts of a split model ([`super::split`]).
    pub fn copy_all_meta(
        &mut self,
        from: &'a Metadata,
        mut keep: impl FnMut(&str) -> bool,
    ) -> Result<&mut Self, GgufError> {
        for (key, _) in from.iter() {
            let other_alignment = key == KEY_ALIGNMENT && from.raw(key) != Some(&*self.alignment_value());
            if !other_alignment && !split::is_split_key(key) && keep(key) {
                self.copy_meta(from, key)?;
            }
        }
        Ok(self)
    }

    fn add_key(&mut self, key: &str, raw: Cow<'a, [u8]>, text: u64) -> Result<&mut Self, GgufError> {
        check_name("key", key)?;
        if key == KEY_ALIGNMENT && *raw != *self.alignment_value() {
            let why = format!("it must be the u32 {} that the writer was made with", self.alignment);
            return Err(refuse(format!("key {key:?}"), &why));
        }
        if !self.seen_keys.insert(key.to_owned()) {
            return Err(refuse(format!("key {key:?}"), "it was added before; keys are unique"));
        }
        self.text = self.text.saturating_add(key.len() as u64).saturating_add(text);
        self.keys.push((key.to_owned(), raw));
        Ok(self)
    }

    /// Type field and value of `general.alignment`.
    fn alignment_value(&self) -> Vec<u8> {
        let mut raw = (ValueType::U32 as u32).to_le_bytes().to_vec();
        // At most 1 MiB, see `new`.
        raw.extend((self.alignment as u32).to_le_bytes());
        raw
    }

    /// Adds a tensor of `dims` (row length first) whose bytes are there.
    pub fn tensor(
        &mut self,
        name: &str,
        dims: &[u64],
        ggml_type: u32,
        data: impl Into<Cow<'a, [u8]>>,
    ) -> Result<&mut Self, GgufError> {
        let data = data.into();
        self.add_tensor(name, dims, ggml_type, data.len() as u64, Data::Bytes(data))
    }

    /// Adds a tensor whose `size` bytes `write` will produce when its turn comes, in pieces of any size.
    pub fn tensor_with(
        &mut self,
        name: &str,
        dims: &[u64],
        ggml_type: u32,
        size: u64,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()> + 'a,
    ) -> Result<&mut Self, GgufError> {
        self.add_tensor(name, dims, ggml_type, size, Data::Stream(Box::new(write)))
    }

    /// Adds a tensor of another file, unchanged.
    pub fn copy_tensor(&mut self, view: TensorView<'a>) -> Result<&mut Self, GgufError> {
        self.tensor(&view.info.name, &view.info.dims, view.info.ggml_type, view.data)
    }

    fn add_tensor(
        &mut self,
        name: &str,
        dims: &[u64],
        ggml_type: u32,
        size: u64,
        data: Data<'a>,
    ) -> Result<&mut Self, GgufError> {
        check_name("tensor", name)?;
        match tensor_size(name, 0, ggml_type, dims) {
            Ok(Some(expected)) if expected != size => {
                return Err(GgufError::WrongDataSize { tensor: name.to_owned(), expected, found: size });
            }
            Ok(None) if size == 0 => {
                return Err(GgufError::WrongDataSize { tensor: name.to_owned(), expected: 1, found: 0 });
            }
            Ok(None) if ggml_type == TYPE_42 => {
                let possible: Vec<u64> =
                    meanings::sizes_42(dims.first().copied().unwrap_or(1), dims.iter().product()).collect();
                if !possible.contains(&size) {
                    let expected = possible.first().copied().unwrap_or_default();
                    return Err(GgufError::WrongDataSize { tensor: name.to_owned(), expected, found: size });
                }
            }
            Ok(_) => {}
            Err(e) => return Err(refuse(format!("tensor {name:?}"), &shape_problem(&e))),
        }
        if !self.seen_tensors.insert(name.to_owned()) {
            return Err(refuse(format!("tensor {name:?}"), "it was added before; tensor names are unique"));
        }
        self.text = self.text.saturating_add(name.len() as u64);
        self.tensors.push(Pending { name: name.to_owned(), dims: dims.to_vec(), ggml_type, size, data });
        Ok(self)
    }

    /// Tensors that were added.
    pub(super) fn tensor_count(&self) -> usize {
        self.tensors.len()
    }

    /// Keeps the first `tensors` tensors and all keys; the others go into a writer of their own. `None` if there are none.
    pub(super) fn split_off(&mut self, tensors: usize) -> Result<Option<GgufWriter<'a>>, GgufError> {
        if tensors >= self.tensors.len() {
            return Ok(None);
        }
        let mut rest = GgufWriter::new(self.version, self.alignment)?;
        rest.tensors = self.tensors.split_off(tensors);
        rest.seen_tensors = rest.tensors.iter().map(|t| t.name.clone()).collect();
        rest.text = rest.tensors.iter().map(|t| t.name.len() as u64).sum();
        self.text = self.text.saturating_sub(rest.text);
        Ok(Some(rest))
    }

    /// Writes the file to `path` through a temporary file in the same folder, forced to the disk and
    /// renamed when complete. On an error nothing is left and an older file at `path` stays as it was;
    /// readers that have it mapped keep their version. Returns the length.
    pub fn write_file(self, path: impl AsRef<Path>) -> Result<u64, GgufError> {
        self.write_file_checked(path.as_ref(), |_| Ok(()))
    }

    /// As [`GgufWriter::write_file`]; `check` looks at the complete file under its temporary name, and an error of it is one of
    /// writing.
    pub(crate) fn write_file_checked(
        self,
        path: &Path,
        check: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<u64, GgufError> {
        let finished = |source| GgufError::Output { what: "the finished file".to_owned(), source };
        let written = replace_file(path, |file| self.write_to(file), |unnamed| check(unnamed).map_err(finished));
        written.map_err(|e| e.in_file(path))
    }

    /// The file in memory.
    pub fn into_vec(self) -> Result<Vec<u8>, GgufError> {
        let mut bytes = Vec::new();
        self.write_to(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes the file to `out`; returns the number of bytes.
    pub fn write_to(mut self, out: impl Write) -> Result<u64, GgufError> {
        if self.alignment != DEFAULT_ALIGNMENT && !self.seen_keys.contains(KEY_ALIGNMENT) {
            let raw = Cow::Owned(self.alignment_value());
            self.keys.insert(0, (KEY_ALIGNMENT.to_owned(), raw));
        }
        for (what, count, most) in
            [("keys", self.keys.len() as u64, MAX_KEYS), ("tensors", self.tensors.len() as u64, MAX_TENSORS)]
        {
            if count > most {
                return Err(refuse(format!("{count} {what}"), &format!("{most} is the most that a file may have")));
            }
        }
        if self.text > MAX_HEADER_TEXT {
            let why = format!("keys, names and strings may have {MAX_HEADER_TEXT} bytes together");
            return Err(refuse(format!("{} bytes of text", self.text), &why));
        }
        let mut out = Counted::new(BufWriter::with_capacity(BUFFER, out));
        self.write_header(&mut out).map_err(|source| GgufError::Output { what: "the header".to_owned(), source })?;
        let alignment = self.alignment;
        for tensor in self.tensors {
            let Pending { name, size, data, .. } = tensor;
            pad(&mut out, alignment).map_err(|e| failed(&name, e))?;
            match data {
                Data::Bytes(bytes) => out.write_all(&bytes).map_err(|e| failed(&name, e))?,
                Data::Stream(write) => stream(&mut out, &name, size, write)?,
            }
        }
        let finish = |source| GgufError::Output { what: "the end of the file".to_owned(), source };
        pad(&mut out, alignment).map_err(finish)?;
        out.flush().map_err(finish)?;
        Ok(out.written)
    }

    fn write_header(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&MAGIC)?;
        out.write_all(&self.version.to_le_bytes())?;
        out.write_all(&(self.tensors.len() as u64).to_le_bytes())?;
        out.write_all(&(self.keys.len() as u64).to_le_bytes())?;
        for (key, raw) in &self.keys {
            write_string(out, key)?;
            out.write_all(raw)?;
        }
        let mut offset = 0_u64;
        for t in &self.tensors {
            write_string(out, &t.name)?;
            out.write_all(&(t.dims.len() as u32).to_le_bytes())?;
            for d in &t.dims {
                out.write_all(&d.to_le_bytes())?;
            }
            out.write_all(&t.ggml_type.to_le_bytes())?;
            out.write_all(&offset.to_le_bytes())?;
            offset = offset
                .checked_add(t.size)
                .and_then(|end| end.checked_next_multiple_of(self.alignment))
                .ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, "the tensors have more than 2^64 bytes"))?;
        }
        Ok(())
    }
}

fn stream(out: &mut impl Write, name: &str, size: u64, write: Stream<'_>) -> Result<(), GgufError> {
    let mut limited = Limited::new(out, size);
    let result = write(&mut limited);
    let (left, excess) = (limited.left, limited.excess);
    if excess > 0 {
        let found = (size - left).saturating_add(excess);
        return Err(GgufError::WrongDataSize { tensor: name.to_owned(), expected: size, found });
    }
    result.map_err(|e| failed(name, e))?;
    if left > 0 {
        return Err(GgufError::WrongDataSize { tensor: name.to_owned(), expected: size, found: size - left });
    }
    Ok(())
}

fn failed(tensor: &str, source: io::Error) -> GgufError {
    GgufError::Output { what: format!("the data of tensor {tensor:?}"), source }
}

fn write_string(out: &mut dyn Write, s: &str) -> io::Result<()> {
    out.write_all(&(s.len() as u64).to_le_bytes())?;
    out.write_all(s.as_bytes())
}

fn check_name(kind: &str, name: &str) -> Result<(), GgufError> {
    if name.is_empty() {
        return Err(refuse(format!("a {kind} without a name"), "names may not be empty"));
    }
    if name.len() as u64 > MAX_KEY_BYTES {
        let shown: String = name.chars().take(40).collect();
        let why = format!("the name has {} bytes, {MAX_KEY_BYTES} are the limit", name.len());
        return Err(refuse(format!("{kind} {shown:?}..."), &why));
    }
    Ok(())
}

fn refuse(what: String, why: &str) -> GgufError {
    GgufError::CannotWrite { what, why: why.to_owned() }
}

/// The reader's messages speak of damaged files; a writer's caller handed over a wrong shape or type.
fn shape_problem(e: &GgufError) -> String {
    match e {
        GgufError::UnknownTensorType { found, .. } => format!("{found} is not a known ggml type"),
        GgufError::BadDimCount { found, .. } => {
            format!("it has {found} dimensions, 1 to 4 are possible")
        }
        GgufError::ZeroDim { dims, .. } => format!("its shape {dims:?} has a zero"),
        GgufError::ShapeOverflow { dims, .. } => format!("its shape {dims:?} is larger than 2^63"),
        GgufError::NotWholeBlocks { type_name, found, block, .. } => {
            format!("{type_name} needs rows of a multiple of {block} elements, it has {found}")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_text_has_a_largest_size() {
        let written = |before: u64| {
            let mut writer = GgufWriter::new(3, 32).unwrap();
            writer.text = before;
            writer.meta("key", "text").unwrap();
            writer.tensor("name", &[1], 24, vec![0]).unwrap();
            writer.into_vec()
        };
        let left = MAX_HEADER_TEXT - 11;
        written(left).unwrap();
        let error = written(left + 1).unwrap_err().to_string();
        assert!(error.contains("268435457 bytes of text: keys, names and strings may have 268435456"), "{error}");
    }
}
