//! Tokenizer files: from a file, a folder or bytes in memory to a ready tokenizer.
//!
//! A model's tokenizer is published in half a dozen forms. Every one of them becomes either a
//! [`VocabSource`] for our own engine, where we implement exactly what the file asks for, or goes to
//! the crate `tokenizers` (`kind()` is then `"huggingface"`, and an `Info` diagnostic says why).
//!
//! | form | files | engine |
//! |---|---|---|
//! | HuggingFace | `tokenizer.json` | byte-level BPE and LLaMA-2's BPE with byte fallback: ours; the rest: the crate |
//! | SentencePiece | `tokenizer.model` | ours: BPE and Unigram |
//! | tiktoken ranks | `tokenizer.model`, `*.tiktoken` | ours, with what the family adds (special tokens, splitting rule) |
//! | GPT-2 | `vocab.json` + `merges.txt`, `encoder.json` + `vocab.bpe` | ours |
//!
//! Files are told apart by their content, for their names lie: `tokenizer.model` is SentencePiece or tiktoken, and any
//! name can hold a web page that says "404". What is not a tokenizer is named in the error.
//!
//! | file | owns |
//! |---|---|
//! | `set` | [`FileSet`]: named bytes, and reading them from disk within limits |
//! | `recognise` | telling what a file is, and what it is instead of a tokenizer |
//! | `look`, `look_json` | what it is and how many tokens it has, without building |
//! | `companions` | `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`, `generation_config.json` |
//! | `hf_json`, `hf_plan`, `hf_parts` | tokenizer.json: its data; whether our engine can run it; its steps |
//! | `hf_crate`, `hf_unigram` | the crate `tokenizers` behind our trait |
//! | `protobuf`, `sentencepiece` | SentencePiece |
//! | `tiktoken`, `base64` | rank files |
//! | `vocab_merges` | the GPT-2 pair |

mod base64;
mod companions;
mod growth;
mod hf_crate;
mod hf_json;
mod hf_parts;
mod hf_plan;
mod hf_unigram;
mod look;
mod look_json;
mod protobuf;
mod recognise;
mod sentencepiece;
mod set;
mod tiktoken;
mod vocab_merges;

pub use look::{Look, look};
pub use recognise::{FileKind, recognise};
pub(crate) use set::neighbours;
pub use set::{FileSet, MAX_FILE_BYTES};

use super::error::{Diagnostic, TokenizerError};
use super::{EncodeOptions, Loaded, SpecialTokens, VocabSource, compiled, from_source};
use companions::Companions;
use std::path::Path;

/// Longest token that a file may hold; real ones end at some 512 bytes.
const MAX_TOKEN_BYTES: usize = 4096;

/// What the caller knows about the model and a bare file does not say. By default nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hints {
    /// The family, as the compatibility table names it: which special tokens a bare rank file gets (a name with `3.1`,
    /// `3.2` or `3.3` means LLaMA-3.1's names, everything else LLaMA-3's).
    pub family: Option<&'static str>,
    /// The pre-tokenizer, a name of `tokenizer.ggml.pre`, for files that do not say it (rank files, vocab.json).
    pub pre: Option<String>,
    /// Ids that the model has; another number is a warning.
    pub expected_vocab: Option<usize>,
}

/// Builds the tokenizer of the best file in `files`: tokenizer.json before tokenizer.model before vocab.json with
/// merges.txt. If that one cannot be used and another can, the other is taken and a warning says so.
///
/// # Errors
/// The best file's error if none can be used; [`TokenizerError::NoTokenizerFile`], [`TokenizerError::Incomplete`] or
/// [`TokenizerError::NotATokenizer`] where there is none.
pub fn load(files: &FileSet, hints: &Hints) -> Result<Loaded, TokenizerError> {
    let mut diagnostics = Vec::new();
    let companions = Companions::read(files, &mut diagnostics);
    let mut failed: Vec<TokenizerError> = Vec::new();
    for candidate in recognise::candidates(files) {
        match load_one(&candidate, &companions, hints) {
            Ok(mut loaded) => {
                diagnostics.extend(failed.iter().map(|error| {
                    Diagnostic::warning(
                        "file_skipped",
                        format!("{error}. `{}` is used instead", candidate.name),
                        "remove or replace the file that cannot be used",
                    )
                }));
                diagnostics.append(&mut loaded.diagnostics);
                check_size(&loaded, hints, candidate.name, &mut diagnostics);
                return Ok(Loaded { tokenizer: loaded.tokenizer, diagnostics });
            }
            Err(error) => failed.push(error),
        }
    }
    Err(failed.into_iter().next().unwrap_or_else(|| TokenizerError::NoTokenizerFile {
        place: files.place().to_owned(),
        found: files.names_or_nothing(),
    }))
}

/// [`FileSet::from_path`] and [`load`]; or [`compiled::open`].
///
/// # Errors
/// Theirs.
pub fn load_path(path: &Path, hints: &Hints) -> Result<Loaded, TokenizerError> {
    if compiled::is_compiled(path) {
        return compiled::open(path);
    }
    load(&FileSet::from_path(path)?, hints)
}

