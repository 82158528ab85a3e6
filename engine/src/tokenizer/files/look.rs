//! A look at tokenizer files without building: what they are, and how many tokens they have.
//!
//! Building the tables of a large vocabulary takes tens to hundreds of milliseconds; whether it has the model's size is
//! seen in one pass that keeps nothing. So a chain can say what it would take in milliseconds, and a file of another
//! model is refused before anything is built. What only building can find ends the build with an error.

use super::companions::{AddedToken, Companions};
use super::look_json::{self, Ids};
use super::protobuf::{Reader, Value};
use super::recognise::{self, FileKind};
use super::set::FileSet;
use super::tiktoken;

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// The file that [`load`](super::load) would take.
    pub file: String,
    /// What it is.
    pub kind: FileKind,
    /// Tokens that its tokenizer would have.
    pub tokens: usize,
}

/// Looks at the best file in `files`; `None` where only building can tell: a damaged file, a lone half of a pair, ids
/// with gaps, a file that is not a tokenizer.
#[must_use]
pub fn look(files: &FileSet) -> Option<Look> {
    let companions = Companions::read(files, &mut Vec::new());
    let best = recognise::candidates(files).into_iter().next()?;
    let kind = best.kind?;
    let tokens = match kind {
        FileKind::HuggingFaceJson => look_json::tokens(text(best.bytes))?,
        FileKind::SentencePiece => behind(pieces(best.bytes)?, &companions.added),
        FileKind::Tiktoken => tiktoken::with_specials(ranks(best.bytes), &companions),
        FileKind::VocabJson => {
            best.partner?;
            let vocab: Ids = serde_json::from_slice(text(best.bytes)).ok()?;
            behind(vocab.whole()?, &companions.added)
        }
        FileKind::Merges => return None,
    };
    (tokens > 0).then(|| Look { file: best.name.to_owned(), kind, tokens })
}

fn text(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes)
}

/// Tokens once those that continue the ids are added.
fn behind(tokens: usize, added: &[AddedToken]) -> usize {
    added.iter().fold(tokens, |n, token| n + usize::from(token.id as usize == n && !token.content.is_empty()))
}

fn pieces(bytes: &[u8]) -> Option<usize> {
    let mut reader = Reader::new(bytes);
    let mut pieces = 0;
    while let Some((number, value)) = reader.field().ok()? {
        pieces += usize::from(number == 1 && matches!(value, Value::Bytes(_)));
    }
    Some(pieces)
}

fn ranks(bytes: &[u8]) -> usize {
    text(bytes).split(|&b| b == b'\n').filter(|line| !line.trim_ascii().is_empty()).count()
}
