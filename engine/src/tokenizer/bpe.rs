//! Byte-level BPE (`tokenizer.ggml.model = gpt2`): GPT-2, LLaMA-3, SmolLM2, Qwen2...
//!
//! Text is split into pieces by the [pre-tokenizer](super::pretokenize); a piece that is a token as it stands *and*
//! that the merges would arrive at is found with one probe of an exact table; the others are merged from their bytes.
//! Which tokens the merges arrive at is worked out once while loading, by merging every one of them. Where the family
//! says `ignore_merges` (LLaMA-3 has 588 tokens that no merges reach) every token is taken as it stands.
//!
//! Bytes without a token (SmolLM2 lacks 21) are left out before merging, as HuggingFace does; llama.cpp leaves them
//! out after merging, so that they keep their neighbours apart.

use super::batch::{Batch, Merging};
use super::error::{Diagnostic, TokenizerError};
use super::joints::Joints;
use super::lanes::{self, Lane};
use super::merge::{BytePairs, Merge, NO_SYMBOL, NONE, PairTable, Scratch};
use super::pretokenize::{Pre, PreSpec, Windows};
use super::recent::{self, Recent};
use super::special::Part;
use super::vocab::{Defaults, MergeRule, Vocab, VocabSource, check_length, show};
use super::words::WordMap;
use super::{EncodeOptions, SpecialTokens, Tokenizer, byte_alphabet, checksum, fingerprint};
use bitnet_kernels::text;
use std::borrow::Cow;
use std::mem;
use std::sync::OnceLock;

/// A byte-level BPE tokenizer.
#[derive(Debug)]
pub struct BpeTokenizer {
    vocab: Vocab,
    pre: &'static PreSpec,
    /// The pieces that are one token.
    words: WordMap,
    pairs: PairTable,
    bytes: BytePairs,
    /// Of this thread's [`Recent`] pieces.
    owner: u64,
    /// Where long pieces are cut; worked out with the first.
    joints: OnceLock<Joints>,
}

/// Bytes of a piece that is merged without a look for cuts.
const CUT: usize = 256;

impl BpeTokenizer {
    /// Builds it; what was mended goes to `diagnostics`.
    ///
    /// # Errors
    /// See [`TokenizerError`].
    pub fn new(mut source: VocabSource, diagnostics: &mut Vec<Diagnostic>) -> Result<Self, TokenizerError> {
        if source.tokens.is_empty() {
            return Err(TokenizerError::BadVocabSize { found: 0, limit: super::vocab::MAX_TOKENS });
        }
        // Kimi's GGUFs have no merges: its vocabulary is tiktoken's, where the ranks are the ids.
        if source.pre.as_deref() == Some("kimi-k2") && source.merges.is_empty() {
            source.merge_rule = MergeRule::Ranks;
        }
        let by_ranks = source.merge_rule == MergeRule::Ranks;
        if source.merges.is_empty() && !by_ranks {
            return Err(TokenizerError::NoMerges);
        }
        let pre = rule(&source, diagnostics)?;
        let bos = if pre.no_bos { None } else { Some(11) };
        let defaults = Defaults { bos, eos: Some(11), add_bos: pre.add_bos, ..Defaults::default() };
        let mut vocab = Vocab::new(&mut source, defaults, diagnostics)?;
        let listed = if by_ranks { None } else { Some(pairs(&vocab, &source.merges, diagnostics)?) };
        to_bytes(&mut vocab, diagnostics);
        let bytes = byte_tokens(&vocab, diagnostics);
        let pairs = match listed {
            Some(pairs) => pairs,
            None => rank_pairs(&vocab)?,
        };
        let bytes = BytePairs::new(bytes, &pairs);
        let words = words(&vocab, &pairs, &bytes, source.ignore_merges.unwrap_or(pre.ignore_merges));
        Ok(Self { vocab, pre, words, pairs, bytes, owner: recent::owner(), joints: OnceLock::new() })
    }

    /// The ids of a text by another rule, with the tokens that may go in front and behind.
    pub(super) fn ids_by(&mut self, pre: &'static PreSpec, text: &str) -> (Option<u32>, Vec<u32>, Option<u32>) {
        self.pre = pre;
        let mut work = Work::default();
        self.encode_text(text.as_bytes(), &mut work);
        (self.vocab.special.bos, work.ids, self.vocab.special.eos)
    }