fn load_one(
    candidate: &recognise::Candidate<'_>,
    companions: &Companions,
    hints: &Hints,
) -> Result<Loaded, TokenizerError> {
    let (name, bytes) = (candidate.name, candidate.bytes);
    match candidate.kind {
        Some(FileKind::HuggingFaceJson) => hf_plan::load(name, bytes, companions),
        Some(FileKind::SentencePiece) => sentencepiece::load(name, bytes, companions),
        Some(FileKind::Tiktoken) => finish(tiktoken::source(name, bytes, companions, hints)?),
        Some(FileKind::VocabJson) => match candidate.partner {
            Some(merges) => finish(vocab_merges::source(name, bytes, merges, companions, hints)?),
            None => {
                Err(TokenizerError::Incomplete { file: name.to_owned(), missing: "merges.txt (or vocab.bpe)".into() })
            }
        },
        Some(FileKind::Merges) => {
            Err(TokenizerError::Incomplete { file: name.to_owned(), missing: "vocab.json (or encoder.json)".into() })
        }
        None => Err(recognise::what_else(name, bytes)),
    }
}

/// Each file of `files` that describes a tokenizer, best first, with its vocabulary, or why that cannot be had.
pub(crate) fn sources(files: &FileSet) -> Vec<(String, Result<VocabSource, String>)> {
    let mut noticed = Vec::new();
    let companions = Companions::read(files, &mut noticed);
    let hints = Hints::default();
    let mut source = |candidate: &recognise::Candidate<'_>| {
        let (name, bytes) = (candidate.name, candidate.bytes);
        let text = |error: TokenizerError| error.to_string();
        match (candidate.kind, candidate.partner) {
            (Some(FileKind::HuggingFaceJson), _) => hf_plan::plain_source(name, bytes, &companions),
            (Some(FileKind::SentencePiece), _) => {
                let source = sentencepiece::read(name, bytes, &companions, &mut noticed).map_err(text)?;
                match source.normalizing {
                    None => Ok(source),
                    Some(_) => Err("it is SentencePiece that normalises text, which a GGUF does not record".to_owned()),
                }
            }
            (Some(FileKind::Tiktoken), _) => {
                tiktoken::source(name, bytes, &companions, &hints).map(|read| read.source).map_err(text)
            }
            (Some(FileKind::VocabJson), Some(merges)) => {
                vocab_merges::source(name, bytes, merges, &companions, &hints).map(|read| read.source).map_err(text)
            }
            _ => Err("it is not a whole tokenizer".to_owned()),
        }
    };
    recognise::candidates(files).iter().map(|candidate| (candidate.name.to_owned(), source(candidate))).collect()
}

/// A tokenizer.json that was made of something else, framed by `roles`, whose padding it has too.
pub(super) fn by_crate(
    name: &str,
    json: &serde_json::Value,
    reason: &str,
    roles: SpecialTokens,
) -> Result<Loaded, TokenizerError> {
    let every = EncodeOptions { add_special: true, parse_special: true };
    let frame = hf_parts::Frame { front: roles.front(every), back: roles.back(every) };
    let companions = Companions::of(json["model"]["unk_token"].as_str(), roles.pad);
    hf_crate::load(name, json.to_string().as_bytes(), reason, false, Some(frame), &companions)
}

/// A source and what was noticed while reading it.
struct Read {
    source: VocabSource,
    diagnostics: Vec<Diagnostic>,
}

fn finish(read: Read) -> Result<Loaded, TokenizerError> {
    let mut loaded = from_source(read.source)?;
    let mut diagnostics = read.diagnostics;
    diagnostics.append(&mut loaded.diagnostics);
    Ok(Loaded { tokenizer: loaded.tokenizer, diagnostics })
}

fn check_size(loaded: &Loaded, hints: &Hints, name: &str, diagnostics: &mut Vec<Diagnostic>) {
    let size = loaded.tokenizer.vocab_size();
    if let Some(expected) = hints.expected_vocab.filter(|&expected| expected != size) {
        diagnostics.push(Diagnostic::warning(
            "vocab_size_unexpected",
            format!("`{name}` has {size} ids, the model {expected}"),
            "use the tokenizer that was published with the model",
        ));
    }
}

fn bad(file: &str, reason: impl Into<String>) -> TokenizerError {
    TokenizerError::BadFile { file: file.to_owned(), reason: reason.into() }
}

fn unsupported(file: &str, reason: impl Into<String>) -> TokenizerError {
    TokenizerError::UnsupportedFile { file: file.to_owned(), reason: reason.into() }
}

/// Texts by id from (text, id) pairs. An id that no text has gets an empty text.
///
/// # Errors
/// [`TokenizerError::BadFile`] for an id with two texts, ids far beyond the number of tokens, or giant tokens.
fn by_id<T: AsRef<[u8]> + Default>(
    file: &str,
    pairs: impl ExactSizeIterator<Item = (T, u32)>,
) -> Result<Vec<T>, TokenizerError> {
    let limit = (pairs.len() * 2 + (1 << 16)).min(super::vocab::MAX_TOKENS);
    let mut tokens: Vec<T> = Vec::new();
    tokens.resize_with(pairs.len(), T::default);
    let mut taken = vec![false; pairs.len()];
    for (text, id) in pairs {
        let (at, shown) = (id as usize, text.as_ref());
        if at >= limit {
            return Err(bad(file, format!("token `{}` has id {id}; ids are expected below {limit}", show(shown))));
        }
        if shown.len() > MAX_TOKEN_BYTES {
            return Err(bad(file, format!("token {id} has {} bytes; {MAX_TOKEN_BYTES} are the limit", shown.len())));
        }
        if at >= tokens.len() {
            tokens.resize_with(at + 1, T::default);
            taken.resize(at + 1, false);
        }
        if taken[at] {
            let first = show(tokens[at].as_ref());
            return Err(bad(file, format!("id {id} is given to `{first}` and to `{}`", show(shown))));
        }
        taken[at] = true;
        tokens[at] = text;
    }
    while taken.last() == Some(&false) {
        taken.pop();
        tokens.pop();
    }
    Ok(tokens)
}

use super::vocab::show;
