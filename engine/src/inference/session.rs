//! A sequence in progress, and the CPU executor: runs a model's plan, chunk by chunk. On a CUDA device the plan is run by
//! [`super::cuda`].
//!
//! Every output element is computed by one kernel call in the one canonical order, so neither the number of threads
//! nor the size of the chunks changes a bit of the logits.

use super::cuda::Cuda;
use super::head::{Head, Screening};
use super::held::Held;
use super::rope::RopeTable;
use super::sampler::some;
use super::{InferenceError, KvCache, Observer, StepResult};
use crate::model::plan::Gating;
use crate::model::{HugePages, MatrixId, Model, NormId, Op, PASSES, Slot};
use bitnet_kernels::cuda::device::Device;
use bitnet_kernels::parallel::{self, Product, SERIAL_WORK};
use bitnet_kernels::screen::Scratch;
use bitnet_kernels::{ActKind, Activations, Kernels, Pool, Rope};
use std::cell::RefCell;
use std::sync::Arc;

/// Elements that one thread takes of a step that treats each by itself: any split gives the same bits.
const PIECE: usize = 4096;

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

/// How much of the plan is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// All of it.
    End,
    /// What comes before the output matrix.
    Head,
}

/// One chunk of a sequence.
pub(super) struct Step<'a, 'o> {
    pub(super) tokens: &'a [u32],
    /// Of the first token.
    pub(super) position: usize,
    /// Logits are wanted of the rows from here on.
    pub(super) first: usize,
    pub(super) until: Until,
    pub(super) observer: Option<&'a mut (dyn Observer + 'o)>,
}

