//! Our answers on the device of a cell. Live and recorded cells of all backends ask the same, so each answer is computed
//! once a process.

use super::questions::{CONTEXT, Subject};
use crate::axes::Cell;
use crate::check::{Context, Failure};
use crate::crossval::{Logits, Row, Traced};
use crate::models;
use bitnet_engine::inference::{GenerateOptions, StepResult, Want, generate};
use bitnet_engine::load::Loaded;
use bitnet_kernels::Kernels;
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Tokens of a chunk of ours.
const CHUNK: usize = 16;

/// Answers by what was asked. One that is being made makes others wait for it; one that failed is made again.
#[derive(Debug)]
pub struct Answers<T>(OnceLock<Mutex<HashMap<String, Slot<T>>>>);

type Slot<T> = Arc<Mutex<Option<Arc<T>>>>;

impl<T> Answers<T> {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// The answer to `key`, from `make` if nobody has asked before.
    ///
    /// # Errors
    /// Those of `make`, which are not kept.
    pub fn get<E>(&self, key: String, make: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        let slot = {
            let mut slots = self.0.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(slots.entry(key).or_default())
        };
        let mut answer = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = &*answer {
            return Ok(Arc::clone(answer));
        }
        let made = Arc::new(make()?);
        *answer = Some(Arc::clone(&made));
        Ok(made)
    }
}

impl<T> Default for Answers<T> {
    fn default() -> Self {
        Self::new()
    }
}

static LOGITS: Answers<Logits> = Answers::new();
static TOKENS: Answers<Vec<u32>> = Answers::new();

/// Our engine on a device, about a model.
pub struct Ours {
    loaded: Loaded,
    kernels: &'static dyn Kernels,
    key: String,
}

impl std::fmt::Debug for Ours {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ours").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Ours {
    /// The engine of a cell.
    ///
    /// # Errors
    /// The model cannot be loaded, or the device is not here.
    pub fn new(ctx: &Context, cell: &Cell) -> Result<Self, Failure> {
        let loaded = models::loaded(ctx, cell)?;
        let kernels = models::kernels(cell)?;
        let key = format!("{} {}", loaded.file.content_hash(), cell.device);
        Ok(Self { loaded, kernels, key })
    }

    /// The model.
    #[must_use]
    pub fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    /// What computes.
    #[must_use]
    pub fn kernels(&self) -> &'static dyn Kernels {
        self.kernels
    }

    /// The logits of every position of a sequence.
    ///
    /// # Errors
    /// The sequence cannot be computed.
    pub fn logits(&self, tokens: &[u32]) -> Result<Arc<Logits>, Failure> {
        LOGITS.get(format!("{} {tokens:?}", self.key), || -> Result<Logits, Failure> {
            let mut session = models::session(&self.loaded, self.kernels, 1, CHUNK, CONTEXT)?;
            let mut rows = Vec::with_capacity(tokens.len());
            session.forward(tokens, Want::All, &mut |_, logits| rows.push(Row::Full(logits.to_vec())))?;
            let vocab = self.loaded.model.config.vocab_size;
            Ok(Logits { positions: (0..rows.len()).collect(), vocab, rows })
        })
    }

    /// The most likely tokens, one after the other, whatever ends a generation.
    ///
    /// # Errors
    /// The prompt cannot be computed.
    pub fn generate(&self, prompt: &[u32], new_tokens: usize) -> Result<Arc<Vec<u32>>, Failure> {
        TOKENS.get(format!("{} {prompt:?} {new_tokens}", self.key), || -> Result<Vec<u32>, Failure> {
            let mut session = models::session(&self.loaded, self.kernels, 1, CHUNK, CONTEXT)?;
            let options = GenerateOptions { max_tokens: Some(new_tokens), ignore_eos: true, ..Default::default() };
            let tokenizer = &*self.loaded.tokenizer;
            let made = generate(&mut session, tokenizer, prompt, &options, &AtomicBool::new(false), &mut |_| {})?;
            Ok(made.tokens)
        })
    }

    /// The results of all steps for a sequence, in one chunk.
    ///
    /// # Errors
    /// The sequence cannot be computed.
    pub fn trace(&self, tokens: &[u32]) -> Result<Vec<Traced>, Failure> {
        let mut session = models::session(&self.loaded, self.kernels, 1, tokens.len().max(1), CONTEXT)?;
        let mut steps = Vec::new();
        let mut observer = |result: StepResult<'_>| {
            let StepResult { name, rows, width, values, .. } = result;
            steps.push(Traced { step: name.to_owned(), rows, width, values: values.to_vec() });
        };
        session.forward_observed(tokens, Want::All, &mut |_, _| {}, Some(&mut observer))?;
        Ok(steps)
    }

    /// How the tokenizer sees it: whether generation ends there.
    #[must_use]
    pub fn ends(&self, token: u32) -> bool {
        self.loaded.tokenizer.is_eog(token)
    }
}

/// The key of a subject's answers from a backend.
pub(super) fn key(backend: &str, subject: &Subject, question: &impl std::fmt::Debug) -> String {
    format!("{backend} {} {question:?}", subject.file.content_hash())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept_and_failures_are_not() {
        let answers = Answers::new();
        assert_eq!(answers.get("a".into(), || Err::<u32, _>("dead")), Err("dead"));
        assert_eq!(answers.get("a".into(), || Ok::<_, ()>(1)), Ok(Arc::new(1)));
        assert_eq!(answers.get("a".into(), || Err::<u32, _>("asked again")), Ok(Arc::new(1)));
        assert_eq!(answers.get("b".into(), || Ok::<_, ()>(2)), Ok(Arc::new(2)));
    }
}
