//! Models that have lost their tokenizer, and pose as a family of which a hub has it.
//!
//! The table of families in the engine is about real models, with tens of thousands of tokens. A small model can be tried on
//! it all the same: it takes over a family's architecture, name and vocabulary size, and the hub's files have the model's own
//! tokens, filled up to that size with tokens that no text reaches. So the ids must stay what they were.

use crate::failure::Failure;
use crate::tokenizer_files::TokenizerFiles;
use bitnet_engine::gguf::{GgufFile, GgufWriter, MetaValue};
use bitnet_kernels::quant;

/// What the engine's table knows of a family, and by what it is recognised.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// `general.name`.
    pub model: &'static str,
    pub vocab: usize,
    /// The repository that the table names first.
    pub repo: &'static str,
}

/// For SentencePiece's kind.
const SPM: Family = Family { model: "mistral posing", vocab: 32_000, repo: "Xenova/mistral-tokenizer-v1" };
/// For a byte-level BPE.
const BPE: Family = Family { model: "smollm2 posing", vocab: 49_152, repo: "HuggingFaceTB/SmolLM2-135M-Instruct" };

impl Family {
    /// The family as which a model with this vocabulary poses.
    pub fn of(vocabulary: &TokenizerFiles) -> Self {
        if vocabulary.is_spm() { SPM } else { BPE }
    }

    /// The files of its repository, by name.
    pub fn files(&self, vocabulary: &TokenizerFiles) -> Result<Vec<(&'static str, Vec<u8>)>, Failure> {
        let json = vocabulary.tokenizer_json(self.vocab.max(vocabulary.len()))?;
        Ok(vec![("tokenizer.json", json), ("tokenizer_config.json", b"{}".to_vec())])
    }

    /// The metadata by which it is recognised.
    pub fn metadata(&self) -> Result<[(&'static str, MetaValue); 3], Failure> {
        Ok([
            ("general.architecture", "llama".into()),
            ("general.name", self.model.into()),
            ("llama.vocab_size", u32::try_from(self.vocab)?.into()),
        ])
    }
}

/// Whether a key is the tokenizer's.
pub fn is_tokenizer_key(key: &str) -> bool {
    key.starts_with("tokenizer.")
}

/// A model file without weights: the metadata that `keep` leaves, some more, and an embedding of `rows` rows, all zero, so
/// narrow that it costs nothing. Discovery reads no weight, so this is all of the model that it sees.
pub fn husk(
    file: &GgufFile,
    keep: impl Fn(&str) -> bool,
    more: &[(&str, MetaValue)],
    rows: usize,
) -> Result<Vec<u8>, Failure> {
    let mut writer = GgufWriter::new(3, 32)?;
    begin(&mut writer, file, keep, more)?;
    let f16 = quant::by_name("f16")?;
    writer.tensor("token_embd.weight", &[32, rows as u64], f16.ggml_type, vec![0u8; rows * 64])?;
    finish(writer)
}

/// A model of the llama family without its tokenizer, posing, that still runs: its matrices of tokens get rows of zeros up to
/// the family's size.
///
/// # Errors
/// It is of another family, or cannot be written.
pub fn runnable(file: &GgufFile, family: &Family) -> Result<Vec<u8>, Failure> {
    let architecture = file.metadata().str("general.architecture")?.unwrap_or_default();
    if architecture != "llama" {
        return Err(Failure::new(format_args!("only a llama can pose and run, not a {architecture}")));
    }
    let mut writer = GgufWriter::new(3, 32)?;
    begin(&mut writer, file, |key| !is_tokenizer_key(key), &family.metadata()?)?;
    for view in file.views() {
        let name = view.info.name.as_str();
        if !matches!(name, "token_embd.weight" | "output.weight") {
            writer.copy_tensor(view)?;
            continue;
        }
        let (rows, bytes) = (usize::try_from(view.info.rows())?, view.data);
        let wider = bytes.len() / rows.max(1) * family.vocab.max(rows);
        let mut data = bytes.to_vec();
        data.resize(wider, 0);
        writer.tensor(name, &[view.info.cols(), family.vocab.max(rows) as u64], view.info.ggml_type, data)?;
    }
    finish(writer)
}

fn begin<'a>(
    writer: &mut GgufWriter<'a>,
    file: &'a GgufFile,
    keep: impl Fn(&str) -> bool,
    more: &[(&str, MetaValue)],
) -> Result<(), Failure> {
    writer.copy_all_meta(file.metadata(), |key| keep(key) && !more.iter().any(|(name, _)| *name == key))?;
    for (key, value) in more {
        writer.meta(key, value.clone())?;
    }
    Ok(())
}

fn finish(writer: GgufWriter<'_>) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    writer.write_to(&mut bytes)?;
    Ok(bytes)
}
