//! Tokenizers: text to token ids and back, exactly as the model was trained.
//!
//! A language model is only as good as its ids: one wrong pre-tokenizer and a 2B model babbles. So this room
//! has one rule, *equal ids or an error that says why*, and these parts:
//!
//! | file | owns |
//! |---|---|
//! | [`vocab`] | [`VocabSource`], the plain data every source (GGUF, tokenizer files) is turned into, and its checks |
//! | [`mod@from_gguf`] | filling a `VocabSource` from GGUF metadata |
//! | [`files`] | filling it from tokenizer.json, tokenizer.model, tiktoken ranks, vocab.json + merges.txt; the crate `tokenizers` for the rest |
//! | [`wrappers`] | tokenizers of one family (LLaMA, GPT-2, BitNet) with that family's ids |
//! | [`fingerprint`] | naming the pre-tokenizer from the vocabulary where a file forgot to |
//! | [`pretokenize`] | the splitting expressions, 64 bytes at a time, or by one engine that reads a text once |
//! | [`unicode`] | `\p{L}`, `\p{N}`, `\p{P}`, `\s` of Unicode 16.0, the version HuggingFace's engine has |
//! | [`merge`] | the one merge loop that byte-level BPE and SPM share |
//! | [`bpe`], [`spm`], [`unigram`] | the tokenizers |
//! | `wordpiece` | BERT's vocabulary in a GGUF, run by the crate `tokenizers` |
//! | [`normalize`] | how SentencePiece changes text first |
//! | `batch` | the loop from pieces to ids |
//! | `recent`, `merged` | what a thread met lately |
//! | `joints` | where a text can be cut because no token joins what is there |
//! | `lanes`, `levels` | several short pieces merged at once; a long one rank by rank |
//! | `roles` | which tokens frame a text, end a generation or are control tokens |
//! | `trie` | all tokens that start at a place |
//! | [`compiled`] | tables in a file that is used from the map as it lies; where such files are kept |
//! | `flat` | tables that are built here or used from a mapped file, the same code over both |
//! | [`words`], [`byte_alphabet`] | the exact table of pieces that are tokens; GPT-2's way to write bytes |
//! | [`special`] | finding special tokens in text |
//! | [`gpu`] | batches of texts on a device: the same ids, faster where there is much text |
//! | [`stream`] | turning token bytes into valid UTF-8 while they arrive |
//!
//! Where HuggingFace `tokenizers` and llama.cpp differ, HuggingFace is followed (it is what the models were
//! trained with), and the difference is named where it is decided.

use bitnet_kernels::Pool;
use std::borrow::Cow;
use std::sync::Arc;

mod batch;
pub mod bpe;
pub mod byte_alphabet;
mod checksum;
pub mod compiled;
pub mod error;
pub mod files;
pub mod fingerprint;
mod flat;
pub mod from_gguf;
pub mod gpu;
mod joints;
mod lanes;
mod levels;
pub mod merge;
mod merged;
pub mod normalize;
pub mod pretokenize;
mod recent;
mod roles;
pub mod special;
pub mod spm;
mod spm_tables;
pub mod stream;
mod trie;
pub mod unicode;
pub mod unigram;
pub mod vocab;
mod wordpiece;
pub mod words;
pub mod wrappers;

pub use error::{Diagnostic, Severity, TokenizerError, name_model};
pub use from_gguf::from_gguf;
pub use stream::StreamDecoder;
pub use vocab::{MergeRule, TokenKind, VocabSource};

/// How [`Tokenizer::encode`] treats the special tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EncodeOptions {
    /// Put BOS in front and EOS behind where the model's own flags say so.
    pub add_special: bool,
    /// Read control tokens (`<|eot_id|>`, `</s>`, ...) that are spelled out in the text as those tokens. Leave it off
    /// for text that comes from a user.
    pub parse_special: bool,
}

