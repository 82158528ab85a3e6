//! `known-differences.toml`: where HuggingFace's two implementations, or ours and one of them, are known to differ.

use anyhow::Context;
use serde::Deserialize;
use std::path::Path;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Known {
    #[serde(default)]
    difference: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    /// The engines that differ from ours.
    engines: Vec<String>,
    /// The vocabularies where it shows.
    vocabularies: Vec<String>,
    /// Characters without which everybody agrees: first and last of each range.
    characters: Vec<(u32, u32)>,
    #[allow(dead_code)]
    why: String,
}

impl Known {
    pub(super) fn read(golden: &Path) -> anyhow::Result<Self> {
        let path = golden.join("tokenizer-peers.toml");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("cannot understand {}", path.display()))
    }

    /// A text with an `x` for each character of a difference that is known of this engine and vocabulary, and its name.
    pub(super) fn without(&self, engine: &str, vocabulary: &str, text: &str) -> Option<(String, String)> {
        let holds = |list: &[String], name: &str| list.iter().any(|item| item == name);
        let entries: Vec<&Entry> = self
            .difference
            .iter()
            .filter(|entry| holds(&entry.engines, engine) && holds(&entry.vocabularies, vocabulary))
            .collect();
        let mut names: Vec<&str> = Vec::new();
        let mut plain = String::with_capacity(text.len());
        for c in text.chars() {
            let code = u32::from(c);
            match entries.iter().find(|entry| entry.characters.iter().any(|(a, b)| (*a..=*b).contains(&code))) {
                Some(entry) => {
                    if !names.contains(&entry.name.as_str()) {
                        names.push(&entry.name);
                    }
                    plain.push('x');
                }
                None => plain.push(c),
            }
        }
        (!names.is_empty()).then(|| (names.join(" + "), plain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_file_is_read_and_its_characters_are_replaced() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden");
        assert!(Known::read(&golden).is_ok());
        let text = "[[difference]]\nname = \"n\"\nengines = [\"e\"]\nvocabularies = [\"v\"]\ncharacters = [[0xE4, 0xE5]]\nwhy = \"\"";
        let known: Known = toml::from_str(text).expect("TOML");
        assert_eq!(known.without("e", "v", "aäb"), Some(("n".into(), "axb".into())));
        assert_eq!(known.without("e", "v", "ab"), None);
        assert_eq!(known.without("e", "w", "aäb"), None);
        assert_eq!(known.without("f", "v", "aäb"), None);
    }
}
