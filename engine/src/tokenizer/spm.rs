//! SentencePiece BPE (`tokenizer.ggml.model = llama`): LLaMA-2, Mistral, bitnet_b1_58.
//!
//! A space is written `▁` (U+2581), and one is put in front of every stretch of text at the start or after a special
//! token (if `add_space_prefix`). Characters are merged, best score first, then leftmost; what is left and is no token
//! becomes its bytes (`<0xXX>`), or the unknown token.
//!
//! Merging works on symbols: a token's id, or a character that is no token (top bit set), or a byte that is not UTF-8
//! (top two bits set). Which pairs merge, and into what, is worked out once while loading: every way of cutting a
//! token into two symbols. The rank is the place of the token's score among all scores.

use super::error::{Diagnostic, TokenizerError};
use super::merge::{Merge, PairTable, Scratch, merge_all};
use super::special::Part;
use super::unicode::decode;
use super::vocab::{Defaults, Vocab, VocabSource, byte_token, check_length};
use super::words::WordMap;
use super::{EncodeOptions, SpecialTokens, TokenKind, Tokenizer};
use std::borrow::Cow;

/// U+2581, SentencePiece's space.
const SPACE: &[u8] = "\u{2581}".as_bytes();
const CHAR: u32 = 0x8000_0000;
const RAW_BYTE: u32 = 0xC000_0000;

/// A SentencePiece BPE tokenizer.
#[derive(Debug)]
pub struct SpmTokenizer {
    vocab: Vocab,
    /// Characters that are tokens.
    chars: WordMap,
    pairs: PairTable,
    /// Stretches between cuts that are one token.
    words: WordMap,
    cuts: Cuts,
    /// `<0xXX>`.
    bytes: [Option<u32>; 256],
    prefix_space: bool,
}

impl SpmTokenizer {
    /// Builds it; what was mended goes to `diagnostics`.
    ///
    /// # Errors
    /// See [`TokenizerError`].
    pub fn new(
        mut source: VocabSource,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Result<Self, TokenizerError> {
        let defaults = Defaults {
            bos: Some(1),
            eos: Some(2),
            unk: Some(0),
            add_bos: true,
            untyped: true,
        };
        let mut vocab = Vocab::new(&mut source, defaults, diagnostics)?;
        if source.scores.is_empty() {
            return Err(TokenizerError::MissingKey {
                key: "tokenizer.ggml.scores".into(),
            });
        }
        if let Some(id) = source.scores.iter().position(|s| s.is_nan()) {
            return Err(TokenizerError::BadScore { id: id as u32 });
        }
        let bytes = byte_tokens(&mut vocab, diagnostics);
        let mut chars = WordMap::with_capacity(1024);
        let mut pieces = WordMap::with_capacity(vocab.tokens.len());
        for (id, text) in mergeable(&vocab) {
            pieces.insert(text, id);
            if decode(text, 0).is_some_and(|(_, len)| len == text.len()) {
                chars.insert(text, id);
            }
        }
        let pairs = pairs(&vocab, &source.scores, &chars, &pieces);
        let words = words(&vocab, &chars, &pairs);
        let cuts = Cuts::new(&vocab);
        let prefix_space = source.add_space_prefix.unwrap_or(true);
        Ok(Self {
            vocab,
            chars,
            pairs,
            words,
            cuts,
            bytes,
            prefix_space,
        })
    }

    fn encode_text(
        &self,
        text: &[u8],
        offset: usize,
        work: &mut Work,
    ) -> Result<(), TokenizerError> {
        let mut start = 0;
        if self.prefix_space {
            // The first word, with its space, in a buffer of its own.
            start = if text[0] == b' ' && self.cuts.between_spaces {
                0
            } else {
                self.cuts.next(text, 0)
            };
            let mut word = std::mem::take(&mut work.word);
            word.clear();
            word.push(b' ');
            word.extend_from_slice(&text[..start]);
            let done = self.encode_word(&word, work);
            work.word = word;
            // The buffer is one byte ahead of the text.
            done.map_err(|e| shift(e, offset, 1))?;
        }
        while start < text.len() {
            let end = self.cuts.next(text, start);
            self.encode_word(&text[start..end], work)
                .map_err(|e| shift(e, offset + start, 0))?;
            start = end;
        }
        Ok(())
    }

    /// A stretch that no token crosses the ends of.
    fn encode_word(&self, word: &[u8], work: &mut Work) -> Result<(), TokenizerError> {
        if let Some(id) = self.words.get(word) {
            work.ids.push(id);
            return Ok(());
        }
        symbols(word, &self.chars, &mut work.symbols);
        merge_all(&self.pairs, &mut work.symbols, &mut work.scratch);
        // Where a symbol stands is only needed for an error, so it is only found then.
        for &symbol in &work.symbols {
            if symbol < CHAR {
                work.ids.push(symbol);
            } else if !self.leftover(symbol, &mut work.ids) {
                let (text, offset) = locate(symbol, word);
                return Err(TokenizerError::NoTokenForText { text, offset });
            }
        }
        Ok(())
    }

    /// A character or byte that is no token: its bytes' tokens, or the unknown token. `false` if there is neither.
    fn leftover(&self, symbol: u32, ids: &mut Vec<u32>) -> bool {
        let mut buffer = [0; 4];
        let bytes = symbol_bytes(symbol, &mut buffer);
        if bytes.iter().all(|&b| self.bytes[usize::from(b)].is_some()) {
            ids.extend(bytes.iter().filter_map(|&b| self.bytes[usize::from(b)]));
            return true;
        }
        ids.extend(self.vocab.special.unk);
        self.vocab.special.unk.is_some()
    }
}

#[derive(Default)]
struct Work {
    ids: Vec<u32>,
    symbols: Vec<u32>,
    scratch: Scratch,
    word: Vec<u8>,
}

/// Moves an error's offset from a word to the text.
fn shift(error: TokenizerError, by: usize, ahead: usize) -> TokenizerError {
    match error {
        TokenizerError::NoTokenForText { text, offset } => TokenizerError::NoTokenForText {
            text,
            offset: (offset + by).saturating_sub(ahead),
        },
        other => other,
    }
}

/// The symbols of `text`, spaces as `▁`.
fn symbols(text: &[u8], chars: &WordMap, out: &mut Vec<u32>) {
    out.clear();
    let mut at = 0;
    while at < text.len() {
        if text[at] == b' ' {
            out.push(symbol(SPACE, 0, chars).0);
            at += 1;
            continue;
        }
        let (symbol, len) = symbol(text, at, chars);
        out.push(symbol);
        at += len;
    }
}

/// Where text can be cut without changing what merges: in front of a space, after a character that no token has in
/// front of a `▁`. In the usual vocabularies that is every word.
#[derive(Debug)]
struct Cuts {
    /// By last byte of the character in front: whether some token has one that ends so in front of a `▁`. (Coarser
    /// than by character, and right for any bytes.)
    joined: [bool; 256],
    /// Whether `▁` `▁` are never together in a token.
    between_spaces: bool,
}

impl Cuts {
    fn new(vocab: &Vocab) -> Self {
        let mut joined = [false; 256];
        for (_, text) in mergeable(vocab) {
            for at in 1..text.len() {
                if text[at..].starts_with(SPACE) {
                    joined[usize::from(text[at - 1])] = true;
                }
            }
        }
        // A space in the text is a `▁` like any other.
        let last = SPACE[SPACE.len() - 1];
        joined[usize::from(b' ')] |= joined[usize::from(last)];
        Self {
            joined,
            between_spaces: !joined[usize::from(b' ')],
        }
    }

