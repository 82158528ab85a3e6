//! SentencePiece BPE (`tokenizer.ggml.model = llama`): LLaMA-2, Mistral, bitnet_b1_58.
//!
//! A space is written `▁` (U+2581), and one is put in front of every stretch of text at the start or after a special
//! token (if `add_space_prefix`). Characters are merged, best score first, then leftmost; what is left and is not a token
//! becomes its bytes (`<0xXX>`), or the unknown token.
//!
//! Merging works on symbols: a token's id, or a character that is not a token (top bit set), or a byte that is not UTF-8
//! (top two bits set). Which pairs merge, and into what, is worked out once while loading: every way of cutting a
//! token into two symbols. The rank is the place of the token's score among all scores. A vocabulary that HuggingFace
//! wrote has a list of merges instead ([`MergeRule::Merges`]): then only those merge, in that order.

use super::batch::{Batch, Merging};
use super::compiled::{Reader, Stored, Tables, Unusable, Writer};
use super::error::{Diagnostic, TokenizerError};
use super::joints::Joints;
use super::lanes::{self, Lane};
use super::merge::{PairTable, Scratch, merge_all};
use super::normalize::Normalizer;
use super::recent::{self, Recent};
use super::special::Part;
pub(super) use super::spm_tables::unescape;
use super::spm_tables::{CHAR, Cuts, SPACE, each_symbol, mergeable, pairs, symbol_bytes, symbols, words};
use super::unicode::decode;
use super::unigram::{decode_pieces, piece_bytes};
use super::vocab::{Defaults, Draft, MergeRule, Vocab, VocabSource, byte_token, check_length};
use super::words::{WordMap, WordMapBuilder};
use super::{EncodeOptions, SpecialTokens, TokenKind, Tokenizer, bpe, decode_by_token};
use bitnet_kernels::text;
use std::borrow::Cow;
use std::mem;
use std::sync::OnceLock;

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
    /// Where the source is SentencePiece's own file.
    normalizer: Option<Normalizer>,
    /// Of this thread's [`Recent`] pieces.
    owner: u64,
    /// Where long texts are cut; worked out with the first.
    joints: OnceLock<Joints>,
}

impl SpmTokenizer {
    /// Builds it; what was repaired goes to `diagnostics`.
    ///
    /// # Errors
    /// See [`TokenizerError`].
    pub fn new(mut source: VocabSource<&[u8]>, diagnostics: &mut Vec<Diagnostic>) -> Result<Self, TokenizerError> {
        let defaults =
            Defaults { bos: Some(1), eos: Some(2), unk: Some(0), add_bos: true, add_eos: false, untyped: true };
        let mut vocab = Draft::new(&mut source, defaults, diagnostics)?;
        let by_merges = source.merge_rule == MergeRule::Merges;
        if source.scores.is_empty() && !by_merges {
            return Err(TokenizerError::MissingKey { key: "tokenizer.ggml.scores".into() });
        }
        if let (false, Some(id)) = (by_merges, source.scores.iter().position(|s| s.is_nan())) {
            return Err(TokenizerError::BadScore { id: id as u32 });
        }
        let bytes = byte_tokens(&mut vocab, diagnostics);
        let mut chars = WordMapBuilder::with_capacity(1024);
        let mut pieces = WordMapBuilder::with_capacity(vocab.tokens.len());
        for (id, text) in mergeable(&vocab) {
            pieces.add(text, id);
            if decode(text, 0).is_some_and(|(_, len)| len == text.len()) {
                chars.add(text, id);
            }
        }
        let (chars, pieces) = (chars.finish(), pieces.finish());
        let pairs = if by_merges {
            bpe::pairs(&vocab, &source.merges, diagnostics)?
        } else {
            pairs(&vocab, &source.scores, &chars, &pieces)
        };
        let words = words(&vocab, &chars, &pairs);
        let cuts = Cuts::new(&vocab);
        let spec = source.normalizing.take();
        let prefix_space = spec.as_ref().map_or(source.add_space_prefix.unwrap_or(true), |spec| spec.dummy_prefix);
        let normalizer = spec.map(|spec| Normalizer::new(&spec, &vocab.tokens)).transpose();
        let normalizer = normalizer.map_err(|reason| TokenizerError::BadKey { reason })?;
        let vocab = vocab.finish();
        let (owner, joints) = (recent::owner(), OnceLock::new());
        Ok(Self { vocab, chars, pairs, words, cuts, bytes, prefix_space, normalizer, owner, joints })
    }

