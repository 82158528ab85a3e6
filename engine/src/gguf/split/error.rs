//! What can be wrong with the parts of a model, each of which is a sound GGUF.

use std::path::PathBuf;

use super::name::suffix;

const FETCH: &str = "put the parts of one model into one folder, or download them again";

/// Why parts do not make a model. The part's file is named by [`GgufError::InFile`](crate::gguf::GgufError::InFile)
/// around it, or in the message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
#[non_exhaustive]
pub enum SplitError {
    #[error(
        "{}: no such file, but it is part {number} of the {count} that {} belongs to; {FETCH}",
        path.display(), opened.display()
    )]
    Missing { path: PathBuf, number: u32, count: u32, opened: PathBuf },
    #[error(
        "this is part {number} of {count} of a split model, and the others are found by its name, which should end in `{}`; give every part its name back, or download them again",
        suffix(*number, *count)
    )]
    Name { number: u32, count: u32 },
    #[error(
        "this is part {number} of {count} of a split model; a part in memory cannot find the others: open it by its path"
    )]
    Alone { number: u32, count: u32 },
    #[error("key {key:?} is missing, so this is not a part of a split model, though its name says so; {FETCH}")]
    NotAPart { key: &'static str },
    #[error(
        "split.count is {found}, {expected} is expected by the file's name: it is a part of another model, or renamed; {FETCH}"
    )]
    Count { found: u32, expected: u32 },
    #[error(
        "split.no is {found}, {expected} is expected by the file's name: it is another part, or one of another model; {FETCH}"
    )]
    Number { found: u32, expected: u32 },
    #[error("split.tensors.count is {found}, the first part says {expected}: it is a part of another model; {FETCH}")]
    OtherModel { found: u64, expected: u64 },
    #[error(
        "split.tensors.count is {expected}, the {count} parts have {found} tensors together: one is of another model; {FETCH}"
    )]
    Tensors { found: u64, expected: u64, count: u32 },
    #[error("tensor {tensor:?} is in {} too: one of the two is a part of another model; {FETCH}", first.display())]
    Twice { tensor: String, first: PathBuf },
}