/// The ids with a role, and whether text is framed by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpecialTokens {
    /// Begin of sequence.
    pub bos: Option<u32>,
    /// End of sequence.
    pub eos: Option<u32>,
    /// End of turn.
    pub eot: Option<u32>,
    /// End of message.
    pub eom: Option<u32>,
    /// Unknown text.
    pub unk: Option<u32>,
    /// Padding.
    pub pad: Option<u32>,
    /// Whether `add_special` puts BOS in front.
    pub add_bos: bool,
    /// Whether `add_special` puts EOS behind.
    pub add_eos: bool,
}

impl SpecialTokens {
    /// What goes in front of a text.
    pub(crate) fn front(&self, opts: EncodeOptions) -> Option<u32> {
        self.bos.filter(|_| opts.add_special && self.add_bos)
    }

    /// What goes behind a text.
    pub(crate) fn back(&self, opts: EncodeOptions) -> Option<u32> {
        self.eos.filter(|_| opts.add_special && self.add_eos)
    }
}

/// A ready tokenizer. Immutable and shareable between threads.
pub trait Tokenizer: Send + Sync {
    /// Ids of `bytes`, which need not be UTF-8: a byte-level BPE keeps every byte; SPM goes through its byte tokens.
    ///
    /// # Errors
    /// [`TokenizerError::TextTooLong`] beyond 2^31 bytes; [`TokenizerError::NoTokenForText`] where the vocabulary
    /// has neither the text, nor its bytes, nor an unknown token.
    fn encode_bytes(&self, bytes: &[u8], opts: EncodeOptions) -> Result<Vec<u32>, TokenizerError>;

    /// Ids of `text`. Errors as [`Tokenizer::encode_bytes`].
    fn encode(&self, text: &str, opts: EncodeOptions) -> Result<Vec<u32>, TokenizerError> {
        self.encode_bytes(text.as_bytes(), opts)
    }

    /// Ids of every text, in order: the same as [`Tokenizer::encode`] one by one, on the threads of `pool`. This is
    /// the seam for other devices: an implementation may override it, if it gives the same ids.
    ///
    /// # Errors
    /// [`TokenizerError::InBatch`] with the lowest index of a text that cannot be encoded.
    fn encode_batch(&self, texts: &[&str], opts: EncodeOptions, pool: &Pool) -> Result<Vec<Vec<u32>>, TokenizerError> {
        batch(texts.len(), pool, &|index| self.encode(texts.get(index).unwrap_or(&""), opts))
    }

    /// The text bytes of one token, or `None` if there is no such id. Control and unknown tokens are empty unless
    /// `special`; the bytes of one token need not be whole UTF-8 characters (see [`StreamDecoder`]).
    fn token_bytes(&self, id: u32, special: bool) -> Option<Cow<'_, [u8]>>;

    /// The bytes that `ids` stand for; ids outside the vocabulary give nothing. With `skip_special` control tokens
    /// are left out. The prefix space that SPM encoding added is taken off again.
    fn decode(&self, ids: &[u32], skip_special: bool) -> Vec<u8> {
        decode_by_token(self, ids, skip_special)
    }

    /// Number of ids, special ones included.
    fn vocab_size(&self) -> usize;

    /// The ids with a role.
    fn special(&self) -> &SpecialTokens;

    /// Whether generation ends at `id` (end of sequence, turn or message).
    fn is_eog(&self, id: u32) -> bool;

    /// The algorithm: `"bpe"`, `"spm"` or `"unigram"`, or `"huggingface"` where the crate `tokenizers` does the work.
    fn kind(&self) -> &'static str;

    /// The pre-tokenizer's name, where the algorithm has one.
    fn pre(&self) -> Option<&str>;

    /// The byte-level BPE that does the work, whose tables another device can have ([`gpu`]). What goes around a text is still
    /// what [`Tokenizer::special`] says.
    fn byte_level(&self) -> Option<&bpe::BpeTokenizer> {
        None
    }

    /// The tables, of kinds whose tables are ours ([`compiled`]).
    fn tables(&self) -> Option<compiled::Tables<'_>> {
        None
    }

    /// Whether encoding puts a space in front of the text that decoding takes off again.
    fn adds_prefix_space(&self) -> bool {
        false
    }
}

