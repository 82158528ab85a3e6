//! The plain data of a tokenizer, and the checks that every source goes through.
//!
//! [`VocabSource`] is the seam: GGUF metadata fills it today, other tokenizer files can fill it later, and the
//! tokenizers see nothing else. [`Vocab`] is what is left after the checks: every id in range, every list as long as
//! the tokens, every token of a known kind.

use super::error::{Diagnostic, TokenizerError};
use super::special::{MAX_LEN, SpecialMatcher};
use super::words::WordMap;
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

    /// Whether ordinary text can become this token.
    pub(crate) fn is_text(self) -> bool {
        matches!(self, Self::Normal | Self::UserDefined | Self::Unused)
    }
}

/// Everything a source says about a tokenizer, unchecked.
#[derive(Debug, Clone, Default)]
pub struct VocabSource {
    /// `gpt2` (byte-level BPE) or `llama` (SPM).
    pub model: String,
    /// Name of the pre-tokenizer, if the source has one.
    pub pre: Option<String>,
    /// Text of every token; for `gpt2` in GPT-2's byte alphabet ([`super::byte_alphabet`]).
    pub tokens: Vec<Vec<u8>>,
    /// One a token, or empty. SPM: higher merges first.
    pub scores: Vec<f32>,
    /// One a token, or empty (then they are guessed from the texts).
    pub token_types: Vec<TokenKind>,
    /// `left right`, most important first (byte-level BPE).
    pub merges: Vec<Vec<u8>>,
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
}

/// What the kind of tokenizer says where the source says nothing (llama.cpp's values).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Defaults {
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    pub(crate) unk: Option<u32>,
    pub(crate) add_bos: bool,
    /// Whether the default ids are believed where the file does not type its tokens.
    pub(crate) untyped: bool,
}

/// Texts that end a generation wherever they are a token (llama.cpp's list).
const END_MARKERS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
];
/// Texts that end a generation only where the token is a control token already: as ordinary text they are common.
const CONTROL_END_MARKERS: &[&str] = &["</s>", "[EOT]", "<eos>", "[EOS]"];
/// Texts of an end of turn, the first that exists is it.
const EOT_MARKERS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
    "<end_of_utterance>",
];

/// A checked vocabulary.
#[derive(Debug, Clone)]
pub(crate) struct Vocab {
    /// As in the source.
    pub(crate) tokens: Vec<Vec<u8>>,
    pub(crate) kinds: Vec<TokenKind>,
    /// Source text to id, first of duplicates.
    pub(crate) by_text: WordMap,
    pub(crate) special: SpecialTokens,
    /// Ascending.
    eog: Vec<u32>,
    /// User-defined tokens, and those plus control and unknown ones.
    user: SpecialMatcher,
    all: SpecialMatcher,
}