    /// The first cut after `start`, or the end.
    #[inline]
    fn next(&self, text: &[u8], start: usize) -> usize {
        let mut at = start + 1;
        while at < text.len() {
            if text[at] == b' ' && !self.joined[usize::from(text[at - 1])] {
                return at;
            }
            at += 1;
        }
        text.len()
    }
}

/// The words that are one token: spelled as in text, and what the merges arrive at.
fn words(vocab: &Vocab, chars: &WordMap, pairs: &PairTable) -> WordMap {
    let mut words = WordMap::with_capacity(vocab.tokens.len());
    let (mut parts, mut scratch) = (Vec::new(), Scratch::default());
    for (id, text) in mergeable(vocab) {
        symbols(text, chars, &mut parts);
        merge_all(pairs, &mut parts, &mut scratch);
        if parts == [id] && !text.contains(&b' ') {
            words.insert(&unescape(text), id);
        }
    }
    words
}

/// The symbol at `at` and its length in bytes.
#[inline]
fn symbol(text: &[u8], at: usize, chars: &WordMap) -> (u32, usize) {
    match decode(text, at) {
        Some((c, len)) => (chars.get(&text[at..at + len]).unwrap_or(CHAR | c), len),
        None => (RAW_BYTE | u32::from(text[at]), 1),
    }
}

fn symbol_bytes(symbol: u32, buffer: &mut [u8; 4]) -> &[u8] {
    if symbol >= RAW_BYTE {
        buffer[0] = symbol as u8;
        return &buffer[..1];
    }
    match char::from_u32(symbol & !CHAR) {
        Some(c) => c.encode_utf8(buffer).as_bytes(),
        None => &[],
    }
}

fn locate(symbol: u32, text: &[u8]) -> (String, usize) {
    let mut buffer = [0; 4];
    let bytes = symbol_bytes(symbol, &mut buffer);
    let at = text
        .windows(bytes.len().max(1))
        .position(|w| w == bytes)
        .unwrap_or(0);
    (String::from_utf8_lossy(bytes).into_owned(), at)
}

/// Tokens that merging may produce: not control, unknown or byte tokens, as SentencePiece has it. (llama.cpp takes
/// any token whose text comes together.)
fn mergeable(vocab: &Vocab) -> impl Iterator<Item = (u32, &[u8])> {
    vocab
        .tokens
        .iter()
        .zip(&vocab.kinds)
        .enumerate()
        .filter(|(_, (text, kind))| !text.is_empty() && kind.is_text())
        .map(|(id, (text, _))| (id as u32, text.as_slice()))
}

fn pairs(vocab: &Vocab, scores: &[f32], chars: &WordMap, pieces: &WordMap) -> PairTable {
    let mut order: Vec<f32> = scores.to_vec();
    // -0.0 and 0.0 are one score.
    order.iter_mut().for_each(|s| *s += 0.0);
    order.sort_unstable_by(|a, b| b.total_cmp(a));
    order.dedup();
    let rank_of = |id: u32| {
        let score = scores
            .get(id as usize)
            .copied()
            .unwrap_or(f32::NEG_INFINITY)
            + 0.0;
        order
            .binary_search_by(|s| score.total_cmp(s))
            .unwrap_or_else(|at| at) as u32
    };
    let mut table = PairTable::with_capacity(vocab.tokens.len() * 2);
    // A part of a token: a token that merging can produce, or a single character.
    let part = |text: &[u8]| match pieces.get(text) {
        Some(id) => Some(id),
        None => match symbol(text, 0, chars) {
            (symbol, len) if len == text.len() => Some(symbol),
            _ => None,
        },
    };
    for (id, text) in mergeable(vocab) {
        if pieces.get(text) != Some(id) {
            continue; // a duplicate
        }
        let merge = Merge {
            rank: rank_of(id),
            id,
        };
        let mut at = 0;
        while at < text.len() {
            at += decode(text, at).map_or(1, |(_, len)| len);
            if at < text.len()
                && let (Some(left), Some(right)) = (part(&text[..at]), part(&text[at..]))
            {
                table.insert(left, right, merge);
            }
        }
    }
    table
}

fn byte_tokens(vocab: &mut Vocab, diagnostics: &mut Vec<Diagnostic>) -> [Option<u32>; 256] {
    let mut bytes = [None; 256];
    let mut mended = 0usize;
    for (id, (text, kind)) in vocab.tokens.iter().zip(&mut vocab.kinds).enumerate() {
        let Some(byte) = byte_token(text) else {
            continue;
        };
        if matches!(kind, TokenKind::Normal | TokenKind::Unused) {
            *kind = TokenKind::Byte;
            mended += 1;
        }
        if *kind == TokenKind::Byte {
            bytes[usize::from(byte)].get_or_insert(id as u32);
        }
    }
    if mended > 0 {
        diagnostics.push(Diagnostic::warning(
            "byte_type_mended",
            format!("{mended} tokens `<0xXX>` were not typed as byte tokens and are now"),
            "convert the model again; its converter wrote wrong token types",
        ));
    }
    let missing = bytes.iter().filter(|b| b.is_none()).count();
    if missing > 0 {
        diagnostics.push(Diagnostic::info(
            "no_byte_fallback",
            format!("{missing} of 256 byte tokens `<0xXX>` are missing: characters outside the vocabulary become the unknown token"),
            "",
        ));
    }
    bytes
}

impl Tokenizer for SpmTokenizer {
    fn encode_bytes(&self, bytes: &[u8], opts: EncodeOptions) -> Result<Vec<u32>, TokenizerError> {
        check_length(bytes)?;
        let mut work = Work {
            ids: Vec::with_capacity(bytes.len() / 3 + 4),
            ..Work::default()
        };
        work.ids.extend(self.vocab.front(opts));
        self.vocab.matcher(opts).split(bytes, |part| {
            match part {
                Part::Text { text, offset } => self.encode_text(text, offset, &mut work)?,
                Part::Special(id) => work.ids.push(id),
            }
            Ok::<(), TokenizerError>(())
        })?;
        work.ids.extend(self.vocab.back(opts));
        Ok(work.ids)
    }

