//! What the trials of a vocabulary share: the vocabulary, its oracle, our tokenizers. Made once a process, when the
//! first trial asks.

use crate::oracle::Oracle;
use bitnet_engine::tokenizer::{Tokenizer, compiled, from_gguf};
use bitnet_harness::Failure;
use bitnet_harness::paths::Paths;
use bitnet_harness::vocabularies::{Entry, Vocabulary};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// A vocabulary on the stage.
pub(crate) struct Stage {
    pub(crate) vocabulary: Vocabulary,
    pub(crate) oracle: Oracle,
    ours: Mutex<HashMap<String, Arc<dyn Tokenizer>>>,
}

/// The ways in which our tokenizer can be made of a vocabulary.
pub(crate) fn ways(entry: &Entry) -> &'static [&'static str] {
    match entry.name {
        "gpt2" => &["gguf", "compiled", "vocab-bpe", "tokenizer-json"],
        "mistral-v1" => &["gguf", "compiled", "tokenizer-model", "tokenizer-json"],
        "llama3" => &["gguf", "compiled", "tokenizer-json", "tiktoken"],
        _ => &["gguf", "compiled", "tokenizer-json"],
    }
}

/// The stage of a vocabulary.
pub(crate) fn stage(entry: &'static Entry, paths: &Paths) -> Result<Arc<Stage>, Failure> {
    type Slot = Arc<OnceLock<Result<Arc<Stage>, String>>>;
    static STAGES: OnceLock<Mutex<HashMap<&'static str, Slot>>> = OnceLock::new();
    let slot = {
        let mut stages = STAGES.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(stages.entry(entry.name).or_default())
    };
    let make = || -> Result<Arc<Stage>, Failure> {
        let vocabulary = entry.load(paths)?;
        let oracle = Oracle::new(&vocabulary.json)?;
        Ok(Arc::new(Stage { vocabulary, oracle, ours: Mutex::default() }))
    };
    slot.get_or_init(|| make().map_err(|failure| failure.message)).clone().map_err(Failure::new)
}

impl Stage {
    /// Our tokenizer, made in this way.
    pub(crate) fn ours(&self, way: &str) -> Result<Arc<dyn Tokenizer>, Failure> {
        let mut ours = self.ours.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tokenizer) = ours.get(way) {
            return Ok(Arc::clone(tokenizer));
        }
        let tokenizer = match way {
            "gguf" => from_gguf(self.vocabulary.gguf()?.metadata())?.tokenizer,
            "compiled" => {
                let folder = tempfile::tempdir()?;
                let file = folder.path().join("compiled");
                compiled::write(&from_gguf(self.vocabulary.gguf()?.metadata())?, &file)?;
                // The file stays mapped when its name is gone.
                compiled::open(&file)?.tokenizer
            }
            way => self.built_from_files(way)?,
        };
        if tokenizer.vocab_size() != self.vocabulary.source.tokens.len() {
            let (found, want) = (tokenizer.vocab_size(), self.vocabulary.source.tokens.len());
            return Err(Failure::new(format_args!("our tokenizer has {found} ids, the vocabulary {want}")));
        }
        ours.insert(way.to_owned(), Arc::clone(&tokenizer));
        Ok(tokenizer)
    }

    fn built_from_files(&self, way: &str) -> Result<Arc<dyn Tokenizer>, Failure> {
        use bitnet_engine::tokenizer::files::{FileSet, Hints, load, look};
        let files = self.vocabulary.files.iter().find(|(name, _)| *name == way);
        let (_, files) = files.ok_or_else(|| Failure::new(format_args!("the vocabulary has no form `{way}`")))?;
        let mut set = FileSet::new();
        for (name, bytes) in files {
            set.add(*name, bytes.clone());
        }
        // A rank file says neither its special tokens nor how it splits. The file that the oracle reads is called 3.1, but
        // its special tokens have LLaMA-3.0's names.
        let hints = match way {
            "tiktoken" => Hints { family: Some("llama-3"), ..Hints::default() },
            _ => Hints::default(),
        };
        let tokenizer = load(&set, &hints)?.tokenizer;
        let seen = look(&set).map(|seen| seen.tokens);
        if seen != Some(tokenizer.vocab_size()) {
            let built = tokenizer.vocab_size();
            return Err(Failure::new(format_args!("a look at `{way}` counts {seen:?} tokens, built it has {built}")));
        }
        // The crate behind our trait would be compared with itself.
        let kind = if self.vocabulary.is_spm() { "spm" } else { "bpe" };
        if tokenizer.kind() != kind {
            return Err(Failure::new(format_args!("`{way}` is read by `{}`, not by our own {kind}", tokenizer.kind())));
        }
        Ok(tokenizer)
    }
}