/// A sequence in progress: the model, its KV cache, and the buffers of the steps.
pub struct Session {
    pub(super) model: Arc<Model>,
    pub(super) options: SessionOptions,
    cache: KvCache,
    pub(super) position: usize,
    pub(super) slots: Vec<Vec<f32>>,
    /// Takes results that cannot be written over their inputs; swapped with a slot afterwards.
    spare: Vec<f32>,
    pub(super) prepared: Activations,
    rope: RopeTable,
    pub(super) held: Held,
    /// Passes over the weights.
    passes: usize,
    /// Tokens whose needs were few and that had the whole output matrix.
    pub(super) whole: usize,
    pub(super) screening: Screening,
    pub(super) scratch: Scratch,
    pub(super) cuda: Option<Cuda>,
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
    /// A context that needs more memory than the machine has, or none.
    pub fn new(model: Arc<Model>, options: SessionOptions) -> Result<Self, InferenceError> {
        let config = &model.config;
        let context = options.context.unwrap_or(config.context_length);
        if context == 0 || options.chunk == 0 {
            return Err(InferenceError::Option { what: "the context and the chunk must hold at least one token" });
        }
        let rope = || {
            let factors = model.weights.rope_factors.as_deref();
            RopeTable::new(config.rope_dims, config.rope_theta, config.rope_scale, factors)
        };
        let cuda = match &options.card {
            Some(card) => Some(Cuda::new(&model, card, context, options.chunk.min(context), options.head, rope())?),
            None => None,
        };
        let layers = if cuda.is_some() { 0 } else { config.block_count };
        let cache = KvCache::new(layers, context, config.kv_heads, config.head_dim)
            .ok_or(InferenceError::ContextTooLarge { context })?;
        Ok(Self {
            rope: rope(),
            cuda,
            cache,
            position: 0,
            slots: vec![Vec::new(); Slot::ALL.len()],
            spare: Vec::new(),
            prepared: Activations::default(),
            held: Held::default(),
            passes: 0,
            whole: 0,
            screening: Screening::default(),
            scratch: Scratch::default(),
            model,
            options,
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
        self.cache.capacity()
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
            let first = match want {
                Want::All => 0,
                Want::Last if i + 1 == chunks => chunk.len() - 1,
                Want::Last | Want::Nothing => chunk.len(),
            };
            self.run(chunk, first, Until::End, &mut observer)?;
            for (row, logits) in self.slots[Slot::Logits.index()].chunks_exact(vocab).enumerate() {
                let position = self.position + first + row;
                if some(logits, |l| !l.is_finite()) {
                    return Err(InferenceError::NotFinite { position });
                }
                sink(position, logits);
            }
            self.position += chunk.len();
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
        Ok(&self.slots[Slot::Logits.index()])
    }

    /// Whether tokens can be appended.
    pub(super) fn check(&self, tokens: &[u32]) -> Result<(), InferenceError> {
        let vocab = self.model.config.vocab_size;
        if let Some(&token) = tokens.iter().find(|&&t| t as usize >= vocab) {
            return Err(InferenceError::TokenOutOfRange { token, vocab });
        }
        if tokens.len() > self.context() - self.position {
            return Err(InferenceError::ContextOverflow {
                tokens: self.position + tokens.len(),
                context: self.context(),
            });
        }
        Ok(())
    }

    /// Runs the plan for one chunk; logits of the rows from `first` on are left in their slot.
    pub(super) fn run(
        &mut self,
        tokens: &[u32],
        first: usize,
        until: Until,
        observer: &mut Option<&mut dyn Observer>,
    ) -> Result<(), InferenceError> {
        let model = Arc::clone(&self.model);
        self.held = Held::default();
        self.slots[Slot::Logits.index()].clear();
        if let Some(cuda) = &mut self.cuda {
            let observer = observer.as_deref_mut();
            let mut step = Step { tokens, position: self.position, first, until, observer };
            return cuda.run(&model, &mut step, &mut self.slots[Slot::Logits.index()]);
        }
        self.passes += 1;
        if self.passes == PASSES && model.huge_pages == HugePages::Auto {
            let copied = model.copy_hot(HugePages::Auto, &self.options.pool);
            tracing::debug!(?copied, "weights into huge pages");
        }
        self.rope.extend_to(self.position + tokens.len());
        // After `SelectRows` only these are computed.
        let (mut rows, mut position) = (tokens.len(), self.position);
        let mut index = 0;
        while let Some(step) = model.plan.get(index) {
            let mut done = 1;
            match step.op {
                Op::Embed { table, dst } => self.embed(table, tokens, dst),
                Op::RmsNorm { src, dst, weight } => self.rms_norm(src, dst, weight),
                Op::Linear { dst: Slot::Logits, .. } if until == Until::Head => return Ok(()),
                Op::Linear { src, .. } => {
                    let group = linear_group(&model.plan[index..], src);
                    done = group.len();
                    self.linear(src, &group, rows);
                }
                Op::Rope { slot, heads, kind } => self.rotate(slot, heads, kind, position),
                Op::CacheAppend { layer } => self.cache.append(
                    self.options.kernels,
                    layer,
                    position,
                    &self.slots[Slot::Key.index()],
                    &self.slots[Slot::Value.index()],
                ),
                Op::Attention { layer } => self.attention(layer, position),
                Op::Gate(gating) => self.gate(gating),
                Op::Add { src } => self.add(src),
                Op::SelectRows => {
                    if first == tokens.len() {
                        return Ok(());
                    }
                    let width = model.config.embedding_length;
                    self.slots[Slot::Residual.index()].drain(..first * width);
                    rows -= first;
                    position += first;
                }
            }
            if let Some(observer) = observer {
                for step in &model.plan[index..index + done] {
                    let Some(slot) = step.op.result() else { continue };
                    let values = &self.slots[slot.index()];
                    let width = values.len() / rows;
                    observer.step(StepResult { name: &step.name, position, rows, width, values });
                }
            }
            index += done;
        }
        Ok(())
    }

    fn embed(&mut self, table: MatrixId, tokens: &[u32], dst: Slot) {
        let table = self.model.weights.matrix(table);
        let out = &mut self.slots[dst.index()];
        out.resize(tokens.len() * table.cols, 0.0);
        for (row, &token) in out.chunks_exact_mut(table.cols).zip(tokens) {
            table.unpack_row(token as usize, row);
        }
    }

    fn rms_norm(&mut self, src: Slot, dst: Slot, weight: NormId) {
        let weight = self.model.weights.norm(weight);
        let (kernels, eps) = (self.options.kernels, self.model.config.rms_eps);
        let input = &self.slots[src.index()];
        let width = weight.len();
        self.spare.resize(input.len(), 0.0);
        self.options.pool.for_rows(&mut self.spare, width, SERIAL_WORK / width / 4, &|i, row| {
            kernels.rms_norm(&input[i * width..(i + 1) * width], weight, eps, row);
        });
        std::mem::swap(&mut self.spare, &mut self.slots[dst.index()]);
    }

    /// Computes linear steps that share an input: it is prepared once per kind, and their rows are one region.
    pub(super) fn linear(&mut self, src: Slot, group: &[(MatrixId, Slot)], tokens: usize) {
        let model = Arc::clone(&self.model);
        let kernels = self.options.kernels;
        for kind in [ActKind::F32, ActKind::I8, ActKind::Q8] {
            let members: Vec<_> = group
                .iter()
                .map(|&(id, dst)| (model.weights.matrix(id), dst))
                .filter(|(matrix, _)| matrix.format.act == kind)
                .collect();
            if members.is_empty() {
                continue;
            }
            kernels.prepare(kind, &self.slots[src.index()], tokens, &mut self.prepared);
            let mut outputs: Vec<Vec<f32>> =
                members.iter().map(|(_, dst)| std::mem::take(&mut self.slots[dst.index()])).collect();
            let mut products = Vec::with_capacity(members.len());
            for (&(matrix, _), output) in members.iter().zip(&mut outputs) {
                output.resize(tokens * matrix.rows, 0.0);
                products.push(Product { matrix, out: output });
            }
            parallel::matmul(&self.options.pool, kernels, &mut products, &self.prepared);
            for ((_, dst), output) in members.iter().zip(outputs) {
                self.slots[dst.index()] = output;
            }
        }
    }

    fn rotate(&mut self, slot: Slot, heads: usize, kind: Rope, position: usize) {
        let (kernels, dim, rope) = (self.options.kernels, self.model.config.head_dim, &self.rope);
        let width = heads * dim;
        self.options.pool.for_rows(&mut self.slots[slot.index()], width, SERIAL_WORK / width, &|token, row| {
            let (cos, sin) = rope.at(position + token);
            for head in row.chunks_exact_mut(dim) {
                kernels.rope(kind, head, cos, sin);
            }
        });
    }

    fn attention(&mut self, layer: usize, position: usize) {
        thread_local! {
            static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
        }
        let config = &self.model.config;
        let (kernels, dim, kv_heads) = (self.options.kernels, config.head_dim, config.kv_heads);
        // Heads that share their keys and values, side by side in a token's row.
        let width = config.heads / kv_heads * dim;
        let scale = 1.0 / (dim as f32).sqrt();
        let query = &self.slots[Slot::Query.index()];
        let cache = &self.cache;
        self.spare.resize(query.len(), 0.0);
        let last = position + query.len() / (kv_heads * width);
        self.options.pool.for_rows(&mut self.spare, width, SERIAL_WORK / (last * width), &|i, out| {
            let (keys, values) = cache.head(layer, i % kv_heads);
            let n = position + i / kv_heads + 1;
            SCORES.with_borrow_mut(|scores| {
                scores.resize(scores.len().max(width / dim * n), 0.0);
                let query = &query[i * width..(i + 1) * width];
                kernels.attention_group(query, dim, keys, values, dim, n, scale, scores, out);
            });
        });
        std::mem::swap(&mut self.spare, &mut self.slots[Slot::Query.index()]);
    }

    fn gate(&mut self, gating: Gating) {
        let kernels = self.options.kernels;
        let mut gate = std::mem::take(&mut self.slots[Slot::Gate.index()]);
        let up = &self.slots[Slot::Up.index()];
        self.options.pool.for_rows(&mut gate, PIECE, SERIAL_WORK / PIECE, &|i, part| {
            let up = &up[i * PIECE..i * PIECE + part.len()];
            match gating {
                Gating::Relu2 => kernels.relu2_gate(part, up),
                Gating::Silu => kernels.silu_gate(part, up),
            }
        });
        self.slots[Slot::Gate.index()] = gate;
    }

    fn add(&mut self, src: Slot) {
        let mut residual = std::mem::take(&mut self.slots[Slot::Residual.index()]);
        let (kernels, other) = (self.options.kernels, &self.slots[src.index()]);
        self.options.pool.for_rows(&mut residual, PIECE, SERIAL_WORK / PIECE, &|i, part| {
            kernels.add(part, &other[i * PIECE..i * PIECE + part.len()]);
        });
        self.slots[Slot::Residual.index()] = residual;
    }
}

/// The run of linear steps at the start of `steps` that read `src`, none of which writes it.
pub(super) fn linear_group(steps: &[crate::model::Step], src: Slot) -> Vec<(MatrixId, Slot)> {
    let mut group = Vec::with_capacity(3);
    for step in steps {
        match step.op {
            Op::Linear { src: from, dst, weight } if from == src => {
                group.push((weight, dst));
                if dst == src {
                    break;
                }
            }
            _ => break,
        }
    }
    group
}