    /// What a device needs: the rule, the pieces that are one token, the merges, the token of each byte.
    pub(super) fn tables(&self) -> (Pre, &WordMap, &PairTable, &[u32; 256]) {
        (self.pre.pre, &self.words, &self.pairs, &self.bytes.symbols)
    }

    /// Cuts `text` at the special tokens that `opts` lets be found in it.
    pub(super) fn split_special<'a>(&self, text: &'a [u8], opts: EncodeOptions, mut part: impl FnMut(Part<'a>)) {
        let done: Result<(), std::convert::Infallible> = self.vocab.matcher(opts).split(text, |found| {
            part(found);
            Ok(())
        });
        match done {
            Ok(()) => {}
        }
    }

    /// Where a piece of so many bytes can be cut, if it is long: the same again and again is then merged once. (Bytes without a token
    /// are left out, which makes neighbours of others.)
    fn joints(&self, len: usize) -> Option<&Joints> {
        let whole = len > CUT && !self.bytes.symbols.contains(&NO_SYMBOL);
        whole.then(|| self.joints.get_or_init(|| Joints::new(self.vocab.all_texts(), false)))
    }

    fn encode_text(&self, text: &[u8], work: &mut Work) {
        let Work { ids, recent, symbols, scratch } = work;
        let mut merging = Bytes { tokenizer: self, symbols, scratch };
        match recent {
            Some(recent) => {
                let (mut windows, room) = (mem::take(&mut recent.windows), mem::take(&mut recent.room));
                let mut batch = Batch { words: &self.words, recent, merging, room };
                self.pre.pre.batches(text::best(), text, &mut windows, &mut |from, ends| {
                    batch.encode(text, from, ends, ids);
                });
                let Batch { recent, room, .. } = batch;
                (recent.windows, recent.room) = (windows, room);
            }
            None => self.pre.pre.batches(text::best(), text, &mut Windows::default(), &mut |from, ends| {
                let mut start = from;
                for end in ends.iter().map(|end| from + *end as usize) {
                    let piece = &text[start..end];
                    match self.words.get(piece) {
                        Some(id) => ids.push(id),
                        None => merging.long(piece, ids),
                    }
                    start = end;
                }
            }),
        }
    }
}

/// Merging from bytes.
struct Bytes<'a> {
    tokenizer: &'a BpeTokenizer,
    symbols: &'a mut Vec<u32>,
    scratch: &'a mut Scratch,
}

impl Merging for Bytes<'_> {
    fn table(&self) -> &PairTable {
        &self.tokenizer.pairs
    }

    #[inline]
    fn fill(&self, piece: &[u8], lane: &mut Lane) {
        let bytes = &self.tokenizer.bytes;
        let mut last = None;
        for &byte in piece {
            let symbol = bytes.symbols[usize::from(byte)];
            // Left out, as in `BytePairs::merge_all`.
            if symbol != NO_SYMBOL {
                lane.push(symbol, last.replace(byte).map_or(NONE, |last| bytes.pair(last, byte)));
            }
        }
    }

    #[inline]
    fn finish(&self, symbol: u32, ids: &mut Vec<u32>) {
        ids.push(symbol);
    }

    fn long(&mut self, piece: &[u8], ids: &mut Vec<u32>) {
        let BpeTokenizer { bytes, pairs, .. } = self.tokenizer;
        let joints = self.tokenizer.joints(piece.len());
        let (mut start, mut last) = (0, (&[][..], 0..0));
        while start < piece.len() {
            let end = joints.map_or(piece.len(), |joints| joints.next(piece, start));
            let part = &piece[start..end];
            let old = ids.len();
            if part == last.0 {
                ids.extend_from_within(last.1.clone());
            } else {
                bytes.merge_all(pairs, part, self.symbols, self.scratch);
                ids.extend_from_slice(self.symbols);
            }
            last = (part, old..ids.len());
            start = end;
        }
    }
}

