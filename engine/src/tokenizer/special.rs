//! Finding special tokens in text: leftmost-longest, as HuggingFace does.
//!
//! llama.cpp instead goes through the tokens by length and cuts the text with each; that differs only where two
//! special tokens overlap in the text without one containing the other from its start (`<a` and `ab>` in `<ab>`).

use memchr::{memchr, memchr2, memchr3};

/// Longest special token that is looked for. The walk costs at most this many steps a byte of text.
pub const MAX_LEN: usize = 1024;

/// A byte trie over the special tokens.
#[derive(Debug, Clone)]
pub struct SpecialMatcher {
    /// Which bytes start a token.
    first: [bool; 256],
    /// The same as a list.
    leads: Vec<u8>,
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, Default)]
struct Node {
    /// Ascending by byte.
    children: Vec<(u8, u32)>,
    id: Option<u32>,
}

impl Default for SpecialMatcher {
    fn default() -> Self {
        Self { first: [false; 256], leads: Vec::new(), nodes: vec![Node::default()] }
    }
}

impl SpecialMatcher {
    /// Adds a token; of equal texts the first counts. Empty texts and those beyond [`MAX_LEN`] are refused (`false`).
    pub fn add(&mut self, text: &[u8], id: u32) -> bool {
        let Some(&lead) = text.first() else {
            return false;
        };
        if text.len() > MAX_LEN {
            return false;
        }
        if !std::mem::replace(&mut self.first[usize::from(lead)], true) {
            self.leads.push(lead);
        }
        let mut at = 0;
        for &byte in text {
            at = match self.nodes[at].children.binary_search_by_key(&byte, |c| c.0) {
                Ok(i) => self.nodes[at].children[i].1 as usize,
                Err(i) => {
                    let new = self.nodes.len();
                    self.nodes[at].children.insert(i, (byte, new as u32));
                    self.nodes.push(Node::default());
                    new
                }
            };
        }
        self.nodes[at].id.get_or_insert(id);
        true
    }

    /// The longest token that starts exactly at `at`: its id and its end.
    pub(super) fn longest_at(&self, text: &[u8], at: usize) -> Option<(u32, usize)> {
        let (mut node, mut best) = (0, None);
        for (i, &byte) in text[at..].iter().enumerate() {
            match self.nodes[node].children.binary_search_by_key(&byte, |c| c.0) {
                Ok(child) => node = self.nodes[node].children[child].1 as usize,
                Err(_) => break,
            }
            if let Some(id) = self.nodes[node].id {
                best = Some((id, at + i + 1));
            }
        }
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

    /// The way of searching hangs on how many bytes start a token; what is found does not.
    #[test]
    fn tokens_are_found_whatever_they_start_with() {
        let tokens = ["<s>", "[x]", "{y}", "~", "<stop>", "@"];
        let text = "a < b <s>[x [x]~{y}<stop>@@ <s";
        for n in 0..=tokens.len() {
            let mut matcher = SpecialMatcher::default();
            for (id, token) in (0..).zip(&tokens[..n]) {
                assert!(matcher.add(token.as_bytes(), id));
            }
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
