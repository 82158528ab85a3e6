//! Real vocabularies, read by code of our own that shares nothing with the engine, so that a mistake of the engine's
//! readers cannot hide in the reference.
//!
//! A [`Vocabulary`] is given twice: as HuggingFace's `tokenizer.json`, from which the tests build the crate
//! `tokenizers` (the oracle), and as the [`VocabSource`] that a GGUF of it holds, from which [`Vocabulary::gguf`] makes
//! such a GGUF in memory. [`Vocabulary::files`] has the forms in which it is published.
//!
//! | module | reads |
//! |---|---|
//! | `byte_level` | GPT-2's pair of files, `tokenizer.json`, the metadata of a GGUF |
//! | `spm` | SentencePiece's protobuf, and the merges that HuggingFace makes of its scores |

mod byte_level;
mod spm;

use crate::failure::Failure;
use crate::paths::Paths;
use crate::tokenizer_files;
use crate::verdict::Availability;
use bitnet_engine::gguf::{GgufFile, GgufWriter, MetaValue};
use bitnet_engine::tokenizer::{TokenKind, VocabSource};
use bitnet_golden::differences::Difference;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

pub type NamedFiles = Vec<(&'static str, Vec<u8>)>;

/// A vocabulary in both forms.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    /// One of [`ALL`].
    pub name: &'static str,
    /// `tokenizer.json` as HuggingFace has it.
    pub json: Value,
    /// What a GGUF of it says.
    pub source: VocabSource,
    /// File names and contents, by form, as it is published.
    pub files: Vec<(&'static str, NamedFiles)>,
}

/// Where a vocabulary lies and how it is read.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub name: &'static str,
    pub about: &'static str,
    /// Name of the fixture that it comes from, if the repository does not hold it.
    pub fixture: Option<&'static str>,
    /// Below the golden folder or the fixtures folder.
    files: &'static [&'static str],
    read: fn(&[PathBuf]) -> Result<Vocabulary, Failure>,
}

pub static ALL: &[Entry] = &[
    Entry {
        name: "gpt2",
        about: "GPT-2, 50,257",
        fixture: None,
        files: &["vocab/gpt2/encoder.json", "vocab/gpt2/vocab.bpe"],
        read: byte_level::gpt2,
    },
    Entry {
        name: "mistral-v1",
        about: "Mistral-7B v0.1, 32,000, SPM",
        fixture: None,
        files: &["vocab/mistral-v1/tokenizer.model"],
        read: spm::mistral,
    },
    Entry {
        name: "tiny-bitnet",
        about: "the repository's own model, 2,048",
        fixture: None,
        files: &["models/tiny-bitnet.gguf"],
        read: byte_level::tiny,
    },
    Entry {
        name: "llama2",
        about: "LLaMA-2, 32,000, SPM",
        fixture: Some("llama2-vocab"),
        files: &["llama2-tokenizer.json"],
        read: spm::llama2,
    },
    Entry {
        name: "llama3",
        about: "LLaMA-3, 128,256",
        fixture: Some("llama3-vocab"),
        files: &["llama3-tokenizer.json"],
        read: byte_level::llama3,
    },
    Entry {
        name: "smollm2",
        about: "SmolLM2, 49,152, 21 bytes without a token",
        fixture: Some("smollm2-135m"),
        files: &["smollm2-135m-q4_1.gguf"],
        read: byte_level::smollm2,
    },
];

pub fn by_name(name: &str) -> Option<&'static Entry> {
    ALL.iter().find(|entry| entry.name == name)
}

impl Entry {
    fn paths(&self, paths: &Paths) -> Vec<PathBuf> {
        let folder = if self.fixture.is_some() { &paths.fixtures } else { &paths.golden };
        self.files.iter().map(|file| folder.join(file)).collect()
    }

