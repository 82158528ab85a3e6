//! A sequence in progress: its tokens, its position, and an executor that computes them.

use super::executor::{self, Executor};
use super::sampler::some;
use super::{Head, InferenceError, Needs, Observer, Screening, StepResult};
use crate::model::Model;
use crate::ops::{Batch, Span};
use bitnet_kernels::cuda::device::Device;
use bitnet_kernels::{Kernels, Pool};
use std::sync::Arc;

/// How a session computes.
#[derive(Clone)]
pub struct SessionOptions {
    /// The instruction set.
    pub kernels: &'static dyn Kernels,
    /// Threads, shared between sessions that take turns.
    pub pool: Arc<Pool>,
    /// Positions of the KV cache; the model's own context length if absent.
    pub context: Option<usize>,
    /// Tokens that are computed together in a prefill.
    pub chunk: usize,
    /// How the output matrix is multiplied where few logits are needed.
    pub head: Head,
    /// The CUDA device that computes instead of the CPU.
    pub card: Option<Arc<dyn Device>>,
}

impl SessionOptions {
    /// The best kernels of this machine, the chunk size that suits them.
    #[must_use]
    pub fn new(kernels: &'static dyn Kernels, pool: Arc<Pool>) -> Self {
        Self { kernels, pool, context: None, chunk: 128, head: Head::Auto, card: None }
    }
}

impl std::fmt::Debug for SessionOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionOptions")
            .field("kernels", &self.kernels.name())
            .field("threads", &self.pool.threads())
            .field("context", &self.context)
            .field("chunk", &self.chunk)
            .field("head", &self.head)
            .field("card", &self.card)
            .finish()
    }
}

/// Of which tokens of a call logits are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Of none: the tokens only enter the cache.
    Nothing,
    /// Of the last one.
    Last,
    /// Of every one.
    All,
}

impl Want {
    /// Rows that are wanted of a chunk.
    fn of(self, tokens: usize, last: bool) -> usize {
        match self {
            Self::All => tokens,
            Self::Last => usize::from(last),
            Self::Nothing => 0,
        }
    }
}

/// A sequence in progress.
pub struct Session {
    model: Arc<Model>,
    options: SessionOptions,
    context: usize,
    position: usize,
    executor: Box<dyn Executor>,
    held: Held,
    logits: Vec<f32>,
    computed: u64,
}

/// The rows that the executor holds before the output matrix.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    rows: usize,
    /// Position of the first.
    first: usize,
    /// Whether all their logits were computed: `[rows][vocab]`.
    whole: bool,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("options", &self.options).field("position", &self.position).finish()
    }
}

/// Most logits of a chunk, where those of every token are wanted: 64 MiB.
const MAX_LOGITS: usize = 1 << 24;

