//! Compiled tokenizers: every table in one flat file that is used from the map as it lies.
//!
//! Building the tables of a large vocabulary takes tens to hundreds of milliseconds; mapping them takes microseconds. So the tables of
//! a tokenizer can be written once ([`compile`]) and used by every later start ([`open`]): the same code encodes from built tables and
//! from mapped ones (`flat`), nothing is parsed, and no pointer is relocated.
//!
//! A file is checked in two ways, because two things can be wrong with it:
//!
//! - *Damage.* Head and tables have checksums. The head's is checked at every opening. The tables' is checked as well, unless the
//!   [cache](CompiledCache) remembers that this very file was whole (its identity: device, inode, size, times).
//! - *Malice.* A checksum keeps nobody from writing nonsense. So nothing that a table says is believed: indices are looked up with
//!   `get`, searches end after as many steps as there are entries, lengths are checked when a table is opened. Such a file gives wrong
//!   ids or an error, and nothing else.
//!
//! A file of another [`VERSION`], of another program with other rules, or of a machine with another order of bytes is refused by name.
//!
//! | file | owns |
//! |---|---|
//! | `form` | the head, sections, values, checksums |
//! | `tables` | how the tables are written and read that several kinds of tokenizers have; diagnostics |
//! | `cache` | [`CompiledCache`]: where compiled tokenizers are kept, and when one is used |
//! | `mark` | what a source is known by, without reading it, and by its content |

mod cache;
mod form;
#[cfg(test)]
mod hostile;
mod mark;
mod tables;

pub use cache::CompiledCache;
pub(crate) use cache::USED;
pub use form::{Reader, Writer, seal};
pub(super) use tables::Stored;

use super::error::TokenizerError;
use super::words::fold;
use super::{Loaded, Tokenizer, bpe, checksum, fingerprint, pretokenize, spm, unigram};
use crate::gguf::{FileBytes, begins_with, write_file};
use form::Form;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Number of the form and of what the tables mean. It must grow when either changes; a test holds the bytes of a compiled vocabulary.
pub const VERSION: u32 = 2;

/// A hash of everything that a program knows by name and that decides what a source becomes: pre-tokenizers, fingerprints, checksums.
/// A tokenizer that was compiled by a program with other rules is built again.
fn rules() -> u32 {
    static RULES: OnceLock<u32> = OnceLock::new();
    *RULES.get_or_init(|| {
        let mut sum = 1u64;
        let mut add = |text: &str| sum = fold(sum ^ form::checksum(text.as_bytes()), 0x9FB2_1C65_1E98_DF25);
        for spec in pretokenize::KNOWN {
            add(spec.name);
            let flags = [spec.ignore_merges, spec.add_bos, spec.add_sep, spec.clean_spaces, spec.no_bos];
            add(flags.map(|flag| if flag { "1" } else { "0" }).join("").as_str());
        }
        for known in fingerprint::KNOWN {
            add(known.pre);
            add(known.sha256);
        }
        for (_, name) in checksum::known() {
            add(name);
        }
        (sum >> 32) as u32 ^ sum as u32
    })
}

/// Why a file is not a compiled tokenizer that can be used here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum Unusable {
    /// It does not begin like one.
    #[error("it is not a compiled tokenizer")]
    NotCompiled,
    /// Other numbers or other rules.
    #[error(
        "it was compiled by another version of this program (form {found}; this one has form {VERSION} and its own rules)"
    )]
    Version { found: u32 },
    /// From a big-endian machine on a little-endian one, or the other way round.
    #[error("it was compiled on a machine with another order of bytes")]
    ByteOrder,
    /// Bytes are missing or wrong.
    #[error("{0}")]
    Damaged(&'static str),
    /// The system's answer.
    #[error("{0}")]
    Io(String),
}

