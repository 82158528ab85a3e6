//! Finding special tokens in text: leftmost-longest, as HuggingFace does.
//!
//! llama.cpp instead goes through the tokens by length and cuts the text with each; that differs only where two
//! special tokens overlap in the text without one containing the other from its start (`<a` and `ab>` in `<ab>`).

use super::trie::Trie;
use memchr::{memchr, memchr2, memchr3};

/// Longest special token that is looked for. The walk costs at most this many steps a byte of text.
pub const MAX_LEN: usize = 1024;

/// A byte trie over the special tokens.
#[derive(Debug, Clone)]
pub struct SpecialMatcher {
    trie: Trie,
    /// Which bytes start a token.
    first: [bool; 256],
    /// The same as a list.
    leads: Vec<u8>,
}

impl Default for SpecialMatcher {
    fn default() -> Self {
        Self::of(Trie::default())
    }
}

impl SpecialMatcher {
    /// Of equal texts the first counts. Empty texts and those beyond [`MAX_LEN`] are left out.
    #[must_use]
    pub fn new<'a>(tokens: impl Iterator<Item = (u32, &'a [u8])>) -> Self {
        Self::of(Trie::new(tokens.filter(|(_, text)| text.len() <= MAX_LEN)))
    }

    /// Of a trie that is there.
    pub(super) fn of(trie: Trie) -> Self {
        let leads: Vec<u8> = trie.first_bytes().collect();
        let mut first = [false; 256];
        leads.iter().for_each(|&byte| first[usize::from(byte)] = true);
        Self { trie, first, leads }
    }

    pub(super) fn trie(&self) -> &Trie {
        &self.trie
    }

    /// The longest token that starts exactly at `at`: its id and its end.
    pub(super) fn longest_at(&self, text: &[u8], at: usize) -> Option<(u32, usize)> {
        let mut best = None;
        // No token is longer; in a damaged file one may seem to be.
        let text = &text[..text.len().min(at.saturating_add(MAX_LEN))];
        self.trie.prefixes(text, at, |end, id| best = Some((id, end)));
        best
    }

    /// Where the first byte is that starts a token. Real vocabularies have one or two such bytes (`<`), which are found at the
    /// rate of memory.
    fn lead(&self, text: &[u8]) -> Option<usize> {
        match self.leads[..] {
            [] => None,
            [a] => memchr(a, text),
            [a, b] => memchr2(a, b, text),
            [a, b, c] => memchr3(a, b, c, text),
            _ => text.iter().position(|&b| self.first[usize::from(b)]),
        }
    }

    /// The first token at or after `from`: start, end, id.
    #[must_use]
    pub fn find(&self, text: &[u8], from: usize) -> Option<(usize, usize, u32)> {
        let mut at = from;
        while at < text.len() {
            at += self.lead(&text[at..])?;
            if let Some((id, end)) = self.longest_at(text, at) {
                return Some((at, end, id));
            }
            at += 1;
        }
        None
    }

    /// Cuts `text`: `part` gets every stretch of plain text (never empty) and every special token, in order.
    ///
    /// # Errors
    /// What `part` returned.
    pub fn split<'a, E>(&self, text: &'a [u8], mut part: impl FnMut(Part<'a>) -> Result<(), E>) -> Result<(), E> {
        let mut at = 0;
        while let Some((start, end, id)) = self.find(text, at) {
            if start > at {
                part(Part::Text { text: &text[at..start], offset: at })?;
            }
            part(Part::Special(id))?;
            at = end;
        }
        if at < text.len() { part(Part::Text { text: &text[at..], offset: at }) } else { Ok(()) }
    }
}

/// What [`SpecialMatcher::split`] finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// Plain text and where it starts.
    Text {
        /// Never empty.
        text: &'a [u8],
        /// In the text given.
        offset: usize,
    },
    /// A special token's id.
    Special(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The way of searching depends on how many bytes start a token; what is found does not.
    #[test]
    fn tokens_are_found_whatever_they_start_with() {
        let tokens = ["<s>", "[x]", "{y}", "~", "<stop>", "@"];
        let text = "a < b <s>[x [x]~{y}<stop>@@ <s";
        for n in 0..=tokens.len() {
            let matcher = SpecialMatcher::new((0..).zip(&tokens[..n]).map(|(id, token)| (id, token.as_bytes())));
            let longest = |at: usize| {
                let here = (0..).zip(&tokens[..n]).filter(|(_, token)| text[at..].starts_with(**token));
                here.max_by_key(|(_, token)| token.len()).map(|(id, token)| (at, at + token.len(), id))
            };
            for from in 0..text.len() {
                assert_eq!(matcher.find(text.as_bytes(), from), (from..text.len()).find_map(longest), "{n} {from}");
            }
        }
    }
}
