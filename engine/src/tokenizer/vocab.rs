//! The plain data of a tokenizer, and the checks that every source goes through.
//!
//! [`VocabSource`] is the seam: GGUF metadata and every kind of tokenizer file fill it, and the tokenizers see
//! nothing else. `Draft` is what is left after the checks: every id in range, every list as long as
//! the tokens, every token of a known kind. `Vocab` is that as flat tables.

use super::error::{Diagnostic, TokenizerError};
use super::flat::{Flat, Texts};
use super::normalize::Normalizing;
use super::roles::{Repair, end_markers, guess_kinds, repair_kinds, roles};
use super::special::{MAX_LEN, SpecialMatcher};
use super::unigram::Sums;
use super::words::{WordMap, WordMapBuilder};
use super::{EncodeOptions, SpecialTokens};

/// Most tokens of a vocabulary.
pub const MAX_TOKENS: usize = 1 << 24;
/// Most bytes of text in one call, and of all tokens together.
pub const MAX_BYTES: usize = i32::MAX as usize;

/// What a token is; the numbers are those of `tokenizer.ggml.token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TokenKind {
    /// Ordinary text (1).
    #[default]
    Normal,
    /// Stands for text the vocabulary cannot express (2).
    Unknown,
    /// Steers the model; found in text only when asked for (3).
    Control,
    /// Found in text before anything else (4).
    UserDefined,
    /// A placeholder (5).
    Unused,
    /// One byte, written `<0xXX>` (6).
    Byte,
}

impl TokenKind {
    /// From the number in a GGUF; `None` for numbers without a meaning.
    #[must_use]
    pub fn from_gguf(number: i64) -> Option<Self> {
        Some(match number {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }

    /// The number in a GGUF.
    #[must_use]
    pub fn number(self) -> i32 {
        match self {
            Self::Normal => 1,
            Self::Unknown => 2,
            Self::Control => 3,
            Self::UserDefined => 4,
            Self::Unused => 5,
            Self::Byte => 6,
        }
    }

    /// Whether ordinary text can become this token.
    pub(crate) fn is_text(self) -> bool {
        matches!(self, Self::Normal | Self::UserDefined | Self::Unused)
    }
}

/// What decides which pair of neighbours merges first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MergeRule {
    /// What the model usually has: `gpt2` its list of merges, `llama` its scores.
    #[default]
    Usual,
    /// The list of merges, for `llama` too: HuggingFace writes SentencePiece vocabularies so.
    Merges,
    /// `gpt2` without a list: a pair merges if its bytes are a token, the lowest id first (tiktoken's ranks).
    Ranks,
}

/// Everything a source says about a tokenizer, unchecked. Texts are of any type that is bytes: a GGUF's stay where they lie in the file.
#[derive(Debug, Clone, Default)]
pub struct VocabSource<T = Vec<u8>> {
    /// `gpt2` (byte-level BPE), `llama` (SPM) or `t5` (Unigram).
    pub model: String,
    /// Name of the pre-tokenizer, if the source has one.
    pub pre: Option<String>,
    /// Text of every token; for `gpt2` in GPT-2's byte alphabet ([`super::byte_alphabet`]).
    pub tokens: Vec<T>,
    /// One a token, or empty. SPM: higher merges first.
    pub scores: Vec<f32>,
    /// One a token, or empty (then they are guessed from the texts).
    pub token_types: Vec<TokenKind>,
    /// `left right`, most important first (byte-level BPE, or [`MergeRule::Merges`]).
    pub merges: Vec<T>,
    /// What decides the order of merges.
    pub merge_rule: MergeRule,
    /// `gpt2`: whether a piece that is a token stays as it is; `None` asks the pre-tokenizer's name.
    pub ignore_merges: Option<bool>,
    /// The source lists every special token (a tokenizer.json does): what looks like one but is not listed is text.
    pub lists_specials: bool,
    /// Begin of sequence.
    pub bos: Option<u32>,
    /// End of sequence.
    pub eos: Option<u32>,
    /// End of turn.
    pub eot: Option<u32>,
    /// End of message.
    pub eom: Option<u32>,
    /// Unknown.
    pub unk: Option<u32>,
    /// Padding.
    pub pad: Option<u32>,
    /// Whether BOS goes in front.
    pub add_bos: Option<bool>,
    /// Whether EOS goes behind.
    pub add_eos: Option<bool>,
    /// SPM: whether a space goes in front of the text.
    pub add_space_prefix: Option<bool>,
    /// How SentencePiece changes the text first. `None` where the text stays as it is but for the prefix.
    pub normalizing: Option<Normalizing>,
    /// `t5`: how scores are summed.
    pub sums: Sums,
}

impl<T: AsRef<[u8]>> VocabSource<T> {
    /// The same with the texts where they are.
    #[must_use]
    pub fn borrowed(&self) -> VocabSource<&[u8]> {
        self.with(self.tokens.iter().map(AsRef::as_ref).collect(), self.merges.iter().map(AsRef::as_ref).collect())
    }