/// The tables of a tokenizer that can be compiled.
#[derive(Debug, Clone, Copy)]
pub enum Tables<'a> {
    /// Byte-level BPE.
    Bpe(&'a bpe::BpeTokenizer),
    /// SentencePiece BPE.
    Spm(&'a spm::SpmTokenizer),
    /// SentencePiece Unigram.
    Unigram(&'a unigram::UnigramTokenizer),
}

const BPE: u32 = 1;
const SPM: u32 = 2;
const UNIGRAM: u32 = 3;

/// The bytes of a compiled tokenizer.
///
/// # Errors
/// [`TokenizerError::NotCompilable`] for tokenizers that another crate runs.
pub fn compile(loaded: &Loaded) -> Result<Vec<u8>, TokenizerError> {
    made_of(loaded, &form::Key::default())
}

/// Compiles a tokenizer into a file, which appears whole or not at all; gives its size in bytes. A link is followed, what is not a
/// regular file stays, and no folder is created.
///
/// # Errors
/// As [`compile`]; [`TokenizerError::Unwritten`].
pub fn write(loaded: &Loaded, path: &Path) -> Result<usize, TokenizerError> {
    let bytes = compile(loaded)?;
    let failed = |reason| TokenizerError::Unwritten { path: path.display().to_string(), reason };
    write_file(path, &bytes).map_err(failed)?;
    Ok(bytes.len())
}

fn made_of(loaded: &Loaded, key: &form::Key) -> Result<Vec<u8>, TokenizerError> {
    let refuse = || TokenizerError::NotCompilable { kind: loaded.tokenizer.kind() };
    let mut out = Writer::new();
    match loaded.tokenizer.tables().ok_or_else(refuse)? {
        Tables::Bpe(bpe) => {
            out.number(BPE);
            bpe.store(&mut out);
        }
        Tables::Spm(spm) => {
            out.number(SPM);
            spm.store(&mut out);
        }
        Tables::Unigram(unigram) => {
            out.number(UNIGRAM);
            unigram.store(&mut out);
        }
    }
    if !tables::store_diagnostics(&loaded.diagnostics, &mut out) {
        return Err(refuse());
    }
    Ok(out.finish(key))
}

/// The tokenizer in a file whose head is right.
fn tokenizer(form: &Form) -> Result<Loaded, Unusable> {
    let mut from = form.reader()?;
    let tokenizer: Arc<dyn Tokenizer> = match from.number()? {
        BPE => Arc::new(bpe::BpeTokenizer::open(&mut from)?),
        SPM => Arc::new(spm::SpmTokenizer::open(&mut from)?),
        UNIGRAM => Arc::new(unigram::UnigramTokenizer::open(&mut from)?),
        _ => return Err(Unusable::Damaged("it is of no known kind")),
    };
    Ok(Loaded { tokenizer, diagnostics: tables::open_diagnostics(&mut from)? })
}

fn map(path: &Path) -> Result<Form, Unusable> {
    Form::open(FileBytes::map(path).map_err(|error| Unusable::Io(error.to_string()))?)
}

/// Whether a file begins as a compiled tokenizer does.
#[must_use]
pub fn is_compiled(path: &Path) -> bool {
    begins_with(path, form::MAGIC)
}

/// Opens a compiled tokenizer and checks all of it.
///
/// # Errors
/// [`TokenizerError::Compiled`] with the reason.
pub fn open(path: &Path) -> Result<Loaded, TokenizerError> {
    map(path).and_then(|form| whole(&form)).map_err(|reason| named(path, reason))
}

/// Opens the bytes of a compiled tokenizer and checks all of them.
///
/// # Errors
/// As [`open`].
pub fn open_bytes(bytes: Vec<u8>) -> Result<Loaded, TokenizerError> {
    Form::open(FileBytes::from_vec(bytes))
        .and_then(|form| whole(&form))
        .map_err(|reason| named(Path::new("memory"), reason))
}

fn whole(form: &Form) -> Result<Loaded, Unusable> {
    check(form)?;
    tokenizer(form)
}

/// Reads all of a file.
fn check(form: &Form) -> Result<(), Unusable> {
    if form.is_whole() { Ok(()) } else { Err(Unusable::Damaged("the checksum of its tables is wrong")) }
}

fn named(path: &Path, reason: Unusable) -> TokenizerError {
    TokenizerError::Compiled { file: path.display().to_string(), reason }
}
