//! Writing a model in several files.

use std::fs;
use std::path::{Path, PathBuf};

use super::name::MAX_PARTS;
use super::{KEY_COUNT, KEY_NO, KEY_TENSORS, PartName};
use crate::gguf::{GgufError, GgufWriter};

/// The files of a model that was written in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// The files, in their order.
    pub paths: Vec<PathBuf>,
    /// Their bytes together.
    pub bytes: u64,
}

impl GgufWriter<'_> {
    /// Writes the model in parts of at most `max_tensors` tensors, named after `whole` (`m.gguf` becomes
    /// `m-00001-of-00003.gguf`...; see [`PartName`]). All keys go into the first part, in front of its share of the tensors.
    ///
    /// # Errors
    /// As [`write_file`](GgufWriter::write_file); more than 65535 parts; no tensor a part; a file of a part's name is there
    /// already (several files cannot be replaced at once). Parts that this call wrote are removed then.
    pub fn write_parts(self, whole: &Path, max_tensors: usize) -> Result<Parts, GgufError> {
        let refuse = |why: String| GgufError::CannotWrite { what: format!("parts of {}", whole.display()), why };
        if max_tensors == 0 {
            return Err(refuse("a part must have at least one tensor".to_owned()));
        }
        let tensors = self.tensor_count();
        let count =
            u32::try_from(tensors.div_ceil(max_tensors).max(1)).ok().filter(|&count| count <= MAX_PARTS).ok_or_else(
                || refuse(format!("{tensors} tensors in parts of {max_tensors} are more than {MAX_PARTS} files")),
            )?;
        let tensors = i32::try_from(tensors).map_err(|_| refuse(format!("{tensors} tensors are too many")))?;
        let name = PartName::first_of(whole, count);
        if let Some(there) = (1..=count).map(|number| name.path(number)).find(|path| path.symlink_metadata().is_ok()) {
            return Err(refuse(format!("{} is there already; remove it, or choose another name", there.display())));
        }
        let mut written = Parts { paths: Vec::new(), bytes: 0 };
        let mut rest = Some(self);
        for number in 1..=count {
            let Some(mut part) = rest.take() else { break };
            rest = part.split_off(max_tensors)?;
            let path = name.path(number);
            let result = (|| {
                // Both are at most 65535.
                part.meta(KEY_NO, (number - 1) as u16)?.meta(KEY_COUNT, count as u16)?.meta(KEY_TENSORS, tensors)?;
                part.write_file(&path)
            })();
            match result {
                Ok(bytes) => {
                    written.bytes += bytes;
                    written.paths.push(path);
                }
                Err(error) => {
                    for path in written.paths {
                        // Nothing more can be done from here; the error is on its way to the caller.
                        let _ = fs::remove_file(path);
                    }
                    return Err(error);
                }
            }
        }
        Ok(written)
    }
}
