//! Our engine as a side of a comparison. It implements [`Reference`] too, so that one file can be held against another.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bitnet_engine::chat::prompt;
use bitnet_engine::discovery::{TokenizerFallbackChain, TokenizerStrategy};
use bitnet_engine::gguf::{GgufError, GgufFile};
use bitnet_engine::inference::{
    GenerateOptions, Observer, Session, SessionOptions, StepResult, StopReason, Want, generate,
};
use bitnet_engine::load::{LoadError, LoadOptions, Loaded, TokenizerSource, load_with};
use bitnet_engine::tokenizer::{EncodeOptions, Tokenizer};
use bitnet_kernels::quant::{self, I2sLayout};
use bitnet_kernels::{Kernels, Pool};
use serde_json::json;

use super::answers::Answers;
use super::reference::{Continuation, Logits, Positions, Reference, Row, SideError, Traced};
use super::report::{FileFacts, TokenizerFacts};
use crate::provenance::HostInfo;

/// A model, ready to be compared.
pub struct Ours {
    pub loaded: Loaded,
    pub kernels: &'static dyn Kernels,
    pub pool: Arc<Pool>,
    /// Tokens computed together.
    pub chunk: usize,
    /// Positions that are allocated at least: some rotations depend on it, so both sides must have the same.
    pub context: usize,
    /// Whether logits and continuations are kept for the length of the process.
    pub kept: bool,
}

static LOGITS: Answers<Logits> = Answers::new();
static CONTINUATIONS: Answers<Continuation> = Answers::new();

impl std::fmt::Debug for Ours {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ours").field("file", &self.loaded.file).field("kernels", &self.kernels.name()).finish()
    }
}

/// The name of our side.
pub const NAME: &str = "ours";

impl Ours {
    /// Opens a file; the tokenizer comes from `chain`.
    pub fn open(
        path: &Path,
        layout: Option<I2sLayout>,
        chain: &TokenizerFallbackChain,
        kernels: &'static dyn Kernels,
        pool: Arc<Pool>,
    ) -> Result<Self, LoadError> {
        let options = LoadOptions { layout, tokenizer: TokenizerSource::Discover(chain), ..LoadOptions::default() };
        let loaded = load_with(GgufFile::open(path)?, options, kernels, &pool)?;
        Ok(Self::new(loaded, kernels, pool))
    }

    /// A model that is loaded already.
    pub fn new(loaded: Loaded, kernels: &'static dyn Kernels, pool: Arc<Pool>) -> Self {
        Self { loaded, kernels, pool, chunk: 128, context: 0, kept: false }
    }

    fn session(&self, context: usize) -> Result<Session, bitnet_engine::inference::InferenceError> {
        let options = SessionOptions {
            context: Some(context.max(self.context.min(self.loaded.model.config.context_length)).max(1)),
            chunk: self.chunk,
            ..SessionOptions::new(self.kernels, Arc::clone(&self.pool))
        };
        Session::new(Arc::clone(&self.loaded.model), options)
    }

    /// The same model with another tokenizer, whatever its size: what it makes of a text is what is compared.
    #[must_use]
    pub fn with_tokenizer(mut self, tokenizer: Arc<dyn Tokenizer>, strategy: TokenizerStrategy) -> Self {
        self.loaded.tokenizer = tokenizer;
        self.loaded.strategy = strategy;
        self
    }

    /// What a report says of our file; `path` as the user gave it.
    pub fn facts(&self, path: &str) -> FileFacts {
        facts(&self.loaded.file, path, self.loaded.model.i2s_layout)
    }

    /// The same of a file that is not loaded.
    pub fn facts_of(path: &Path) -> Result<FileFacts, GgufError> {
        Ok(facts(&GgufFile::open(path)?, &path.to_string_lossy(), I2sLayout::default()))
    }

    /// What a report says of our tokenizer.
    pub fn tokenizer_facts(&self) -> TokenizerFacts {
        let tokenizer = &self.loaded.tokenizer;
        TokenizerFacts {
            source: self.loaded.strategy.description(),
            kind: tokenizer.kind().to_owned(),
            pre: tokenizer.pre().map(str::to_owned),
            tokens: tokenizer.vocab_size(),
            sha256: None,
        }
    }

