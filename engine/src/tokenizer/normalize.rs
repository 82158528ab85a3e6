//! How SentencePiece changes text before it cuts it into pieces.
//!
//! The steps are those of sentencepiece's `Normalizer` (src/normalizer.cc, Apache-2.0), read for facts: user-defined pieces stay as
//! they are; else the longest entry of the character map is replaced; spaces in front, behind and in runs go where the
//! model says so; one space goes in front; and a space is written `▁` (U+2581). A byte that is not UTF-8 becomes U+FFFD.
//!
//! A character map is a little-endian u32 (bytes of the trie), the trie (a double array of u32 units, as the library
//! Darts lays them out: label in bits 0 to 7 and 31, "has a value" in bit 8, offset in bits 10 to 30, shifted by 8 where
//! bit 9 is set), and texts that end with a zero byte; a value is where its text starts.

use super::compiled::{Reader, Stored, Unusable, Writer};
use super::flat::Flat;
use super::special::SpecialMatcher;
use super::spm_tables::SPACE;
use super::unicode::decode;

/// What a model says about its normalising. The source of [`super::VocabSource::normalizing`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Normalizing {
    /// `precompiled_charsmap`; empty: characters stay as they are.
    pub charsmap: Vec<u8>,
    /// A space goes in front of the text.
    pub dummy_prefix: bool,
    /// Spaces at both ends are removed, and runs of them are one.
    pub remove_extra: bool,
    /// User-defined tokens that SentencePiece itself finds: they neither end a stretch of text nor get a space in front.
    /// All other user-defined tokens are cut out first.
    pub inline: Vec<u32>,
}

/// Ready to run.
#[derive(Debug, Clone)]
pub(super) struct Normalizer {
    map: Option<CharsMap>,
    /// As in [`Normalizing`].
    pub(super) dummy_prefix: bool,
    remove_extra: bool,
    /// The pieces of [`Normalizing::inline`].
    pub(super) inline: SpecialMatcher,
}

impl Normalizer {
    /// `tokens` are the texts of all tokens.
    ///
    /// # Errors
    /// What is wrong with the character map.
    pub(super) fn new(spec: &Normalizing, tokens: &[&[u8]]) -> Result<Self, String> {
        let text = |id: &u32| tokens.get(*id as usize).map(|text| (*id, *text));
        let inline = SpecialMatcher::new(spec.inline.iter().filter_map(text));
        let map = if spec.charsmap.is_empty() { None } else { Some(CharsMap::new(&spec.charsmap)?) };
        Ok(Self { map, dummy_prefix: spec.dummy_prefix, remove_extra: spec.remove_extra, inline })
    }

    pub(super) fn store(&self, out: &mut Writer) {
        let Self { map, dummy_prefix, remove_extra, inline } = self;
        out.flag(map.is_some());
        if let Some(CharsMap { units, texts }) = map {
            out.table(units);
            out.table(texts);
        }
        out.flag(*dummy_prefix);
        out.flag(*remove_extra);
        inline.store(out);
    }

    /// # Errors
    /// Where tables are missing or cannot be used.
    pub(super) fn open(from: &mut Reader<'_>) -> Result<Self, Unusable> {
        Ok(Self {
            map: if from.flag()? { Some(CharsMap { units: from.table()?, texts: from.table()? }) } else { None },
            dummy_prefix: from.flag()?,
            remove_extra: from.flag()?,
            inline: SpecialMatcher::open(from)?,
        })
    }

    /// `text` as the pieces are cut from it, into `out`.
    pub(super) fn run(&self, mut text: &[u8], out: &mut Vec<u8>) {
        out.clear();
        if text.is_empty() {
            return;
        }
        if self.dummy_prefix {
            out.extend_from_slice(SPACE);
        }
        // Spaces in front go as those behind a space do.
        let mut after_space = self.remove_extra;
        while !text.is_empty() {
            let (mut part, len) = self.next(text);
            while let (true, [b' ', rest @ ..]) = (after_space, part) {
                part = rest;
            }
            for &byte in part {
                match byte {
                    b' ' => out.extend_from_slice(SPACE),
                    byte => out.push(byte),
                }
            }
            if let Some(last) = part.last() {
                after_space = self.remove_extra && *last == b' ';
            }
            text = &text[len..];
        }
        while self.remove_extra && out.ends_with(SPACE) {
            out.truncate(out.len() - SPACE.len());
        }
    }