    fn joints(&self) -> &Joints {
        self.joints.get_or_init(|| Joints::new(self.vocab.texts(TokenKind::is_text).map(|(_, text)| text), true))
    }

    /// Writes the tables into a compiled file; [`SpmTokenizer::open`] reads them in this order.
    pub(super) fn store(&self, out: &mut Writer) {
        let Self { vocab, chars, pairs, words, cuts, bytes, prefix_space, normalizer, owner: _, joints: _ } = self;
        vocab.store(out);
        chars.store(out);
        pairs.store(out);
        words.store(out);
        cuts.store(out);
        out.table(&bytes.map(|id| id.unwrap_or(u32::MAX)));
        out.flag(*prefix_space);
        out.flag(normalizer.is_some());
        normalizer.iter().for_each(|normalizer| normalizer.store(out));
    }

    /// # Errors
    /// Where tables are missing or cannot be used.
    pub(super) fn open(from: &mut Reader<'_>) -> Result<Self, Unusable> {
        Ok(Self {
            vocab: Vocab::open(from)?,
            chars: WordMap::open(from)?,
            pairs: PairTable::open(from)?,
            words: WordMap::open(from)?,
            cuts: Cuts::open(from)?,
            bytes: byte_ids(&from.table::<u32>()?)?.map(|id| Some(id).filter(|id| *id != u32::MAX)),
            prefix_space: from.flag()?,
            normalizer: if from.flag()? { Some(Normalizer::open(from)?) } else { None },
            owner: recent::owner(),
            joints: OnceLock::new(),
        })
    }

    /// As SentencePiece does it: normalised, user-defined pieces apart, the rest merged.
    fn encode_normalized(
        &self,
        normalizer: &Normalizer,
        text: &[u8],
        offset: usize,
        work: &mut Work,
    ) -> Result<(), TokenizerError> {
        let mut normal = std::mem::take(&mut work.text);
        normalizer.run(text, &mut normal);
        work.in_unknown = false;
        let done = normalizer.inline.split(&normal, |part| {
            match part {
                Part::Text { text, .. } => self.encode_words(&unescape(text), 0, offset, work)?,
                Part::Special(id) => {
                    work.ids.push(id);
                    work.in_unknown = false;
                }
            }
            Ok(())
        });
        work.text = normal;
        // Where a character stood before is not known any more.
        done.map_err(|error| match error {
            TokenizerError::NoTokenForText { text, .. } => TokenizerError::NoTokenForText { text, offset },
            other => other,
        })
    }