    /// The same with texts of its own.
    #[must_use]
    pub fn owned(&self) -> VocabSource {
        let own = |texts: &[T]| texts.iter().map(|text| text.as_ref().to_vec()).collect();
        self.with(own(&self.tokens), own(&self.merges))
    }

    fn with<U>(&self, tokens: Vec<U>, merges: Vec<U>) -> VocabSource<U> {
        VocabSource {
            model: self.model.clone(),
            pre: self.pre.clone(),
            tokens,
            scores: self.scores.clone(),
            token_types: self.token_types.clone(),
            merges,
            merge_rule: self.merge_rule,
            ignore_merges: self.ignore_merges,
            lists_specials: self.lists_specials,
            bos: self.bos,
            eos: self.eos,
            eot: self.eot,
            eom: self.eom,
            unk: self.unk,
            pad: self.pad,
            add_bos: self.add_bos,
            add_eos: self.add_eos,
            add_space_prefix: self.add_space_prefix,
            normalizing: self.normalizing.clone(),
            sums: self.sums,
        }
    }
}

/// What the kind of tokenizer says where the source says nothing (llama.cpp's values).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Defaults {
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    pub(crate) unk: Option<u32>,
    pub(crate) add_bos: bool,
    pub(crate) add_eos: bool,
    /// Whether the default ids are believed where the file does not type its tokens.
    pub(crate) untyped: bool,
}

/// A vocabulary that was checked and from which tables are built. The result is a [`Vocab`].
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    /// As in the source.
    pub(crate) tokens: Vec<&'a [u8]>,
    pub(crate) kinds: Vec<TokenKind>,
    /// Source text to id, first of duplicates.
    pub(crate) by_text: WordMap,
    /// No two tokens have one text.
    pub(crate) unique: bool,
    pub(crate) special: SpecialTokens,
    eog: Vec<u32>,
    user: SpecialMatcher,
    all: SpecialMatcher,
}

/// The tables that every kind of tokenizer has.
#[derive(Debug, Clone)]
pub(crate) struct Vocab {
    /// Text of every token.
    pub(super) tokens: Texts,
    pub(super) kinds: Kinds,
    pub(crate) special: SpecialTokens,
    /// Ascending.
    pub(super) eog: Flat<u32>,
    /// User-defined tokens, and those plus control and unknown ones.
    pub(super) user: SpecialMatcher,
    pub(super) all: SpecialMatcher,
}

/// What every token is, as the numbers of `tokenizer.ggml.token_type`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kinds(pub(super) Flat<u8>);

impl Kinds {
    pub(crate) fn get(&self, id: usize) -> Option<TokenKind> {
        self.0.get(id).map(|number| TokenKind::from_gguf(i64::from(*number)).unwrap_or_default())
    }
}

