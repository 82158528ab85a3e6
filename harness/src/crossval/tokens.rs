//! The first gate: both sides must cut the text into the same tokens, or nothing after it can be compared. Where they
//! do not, the usual causes are looked for.

use bitnet_engine::tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};

/// Both sequences of a text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenParity {
    pub ours: Vec<u32>,
    pub reference: Vec<u32>,
    pub equal: bool,
    /// Index of the first id that differs, or at which one sequence ends.
    pub first_difference: Option<usize>,
    pub hints: Vec<Hint>,
}

/// A likely cause of a difference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hint {
    /// Stable name: `bos_missing`, `bos_doubled`, `pre_missing`, `template`, `prefix_space`, `segmentation`,
    /// `other_tokenizer`.
    pub code: String,
    /// What was seen, and what would fix it.
    pub message: String,
}

/// What is known of the side that is asked for hints.
pub struct Facts<'a> {
    pub tokenizer: &'a dyn Tokenizer,
    /// Whether it is the model's own, embedded one.
    pub embedded: bool,
    /// `tokenizer.ggml.pre` of the model's file.
    pub pre_in_file: Option<&'a str>,
    /// Whether the file's tokenizer is a byte-level BPE, which needs a `pre`.
    pub byte_level: bool,
    pub parse_special: bool,
}

impl TokenParity {
    pub fn of(ours: Vec<u32>, reference: Vec<u32>) -> Self {
        let first_difference = first_difference(&ours, &reference);
        Self { equal: first_difference.is_none(), ours, reference, first_difference, hints: Vec::new() }
    }

    /// The same with likely causes.
    #[must_use]
    pub fn with_hints(mut self, facts: &Facts<'_>) -> Self {
        if let Some(at) = self.first_difference {
            self.hints = hints(&self.ours, &self.reference, at, facts);
        }
        self
    }

    /// What is wrong in words, if anything.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let at = self.first_difference?;
        let id = |ids: &[u32]| ids.get(at).map_or_else(|| "the end".to_owned(), u32::to_string);
        Some(format!(
            "the tokens differ from index {at} on: ours {}, the reference's {} ({} against {} tokens)",
            id(&self.ours),
            id(&self.reference),
            self.ours.len(),
            self.reference.len()
        ))
    }
}

/// The first index at which two sequences differ or one of them ends.
pub fn first_difference(a: &[u32], b: &[u32]) -> Option<usize> {
    let same = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    (same < a.len() || same < b.len()).then_some(same)
}

fn hints(ours: &[u32], reference: &[u32], at: usize, facts: &Facts<'_>) -> Vec<Hint> {
    let mut out = Vec::new();
    let mut hint = |code: &str, message: String| out.push(Hint { code: code.to_owned(), message });
    let tokenizer = facts.tokenizer;
    let sides = [("ours", ours, "the reference", reference), ("the reference", reference, "ours", ours)];
    if let Some(bos) = tokenizer.special().bos {
        for (this, ids, that, others) in sides {
            if ids.starts_with(&[bos, bos]) {
                let message = format!(
                    "{this} begins with two beginning-of-sequence tokens ({bos}): the template writes one and the \
                     tokenizer adds one; try --prompt-template raw, or correct `tokenizer.ggml.add_bos_token`"
                );
                hint("bos_doubled", message);
            } else if ids.strip_prefix(&[bos]) == Some(others) {
                let message = format!(
                    "{this} begins with the beginning-of-sequence token ({bos}), {that} does not: \
                     `tokenizer.ggml.add_bos_token` is missing or read differently"
                );
                hint("bos_missing", message);
            }
        }
    }
    if facts.byte_level && facts.pre_in_file.is_none_or(|pre| pre == "default") {
        let said = facts.pre_in_file.map_or_else(|| "has no".to_owned(), |pre| format!("says `{pre}` for its"));
        let message = format!(
            "the model's file {said} `tokenizer.ggml.pre`: the C++ side falls back to a default pre-tokenizer, ours is \
             chosen by the vocabulary ({}); `bitnet repair-tokenizer` writes the key into a copy",
            tokenizer.pre().unwrap_or("none")
        );
        hint("pre_missing", message);
    }
    let text = |ids: &[u32]| tokenizer.decode(ids, true);
    let (a, b) = (text(ours), text(reference));
    let trimmed = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_start().to_owned();
    if a == b {
        let message = format!(
            "both sequences spell the same text and cut it differently at index {at}: merges, scores or the \
             pre-tokenizer differ"
        );
        hint("segmentation", message);
    } else if trimmed(&a) == trimmed(&b) {
        hint("prefix_space", "one side puts a space in front of the text: `tokenizer.ggml.add_space_prefix`".into());
    } else if !facts.embedded {
        let message = "the tokenizer that was given spells another text with the reference's ids: it belongs to another \
                       model; leave --tokenizer out to use the one in the model's file";
        hint("other_tokenizer", message.into());
    }
    if facts.parse_special && ours.len() != reference.len() {
        let message = "control tokens are read in the prompt (its template writes them), and one side may spell them \
                       out: compare with --prompt-template raw";
        hint("template", message.into());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet_engine::gguf::GgufFile;
    use bitnet_engine::tokenizer::{self, EncodeOptions};

    #[test]
    fn the_first_difference_is_found_also_at_an_end() {
        assert_eq!(first_difference(&[1, 2], &[1, 2]), None);
        assert_eq!(first_difference(&[1, 2], &[1, 3]), Some(1));
        assert_eq!(first_difference(&[1, 2], &[1]), Some(1));
        assert_eq!(first_difference(&[], &[1]), Some(0));
        let parity = TokenParity::of(vec![1, 2], vec![1]);
        assert!(!parity.equal && parity.problem().is_some_and(|p| p.contains("ours 2, the reference's the end")));
    }

    #[test]
    fn causes_are_named() {
        let golden = crate::paths::Paths::discover(&crate::env::Env::default()).golden;
        let file = GgufFile::open(golden.join("models/tiny-bitnet.gguf")).expect("the tiny model");
        let tokenizer = tokenizer::from_gguf(file.metadata()).expect("its tokenizer").tokenizer;
        let ids = tokenizer.encode("In the beginning", EncodeOptions { add_special: false, parse_special: false });
        let ids = ids.expect("ids");
        let bos = tokenizer.special().bos.expect("a beginning");
        let codes = |ours: &[u32], reference: &[u32], pre: Option<&str>, embedded: bool| -> Vec<String> {
            let facts =
                Facts { tokenizer: &*tokenizer, embedded, pre_in_file: pre, byte_level: true, parse_special: false };
            let parity = TokenParity::of(ours.to_vec(), reference.to_vec()).with_hints(&facts);
            parity.hints.into_iter().map(|h| h.code).collect()
        };
        let with = |count: usize| [vec![bos; count], ids.clone()].concat();
        assert!(codes(&with(1), &ids, Some("llama-bpe"), true).contains(&"bos_missing".to_owned()));
        assert!(codes(&with(1), &with(2), Some("llama-bpe"), true).contains(&"bos_doubled".to_owned()));
        assert!(codes(&ids, &with(0)[1..], None, true).contains(&"pre_missing".to_owned()));
        assert_eq!(codes(&ids, &[5, 6, 7], Some("llama-bpe"), false), ["other_tokenizer"]);
        assert_eq!(codes(&ids, &ids, None, true), [] as [&str; 0], "no hints where nothing differs");
    }
}