/// Ids of so many texts on the threads of `pool`; the error is that of the lowest index.
pub(crate) fn batch(
    n: usize,
    pool: &Pool,
    ids_of: &(dyn Fn(usize) -> Result<Vec<u32>, TokenizerError> + Sync),
) -> Result<Vec<Vec<u32>>, TokenizerError> {
    let mut out: Vec<Result<Vec<u32>, TokenizerError>> = Vec::new();
    out.resize_with(n, || Ok(Vec::new()));
    pool.for_rows(&mut out, 1, 1, &|index, row| {
        if let Some(ids) = row.first_mut() {
            *ids = ids_of(index);
        }
    });
    let named = |(index, ids): (usize, Result<_, _>)| {
        ids.map_err(|error| TokenizerError::InBatch { index, error: Box::new(error) })
    };
    out.into_iter().enumerate().map(named).collect()
}

/// [`Tokenizer::decode`] where tokens follow each other as they are.
pub(crate) fn decode_by_token<T: Tokenizer + ?Sized>(tokenizer: &T, ids: &[u32], skip_special: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(ids.len() * 4);
    for &id in ids {
        if let Some(bytes) = tokenizer.token_bytes(id, !skip_special) {
            out.extend_from_slice(&bytes);
        }
    }
    if tokenizer.adds_prefix_space() && out.first() == Some(&b' ') {
        out.remove(0);
    }
    out
}

/// A tokenizer and what was noticed (and repaired) while loading it.
#[derive(Clone)]
pub struct Loaded {
    /// Ready to use.
    pub tokenizer: Arc<dyn Tokenizer>,
    /// To be shown to the person who loaded the file.
    pub diagnostics: Vec<Diagnostic>,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded")
            .field("kind", &self.tokenizer.kind())
            .field("pre", &self.tokenizer.pre())
            .field("vocab_size", &self.tokenizer.vocab_size())
            .field("diagnostics", &self.diagnostics)
            .finish()
    }
}

/// Gemma's kind: SentencePiece's pieces with a list of merges, nothing in front of a text. llama.cpp cuts at line breaks
/// first and looks runs of them up as they stand; the model's own file merges over all of the text.
fn merged_pieces(mut source: VocabSource<&[u8]>) -> Result<VocabSource<&[u8]>, TokenizerError> {
    if source.merges.is_empty() {
        return Err(TokenizerError::NoMerges);
    }
    // There are no default ids.
    for role in [&mut source.bos, &mut source.eos, &mut source.unk] {
        role.get_or_insert(u32::MAX);
    }
    source.model = "gemma4".to_owned();
    source.merge_rule = MergeRule::Merges;
    source.add_bos.get_or_insert(false);
    source.add_space_prefix = Some(false);
    Ok(source)
}

/// Builds the tokenizer that `source` describes.
///
/// # Errors
/// See [`TokenizerError`]; every inconsistency of the source is either an error or a diagnostic, never a panic.
pub fn from_source<T: AsRef<[u8]>>(source: VocabSource<T>) -> Result<Loaded, TokenizerError> {
    from_slices(source.borrowed())
}

/// The same of texts that lie elsewhere.
fn from_slices(source: VocabSource<&[u8]>) -> Result<Loaded, TokenizerError> {
    let mut diagnostics = Vec::new();
    let named = source.pre.as_deref().and_then(pretokenize::by_name);
    let pieces = source.model == "gpt2" && named.is_some_and(|spec| spec.pre == pretokenize::Pre::Pieces);
    let tokenizer: Arc<dyn Tokenizer> = match source.model.as_str() {
        "gpt2" | "gemma4" if pieces || source.model == "gemma4" => {
            Arc::new(spm::SpmTokenizer::new(merged_pieces(source)?, &mut diagnostics)?)
        }
        "gpt2" => Arc::new(bpe::BpeTokenizer::new(source, &mut diagnostics)?),
        "llama" => Arc::new(spm::SpmTokenizer::new(source, &mut diagnostics)?),
        "t5" => Arc::new(unigram::UnigramTokenizer::new(source, &mut diagnostics)?),
        other => {
            return Err(TokenizerError::UnsupportedModel { found: other.to_owned() });
        }
    };
    Ok(Loaded { tokenizer, diagnostics })
}
