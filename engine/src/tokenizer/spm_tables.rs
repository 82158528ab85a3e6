//! What SPM works out once while loading: symbols, the pairs that merge, the words that are one token, and where text
//! can be cut into words without changing what merges.

use super::compiled::{Reader, Unusable, Writer};
use super::flat::Flat;
use super::merge::{Merge, PairTable, PairTableBuilder, Scratch, merge_all};
use super::unicode::decode;
use super::vocab::Draft;
use super::words::{WordMap, WordMapBuilder};

/// U+2581, SentencePiece's space.
pub(super) const SPACE: &[u8] = "\u{2581}".as_bytes();
pub(super) const CHAR: u32 = 0x8000_0000;
const RAW_BYTE: u32 = 0xC000_0000;

/// The symbols of `text`, spaces as `▁`.
pub(super) fn symbols(text: &[u8], chars: &WordMap, out: &mut Vec<u32>) {
    out.clear();
    each_symbol(text, chars, |symbol| out.push(symbol));
}

/// Calls `found` with every symbol of `text`; a byte is one at most.
#[inline]
pub(super) fn each_symbol(text: &[u8], chars: &WordMap, mut found: impl FnMut(u32)) {
    let mut at = 0;
    while at < text.len() {
        let (symbol, len) = if text[at] == b' ' { (symbol(SPACE, 0, chars).0, 1) } else { symbol(text, at, chars) };
        found(symbol);
        at += len;
    }
}

/// Where text can be cut without changing what merges: in front of a space, after a character that no token has in
/// front of a `▁`. In the usual vocabularies that is every word.
#[derive(Debug)]
pub(super) struct Cuts {
    /// By last byte of the character in front: whether some token has one that ends so in front of a `▁`. (Coarser
    /// than by character, and right for any bytes.)
    joined: [bool; 256],
    /// Whether `▁` `▁` are never together in a token.
    pub(super) between_spaces: bool,
}

impl Cuts {
    pub(super) fn new(vocab: &Draft<'_>) -> Self {
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
        Self { joined, between_spaces: !joined[usize::from(b' ')] }
    }

    pub(super) fn store(&self, out: &mut Writer) {
        out.table(&self.joined.map(u8::from));
        out.flag(self.between_spaces);
    }

    /// # Errors
    /// Where the table has another length.
    pub(super) fn open(from: &mut Reader<'_>) -> Result<Self, Unusable> {
        let joined: Flat<u8> = from.table()?;
        let joined: [u8; 256] = (*joined).try_into().map_err(|_| Unusable::Damaged("its cuts are not complete"))?;
        Ok(Self { joined: joined.map(|byte| byte != 0), between_spaces: from.flag()? })
    }

    /// The first cut after `start`, or the end.
    pub(super) fn next(&self, text: &[u8], start: usize) -> usize {
        let mut spaces = memchr::memchr_iter(b' ', text.get(start + 1..).unwrap_or_default()).map(|at| start + 1 + at);
        spaces.find(|&at| !self.joined[usize::from(text[at - 1])]).unwrap_or(text.len())
    }
}

/// The words that are one token: spelled as in text, and what the merges arrive at.
pub(super) fn words(vocab: &Draft<'_>, chars: &WordMap, pairs: &PairTable) -> WordMap {
    let mut words = WordMapBuilder::with_capacity(vocab.tokens.len());
    let (mut parts, mut scratch) = (Vec::new(), Scratch::default());
    for (id, text) in mergeable(vocab) {
        symbols(text, chars, &mut parts);
        merge_all(pairs, &mut parts, &mut scratch);
        if parts == [id] && !text.contains(&b' ') {
            words.add(&unescape(text), id);
        }
    }
    words.finish()
}

/// The symbol at `at` and its length in bytes.
#[inline]
pub(super) fn symbol(text: &[u8], at: usize, chars: &WordMap) -> (u32, usize) {
    match decode(text, at) {
        Some((c, len)) => (chars.get(&text[at..at + len]).unwrap_or(CHAR | c), len),
        None => (RAW_BYTE | u32::from(text[at]), 1),
    }
}

pub(super) fn symbol_bytes(symbol: u32, buffer: &mut [u8; 4]) -> &[u8] {
    if symbol >= RAW_BYTE {
        buffer[0] = symbol as u8;
        return &buffer[..1];
    }
    match char::from_u32(symbol & !CHAR) {
        Some(c) => c.encode_utf8(buffer).as_bytes(),
        None => &[],
    }
}

/// Tokens that merging may produce: not control, unknown or byte tokens, as SentencePiece has it. (llama.cpp takes
/// any token whose text comes together.)
pub(super) fn mergeable<'a>(vocab: &'a Draft<'_>) -> impl Iterator<Item = (u32, &'a [u8])> {
    vocab
        .tokens
        .iter()
        .zip(&vocab.kinds)
        .enumerate()
        .filter(|(_, (text, kind))| !text.is_empty() && kind.is_text())
        .map(|(id, (text, _))| (id as u32, *text))
}

pub(super) fn pairs(vocab: &Draft<'_>, scores: &[f32], chars: &WordMap, pieces: &WordMap) -> PairTable {
    let mut order: Vec<f32> = scores.to_vec();
    // -0.0 and 0.0 are one score.
    order.iter_mut().for_each(|s| *s += 0.0);
    order.sort_unstable_by(|a, b| b.total_cmp(a));
    order.dedup();
    let rank_of = |id: u32| {
        let score = scores.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY) + 0.0;
        order.binary_search_by(|s| score.total_cmp(s)).unwrap_or_else(|at| at) as u32
    };
    let mut table = PairTableBuilder::with_capacity(vocab.tokens.len() * 2);
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
        let merge = Merge { rank: rank_of(id), id };
        let mut at = 0;
        while at < text.len() {
            at += decode(text, at).map_or(1, |(_, len)| len);
            if at < text.len()
                && let (Some(left), Some(right)) = (part(&text[..at]), part(&text[at..]))
            {
                table.add(left, right, merge);
            }
        }
    }
    table.finish().0
}

/// `▁` back to spaces.
pub(super) fn unescape(text: &[u8]) -> Vec<u8> {
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