/// The rule by which a vocabulary's texts are split: by the file, by the vocabulary's fingerprint, by what it makes of a text.
fn rule(source: &VocabSource, diagnostics: &mut Vec<Diagnostic>) -> Result<&'static PreSpec, TokenizerError> {
    let before = diagnostics.len();
    let pre = fingerprint::resolve(source.pre.as_deref(), &source.tokens, fingerprint::KNOWN, diagnostics);
    let unknown = match &pre {
        Ok(_) => diagnostics[before..].iter().any(|diagnostic| diagnostic.code == fingerprint::UNKNOWN),
        Err(error) => matches!(error, TokenizerError::UnknownPre { .. }),
    };
    let Some(found) = unknown.then(|| checksum::identify(source)).flatten() else { return pre };
    diagnostics.truncate(before);
    diagnostics.push(fingerprint::by_checksum(source.pre.as_deref(), found));
    Ok(found)
}

#[derive(Default)]
struct Work {
    ids: Vec<u32>,
    /// For texts that are long enough to repeat themselves.
    recent: Option<Recent>,
    symbols: Vec<u32>,
    scratch: Scratch,
}

/// The merges as pairs of ids. A merge splits at the first space after its first byte; of duplicates the first counts.
pub(super) fn pairs(
    vocab: &Vocab,
    merges: &[Vec<u8>],
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<PairTable, TokenizerError> {
    let mut table = PairTable::with_capacity(merges.len());
    let (mut duplicates, mut strangers) = (0usize, 0usize);
    let mut joined = Vec::new();
    for (index, merge) in merges.iter().enumerate() {
        let bad = || TokenizerError::BadMerge { index, merge: show(merge) };
        let space = merge.iter().skip(1).position(|&b| b == b' ').ok_or_else(bad)? + 1;
        let (left, right) = (&merge[..space], &merge[space + 1..]);
        if right.is_empty() {
            return Err(bad());
        }
        joined.clear();
        joined.extend_from_slice(left);
        joined.extend_from_slice(right);
        let find = |text: &[u8]| vocab.by_text.get(text).filter(|&id| vocab.kinds[id as usize].is_text());
        match (find(left), find(right), find(&joined)) {
            (Some(left), Some(right), Some(id)) => {
                let rank = u32::try_from(index).ok().filter(|&r| r < lanes::RANKS).ok_or_else(bad)?;
                duplicates += usize::from(!table.insert(left, right, Merge { rank, id }));
            }
            _ => strangers += 1,
        }
    }
    if duplicates > 0 {
        diagnostics.push(Diagnostic::info(
            "duplicate_merges",
            format!("{duplicates} merges repeat an earlier one, which counts"),
            "",
        ));
    }
    if strangers > 0 {
        diagnostics.push(Diagnostic::warning(
            "merges_outside_vocabulary",
            format!(
                "{strangers} of {} merges join or make pieces that are no ordinary tokens; they are left out",
                merges.len()
            ),
            "convert the model again with its tokenizer",
        ));
    }
    if table.is_empty() {
        return Err(useless(merges.len(), merges.first().map_or(&[], Vec::as_slice)));
    }
    Ok(table)
}

/// The error of merges that all fail.
pub(crate) fn useless(merges: usize, first: &[u8]) -> TokenizerError {
    let first = show(first);
    let what = format!("none of its merges ({merges}, the first is `{first}`) makes one ordinary token of two");
    TokenizerError::UselessMerges { what }
}

/// Every pair of tokens whose bytes together are a token, the lowest id first. `vocab` is in bytes already.
fn rank_pairs(vocab: &Vocab) -> Result<PairTable, TokenizerError> {
    let text = || {
        let normal = |kind: &super::TokenKind| matches!(kind, super::TokenKind::Normal | super::TokenKind::Unused);
        let all = vocab.tokens.iter().zip(&vocab.kinds).enumerate();
        all.filter(move |(_, (text, kind))| normal(kind) && !text.is_empty()).map(|(id, (text, _))| (id as u32, text))
    };
    let mut ids = WordMap::with_capacity(vocab.tokens.len());
    for (id, token) in text() {
        ids.insert(token, id);
    }
    let mut table = PairTable::with_capacity(vocab.tokens.len() * 3);
    for (id, token) in text().filter(|(id, token)| ids.get(token) == Some(*id)) {
        for at in 1..token.len() {
            if let (Some(left), Some(right)) = (ids.get(&token[..at]), ids.get(&token[at..])) {
                table.insert(left, right, Merge { rank: id, id });
            }
        }
    }
    if table.is_empty() {
        return Err(TokenizerError::UselessMerges { what: "no two of its tokens make a third".to_owned() });
    }
    Ok(table)
}

/// Ordinary tokens from GPT-2's alphabet to the bytes they stand for, in place.
fn to_bytes(vocab: &mut Vocab, diagnostics: &mut Vec<Diagnostic>) {
    let mut odd = Vec::new();
    for (id, (text, kind)) in vocab.tokens.iter_mut().zip(&mut vocab.kinds).enumerate() {
        if matches!(kind, super::TokenKind::Normal | super::TokenKind::Unused) {
            match byte_alphabet::decode(text) {
                Some(bytes) => *text = bytes,
                None => {
                    // It can be decoded to its own text, but no piece of text ever becomes it.
                    *kind = super::TokenKind::Byte;
                    odd.push(id);
                }
            }
        }
    }
    if let Some(first) = odd.first() {
        diagnostics.push(Diagnostic::warning(
            "tokens_outside_byte_alphabet",
            format!(
                "{} tokens are not written in the byte alphabet (the first is {first}); text never becomes them",
                odd.len()
            ),
            "type them as user-defined (4) or control (3) tokens when converting",
        ));
    }
}

fn byte_tokens(vocab: &Vocab, diagnostics: &mut Vec<Diagnostic>) -> [u32; 256] {
    let mut text = [0; 4];
    let bytes: [u32; 256] = std::array::from_fn(|b| {
        let text = byte_alphabet::to_char(b as u8).encode_utf8(&mut text);
        vocab.by_text.get(text.as_bytes()).filter(|&id| vocab.kinds[id as usize].is_text()).unwrap_or(NO_SYMBOL)
    });
    let missing: Vec<String> =
        bytes.iter().enumerate().filter(|(_, id)| **id == NO_SYMBOL).map(|(b, _)| format!("{b:02x}")).collect();
    if !missing.is_empty() {
        diagnostics.push(Diagnostic::info(
            "bytes_without_token",
            format!(
                "the vocabulary has no token for {} bytes, which are left out of text: {}",
                missing.len(),
                missing.join(" ")
            ),
            "",
        ));
    }
    bytes
}

/// The pieces that are one token as they stand: all, or those that the merges arrive at.
fn words(vocab: &Vocab, pairs: &PairTable, bytes: &BytePairs, ignore_merges: bool) -> WordMap {
    let mut words = WordMap::with_capacity(vocab.tokens.len());
    let (mut symbols, mut scratch) = (Vec::new(), Scratch::default());
    for (id, (text, kind)) in vocab.tokens.iter().zip(&vocab.kinds).enumerate() {
        let id = id as u32;
        if text.is_empty() || !matches!(kind, super::TokenKind::Normal | super::TokenKind::Unused) {
            continue;
        }
        if !ignore_merges {
            bytes.merge_all(pairs, text, &mut symbols, &mut scratch);
            if symbols != [id] {
                continue;
            }
        }
        words.insert(text, id);
    }
    words
}

impl Tokenizer for BpeTokenizer {
    fn encode_bytes(&self, bytes: &[u8], opts: EncodeOptions) -> Result<Vec<u32>, TokenizerError> {
        check_length(bytes)?;
        let recent = Recent::for_text(self.owner, bytes.len());
        let mut work = Work { ids: Vec::with_capacity(bytes.len() / 3 + 4), recent, ..Work::default() };
        work.ids.extend(self.vocab.front(opts));
        self.vocab.matcher(opts).split(bytes, |part| {
            match part {
                Part::Text { text, .. } => self.encode_text(text, &mut work),
                Part::Special(id) => work.ids.push(id),
            }
            Ok::<(), TokenizerError>(())
        })?;
        work.ids.extend(self.vocab.back(opts));
        work.recent.into_iter().for_each(Recent::put_back);
        Ok(work.ids)
    }

    fn token_bytes(&self, id: u32, special: bool) -> Option<Cow<'_, [u8]>> {
        let text = self.vocab.tokens.get(id as usize)?;
        let hidden = !special && self.vocab.is_special(id);
        Some(Cow::Borrowed(if hidden { &[] } else { text }))
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
        "bpe"
    }

    fn pre(&self) -> Option<&str> {
        Some(self.pre.name)
    }

    fn byte_level(&self) -> Option<&BpeTokenizer> {
        Some(self)
    }
}