    /// Whether its files are here.
    pub fn availability(&self, paths: &Paths) -> Availability {
        match (self.fixture, self.paths(paths).iter().find(|path| !path.is_file())) {
            // A file of the repository that is missing is an error of the trial, not a matter of availability.
            (None, _) | (_, None) => Availability::Available,
            (Some(fixture), Some(path)) => Availability::unavailable(
                self.name,
                format!("{} is not here", path.display()),
                format!("cargo xtask fixtures fetch {fixture}"),
            ),
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// A file cannot be read or is not what its name says.
    pub fn load(&self, paths: &Paths) -> Result<Vocabulary, Failure> {
        (self.read)(&self.paths(paths))
            .map_err(|f| Failure::new(format_args!("vocabulary {}: {}", self.name, f.message)))
    }
}

impl Vocabulary {
    /// Whether it is SentencePiece BPE.
    pub fn is_spm(&self) -> bool {
        self.source.model == "llama"
    }

    /// Texts of its special tokens.
    pub fn specials(&self) -> Vec<String> {
        let added = self.json["added_tokens"].as_array().map(Vec::as_slice).unwrap_or_default();
        added.iter().filter_map(|token| token["content"].as_str().map(str::to_owned)).collect()
    }

    /// Puts the tokens and merges of a known difference behind those of the vocabulary.
    ///
    /// # Errors
    /// It is not BPE.
    pub fn extend(&mut self, difference: &Difference) -> Result<(), Failure> {
        let odd = || Failure::new("the vocabulary is not BPE");
        for merge in &difference.merges {
            let token = merge.replacen(' ', "", 1);
            let model = self.json["model"].as_object_mut().ok_or_else(odd)?;
            let id = self.source.tokens.len();
            model["vocab"].as_object_mut().ok_or_else(odd)?.insert(token.clone(), json!(id));
            let merges = model["merges"].as_array_mut().ok_or_else(odd)?;
            // A list is either of strings or of pairs.
            let parts: Vec<&str> = merge.split(' ').collect();
            let pairs = merges.first().is_some_and(Value::is_array);
            merges.push(if pairs { json!(parts) } else { json!(merge) });
            self.source.tokens.push(token.into_bytes());
            self.source.token_types.push(TokenKind::Normal);
            self.source.merges.push(merge.clone().into_bytes());
        }
        for token in &difference.added {
            let id = self.source.tokens.len();
            let added = self.json["added_tokens"].as_array_mut().ok_or_else(odd)?;
            added.push(tokenizer_files::added(id, token, false));
            self.source.tokens.push(token.clone().into_bytes());
            self.source.token_types.push(TokenKind::UserDefined);
        }
        Ok(())
    }

    /// A GGUF, in memory, that holds this tokenizer and nothing else.
    pub fn gguf(&self) -> Result<GgufFile, Failure> {
        gguf(&self.source)
    }
}

/// A GGUF, in memory, with the tokenizer of `source` and nothing else.
pub fn gguf(source: &VocabSource) -> Result<GgufFile, Failure> {
    Ok(GgufFile::from_vec(gguf_bytes(source)?)?)
}

/// The bytes of [`gguf`].
pub fn gguf_bytes(source: &VocabSource) -> Result<Vec<u8>, Failure> {
    let mut writer = GgufWriter::new(3, 32)?;
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    writer.meta("general.architecture", MetaValue::Str("llama".into()))?;
    writer.meta(&key("model"), MetaValue::Str(source.model.clone()))?;
    if let Some(pre) = &source.pre {
        writer.meta(&key("pre"), MetaValue::Str(pre.clone()))?;
    }
    writer.meta(&key("tokens"), MetaValue::strings(&source.tokens))?;
    if !source.scores.is_empty() {
        writer.meta(&key("scores"), source.scores.clone())?;
    }
    let types: Vec<i32> = source.token_types.iter().map(|kind| number(*kind)).collect();
    writer.meta(&key("token_type"), types)?;
    if !source.merges.is_empty() {
        writer.meta(&key("merges"), MetaValue::strings(&source.merges))?;
    }
    for (name, id) in [("bos_token_id", source.bos), ("eos_token_id", source.eos), ("unknown_token_id", source.unk)] {
        if let Some(id) = id {
            writer.meta(&key(name), id)?;
        }
    }
    if let Some(add_bos) = source.add_bos {
        writer.meta(&key("add_bos_token"), add_bos)?;
    }
    if let Some(spec) = &source.normalizing {
        writer.meta(&key("add_space_prefix"), spec.dummy_prefix)?;
        writer.meta(&key("remove_extra_whitespaces"), spec.remove_extra)?;
        if !spec.charsmap.is_empty() {
            writer.meta(&key("precompiled_charsmap"), spec.charsmap.clone())?;
        }
    }
    let mut bytes = Vec::new();
    writer.write_to(&mut bytes)?;
    Ok(bytes)
}

fn number(kind: TokenKind) -> i32 {
    use TokenKind as Kind;
    match kind {
        Kind::Normal => 1,
        Kind::Unknown => 2,
        Kind::Control => 3,
        Kind::UserDefined => 4,
        Kind::Unused => 5,
        Kind::Byte => 6,
    }
}

fn read_json(path: &Path) -> Result<Value, Failure> {
    Ok(serde_json::from_slice(&read(path)?)?)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|e| Failure::new(format_args!("cannot read {}: {e}", path.display())))
}

/// What is missing or of another type in a JSON file.
fn odd(what: &str) -> Failure {
    Failure::new(format_args!("it has no {what}, or of another kind"))
}