    fn encode_text(&self, text: &[u8], offset: usize, work: &mut Work) -> Result<(), TokenizerError> {
        if let Some(normalizer) = &self.normalizer {
            return self.encode_normalized(normalizer, text, offset, work);
        }
        let mut start = 0;
        if self.prefix_space {
            // The first word, with its space, in a buffer of its own.
            start = match work.recent {
                Some(_) if self.joints().joined(b' ', text[0]) => self.joints().next(text, 0),
                Some(_) => 0,
                None if text[0] == b' ' && self.cuts.between_spaces => 0,
                None => self.cuts.next(text, 0),
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
        self.encode_words(text, start, offset, work)
    }

    /// `text` from `start` on, word by word.
    fn encode_words(
        &self,
        text: &[u8],
        mut start: usize,
        offset: usize,
        work: &mut Work,
    ) -> Result<(), TokenizerError> {
        if let Some(recent) = &mut work.recent {
            let Work { ids, symbols, scratch, .. } = work;
            let (mut windows, room) = (mem::take(&mut recent.windows), mem::take(&mut recent.room));
            let merging = Chars { tokenizer: self, symbols, scratch };
            let set = text::best();
            let mut batch = Batch { set, words: &self.words, recent, merging, room };
            self.joints().batches(set, text, start, &mut windows, &mut |from, ends| {
                batch.encode(text, from, ends, ids);
            });
            let Batch { recent, room, .. } = batch;
            (recent.windows, recent.room) = (windows, room);
            return Ok(());
        }
        while start < text.len() {
            let end = self.cuts.next(text, start);
            self.encode_word(&text[start..end], work).map_err(|e| shift(e, offset + start, 0))?;
            start = end;
        }
        Ok(())
    }

    /// A stretch that no token crosses the ends of.
    fn encode_word(&self, word: &[u8], work: &mut Work) -> Result<(), TokenizerError> {
        if let Some(id) = self.words.get(word) {
            work.ids.push(id);
            work.in_unknown = false;
            return Ok(());
        }
        symbols(word, &self.chars, &mut work.symbols);
        merge_all(&self.pairs, &mut work.symbols, &mut work.scratch);
        // Where a symbol stands is only needed for an error, so it is only found then.
        for at in 0..work.symbols.len() {
            let symbol = work.symbols[at];
            if symbol < CHAR {
                work.ids.push(symbol);
                work.in_unknown = false;
            } else if !self.leftover(symbol, work) {
                let (text, offset) = locate(symbol, word);
                return Err(TokenizerError::NoTokenForText { text, offset });
            }
        }
        Ok(())
    }

    /// A character or byte that is not a token: its bytes' tokens, or the unknown token (SentencePiece: one for a run of
    /// them). `false` if there is neither.
    fn leftover(&self, symbol: u32, work: &mut Work) -> bool {
        let mut buffer = [0; 4];
        let bytes = symbol_bytes(symbol, &mut buffer);
        if bytes.iter().all(|&b| self.bytes[usize::from(b)].is_some()) {
            work.ids.extend(bytes.iter().filter_map(|&b| self.bytes[usize::from(b)]));
            return true;
        }
        if !(work.in_unknown && self.normalizer.is_some()) {
            work.ids.extend(self.vocab.special.unk);
        }
        work.in_unknown = true;
        self.vocab.special.unk.is_some()
    }
}

/// One id for each byte.
pub(super) fn byte_ids(table: &[u32]) -> Result<[u32; 256], Unusable> {
    table.try_into().map_err(|_| Unusable::Damaged("its byte tokens are not complete"))
}

/// Merging from characters, where every byte has a token: nothing can be left without one.
struct Chars<'a> {
    tokenizer: &'a SpmTokenizer,
    symbols: &'a mut Vec<u32>,
    scratch: &'a mut Scratch,
}

impl Merging for Chars<'_> {
    fn table(&self) -> &PairTable {
        &self.tokenizer.pairs
    }

    #[inline]
    fn fill(&self, piece: &[u8], lane: &mut Lane) {
        let pairs = &self.tokenizer.pairs;
        let mut parts = [(0, pairs.nothing()); lanes::MOST];
        let (mut count, mut last) = (0, 0);
        each_symbol(piece, &self.tokenizer.chars, |symbol| {
            parts[count] = (symbol, pairs.ask(last, symbol, count > 0));
            last = symbol;
            count += 1;
        });
        for &(symbol, with_last) in &parts[..count] {
            lane.push(symbol, pairs.answer(with_last));
        }
    }

    #[inline]
    fn finish(&self, symbol: u32, ids: &mut Vec<u32>) {
        if symbol < CHAR {
            return ids.push(symbol);
        }
        let mut buffer = [0; 4];
        let bytes = symbol_bytes(symbol, &mut buffer);
        ids.extend(bytes.iter().filter_map(|&byte| self.tokenizer.bytes[usize::from(byte)]));
    }

    fn long(&mut self, piece: &[u8], ids: &mut Vec<u32>) {
        symbols(piece, &self.tokenizer.chars, self.symbols);
        merge_all(&self.tokenizer.pairs, self.symbols, self.scratch);
        self.symbols.iter().for_each(|&symbol| self.finish(symbol, ids));
    }
}

