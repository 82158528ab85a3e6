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
use super::compiled::{Reader, Stored, Tables, Unusable, Writer};
use super::error::{Diagnostic, TokenizerError};
use super::flat::{Texts, TextsBuilder};
use super::joints::Joints;
use super::lanes::{self, Lane};
use super::merge::{BytePairs, Merge, NO_SYMBOL, NONE, PairTable, PairTableBuilder, Scratch};
use super::pretokenize::{self, Pre, PreSpec, Windows};
use super::recent::{self, Recent};
use super::special::Part;
use super::vocab::{Defaults, Draft, MergeRule, Vocab, VocabSource, check_length, show};
use super::words::{WordMap, WordMapBuilder};
use super::{EncodeOptions, SpecialTokens, TokenKind, Tokenizer, byte_alphabet, checksum, fingerprint};
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
    /// Builds it; what was repaired goes to `diagnostics`.
    ///
    /// # Errors
    /// See [`TokenizerError`].
    pub fn new(mut source: VocabSource<&[u8]>, diagnostics: &mut Vec<Diagnostic>) -> Result<Self, TokenizerError> {
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
        let mut vocab = Draft::new(&mut source, defaults, diagnostics)?;
        let listed = if by_ranks { None } else { Some(pairs(&vocab, &source.merges, diagnostics)?) };
        let texts = to_bytes(&mut vocab, diagnostics);
        let bytes = byte_tokens(&vocab, diagnostics);
        let vocab = vocab.finish_as(texts);
        let pairs = match listed {
            Some(pairs) => pairs,
            None => rank_pairs(&vocab)?,
        };
        let bytes = BytePairs::new(bytes, &pairs);
        let words = words(&vocab, &pairs, &bytes, source.ignore_merges.unwrap_or(pre.ignore_merges));
        Ok(Self { vocab, pre, words, pairs, bytes, owner: recent::owner(), joints: OnceLock::new() })
    }

    /// Writes the tables into a compiled file; [`BpeTokenizer::open`] reads them in this order.
    pub(super) fn store(&self, out: &mut Writer) {
        let Self { vocab, pre, words, pairs, bytes, owner: _, joints: _ } = self;
        vocab.store(out);
        out.text(pre.name);
        words.store(out);
        pairs.store(out);
        out.table(&bytes.symbols);
        out.table(bytes.merges());
    }

    /// # Errors
    /// Where tables are missing or cannot be used.
    pub(super) fn open(from: &mut Reader<'_>) -> Result<Self, Unusable> {
        let vocab = Vocab::open(from)?;
        let pre = pretokenize::by_name(from.text()?).ok_or(Unusable::Damaged("its pre-tokenizer is not known"))?;
        let (words, pairs) = (WordMap::open(from)?, PairTable::open(from)?);
        let bytes = BytePairs::of(&from.table()?, from.table()?);
        let bytes = bytes.ok_or(Unusable::Damaged("its pairs of bytes are not complete"))?;
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
    pub(super) fn for_device(&self) -> (Pre, &WordMap, &PairTable, &[u32; 256]) {
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
        whole.then(|| self.joints.get_or_init(|| Joints::new(self.vocab.texts(|_| true).map(|(_, text)| text), false)))
    }

    fn encode_text(&self, text: &[u8], work: &mut Work) {
        let Work { ids, recent, symbols, scratch } = work;
        let mut merging = Bytes { tokenizer: self, symbols, scratch };
        let set = text::best();
        match recent {
            Some(recent) => {
                let (mut windows, room) = (mem::take(&mut recent.windows), mem::take(&mut recent.room));
                let mut batch = Batch { set, words: &self.words, recent, merging, room };
                self.pre.pre.batches(set, text, &mut windows, &mut |from, ends| {
                    batch.encode(text, from, ends, ids);
                });
                let Batch { recent, room, .. } = batch;
                (recent.windows, recent.room) = (windows, room);
            }
            None => self.pre.pre.batches(set, text, &mut Windows::default(), &mut |from, ends| {
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
fn rule(source: &VocabSource<&[u8]>, diagnostics: &mut Vec<Diagnostic>) -> Result<&'static PreSpec, TokenizerError> {
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

/// Finds what merges make. They stand in the order of that: nearly always it is the token of the merge before, or the next one.
pub(super) struct Wholes<'a, T> {
    /// By id.
    pub(super) tokens: &'a [T],
    pub(super) ids: &'a WordMap,
    last: u32,
    joined: Vec<u8>,
}

impl<'a, T: AsRef<[u8]>> Wholes<'a, T> {
    pub(super) fn new(tokens: &'a [T], ids: &'a WordMap) -> Self {
        Self { tokens, ids, last: 0, joined: Vec::new() }
    }

    /// The id of `left` and `right` together. `sure` says of which ids the text is no other id's.
    pub(super) fn id(&mut self, left: &[u8], right: &[u8], sure: impl Fn(u32) -> bool) -> Option<u32> {
        let len = left.len() + right.len();
        let is_whole = |id: u32| {
            let text = self.tokens.get(id as usize).map(AsRef::as_ref).unwrap_or_default();
            text.len() == len && text.starts_with(left) && text.ends_with(right) && sure(id)
        };
        let found = match [self.last, self.last + 1].into_iter().find(|id| is_whole(*id)) {
            Some(id) => Some(id),
            None => {
                self.joined.clear();
                self.joined.extend_from_slice(left);
                self.joined.extend_from_slice(right);
                self.ids.get(&self.joined)
            }
        };
        self.last = found.unwrap_or(self.last).min(u32::MAX - 1);
        found
    }
}

/// The merges as pairs of ids; of duplicates the first counts.
pub(super) fn pairs(
    vocab: &Draft<'_>,
    merges: &[&[u8]],
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<PairTable, TokenizerError> {
    let bad = |index: usize| TokenizerError::BadMerge { index, merge: show(merges[index]) };
    // A merge splits at the first space after its first byte, and something is behind it.
    let space = |merge: &[u8]| Some(memchr::memchr(b' ', merge.get(1..)?)? + 1).filter(|at| at + 1 < merge.len());
    let mut spaces = Vec::with_capacity(merges.len());
    for (index, merge) in merges.iter().enumerate() {
        spaces.push(space(merge).ok_or_else(|| bad(index))?);
    }
    let pieces = |index: usize| (&merges[index][..spaces[index]], &merges[index][spaces[index] + 1..]);
    let is_text = |id: &u32| vocab.kinds[*id as usize].is_text();
    let (mut table, mut strangers) = (PairTableBuilder::with_capacity(merges.len()), 0usize);
    let mut wholes = Wholes::new(&vocab.tokens, &vocab.by_text);
    let (mut index, mut left, mut too_many) = (0, None, None);
    let both = (0..merges.len()).flat_map(|index| <[&[u8]; 2]>::from(pieces(index)));
    vocab.by_text.get_each(both, |id| {
        // Left and right ones in turn.
        let Some(left) = left.take() else {
            left = Some(id);
            return;
        };
        let (left_text, right_text) = pieces(index);
        let whole = wholes.id(left_text, right_text, |_| vocab.unique);
        match (left.filter(is_text), id.filter(is_text), whole.filter(is_text)) {
            (Some(left), Some(right), Some(id)) => {
                match u32::try_from(index).ok().filter(|rank| *rank < lanes::RANKS) {
                    Some(rank) => table.add(left, right, Merge { rank, id }),
                    None => too_many = too_many.or(Some(index)),
                }
            }
            _ => strangers += 1,
        }
        index += 1;
    });
    if let Some(index) = too_many {
        return Err(bad(index));
    }
    if table.is_empty() {
        return Err(useless(merges.len(), merges.first().copied().unwrap_or_default()));
    }
    let (table, duplicates) = table.finish();
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
                "{strangers} of {} merges join or make pieces that are not ordinary tokens; they are left out",
                merges.len()
            ),
            "convert the model again with its tokenizer",
        ));
    }
    Ok(table)
}

/// The error of merges that all fail.
pub(crate) fn useless(merges: usize, first: &[u8]) -> TokenizerError {
    let first = show(first);
    let what = format!("none of its merges ({merges}, the first is `{first}`) makes one ordinary token of two");
    TokenizerError::UselessMerges { what }
}

/// The error of tokens without merges, none of which is made of two.
pub(crate) fn no_pairs() -> TokenizerError {
    TokenizerError::UselessMerges { what: "no two of its tokens make a third".to_owned() }
}

/// The tokens that text can become as pieces, with their bytes.
fn ordinary(vocab: &Vocab) -> impl Iterator<Item = (u32, &[u8])> {
    vocab.texts(|kind| matches!(kind, TokenKind::Normal | TokenKind::Unused))
}

/// Every pair of tokens whose bytes together are a token, the lowest id first.
fn rank_pairs(vocab: &Vocab) -> Result<PairTable, TokenizerError> {
    let mut ids = WordMapBuilder::with_capacity(vocab.tokens.len());
    for (id, token) in ordinary(vocab) {
        ids.add(token, id);
    }
    let ids = ids.finish();
    let mut table = PairTableBuilder::with_capacity(vocab.tokens.len() * 3);
    for (id, token) in ordinary(vocab).filter(|(id, token)| ids.get(token) == Some(*id)) {
        for at in 1..token.len() {
            if let (Some(left), Some(right)) = (ids.get(&token[..at]), ids.get(&token[at..])) {
                table.add(left, right, Merge { rank: id, id });
            }
        }
    }
    if table.is_empty() {
        return Err(no_pairs());
    }
    Ok(table.finish().0)
}

/// The texts of all tokens, ordinary ones turned from GPT-2's alphabet into the bytes they stand for.
fn to_bytes(vocab: &mut Draft<'_>, diagnostics: &mut Vec<Diagnostic>) -> Texts {
    let mut odd = Vec::new();
    let mut texts = TextsBuilder::with_capacity(vocab.tokens.len());
    for (id, (text, kind)) in vocab.tokens.iter().zip(&mut vocab.kinds).enumerate() {
        let ordinary = matches!(kind, TokenKind::Normal | TokenKind::Unused);
        if ordinary && texts.push_with(|out| byte_alphabet::decode_into(text, out)) {
            continue;
        }
        if ordinary {
            // It can be decoded to its own text, but no piece of text ever becomes it.
            *kind = TokenKind::Byte;
            odd.push(id);
        }
        texts.push(text);
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
    texts.finish()
}

fn byte_tokens(vocab: &Draft<'_>, diagnostics: &mut Vec<Diagnostic>) -> [u32; 256] {
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
    let mut words = WordMapBuilder::with_capacity(vocab.tokens.len());
    let (mut symbols, mut scratch) = (Vec::new(), Scratch::default());
    for (id, text) in ordinary(vocab) {
        if !ignore_merges {
            bytes.merge_all(pairs, text, &mut symbols, &mut scratch);
            if symbols != [id] {
                continue;
            }
        }
        words.add(text, id);
    }
    words.finish()
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

    fn tables(&self) -> Option<Tables<'_>> {
        Some(Tables::Bpe(self))
    }
}