/// A vocabulary has a token at least, and [`MAX_TOKENS`] at most.
pub(crate) fn check_size(tokens: usize) -> Result<(), TokenizerError> {
    if (1..=MAX_TOKENS).contains(&tokens) {
        return Ok(());
    }
    Err(TokenizerError::BadVocabSize { found: tokens, limit: MAX_TOKENS })
}

impl<'a> Draft<'a> {
    /// Checks `source` (its tokens are moved out) and works out the roles.
    pub(crate) fn new(
        source: &mut VocabSource<&'a [u8]>,
        defaults: Defaults,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Result<Self, TokenizerError> {
        let tokens = std::mem::take(&mut source.tokens);
        let n = tokens.len();
        check_size(n)?;
        let bytes = tokens.iter().fold(0usize, |sum, t| sum.saturating_add(t.len() + 4));
        if bytes > MAX_BYTES {
            return Err(TokenizerError::TextTooLong { bytes, limit: MAX_BYTES });
        }
        let mut kinds = std::mem::take(&mut source.token_types);
        if !kinds.is_empty() && kinds.len() != n {
            return Err(TokenizerError::LengthMismatch { key: key("token_type"), found: kinds.len(), expected: n });
        }
        if !source.scores.is_empty() && source.scores.len() != n {
            return Err(TokenizerError::LengthMismatch { key: key("scores"), found: source.scores.len(), expected: n });
        }
        let (by_text, unique) = index(&tokens, diagnostics);
        let special = roles(source, defaults, &by_text, &kinds, n, diagnostics)?;
        if kinds.is_empty() {
            kinds = guess_kinds(&tokens, &special);
            diagnostics.push(Diagnostic::warning(
                "no_token_types",
                "the file does not say which tokens are control tokens (`tokenizer.ggml.token_type`); the ids with a role and `<0xXX>` were taken for it".into(),
                "convert the model again with its tokenizer",
            ));
        }
        let eog = end_markers(&special, &by_text, &kinds);
        let frame: Vec<u32> = eog.iter().copied().chain(special.bos).collect();
        let rule = Repair { markers: source.model == "gpt2" && !source.lists_specials, texts: !source.lists_specials };
        repair_kinds(rule, &frame, &tokens, &mut kinds, diagnostics);
        let inline = source.normalizing.as_ref().map_or(&[][..], |spec| &spec.inline);
        let (user, all) = matchers(&tokens, &kinds, inline, diagnostics);
        Ok(Self { tokens, kinds, by_text, unique, special, eog, user, all })
    }

    /// Nothing changes any more.
    pub(crate) fn finish(self) -> Vocab {
        let texts = Texts::new(self.tokens.iter().copied());
        self.finish_as(texts)
    }

    /// The same, where decoding gives other texts than those of the source.
    pub(super) fn finish_as(self, tokens: Texts) -> Vocab {
        Vocab {
            tokens,
            kinds: Kinds(self.kinds.iter().map(|kind| kind.number() as u8).collect()),
            special: self.special,
            eog: self.eog.into(),
            user: self.user,
            all: self.all,
        }
    }
}

/// Those of user-defined tokens, and of these plus control and unknown ones. `inline` are for neither.
fn matchers(
    tokens: &[&[u8]],
    kinds: &[TokenKind],
    inline: &[u32],
    diagnostics: &mut Vec<Diagnostic>,
) -> (SpecialMatcher, SpecialMatcher) {
    let special = |kind: &TokenKind| matches!(kind, TokenKind::UserDefined | TokenKind::Control | TokenKind::Unknown);
    let found: Vec<(u32, &[u8], TokenKind)> = (0u32..)
        .zip(tokens.iter().zip(kinds))
        .filter(|(id, (text, kind))| special(kind) && !text.is_empty() && !inline.contains(id))
        .map(|(id, (text, kind))| (id, *text, *kind))
        .collect();
    let refused = found.iter().filter(|(_, text, _)| text.len() > MAX_LEN).count();
    if refused > 0 {
        diagnostics.push(Diagnostic::warning(
            "long_special_tokens",
            format!("{refused} special tokens are longer than {MAX_LEN} bytes and are never found in text"),
            "",
        ));
    }
    let of = |kinds: &dyn Fn(TokenKind) -> bool| {
        SpecialMatcher::new(found.iter().filter(|(.., kind)| kinds(*kind)).map(|(id, text, _)| (*id, *text)))
    };
    (of(&|kind| kind == TokenKind::UserDefined), of(&|_| true))
}

impl Vocab {
    /// Texts of the tokens of these kinds, with their ids. Tokens without a text are left out.
    pub(super) fn texts(&self, kinds: impl Fn(TokenKind) -> bool) -> impl Iterator<Item = (u32, &[u8])> {
        (0..self.tokens.len()).filter_map(move |id| {
            let text = self.tokens.get(id).filter(|text| !text.is_empty())?;
            kinds(self.kinds.get(id)?).then_some((id as u32, text))
        })
    }

