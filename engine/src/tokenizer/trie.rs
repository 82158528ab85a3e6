//! A byte trie over tokens, for finding every token that starts at a place.
//!
//! Children of a node lie side by side, ascending by byte, so that a node is 12 bytes and building is one pass over the
//! sorted texts.

use super::flat::{Flat, Pod};

/// The trie.
#[derive(Debug, Clone, Default)]
pub(super) struct Trie {
    nodes: Flat<Node>,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Node {
    /// Its children are `nodes[first..first + children]`.
    first: u32,
    id: u32,
    children: u16,
    byte: u8,
    zero: u8,
}

const _: () = assert!(size_of::<Node>() == 12);

// SAFETY: numbers without bytes between them.
unsafe impl Pod for Node {}

/// No token ends at a node.
const NO_ID: u32 = u32::MAX;

const LEAF: Node = Node { first: 0, id: NO_ID, children: 0, byte: 0, zero: 0 };

impl Trie {
    /// Of equal texts the first counts; empty texts are left out.
    pub(super) fn new<'a>(tokens: impl Iterator<Item = (u32, &'a [u8])>) -> Self {
        let mut sorted: Vec<(&[u8], u32)> = tokens.filter(|t| !t.1.is_empty()).map(|(id, text)| (text, id)).collect();
        sorted.sort_by(|a, b| a.0.cmp(b.0));
        sorted.dedup_by(|later, first| later.0 == first.0);
        let mut nodes = vec![LEAF];
        // The texts below a node: a range of `sorted` that agrees in the first `depth` bytes. In the order of the nodes.
        let mut below = std::collections::VecDeque::from([(0, sorted.len(), 0)]);
        let mut at = 0;
        while let Some((mut lo, hi, depth)) = below.pop_front() {
            if sorted.get(lo).is_some_and(|(text, _)| lo < hi && text.len() == depth) {
                nodes[at].id = sorted[lo].1;
                lo += 1;
            }
            nodes[at].first = nodes.len() as u32;
            while lo < hi {
                let byte = sorted[lo].0[depth];
                let end = lo + sorted[lo..hi].partition_point(|(text, _)| text[depth] == byte);
                nodes.push(Node { byte, ..LEAF });
                nodes[at].children += 1;
                below.push_back((lo, end, depth + 1));
                lo = end;
            }
            at += 1;
        }
        Self { nodes: nodes.into() }
    }

    /// Of nodes that lie in a file.
    pub(super) fn of(nodes: Flat<Node>) -> Self {
        Self { nodes }
    }

    pub(super) fn nodes(&self) -> &Flat<Node> {
        &self.nodes
    }

    /// Those of a node; none where a damaged file says nonsense of their place.
    #[inline]
    fn children(&self, node: &Node) -> &[Node] {
        let first = node.first as usize;
        self.nodes.get(first..first + usize::from(node.children)).unwrap_or_default()
    }

    /// The bytes that tokens start with.
    pub(super) fn first_bytes(&self) -> impl Iterator<Item = u8> {
        self.nodes.first().map(|root| self.children(root)).unwrap_or_default().iter().map(|child| child.byte)
    }

    /// Calls `found` with the end and the id of every token that starts at `at`, shorter ones first.
    #[inline]
    pub(super) fn prefixes(&self, text: &[u8], at: usize, mut found: impl FnMut(usize, u32)) {
        let Some(mut node) = self.nodes.first() else { return };
        for (end, byte) in (at + 1..).zip(&text[at..]) {
            let children = self.children(node);
            match children.binary_search_by_key(byte, |child| child.byte) {
                Ok(child) => node = &children[child],
                Err(_) => return,
            }
            if node.id != NO_ID {
                found(end, node.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_that_starts_somewhere_is_found() {
        let tokens = ["a", "ab", "abc", "b", "ca", "", "ab", "\u{2581}a", "\u{2581}"];
        let trie = Trie::new((0..).zip(tokens).map(|(id, text)| (id, text.as_bytes())));
        let text = "abca\u{2581}ab\u{2582}".as_bytes();
        for at in 0..text.len() {
            let mut found = Vec::new();
            trie.prefixes(text, at, |end, id| found.push((end, id)));
            let here = |t: &&str| !t.is_empty() && text[at..].starts_with(t.as_bytes());
            let mut wanted: Vec<(usize, u32)> =
                (0..).zip(tokens).filter(|(_, t)| here(t)).map(|(id, t)| (at + t.len(), id)).collect();
            wanted.sort_unstable();
            wanted.dedup_by_key(|w| w.0);
            assert_eq!(found, wanted, "at {at}");
        }
        Trie::default().prefixes(text, 0, |_, _| panic!("an empty trie has no tokens"));
    }
}