impl Session {
    /// An empty sequence.
    ///
    /// # Errors
    /// A context that needs more memory than the machine has, or none. A model that the device cannot compute.
    pub fn new(model: Arc<Model>, options: SessionOptions) -> Result<Self, InferenceError> {
        let context = options.context.unwrap_or(model.config.context_length);
        if context == 0 || options.chunk == 0 {
            return Err(InferenceError::Option { what: "the context and the chunk must hold at least one token" });
        }
        let longest = model.positions.unwrap_or(usize::MAX);
        if context > longest {
            return Err(InferenceError::NoPosition { context, longest });
        }
        let executor = executor::open(&model, &options, context, 1)?;
        Ok(Self {
            model,
            options,
            context,
            position: 0,
            executor,
            held: Held::default(),
            logits: Vec::new(),
            computed: 0,
        })
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// How it computes.
    #[must_use]
    pub fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// Tokens in the cache.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// Tokens that fit.
    #[must_use]
    pub fn context(&self) -> usize {
        self.context
    }

    /// Tokens that were run through the model so far, forgotten ones included.
    #[must_use]
    pub fn computed(&self) -> u64 {
        self.computed
    }

    /// Forgets all tokens from `position` on.
    pub fn truncate(&mut self, position: usize) {
        self.position = self.position.min(position);
    }

    /// Appends tokens and gives the logits that were asked for to `sink(position, logits [vocab])`, in order.
    ///
    /// # Errors
    /// A token outside of the vocabulary, or more tokens than the context holds; nothing is computed then. Logits that
    /// are not numbers.
    pub fn forward(
        &mut self,
        tokens: &[u32],
        want: Want,
        sink: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), InferenceError> {
        self.forward_observed(tokens, want, sink, None)
    }

    /// [`Session::forward`] with a look at every step.
    ///
    /// # Errors
    /// As [`Session::forward`].
    pub fn forward_observed(
        &mut self,
        tokens: &[u32],
        want: Want,
        sink: &mut dyn FnMut(usize, &[f32]),
        mut observer: Option<&mut dyn Observer>,
    ) -> Result<(), InferenceError> {
        let vocab = self.model.config.vocab_size;
        self.check(tokens)?;
        let size = match want {
            // All their logits are held at once.
            Want::All => self.options.chunk.min(MAX_LOGITS / vocab).max(1),
            Want::Last | Want::Nothing => self.options.chunk,
        };
        let chunks = tokens.len().div_ceil(size);
        for (i, chunk) in tokens.chunks(size).enumerate() {
            let wanted = want.of(chunk.len(), i + 1 == chunks);
            let before = self.position;
            self.run(chunk, wanted, observer.as_deref_mut())?;
            if wanted == 0 {
                continue;
            }
            self.whole()?;
            if let (Some(observer), Some(last)) = (observer.as_deref_mut(), self.model.plan.last()) {
                let (position, values) = (self.held.first, &self.logits[..]);
                observer.step(StepResult { name: &last.name, position, rows: wanted, width: vocab, values });
            }
            for (row, logits) in self.logits.chunks_exact(vocab).enumerate() {
                let position = self.held.first + row;
                if some(logits, |l| !l.is_finite()) {
                    // The chunk does not count.
                    self.position = before;
                    return Err(InferenceError::NotFinite { position });
                }
                sink(position, logits);
            }
            self.held = Held::default();
        }
        Ok(())
    }

    /// Appends tokens and gives what the output matrix would read of those that were asked for to `sink(position, row
    /// [embedding_length])`, in order.
    ///
    /// # Errors
    /// As [`Session::forward`].
    pub fn hidden(
        &mut self,
        tokens: &[u32],
        want: Want,
        sink: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), InferenceError> {
        let (width, size) = (self.model.config.embedding_length, self.options.chunk);
        self.check(tokens)?;
        let mut rows = Vec::new();
        let chunks = tokens.len().div_ceil(size);
        for (i, chunk) in tokens.chunks(size).enumerate() {
            let wanted = want.of(chunk.len(), i + 1 == chunks);
            self.run(chunk, wanted, None)?;
            if wanted > 0 {
                self.executor.hidden(&mut rows)?;
                rows.chunks_exact(width).enumerate().for_each(|(row, values)| sink(self.held.first + row, values));
            }
            self.held = Held::default();
        }
        Ok(())
    }

    /// Appends tokens and returns the logits of the last one, `[vocab]`.
    ///
    /// # Errors
    /// As [`Session::forward`], or no token at all.
    pub fn logits(&mut self, tokens: &[u32]) -> Result<&[f32], InferenceError> {
        if tokens.is_empty() {
            return Err(InferenceError::EmptyPrompt);
        }
        self.forward(tokens, Want::Last, &mut |_, _| {})?;
        Ok(&self.logits)
    }

    /// Appends tokens and holds the last `rows` of them, for [`Session::held`]. Those are computed together, whatever the
    /// chunk; observers are for [`Session::forward_observed`].
    ///
    /// # Errors
    /// As [`Session::forward`], or no row at all, or more rows than tokens.
    pub fn hold(&mut self, tokens: &[u32], rows: usize) -> Result<(), InferenceError> {
        if tokens.is_empty() {
            return Err(InferenceError::EmptyPrompt);
        }
        if rows == 0 || rows > tokens.len() {
            return Err(InferenceError::Option {
                what: "at least one row can be held, and at most one for each token",
            });
        }
        self.check(tokens)?;
        let chunk = self.options.chunk;
        let (before, end) = tokens.split_at(((tokens.len() - 1) / chunk * chunk).min(tokens.len() - rows));
        self.forward(before, Want::Nothing, &mut |_, _| {})?;
        self.run(end, rows, None)
    }

    /// [`Session::hold`] for the last token, of at most a chunk; `rows` becomes what the output matrix would read of each of them,
    /// `[tokens][embedding_length]`.
    ///
    /// # Errors
    /// As [`Session::hold`], or more tokens than the chunk.
    pub fn hold_seen(&mut self, tokens: &[u32], rows: &mut Vec<f32>) -> Result<(), InferenceError> {
        if tokens.is_empty() {
            return Err(InferenceError::EmptyPrompt);
        }
        if tokens.len() > self.options.chunk {
            return Err(InferenceError::Option { what: "more tokens than a chunk are looked at" });
        }
        self.check(tokens)?;
        self.run(tokens, tokens.len(), None)?;
        self.executor.hidden(rows)?;
        self.executor.hold_last();
        self.held = Held { rows: 1, first: self.position - 1, whole: false };
        Ok(())
    }

    /// The logits of row `row` of those that [`Session::hold`] holds, `[vocab]`; with `needs` all that it does not name may be
    /// minus infinity. Rows are held until the next tokens are appended, also those of tokens that were forgotten since.
    ///
    /// # Errors
    /// A row that is not held. Logits that are not numbers.
    pub fn held(&mut self, row: usize, needs: Option<&Needs>) -> Result<&[f32], InferenceError> {
        if row >= self.held.rows {
            return Err(InferenceError::Option { what: "the logits of a row that is not held" });
        }
        let chosen = match needs {
            Some(needs) if !self.held.whole => self.executor.choose(row, needs, &mut self.logits)?,
            _ => false,
        };
        if !chosen {
            self.whole()?;
        }
        let vocab = self.model.config.vocab_size;
        let start = if chosen { 0 } else { row * vocab };
        let logits = &self.logits[start..start + vocab];
        let sound = match needs {
            None => !some(logits, |l| !l.is_finite()),
            // Screened logits are finite by their bound; the others say that nobody looks at them.
            Some(_) => !some(logits, |l| l.is_nan() || l == f32::INFINITY) && some(logits, f32::is_finite),
        };
        if sound { Ok(logits) } else { Err(InferenceError::NotFinite { position: self.held.first + row }) }
    }

    /// Appends tokens and returns the logits of the last one, `[vocab]`, of which only some are looked at: all others may be
    /// minus infinity.
    ///
    /// # Errors
    /// As [`Session::logits`].
    pub fn logits_needed(&mut self, tokens: &[u32], needs: &Needs) -> Result<&[f32], InferenceError> {
        self.hold(tokens, 1)?;
        self.held(0, Some(needs))
    }

    /// Says that so many tokens may still be generated. Preparations that pay only in the long run (weights in huge pages) are
    /// measured by it; the results are the same.
    pub fn expect(&mut self, tokens: usize) {
        self.executor.expect(tokens);
    }

    /// What screening came to so far.
    #[must_use]
    pub fn screening(&self) -> Screening {
        self.executor.screening()
    }

    /// Whether tokens can be appended.
    fn check(&self, tokens: &[u32]) -> Result<(), InferenceError> {
        let vocab = self.model.config.vocab_size;
        if let Some(&token) = tokens.iter().find(|&&t| t as usize >= vocab) {
            return Err(InferenceError::TokenOutOfRange { token, vocab });
        }
        if tokens.len() > self.context - self.position {
            return Err(InferenceError::ContextOverflow {
                tokens: self.position + tokens.len(),
                context: self.context,
            });
        }
        Ok(())
    }

    /// Computes tokens up to the output matrix and holds the last `wanted` rows.
    fn run(
        &mut self,
        tokens: &[u32],
        wanted: usize,
        observer: Option<&mut (dyn Observer + '_)>,
    ) -> Result<(), InferenceError> {
        self.held = Held::default();
        let span = Span { sequence: 0, position: self.position, tokens: tokens.len(), wanted };
        self.executor.run(&Batch { tokens, spans: &[span] }, observer)?;
        self.position += tokens.len();
        self.computed += tokens.len() as u64;
        self.held = Held { rows: wanted, first: self.position - wanted, whole: false };
        Ok(())
    }

    /// All logits of the held rows.
    fn whole(&mut self) -> Result<(), InferenceError> {
        if !self.held.whole {
            self.executor.logits(&mut self.logits)?;
            self.held.whole = true;
        }
        Ok(())
    }
}