    pub(crate) fn is_eog(&self, id: u32) -> bool {
        self.eog.binary_search(&id).is_ok()
    }

    /// Hidden from decoded text unless asked for.
    pub(crate) fn is_special(&self, id: u32) -> bool {
        matches!(self.kinds.get(id as usize), Some(TokenKind::Control | TokenKind::Unknown))
    }

    pub(crate) fn matcher(&self, opts: EncodeOptions) -> &SpecialMatcher {
        if opts.parse_special { &self.all } else { &self.user }
    }

    /// BOS if it is wanted and exists.
    pub(crate) fn front(&self, opts: EncodeOptions) -> Option<u32> {
        self.special.front(opts)
    }

    /// EOS if it is wanted and exists.
    pub(crate) fn back(&self, opts: EncodeOptions) -> Option<u32> {
        self.special.back(opts)
    }
}

/// Offsets are kept in 31 bits.
pub(crate) fn check_length(bytes: &[u8]) -> Result<(), TokenizerError> {
    if bytes.len() > MAX_BYTES {
        return Err(TokenizerError::TextTooLong { bytes: bytes.len(), limit: MAX_BYTES });
    }
    Ok(())
}

pub(crate) fn key(name: &str) -> String {
    format!("tokenizer.ggml.{name}")
}

/// For messages: lossy and short.
pub(crate) fn show(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// Ids by text, and whether all texts differ.
fn index(tokens: &[&[u8]], diagnostics: &mut Vec<Diagnostic>) -> (WordMap, bool) {
    let mut by_text = WordMapBuilder::with_capacity(tokens.len());
    for (id, text) in (0..).zip(tokens).filter(|(_, text)| !text.is_empty()) {
        by_text.add(text, id);
    }
    let empty = tokens.iter().filter(|text| text.is_empty()).count();
    let (by_text, again) = by_text.finish_with_duplicates();
    let (duplicates, example) = (again.len(), again.into_iter().min_by_key(|(_, again)| *again));
    if let Some((first, again)) = example {
        diagnostics.push(Diagnostic::warning(
            "duplicate_tokens",
            format!(
                "{duplicates} tokens have the text of an earlier one (`{}` is {first} and {again}); encoding uses the first",
                tokens.get(first as usize).map(|t| show(t)).unwrap_or_default()
            ),
            "convert the model again with its tokenizer",
        ));
    }
    if empty > 0 {
        diagnostics.push(Diagnostic::info(
            "empty_tokens",
            format!("{empty} tokens have no text and are never produced"),
            "",
        ));
    }
    (by_text, duplicates == 0)
}

/// The byte that `<0xXX>` spells.
pub(crate) fn byte_token(text: &[u8]) -> Option<u8> {
    let [b'<', b'0', b'x', hi, lo, b'>'] = *text else {
        return None;
    };
    let digit = |b: u8| (b as char).to_digit(16);
    Some((digit(hi)? * 16 + digit(lo)?) as u8)
}
