//! Other programs' rules, written as plainly as they can be: slow, short, and sharing nothing with the engine.

use bitnet_engine::tokenizer::{TokenKind, VocabSource, byte_alphabet};
use bitnet_harness::Failure;
use std::collections::HashMap;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, SplitDelimiterBehavior};

/// llama.cpp's fallback: each pass splits what the ones before left whole.
pub(crate) const DEFAULT_PASSES: [&str; 4] = [
    r"[\p{P}\$\+<=>\^~\|]+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
    r"\p{N}+",
    r"[0-9][0-9][0-9]",
];

/// The pieces of `text` after splitting by each expression in turn.
pub(crate) fn split(text: &str, expressions: &[&str]) -> Result<Vec<String>, Failure> {
    let wrong = |e: tokenizers::Error| Failure::new(format_args!("splitting: {e}"));
    let mut pieces = PreTokenizedString::from(text);
    for expression in expressions {
        let pattern = SplitPattern::Regex((*expression).to_owned());
        let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(wrong)?;
        split.pre_tokenize(&mut pieces).map_err(wrong)?;
    }
    let pieces = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
    Ok(pieces.into_iter().map(|(piece, ..)| piece.to_owned()).collect())
}

/// Byte-level BPE as llama.cpp merges it: bytes without a token are symbols until the end, and left out then.
pub(crate) struct Bpe {
    ids: HashMap<String, u32>,
    ranks: HashMap<(String, String), usize>,
    ignore_merges: bool,
}

impl Bpe {
    pub(crate) fn new(source: &VocabSource, ignore_merges: bool) -> Result<Self, Failure> {
        let mut ids = HashMap::new();
        for (id, token) in source.tokens.iter().enumerate() {
            ids.entry(std::str::from_utf8(token)?.to_owned()).or_insert(id as u32);
        }
        let mut ranks = HashMap::new();
        for (rank, merge) in source.merges.iter().enumerate() {
            if let Some((left, right)) = std::str::from_utf8(merge)?.split_once(' ') {
                ranks.entry((left.to_owned(), right.to_owned())).or_insert(rank);
            }
        }
        Ok(Self { ids, ranks, ignore_merges })
    }

    pub(crate) fn encode(&self, piece: &str) -> Vec<u32> {
        let word: String = piece.bytes().map(byte_alphabet::to_char).collect();
        if let (true, Some(id)) = (self.ignore_merges, self.ids.get(&word)) {
            return vec![*id];
        }
        let mut symbols: Vec<String> = word.chars().map(String::from).collect();
        loop {
            let pairs = symbols.windows(2).enumerate();
            let ranked = pairs.filter_map(|(at, w)| Some((*self.ranks.get(&(w[0].clone(), w[1].clone()))?, at)));
            let Some((_, at)) = ranked.min() else { break };
            let right = symbols.remove(at + 1);
            symbols[at].push_str(&right);
        }
        symbols.iter().filter_map(|symbol| self.ids.get(symbol).copied()).collect()
    }
}

/// A stretch of text, or a special token.
pub(crate) enum Part {
    Text(String),
    Token(u32),
}

/// llama.cpp's way to find special tokens: the longest first, each in everything that is still text.
pub(crate) fn by_length(source: &VocabSource, text: &str) -> Result<Vec<Part>, Failure> {
    let mut specials: Vec<(u32, &str)> = Vec::new();
    for (id, (token, kind)) in source.tokens.iter().zip(&source.token_types).enumerate() {
        if matches!(kind, TokenKind::Control | TokenKind::Unknown | TokenKind::UserDefined) {
            specials.push((id as u32, std::str::from_utf8(token)?));
        }
    }
    specials.sort_by_key(|(_, token)| std::cmp::Reverse(token.len()));
    let mut parts = vec![Part::Text(text.to_owned())];
    for (id, token) in specials {
        let mut next = Vec::new();
        for part in parts {
            match part {
                Part::Text(text) => {
                    for (i, stretch) in text.split(token).enumerate() {
                        if i > 0 {
                            next.push(Part::Token(id));
                        }
                        if !stretch.is_empty() {
                            next.push(Part::Text(stretch.to_owned()));
                        }
                    }
                }
                token => next.push(token),
            }
        }
        parts = next;
    }
    Ok(parts)
}