#[derive(Default)]
struct Work {
    ids: Vec<u32>,
    /// For texts that are long enough to repeat themselves, if every byte has a token.
    recent: Option<Recent>,
    symbols: Vec<u32>,
    scratch: Scratch,
    word: Vec<u8>,
    text: Vec<u8>,
    /// The last token was the unknown one.
    in_unknown: bool,
}

/// Moves an error's offset from a word to the text.
fn shift(error: TokenizerError, by: usize, ahead: usize) -> TokenizerError {
    match error {
        TokenizerError::NoTokenForText { text, offset } => {
            TokenizerError::NoTokenForText { text, offset: (offset + by).saturating_sub(ahead) }
        }
        other => other,
    }
}

fn locate(symbol: u32, text: &[u8]) -> (String, usize) {
    let mut buffer = [0; 4];
    let bytes = symbol_bytes(symbol, &mut buffer);
    let at = text.windows(bytes.len().max(1)).position(|w| w == bytes).unwrap_or(0);
    (String::from_utf8_lossy(bytes).into_owned(), at)
}

pub(super) fn byte_tokens(vocab: &mut Draft<'_>, diagnostics: &mut Vec<Diagnostic>) -> [Option<u32>; 256] {
    let mut bytes = [None; 256];
    let mut repaired = 0usize;
    for (id, (text, kind)) in vocab.tokens.iter().zip(&mut vocab.kinds).enumerate() {
        let Some(byte) = byte_token(text) else {
            continue;
        };
        if matches!(kind, TokenKind::Normal | TokenKind::Unused) {
            *kind = TokenKind::Byte;
            repaired += 1;
        }
        if *kind == TokenKind::Byte {
            bytes[usize::from(byte)].get_or_insert(id as u32);
        }
    }
    if repaired > 0 {
        diagnostics.push(Diagnostic::warning(
            "byte_type_corrected",
            format!("{repaired} tokens `<0xXX>` were not typed as byte tokens and are now"),
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
        let all = self.bytes.iter().all(Option::is_some);
        let recent = if all { Recent::for_text(self.owner, bytes.len()) } else { None };
        let mut work = Work { ids: Vec::with_capacity(bytes.len() / 3 + 4), recent, ..Work::default() };
        work.ids.extend(self.vocab.front(opts));
        self.vocab.matcher(opts).split(bytes, |part| {
            match part {
                Part::Text { text, offset } => self.encode_text(text, offset, &mut work)?,
                Part::Special(id) => work.ids.push(id),
            }
            Ok::<(), TokenizerError>(())
        })?;
        work.ids.extend(self.vocab.back(opts));
        work.recent.into_iter().for_each(Recent::put_back);
        Ok(work.ids)
    }

    fn token_bytes(&self, id: u32, special: bool) -> Option<Cow<'_, [u8]>> {
        if self.normalizer.is_some() {
            return piece_bytes(&self.vocab, id, special);
        }
        let text = self.vocab.tokens.get(id as usize)?;
        Some(match self.vocab.kinds.get(id as usize)? {
            TokenKind::Byte => match byte_token(text) {
                Some(byte) => Cow::Owned(vec![byte]),
                None => Cow::Borrowed(text),
            },
            TokenKind::Control | TokenKind::Unknown if !special => Cow::Borrowed(&[]),
            TokenKind::Normal | TokenKind::Unused if text.windows(SPACE.len()).any(|w| w == SPACE) => {
                Cow::Owned(unescape(text))
            }
            _ => Cow::Borrowed(text),
        })
    }

    fn decode(&self, ids: &[u32], skip_special: bool) -> Vec<u8> {
        match &self.normalizer {
            Some(normalizer) => decode_pieces(&self.vocab, normalizer, ids, skip_special),
            None => decode_by_token(self, ids, skip_special),
        }
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

    fn tables(&self) -> Option<Tables<'_>> {
        Some(Tables::Spm(self))
    }
}