    /// Takes off what the front of a decoded text has more than the text had: `piece` is the next piece with its spaces
    /// as such, `out` the text so far.
    pub(super) fn trim_front<'a>(&self, piece: &'a [u8], out: &[u8], first: bool) -> &'a [u8] {
        let front = out.is_empty() && (self.remove_extra || (self.dummy_prefix && first));
        piece.strip_prefix(b" ").filter(|_| front).unwrap_or(piece)
    }

    /// What the front of `text` becomes, and how many bytes of it that is. `text` is not empty.
    fn next<'a>(&'a self, text: &'a [u8]) -> (&'a [u8], usize) {
        if let Some((_, end)) = self.inline.longest_at(text, 0) {
            return (&text[..end], end);
        }
        if let Some(found) = self.map.as_ref().and_then(|map| map.longest(text)) {
            return found;
        }
        match decode(text, 0) {
            Some((_, len)) => (&text[..len], len),
            None => ("\u{fffd}".as_bytes(), 1),
        }
    }
}

#[derive(Debug, Clone)]
struct CharsMap {
    units: Flat<u32>,
    texts: Flat<u8>,
}

impl CharsMap {
    fn new(bytes: &[u8]) -> Result<Self, String> {
        let (size, rest) = bytes.split_first_chunk::<4>().ok_or("its character map is shorter than its header")?;
        let size = u32::from_le_bytes(*size) as usize;
        let (trie, texts) = rest
            .split_at_checked(size)
            .filter(|(trie, texts)| !trie.is_empty() && trie.len().is_multiple_of(4) && texts.last() == Some(&0))
            .ok_or_else(|| {
                format!(
                    "its character map of {} bytes has no whole trie of {size} bytes with texts behind it",
                    bytes.len()
                )
            })?;
        let units = trie.as_chunks().0.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
        Ok(Self { units, texts: texts.to_vec().into() })
    }

    /// The longest entry at the front of `text`: what it becomes, and its length. A damaged trie ends the search.
    fn longest(&self, text: &[u8]) -> Option<(&[u8], usize)> {
        let offset = |unit: u32| (unit >> 10) << ((unit & (1 << 9)) >> 6);
        let mut at = offset(*self.units.first()?);
        let mut best = None;
        for (len, &byte) in (1..).zip(text) {
            at ^= u32::from(byte);
            let Some(&unit) = self.units.get(at as usize).filter(|unit| **unit & 0x8000_00FF == u32::from(byte)) else {
                break;
            };
            at ^= offset(unit);
            if unit & (1 << 8) != 0 {
                best = self.units.get(at as usize).map(|value| (value & 0x7FFF_FFFF, len)).or(best);
            }
        }
        let (from, len) = best?;
        let replacement = self.texts.get(from as usize..)?;
        let end = memchr::memchr(0, replacement)?;
        Some((&replacement[..end], len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A trie of `a` and `ab` whose root has a shifted offset, as those of large maps do.
    #[test]
    fn the_longest_entry_of_a_map_is_replaced() {
        let mut units = [0u32; 512];
        let (value, shifted) = (1 << 8, 1 << 9);
        units[0] = 1 << 10 | shifted;
        units[256 ^ 0x61] = 1 << 10 | value | 0x61;
        units[256 ^ 0x61 ^ 1] = 0x8000_0000;
        units[256 ^ 0x61 ^ 1 ^ 0x62] = 2 << 10 | value | 0x62;
        units[256 ^ 0x61 ^ 1 ^ 0x62 ^ 2] = 0x8000_0002;
        let trie: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let charsmap = [&(trie.len() as u32).to_le_bytes()[..], &trie, b"x\0yz\0"].concat();
        let normalizer = Normalizer::new(&Normalizing { charsmap, ..Normalizing::default() }, &[]).unwrap();
        let mut out = Vec::new();
        for (text, wanted) in [("a", "x"), ("ab", "yz"), ("aab", "xyz"), ("bac", "bxc"), ("", "")] {
            normalizer.run(text.as_bytes(), &mut out);
            assert_eq!(String::from_utf8_lossy(&out), wanted, "{text}");
        }
    }

    #[test]
    fn spaces_at_the_ends_and_in_runs() {
        let run = |dummy_prefix, remove_extra, text: &str| {
            let normalizer =
                Normalizer::new(&Normalizing { dummy_prefix, remove_extra, ..Normalizing::default() }, &[]);
            let mut out = Vec::new();
            normalizer.unwrap().run(text.as_bytes(), &mut out);
            String::from_utf8_lossy(&out).replace('\u{2581}', "_")
        };
        for (text, with, without) in [("  a  b ", "a_b", "__a__b_"), ("   ", "", "___"), ("", "", ""), ("a", "a", "a")]
        {
            assert_eq!((run(false, true, text).as_str(), run(false, false, text).as_str()), (with, without));
            let prefixed = |text: &str| if text.is_empty() { String::new() } else { format!("_{text}") };
            assert_eq!((run(true, true, text), run(true, false, text)), (prefixed(with), prefixed(without)));
        }
    }
}
