//! The plan of a forward pass: what a model family says and every executor runs.
//!
//! A family (`bitnet.rs`, `llama.rs`) knows the order of the operations and the names of its tensors; an executor
//! (`inference/`) knows a device. They meet in this flat list of named steps, so that families and devices multiply
//! without knowing of each other, and so that every intermediate result has the name under which a trace is compared
//! with a C++ reference.

/// Index of a matrix in [`Weights::matrices`](super::Weights).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatrixId(pub usize);

/// Index of a norm's weight in [`Weights::norms`](super::Weights).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NormId(pub usize);

/// A buffer of activations, `[tokens][width]`. The width is a property of the model's [`Config`](super::Config).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// The residual stream, `[tokens][embedding_length]`.
    Residual,
    /// A normalised copy of the residual stream, or the output of a block before it is added back.
    Hidden,
    /// Queries, `[tokens][heads * head_dim]`; the attention writes its result over them.
    Query,
    /// Keys, `[tokens][kv_heads * head_dim]`.
    Key,
    /// Values, `[tokens][kv_heads * head_dim]`.
    Value,
    /// The gate of the feed-forward block, `[tokens][feed_forward_length]`; gated in place.
    Gate,
    /// The up projection, `[tokens][feed_forward_length]`.
    Up,
    /// Logits, `[rows asked for][vocab]`.
    Logits,
}

impl Slot {
    /// Every slot, in the order of the executor's buffers.
    pub const ALL: [Self; 8] =
        [Self::Residual, Self::Hidden, Self::Query, Self::Key, Self::Value, Self::Gate, Self::Up, Self::Logits];

    /// Position in [`Slot::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}

/// The gate of a feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gating {
    /// `relu(gate)^2 * up` (BitNet b1.58 2B-4T).
    Relu2,
    /// `gate * sigmoid(gate) * up` (LLaMA, the first BitNet models).
    Silu,
}

/// How rotary embeddings pair the dimensions of a head.
pub use bitnet_kernels::Rope;

/// One operation on slots.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// `dst[t] = table[token[t]]`.
    Embed {
        /// The embedding, `[vocab][embedding_length]`.
        table: MatrixId,
        /// Where it goes.
        dst: Slot,
    },
    /// `dst = rms_norm(src) * weight`.
    RmsNorm {
        /// Input.
        src: Slot,
        /// Output; may be `src`.
        dst: Slot,
        /// The norm's weight.
        weight: NormId,
    },
    /// `dst = weight * src`; ternary weights quantise `src` to int8 per token first.
    Linear {
        /// Input.
        src: Slot,
        /// Output.
        dst: Slot,
        /// The matrix, `[outputs][inputs]`.
        weight: MatrixId,
    },
    /// Rotates `heads` heads in place by the position of each token.
    Rope {
        /// Queries or keys.
        slot: Slot,
        /// Heads in the slot.
        heads: usize,
        /// Pairing.
        kind: Rope,
    },
    /// Appends [`Slot::Key`] and [`Slot::Value`] to the cache of a layer, rounded to f16.
    CacheAppend {
        /// The layer.
        layer: usize,
    },
    /// Causal grouped-query attention of [`Slot::Query`] over a layer's cache; the result replaces the queries.
    Attention {
        /// The layer.
        layer: usize,
    },
    /// Gates [`Slot::Gate`] with [`Slot::Up`] in place.
    Gate(Gating),
    /// `Residual += src`.
    Add {
        /// The term.
        src: Slot,
    },
    /// Keeps the rows of [`Slot::Residual`] of which logits were asked for. What follows runs on these only.
    SelectRows,
}

/// An operation and the name of its result (`blk.3.attn_norm`, after the tensor names of GGUF).
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Unique in the plan.
    pub name: String,
    /// What is done.
    pub op: Op,
}

impl Op {
    /// The slot that holds the result, if the step has one to look at.
    #[must_use]
    pub fn result(&self) -> Option<Slot> {
        match *self {
            Self::Embed { dst, .. } | Self::RmsNorm { dst, .. } | Self::Linear { dst, .. } => Some(dst),
            Self::Rope { slot, .. } => Some(slot),
            Self::Attention { .. } => Some(Slot::Query),
            Self::Gate(_) => Some(Slot::Gate),
            Self::Add { .. } => Some(Slot::Residual),
            Self::CacheAppend { .. } | Self::SelectRows => None,
        }
    }
}

/// Collects steps; the families use it so that the names stay uniform.
#[derive(Debug, Default)]
pub struct PlanBuilder {
    steps: Vec<Step>,
}

impl PlanBuilder {
    /// Appends a step.
    pub fn push(&mut self, name: impl Into<String>, op: Op) -> &mut Self {
        self.steps.push(Step { name: name.into(), op });
        self
    }

    /// The finished plan.
    #[must_use]
    pub fn finish(self) -> Vec<Step> {
        self.steps
    }
}