impl Vocab {
    /// Checks `source` (its tokens are moved out) and works out the roles.
    pub(crate) fn new(
        source: &mut VocabSource,
        defaults: Defaults,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Result<Self, TokenizerError> {
        let tokens = std::mem::take(&mut source.tokens);
        let n = tokens.len();
        if n == 0 || n > MAX_TOKENS {
            return Err(TokenizerError::BadVocabSize {
                found: n,
                limit: MAX_TOKENS,
            });
        }
        let bytes = tokens
            .iter()
            .fold(0usize, |sum, t| sum.saturating_add(t.len() + 4));
        if bytes > MAX_BYTES {
            return Err(TokenizerError::TextTooLong {
                bytes,
                limit: MAX_BYTES,
            });
        }
        let mut kinds = std::mem::take(&mut source.token_types);
        if !kinds.is_empty() && kinds.len() != n {
            return Err(TokenizerError::LengthMismatch {
                key: key("token_type"),
                found: kinds.len(),
                expected: n,
            });
        }
        if !source.scores.is_empty() && source.scores.len() != n {
            return Err(TokenizerError::LengthMismatch {
                key: key("scores"),
                found: source.scores.len(),
                expected: n,
            });
        }
        let by_text = index(&tokens, diagnostics);
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
        mend_kinds(
            source.model == "gpt2",
            &frame,
            &tokens,
            &mut kinds,
            diagnostics,
        );
        let mut vocab = Self {
            tokens,
            kinds,
            by_text,
            special,
            eog,
            user: SpecialMatcher::default(),
            all: SpecialMatcher::default(),
        };
        vocab.build_matchers(diagnostics);
        Ok(vocab)
    }

    fn build_matchers(&mut self, diagnostics: &mut Vec<Diagnostic>) {
        let mut refused = 0usize;
        for (id, (text, kind)) in self.tokens.iter().zip(&self.kinds).enumerate() {
            let (user, all) = match kind {
                TokenKind::UserDefined => (true, true),
                TokenKind::Control | TokenKind::Unknown => (false, true),
                _ => (false, false),
            };
            if text.is_empty() {
                continue;
            }
            if user {
                self.user.add(text, id as u32);
            }
            if all && !self.all.add(text, id as u32) {
                refused += 1;
            }
        }
        if refused > 0 {
            diagnostics.push(Diagnostic::warning(
                "long_special_tokens",
                format!("{refused} special tokens are longer than {MAX_LEN} bytes and are never found in text"),
                "",
            ));
        }
    }

    pub(crate) fn is_eog(&self, id: u32) -> bool {
        self.eog.binary_search(&id).is_ok()
    }

    /// Hidden from decoded text unless asked for.
    pub(crate) fn is_special(&self, id: u32) -> bool {
        matches!(
            self.kinds.get(id as usize),
            Some(TokenKind::Control | TokenKind::Unknown)
        )
    }

    pub(crate) fn matcher(&self, opts: EncodeOptions) -> &SpecialMatcher {
        if opts.parse_special {
            &self.all
        } else {
            &self.user
        }
    }

    /// BOS if it is wanted and exists.
    pub(crate) fn front(&self, opts: EncodeOptions) -> Option<u32> {
        self.special
            .bos
            .filter(|_| opts.add_special && self.special.add_bos)
    }

    /// EOS if it is wanted and exists.
    pub(crate) fn back(&self, opts: EncodeOptions) -> Option<u32> {
        self.special
            .eos
            .filter(|_| opts.add_special && self.special.add_eos)
    }
}

/// Offsets are kept in 31 bits.
pub(crate) fn check_length(bytes: &[u8]) -> Result<(), TokenizerError> {
    if bytes.len() > MAX_BYTES {
        return Err(TokenizerError::TextTooLong {
            bytes: bytes.len(),
            limit: MAX_BYTES,
        });
    }
    Ok(())
}

fn key(name: &str) -> String {
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

fn index(tokens: &[Vec<u8>], diagnostics: &mut Vec<Diagnostic>) -> WordMap {
    let mut by_text = WordMap::with_capacity(tokens.len());
    let (mut duplicates, mut example, mut empty) = (0usize, None, 0usize);
    for (id, text) in tokens.iter().enumerate() {
        let id = id as u32;
        if text.is_empty() {
            empty += 1;
            continue;
        }
        let first = by_text.insert(text, id);
        if first != id {
            duplicates += 1;
            example.get_or_insert((first, id));
        }
    }
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
    by_text
}

fn roles(
    source: &VocabSource,
    defaults: Defaults,
    by_text: &WordMap,
    kinds: &[TokenKind],
    n: usize,
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<SpecialTokens, TokenizerError> {
    let last = n as u32 - 1;
    // llama.cpp takes its default ids blindly; in a GPT-2 vocabulary 11 is the comma, and would end every text.
    let plausible = |id: &u32| match kinds.get(*id as usize) {
        Some(kind) => matches!(kind, TokenKind::Control | TokenKind::Unknown),
        None => defaults.untyped && *id <= last,
    };
    // BOS and EOS frame every text, so a wrong one is an error; -1 is how some converters write "none".
    let strict = |name: &str, id: Option<u32>, default: Option<u32>| match id {
        Some(u32::MAX) => Ok(None),
        Some(id) if id > last => Err(TokenizerError::IdOutOfRange {
            key: key(name),
            id,
            last,
        }),
        Some(id) => Ok(Some(id)),
        None => Ok(default.filter(plausible)),
    };
    let bos = strict("bos_token_id", source.bos, defaults.bos)?;
    let eos = strict("eos_token_id", source.eos, defaults.eos)?;
    let mut lenient = |name: &str, id: Option<u32>, default: Option<u32>| match id {
        Some(u32::MAX) => None,
        Some(id) if id > last => {
            diagnostics.push(Diagnostic::warning(
                "id_out_of_range",
                format!(
                    "`{}` is {id}, but the vocabulary ends at {last}; it is ignored",
                    key(name)
                ),
                format!("bitnet convert FILE --set {}=ID", key(name)),
            ));
            None
        }
        Some(id) => Some(id),
        None => default.filter(plausible),
    };
    let find = |names: &[&str]| names.iter().find_map(|name| by_text.get(name.as_bytes()));
    let eot = lenient("eot_token_id", source.eot, None).or_else(|| find(EOT_MARKERS));
    let eom = lenient("eom_token_id", source.eom, None).or_else(|| find(&["<|eom_id|>"]));
    let unk = lenient("unknown_token_id", source.unk, defaults.unk);
    let pad = lenient("padding_token_id", source.pad, None);
    if eos.is_none() && eot.is_none() && eom.is_none() {
        diagnostics.push(Diagnostic::warning(
            "no_end_token",
            format!("the file names no end of sequence (`{}`) and none is recognised: generation ends only at the token limit", key("eos_token_id")),
            format!("bitnet convert FILE --set {}=ID", key("eos_token_id")),
        ));
    }
    Ok(SpecialTokens {
        bos,
        eos,
        eot,
        eom,
        unk,
        pad,
        add_bos: source.add_bos.unwrap_or(defaults.add_bos),
        add_eos: source.add_eos.unwrap_or(false),
    })
}

fn guess_kinds(tokens: &[Vec<u8>], special: &SpecialTokens) -> Vec<TokenKind> {
    let mut kinds: Vec<_> = tokens
        .iter()
        .map(|t| {
            if byte_token(t).is_some() {
                TokenKind::Byte
            } else {
                TokenKind::Normal
            }
        })
        .collect();
    for id in [special.bos, special.eos, special.eot, special.eom]
        .into_iter()
        .flatten()
    {
        kinds[id as usize] = TokenKind::Control;
    }
    if let Some(id) = special.unk {
        kinds[id as usize] = TokenKind::Unknown;
    }
    kinds
}

/// The byte that `<0xXX>` spells.
pub(crate) fn byte_token(text: &[u8]) -> Option<u8> {
    let [b'<', b'0', b'x', hi, lo, b'>'] = *text else {
        return None;
    };
    let digit = |b: u8| (b as char).to_digit(16);
    Some((digit(hi)? * 16 + digit(lo)?) as u8)
}

/// Ids that end a generation.
fn end_markers(special: &SpecialTokens, by_text: &WordMap, kinds: &[TokenKind]) -> Vec<u32> {
    let find =
        |names: &'static [&'static str]| names.iter().filter_map(|m| by_text.get(m.as_bytes()));
    let mut eog: Vec<u32> = [special.eos, special.eot, special.eom]
        .into_iter()
        .flatten()
        .collect();
    eog.extend(find(END_MARKERS));
    eog.extend(find(CONTROL_END_MARKERS).filter(|&id| kinds[id as usize] == TokenKind::Control));
    eog.sort_unstable();
    eog.dedup();
    eog
}

/// Types tokens as control that can only be meant so: BOS, what ends a generation, and in a byte-level BPE every
/// `<|name|>` (no text becomes such a token, for pre-tokenizers cut it).
fn mend_kinds(
    byte_level: bool,
    frame: &[u32],
    tokens: &[Vec<u8>],
    kinds: &mut [TokenKind],
    diagnostics: &mut Vec<Diagnostic>,
) {
    let mut mended = Vec::new();
    for (id, (text, kind)) in tokens.iter().zip(kinds).enumerate() {
        let framing = !matches!(kind, TokenKind::Control | TokenKind::Unknown)
            && frame.contains(&(id as u32));
        let marker = byte_level && *kind == TokenKind::Normal && is_bar_marker(text);
        if framing || marker {
            *kind = TokenKind::Control;
            mended.push((id, show(text)));
        }
    }
    if let Some((id, text)) = mended.first() {
        diagnostics.push(Diagnostic::warning(
            "control_type_mended",
            format!("{} tokens that can only be control tokens were not typed as such and are now; the first is {id} `{text}`", mended.len()),
            "convert the model again; its converter wrote wrong token types",
        ));
    }
}

/// `<|name|>`
fn is_bar_marker(text: &[u8]) -> bool {
    text.strip_prefix(b"<|")
        .and_then(|t| t.strip_suffix(b"|>"))
        .is_some_and(|name| {
            name.iter().any(u8::is_ascii_alphabetic)
                && name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
        })
}
