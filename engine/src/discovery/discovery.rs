//! What a model says of its tokenizer, read from metadata and tensor shapes alone.

use super::compatibility::{self, Recognised};
use super::error::{TokenizerDiscoveryError, Ways};
use super::sizes::{Disagreement, VocabularySizes};
use super::strategy::TokenizerDownloadInfo;
use crate::gguf::GgufFile;
use crate::tokenizer::{SpecialTokens, from_gguf};
use std::path::Path;

/// What a model file says of its tokenizer. Cheap: nothing is built, no weight is read.
#[derive(Debug, Clone)]
pub struct TokenizerDiscovery {
    pub(super) file: GgufFile,
    architecture: String,
    model_type: Option<String>,
    sizes: VocabularySizes,
    vocab_size: usize,
    special: SpecialTokens,
    disagreements: Vec<Disagreement>,
    recognised: Option<Recognised>,
}

impl TokenizerDiscovery {
    /// Opens and reads the header of the model at `path`.
    ///
    /// # Errors
    /// A file that is not a sound GGUF, metadata of wrong types, or no word anywhere on the size of the vocabulary.
    pub fn from_gguf(path: &Path) -> Result<Self, TokenizerDiscoveryError> {
        Self::from_file(&GgufFile::open(path)?)
    }

    /// As [`TokenizerDiscovery::from_gguf`] for a file that is open.
    pub fn from_file(file: &GgufFile) -> Result<Self, TokenizerDiscoveryError> {
        let metadata = file.metadata();
        let architecture = metadata.str("general.architecture")?.unwrap_or_default().to_owned();
        // A list of a wrong type has no length; that it is broken is the business of the step `embedded`.
        let tokens = metadata.array("tokenizer.ggml.tokens").ok().flatten().map(|list| list.len()).filter(|&n| n > 0);
        let rows = file.tensor("token_embd.weight").and_then(|view| usize::try_from(view.info.rows()).ok());
        let declared = metadata.usize(&format!("{architecture}.vocab_size"))?.filter(|&n| n > 0);
        let sizes = VocabularySizes { tokens, metadata: declared, rows };
        let vocab_size =
            sizes.best().ok_or_else(|| TokenizerDiscoveryError::NoVocabularySize { model: name_of(file) })?;
        let id = |name: &str| from_gguf::id(metadata, name).ok().flatten().filter(|id| *id != from_gguf::NO_ID);
        let flag = |name: &str| metadata.bool(&format!("tokenizer.ggml.{name}")).ok().flatten().unwrap_or(false);
        let special = SpecialTokens {
            bos: id("bos_token_id"),
            eos: id("eos_token_id"),
            eot: id("eot_token_id"),
            eom: id("eom_token_id"),
            unk: id("unknown_token_id"),
            pad: id("padding_token_id"),
            add_bos: flag("add_bos_token"),
            add_eos: flag("add_eos_token"),
        };
        let recognised = compatibility::recognise(metadata, &architecture, vocab_size);
        Ok(Self {
            model_type: metadata.str("tokenizer.ggml.model").ok().flatten().map(str::to_owned),
            disagreements: sizes.disagreements(),
            file: file.clone(),
            architecture,
            sizes,
            vocab_size,
            special,
            recognised,
        })
    }

    /// Tokens of the model: its list of tokens, else its metadata, else the rows of its embedding.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// All three sizes.
    pub fn sizes(&self) -> VocabularySizes {
        self.sizes
    }

    /// `tokenizer.ggml.model`.
    pub fn model_type(&self) -> Option<&str> {
        self.model_type.as_deref()
    }

    /// `general.architecture`, empty if the file has none.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// Ids with a role, as the metadata declares them; what is only recognised by its text is found by building.
    pub fn special(&self) -> &SpecialTokens {
        &self.special
    }

    /// `tokenizer.chat_template`.
    pub fn chat_template(&self) -> Option<&str> {
        self.file.metadata().str("tokenizer.chat_template").ok().flatten()
    }

    /// `bpe` or `spm`, from `tokenizer.ggml.model`, else from the table.
    pub fn kind(&self) -> Option<&'static str> {
        match self.model_type() {
            Some("gpt2") => Some("bpe"),
            Some("llama" | "gemma4") => Some("spm"),
            Some("t5") => Some("unigram"),
            Some("bert") => Some("huggingface"),
            _ => self.recognised.as_ref().map(|r| r.line.kind),
        }
    }

    /// The pre-tokenizer that the file names.
    pub fn pre(&self) -> Option<&str> {
        self.file.metadata().str("tokenizer.ggml.pre").ok().flatten()
    }

    /// The model's line in the compatibility table.
    pub fn recognised(&self) -> Option<&Recognised> {
        self.recognised.as_ref()
    }

    /// Where the file contradicts itself about the size of its vocabulary.
    pub fn disagreements(&self) -> &[Disagreement] {
        &self.disagreements
    }

    /// What would have to be fetched, if the table knows.
    pub fn download_info(&self) -> Option<TokenizerDownloadInfo> {
        self.recognised.as_ref().map(|r| TokenizerDownloadInfo::of(r.line))
    }

    /// Tokens at the end of the model's list that only fill it up. One pass over the list.
    pub fn padding(&self) -> usize {
        compatibility::padding(self.file.metadata())
    }

    /// The ways out where nothing here works.
    pub fn ways(&self, offline: bool) -> Box<Ways> {
        let (info, size) = (self.download_info(), self.vocab_size);
        Box::new(Ways::of(self.file.path(), info.as_ref(), (&self.architecture, size), offline))
    }

    /// What to call the model.
    pub fn model_name(&self) -> String {
        name_of(&self.file)
    }

    /// Whether a tokenizer of `tokens` tokens can belong to this model. `Err` says why not.
    ///
    /// More tokens than embedding rows can never be. Fewer are allowed as far as embeddings are padded; where the model's own
    /// list or the table says how many there are, exactly that many are expected.
    pub(super) fn fits(&self, tokens: usize) -> Result<(), Box<TokenizerDiscoveryError>> {
        let refuse = |expected: usize| {
            Err(Box::new(TokenizerDiscoveryError::WrongVocabulary {
                found: tokens,
                expected,
                rows: self.sizes.rows,
                family: self.recognised.as_ref().map(|r| r.line.label),
            }))
        };
        if let Some(rows) = self.sizes.rows.filter(|&rows| tokens > rows) {
            return refuse(self.sizes.tokens.unwrap_or(rows).min(rows));
        }
        let exact = self.sizes.tokens.or(self.recognised.as_ref().map(|r| r.line.vocab_size));
        let missing = self.vocab_size.checked_sub(tokens);
        match (exact, missing) {
            // What fills up a list is not in the tokenizer's files.
            (Some(expected), _)
                if tokens <= expected && self.sizes.tokens == exact && tokens >= expected - self.padding() =>
            {
                Ok(())
            }
            (Some(expected), _) if tokens != expected => refuse(expected),
            (Some(_), _) => Ok(()),
            (None, Some(missing)) if missing <= (self.vocab_size / 16).max(64) => Ok(()),
            (None, _) => refuse(self.vocab_size),
        }
    }
}

fn name_of(file: &GgufFile) -> String {
    file.path().map_or_else(|| "the model".to_owned(), |path| path.display().to_string())
}