    /// What is printed for a token: its bytes as text, control tokens by name.
    pub fn piece(&self, token: u32) -> String {
        let bytes = self.loaded.tokenizer.token_bytes(token, true).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The ids of a prompt, as users get them.
    pub fn prompt(&self, text: &str, parse_special: bool) -> Result<Vec<u32>, SideError> {
        prompt::encode(&*self.loaded.tokenizer, text, parse_special).map_err(|e| SideError::failed(NAME, "tokens", e))
    }

    /// The logits of a sequence at some positions.
    pub fn logits(&self, tokens: &[u32], positions: &Positions) -> Result<Logits, SideError> {
        if !self.kept {
            return self.compute_logits(tokens, positions);
        }
        let all = LOGITS.get(self.key(&tokens), || self.compute_logits(tokens, &Positions::All))?;
        let positions = positions.of(tokens.len());
        let rows = positions.iter().filter_map(|&position| all.row(position).cloned()).collect();
        Ok(Logits { positions, vocab: all.vocab, rows })
    }

    /// The most likely tokens, one after the other, until one that ends a generation.
    pub fn generate(&self, prompt: &[u32], max_tokens: usize) -> Result<Continuation, SideError> {
        if !self.kept {
            return self.compute_continuation(prompt, max_tokens);
        }
        let key = self.key(&(prompt, max_tokens));
        let made = CONTINUATIONS.get(key, || self.compute_continuation(prompt, max_tokens))?;
        Ok(Continuation::clone(&made))
    }

    /// The results of all steps for a sequence.
    pub fn trace(&self, tokens: &[u32]) -> Result<Vec<Traced>, SideError> {
        let failed = |e| SideError::failed(NAME, "trace", e);
        let mut session = self.session(tokens.len()).map_err(failed)?;
        let mut collected = Collect::default();
        session.forward_observed(tokens, Want::All, &mut |_, _| {}, Some(&mut collected)).map_err(failed)?;
        Ok(collected.steps)
    }

    /// What an answer depends on.
    fn key(&self, question: &impl std::fmt::Debug) -> String {
        format!(
            "{} {} {} {} {question:?}",
            self.loaded.file.content_hash(),
            self.kernels.name(),
            self.chunk,
            self.context
        )
    }

    fn compute_logits(&self, tokens: &[u32], positions: &Positions) -> Result<Logits, SideError> {
        let failed = |e| SideError::failed(NAME, "logits", e);
        let wanted = positions.of(tokens.len());
        let mut session = self.session(tokens.len()).map_err(failed)?;
        let mut rows = Vec::with_capacity(wanted.len());
        // With the last position alone, as in a prefill, the head is computed once.
        let want = if wanted == [tokens.len().wrapping_sub(1)] { Want::Last } else { Want::All };
        session
            .forward(tokens, want, &mut |position, logits| {
                if wanted.binary_search(&position).is_ok() {
                    rows.push(Row::Full(logits.to_vec()));
                }
            })
            .map_err(failed)?;
        Ok(Logits { positions: wanted, vocab: self.loaded.model.config.vocab_size, rows })
    }

    fn compute_continuation(&self, prompt: &[u32], max_tokens: usize) -> Result<Continuation, SideError> {
        let failed = |e| SideError::failed(NAME, "generation", e);
        let mut session = self.session(prompt.len() + max_tokens + 1).map_err(failed)?;
        let options = GenerateOptions { max_tokens: Some(max_tokens), ..GenerateOptions::default() };
        let made = generate(
            &mut session,
            &*self.loaded.tokenizer,
            prompt,
            &options,
            &AtomicBool::new(false),
            &mut |_: &str| {},
        );
        let mut made = made.map_err(failed)?;
        let ended = made.stop == StopReason::EndOfGeneration;
        if ended {
            made.tokens.pop();
        }
        Ok(Continuation { tokens: made.tokens, ended })
    }
}

impl Reference for Ours {
    fn name(&self) -> &str {
        NAME
    }

    fn version(&self) -> serde_json::Value {
        let host = HostInfo::here();
        json!({
            "engine": env!("CARGO_PKG_VERSION"),
            "kernel": self.kernels.name(),
            "threads": self.pool.threads(),
            "chunk": self.chunk,
            "optimised": !cfg!(debug_assertions),
            "cpu": host.features,
            "model_sha256": self.loaded.file.content_hash(),
        })
    }

    fn tokenize(&mut self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>, SideError> {
        let options = EncodeOptions { add_special, parse_special };
        self.loaded.tokenizer.encode(text, options).map_err(|e| SideError::failed(NAME, "tokens", e))
    }

    fn logits(&mut self, tokens: &[u32], positions: &Positions) -> Result<Logits, SideError> {
        Self::logits(self, tokens, positions)
    }

    fn generate(&mut self, prompt: &[u32], max_tokens: usize) -> Result<Continuation, SideError> {
        Self::generate(self, prompt, max_tokens)
    }

    fn trace(&mut self, tokens: &[u32]) -> Result<Vec<Traced>, SideError> {
        Self::trace(self, tokens)
    }
}

fn facts(file: &GgufFile, path: &str, layout: I2sLayout) -> FileFacts {
    let known = crate::models::first_linear(file).map(|view| {
        let format = quant::by_ggml_type(view.info.ggml_type, layout);
        format.map_or_else(|_| file.type_name(view.info).to_owned(), |format| format.name.to_owned())
    });
    FileFacts {
        path: path.to_owned(),
        bytes: file.file_len(),
        sha256: file.content_hash().to_owned(),
        architecture: file.metadata().str("general.architecture").ok().flatten().unwrap_or("none").to_owned(),
        quant: known.unwrap_or_else(|| "none".to_owned()),
    }
}

/// Keeps every step; chunks of one step are joined.
#[derive(Default)]
struct Collect {
    steps: Vec<Traced>,
}

impl Observer for Collect {
    fn step(&mut self, result: StepResult<'_>) {
        match self.steps.iter_mut().find(|step| step.step == result.name) {
            Some(step) => {
                step.rows += result.rows;
                step.values.extend_from_slice(result.values);
            }
            None => self.steps.push(Traced {
                step: result.name.to_owned(),
                rows: result.rows,
                width: result.width,
                values: result.values.to_vec(),
            }),
        }
    }
}
