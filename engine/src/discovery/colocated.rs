//! Tokenizer files beside a model.
//!
//! Names of this very model first (`model.tokenizer.json` beside `model.gguf`), because a folder may hold several
//! models and only one `tokenizer.json`. Of a split model (`model-00001-of-00003.gguf`) both that name and `model` count. A merges file alone is not a tokenizer (it has ranks but no ids), and is named as such.

use crate::gguf::split::PartName;
use crate::shell::folder_of;
use std::path::{Path, PathBuf};

/// What lies beside a model.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Colocated {
    /// The folder.
    pub folder: PathBuf,
    /// The files that stand for a tokenizer (of a pair, the vocabulary), in the order in which they are tried.
    pub candidates: Vec<PathBuf>,
    /// What looks like a tokenizer and is none, and why.
    pub refused: Vec<(PathBuf, &'static str)>,
}

const PAIRS: [(&str, &str); 2] = [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")];

/// Looks beside `model`. Only names are looked at; nothing is opened.
pub fn colocated(model: &Path) -> Colocated {
    let folder = folder_of(model);
    let mut out = Colocated { folder: folder.to_owned(), ..Colocated::default() };
    let mut stems = vec![String::new()];
    if let Some(part) = PartName::parse(model) {
        stems.insert(0, format!("{}.", part.prefix));
    }
    if let Some(stem) = model.file_stem().and_then(|stem| stem.to_str()) {
        stems.insert(0, format!("{stem}."));
    }
    for stem in &stems {
        for name in ["tokenizer.json", "tokenizer.model"] {
            let path = folder.join(format!("{stem}{name}"));
            if path.is_file() {
                out.candidates.push(path);
            }
        }
    }
    for (vocabulary, merges) in PAIRS {
        let (vocabulary, merges) = (folder.join(vocabulary), folder.join(merges));
        match (vocabulary.is_file(), merges.is_file()) {
            (true, true) => out.candidates.push(vocabulary),
            (true, false) => {
                out.refused.push((vocabulary, "a vocabulary without its merges is not a tokenizer"));
            }
            (false, true) => {
                out.refused.push((merges, "merges without their vocabulary are not a tokenizer"));
            }
            (false, false) => {}
        }
    }
    out
}
