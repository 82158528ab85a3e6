//! What can go wrong with a tokenizer, and what is worth telling without failing.

use super::compiled::Unusable;
use std::fmt;
use std::path::Path;

/// Why a tokenizer could not be built or could not encode.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum TokenizerError {
    /// The metadata lacks a key without which there is no tokenizer.
    #[error(
        "the tokenizer metadata has no `{key}`: the file carries no usable tokenizer. \
         Convert the model again with its tokenizer, or see with `bitnet inspect FILE` what it holds"
    )]
    MissingKey { key: String },
    /// A key is there but cannot be read.
    #[error("the tokenizer metadata key cannot be read: {reason}. Check the file with `bitnet inspect FILE`")]
    BadKey {
        /// What the metadata reader said (names the key and the types).
        reason: String,
    },
    /// `tokenizer.ggml.model` names an algorithm this engine does not have.
    #[error(
        "tokenizer model `{found}` is not supported; known are `llama` and `gemma4` (SentencePiece BPE), `gpt2` (byte-level BPE), `t5` (Unigram) and `bert` (WordPiece). \
         Choose a model with a tokenizer of one of those kinds"
    )]
    UnsupportedModel { found: String },
    /// `tokenizer.ggml.pre` names a pre-tokenizer that is unknown, and the vocabulary is unknown too.
    #[error(
        "pre-tokenizer `{found}` (key `tokenizer.ggml.pre`) is unknown, and the vocabulary of {vocab_size} tokens \
         (sha256 {digest}) is not one that is known by its fingerprint. Known pre-tokenizers: {known}. \
         If one of them is right, write it into the file: `bitnet convert FILE --set tokenizer.ggml.pre=NAME -o FIXED`"
    )]
    UnknownPre { found: String, known: String, vocab_size: usize, digest: String },
    /// `tokenizer.ggml.pre` names a pre-tokenizer that cannot be computed exactly.
    #[error("pre-tokenizer `{found}` (key `tokenizer.ggml.pre`) is not supported: {why}")]
    RefusedPre { found: String, why: &'static str },
    /// The vocabulary is empty or beyond any plausible size.
    #[error(
        "the vocabulary has {found} tokens; between 1 and {limit} are possible. The file is damaged: download or convert it again"
    )]
    BadVocabSize { found: usize, limit: usize },
    /// Two lists that must have one entry a token do not.
    #[error("`{key}` has {found} entries for {expected} tokens. The file is damaged: download or convert it again")]
    LengthMismatch { key: String, found: usize, expected: usize },
    /// A special token id points outside the vocabulary.
    #[error(
        "`{key}` is {id}, but the vocabulary ends at {last}. Repair the file: `bitnet convert FILE --set {key}=ID -o FIXED`"
    )]
    IdOutOfRange { key: String, id: u32, last: u32 },
    /// A score is NaN, so that no order of merges exists.
    #[error("the score of token {id} is not a number. The file is damaged: download or convert it again")]
    BadScore { id: u32 },
    /// A merge is not two pieces.
    #[error(
        "merge {index} (`{merge}`) is not two pieces with a space between. The file is damaged: download or convert it again"
    )]
    BadMerge { index: usize, merge: String },
    /// A byte-level BPE without merges cannot encode.
    #[error(
        "the vocabulary says byte-level BPE (`gpt2`) but has no merges (`tokenizer.ggml.merges`). Convert the model again with its tokenizer"
    )]
    NoMerges,
    /// A byte-level BPE with merges of which none can ever apply.
    #[error(
        "byte-level BPE cannot work: {what}. Vocabulary and merges are not of one model: convert it again with its tokenizer"
    )]
    UselessMerges { what: String },
    /// The vocabulary cannot express some text and has no unknown token either.
    #[error(
        "the vocabulary has no token for {text:?} at byte {offset}: neither the text, nor its bytes (`<0xXX>`), nor an unknown token. \
         Convert the model again with its whole tokenizer"
    )]
    NoTokenForText { text: String, offset: usize },
    /// Offsets are kept in 31 bits.
    #[error("the text has {bytes} bytes; at most {limit} can be encoded in one call. Encode it in parts")]
    TextTooLong { bytes: usize, limit: usize },
    /// A tokenizer file or folder cannot be read.
    #[error("cannot read `{path}`: {reason}. Check the path and its permissions")]
    Io { path: String, reason: String },
    /// No tokenizer file is a gigabyte.
    #[error("`{file}` has {bytes} bytes; no tokenizer file has more than {limit}. Is it the model?")]
    FileTooLarge { file: String, bytes: u64, limit: u64 },
    /// The file is something else: a web page, a Git LFS pointer, an archive...
    #[error("`{file}` is not a tokenizer: {what}. {remedy}")]
    NotATokenizer {
        file: String,
        /// What it is, a whole clause ("this is an HTML page").
        what: String,
        remedy: String,
    },
    /// The file is of a known kind and damaged.
    #[error("`{file}` is damaged: {reason}. Download it again: `bitnet download REPO --file {file}`")]
    BadFile { file: String, reason: String },
    /// The file is of a known kind and whole, but nothing here can run it.
    #[error("`{file}` cannot be used: {reason}")]
    UnsupportedFile { file: String, reason: String },
    /// A compiled tokenizer that cannot be used here.
    #[error("`{file}` cannot be used: {reason}. Compile it again: `bitnet tokenizer compile MODEL -o FILE`")]
    Compiled { file: String, reason: Unusable },
    /// A compiled tokenizer cannot be written.
    #[error("cannot write `{path}`: {reason}. Choose another place with -o")]
    Unwritten { path: String, reason: String },
    /// The tables of this kind are not ours.
    #[error(
        "a tokenizer of kind `{kind}` cannot be compiled: another crate runs it, and its tables are not ours. Use its own files"
    )]
    NotCompilable {
        /// Its [`kind`](super::Tokenizer::kind).
        kind: &'static str,
    },
    /// Half of a pair of files, or companions without a tokenizer.
    #[error("`{file}` alone is not a tokenizer: {missing} must be beside it")]
    Incomplete { file: String, missing: String },
    /// A folder (or a set of files) without any tokenizer file.
    #[error(
        "no tokenizer file in {place}; looked for tokenizer.json, tokenizer.model, vocab.json with merges.txt, and \
         encoder.json with vocab.bpe; found: {found}. Download one: `bitnet download REPO --file tokenizer.json`"
    )]
    NoTokenizerFile {
        place: String,
        /// What was there, comma separated, or "nothing".
        found: String,
    },
    /// The crate `tokenizers` failed.
    #[error("the HuggingFace engine failed: {reason}. Report it with the file and the text")]
    Engine { reason: String },
    /// A wrapper was asked to wrap another family's tokenizer.
    #[error("this is not a {family} tokenizer: {reason}. Use the tokenizer that belongs to the model")]
    WrongFamily { family: &'static str, reason: String },
    /// One text of a batch failed.
    #[error("text {index} of the batch: {error}")]
    InBatch { index: usize, error: Box<TokenizerError> },
}

/// A text in which the commands that read the model name its path instead of `FILE`. Errors and hints are made where the path is
/// not known; this is for whoever shows them.
#[must_use]
pub fn name_model(text: &str, path: &Path) -> String {
    let path = crate::shell::quoted(path);
    ["inspect", "convert", "repair-tokenizer"].iter().fold(text.to_owned(), |text, command| {
        text.replace(&format!("bitnet {command} FILE"), &format!("bitnet {command} {path}"))
    })
}

/// How much a [`Diagnostic`] matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; ids are right.
    Info,
    /// Something was repaired or guessed; ids may differ from other programs.
    Warning,
}

/// Something noticed while loading that did not stop it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// Stable name, for tests and filters.
    pub code: &'static str,
    /// What was found and what was done.
    pub message: String,
    /// How to repair the file, or empty.
    pub hint: String,
}

impl Diagnostic {
    pub(crate) fn warning(code: &'static str, message: String, hint: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, code, message, hint: hint.into() }
    }

    pub(crate) fn info(code: &'static str, message: String, hint: impl Into<String>) -> Self {
        Self { severity: Severity::Info, code, message, hint: hint.into() }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Info => "info",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}[{}]: {}", self.code, self.message)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, " ({})", self.hint) }
    }
}