    fn token_bytes(&self, id: u32, special: bool) -> Option<Cow<'_, [u8]>> {
        let text = self.vocab.tokens.get(id as usize)?;
        Some(match self.vocab.kinds.get(id as usize)? {
            TokenKind::Byte => match byte_token(text) {
                Some(byte) => Cow::Owned(vec![byte]),
                None => Cow::Borrowed(text),
            },
            TokenKind::Control | TokenKind::Unknown if !special => Cow::Borrowed(&[]),
            TokenKind::Normal | TokenKind::Unused
                if text.windows(SPACE.len()).any(|w| w == SPACE) =>
            {
                Cow::Owned(unescape(text))
            }
            _ => Cow::Borrowed(text),
        })
    }

    fn vocab_size(&self) -> usize {
        self.vocab.tokens.len()
    }

    fn special(&self) -> &SpecialTokens {
        &self.vocab.special
    }

    fn is_eog(&self, id: u32) -> bool {
        self.vocab.is_eog(id)
    }

    fn kind(&self) -> &'static str {
        "spm"
    }

    fn pre(&self) -> Option<&str> {
        None
    }

    fn adds_prefix_space(&self) -> bool {
        self.prefix_space
    }
}

/// `▁` back to spaces.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(SPACE) {
            out.push(b' ');
            rest = after;
        } else {
            out.push(byte);
            rest = tail;
        }
    }
    out
}
