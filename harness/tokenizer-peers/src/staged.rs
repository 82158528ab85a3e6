//! A vocabulary as the files that the engines read, in a folder of its own for the time of the run.

use anyhow::{Context, ensure};
use bitnet_engine::tokenizer::VocabSource;
use bitnet_harness::paths::Paths;
use bitnet_harness::tokenizer_files::LLAMA3;
use bitnet_harness::verdict::Availability;
use bitnet_harness::vocabularies::{self, ALL, Entry, gguf_bytes};
use std::path::{Path, PathBuf};

/// GPT-2's splitting expression, as tiktoken has it.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

pub(crate) struct Staged {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// HuggingFace's `tokenizer.json`.
    pub(crate) json: PathBuf,
    pub(crate) gguf: PathBuf,
    /// What the GGUF says.
    pub(crate) source: VocabSource,
    /// Texts of the special tokens.
    pub(crate) specials: Vec<String>,
    /// The one expression that splits text, where there is one.
    pub(crate) expression: Option<&'static str>,
}

impl Staged {
    /// Writes a vocabulary's files below `folder`.
    pub(crate) fn write(entry: &Entry, paths: &Paths, folder: &Path) -> anyhow::Result<Self> {
        let vocabulary = entry.load(paths).map_err(|failure| anyhow::anyhow!(failure.message))?;
        let folder = folder.join(entry.name);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let (json, gguf) = (folder.join("tokenizer.json"), folder.join("vocabulary.gguf"));
        // As it is published, where it is: parsing it is part of loading.
        let published = vocabulary.files.iter().find(|(form, _)| *form == "tokenizer-json");
        let text = match published.and_then(|(_, files)| files.first()) {
            Some((_, bytes)) => bytes.clone(),
            None => vocabulary.json.to_string().into_bytes(),
        };
        std::fs::write(&json, text)?;
        let bytes = gguf_bytes(&vocabulary.source).map_err(|failure| anyhow::anyhow!(failure.message))?;
        std::fs::write(&gguf, bytes)?;
        let expression = match vocabulary.source.pre.as_deref() {
            Some("llama-bpe") => Some(LLAMA3),
            Some("gpt-2") => Some(GPT2),
            _ => None,
        };
        let specials = vocabulary.specials();
        Ok(Self { name: entry.name, about: entry.about, json, gguf, source: vocabulary.source, specials, expression })
    }
}

/// The vocabularies of these names, else all but the tiny one; those that are not here are named on stderr, with the
/// command that brings them.
pub(crate) fn choose(names: &[String], paths: &Paths) -> anyhow::Result<Vec<&'static Entry>> {
    let known = || ALL.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ");
    let wanted: Vec<&Entry> = if names.is_empty() {
        ALL.iter().filter(|entry| entry.name != "tiny-bitnet").collect()
    } else {
        let find = |name: &String| {
            vocabularies::by_name(name).with_context(|| format!("unknown vocabulary `{name}`; there are {}", known()))
        };
        names.iter().map(find).collect::<Result<_, _>>()?
    };
    let here = wanted.into_iter().filter(|entry| match entry.availability(paths) {
        Availability::Unavailable { reason, remedy, .. } => {
            eprintln!("{}: unavailable: {reason}; {remedy}", entry.name);
            false
        }
        Availability::Available => true,
    });
    let here: Vec<_> = here.collect();
    ensure!(!here.is_empty(), "no vocabulary is here");
    Ok(here)
}
