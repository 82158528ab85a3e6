//! How a family says its plan: pieces that most decoders share, with the names that GGUF gives their tensors.
//!
//! A piece takes its tensors, checks them against the widths at hand, and pushes its step under the tensor's name. Inside of a
//! block ([`Builder::enter`]) names get the block's prefix.

use super::keys::MAX_DIM;
use super::{Config, ModelError, TensorSource, rope};
use crate::ops::{
    Add, Attention, Bias, CacheAppend, Embed, Gate, Gating, Linear, MatrixId, Op, RmsNorm, RopeId, RopeSpec, Rotate,
    Scale, SelectRows, Slot, Step, VectorId,
};
use bitnet_kernels::Rope;

/// A plan in the making.
pub struct Builder<'s, 'f> {
    pub(super) source: &'s mut TensorSource<'f>,
    /// What the executor needs besides the plan and the tensors.
    pub(super) parts: Parts,
    prefix: String,
    layer: usize,
    widths: [usize; Slot::ALL.len()],
}

/// What a family makes.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) plan: Vec<Step>,
    pub(super) ropes: Vec<RopeSpec>,
    /// Rows of the position embedding.
    pub(super) positions: Option<usize>,
}

type Built = Result<(), ModelError>;

impl<'s, 'f> Builder<'s, 'f> {
    pub(super) fn new(source: &'s mut TensorSource<'f>) -> Self {
        Self { source, parts: Parts::default(), prefix: String::new(), layer: 0, widths: [0; Slot::ALL.len()] }
    }

    /// The sizes.
    pub fn config(&self) -> &'f Config {
        self.source.config()
    }

    /// Goes into a block: what follows is named after it.
    pub fn enter(&mut self, layer: usize) {
        (self.layer, self.prefix) = (layer, format!("blk.{layer}."));
    }

    /// The name of a part where the builder is.
    fn name(&self, part: &str) -> String {
        format!("{}{part}", self.prefix)
    }

    fn width(&self, slot: Slot) -> usize {
        self.widths[slot.index()]
    }

    /// Appends a step; `dst` becomes `width` wide.
    pub fn push(&mut self, part: &str, op: impl Into<Op>, (dst, width): (Slot, usize)) {
        self.push_all(part, op, &[(dst, width)]);
    }

    /// Appends a step that writes several slots.
    pub fn push_all(&mut self, part: &str, op: impl Into<Op>, out: &[(Slot, usize)]) {
        out.iter().for_each(|&(slot, width)| self.widths[slot.index()] = width);
        self.parts.plan.push(Step { name: self.name(part), op: op.into() });
    }

    /// The rows of `token_embd` begin the residual stream.
    ///
    /// # Errors
    /// The tensor is missing or does not fit; so for every piece.
    pub fn embed(&mut self) -> Built {
        let Config { vocab_size, embedding_length, .. } = *self.config();
        let table = self.source.matrix("token_embd.weight", vocab_size, embedding_length)?;
        self.push("token_embd", Embed { table, dst: Slot::Residual }, (Slot::Residual, embedding_length));
        Ok(())
    }

    /// The norm `part` of a slot as wide as it, by the epsilon of RMS norms.
    pub fn rms_norm(&mut self, part: &str, src: Slot, dst: Slot) -> Built {
        self.rms_norm_of(part, (src, self.width(src)), dst)
    }

    /// The norms of each head of queries and keys.
    pub fn head_norms(&mut self) -> Built {
        let dim = self.config().head_dim;
        self.rms_norm_of("attn_q_norm", (Slot::Query, dim), Slot::Query)?;
        self.rms_norm_of("attn_k_norm", (Slot::Key, dim), Slot::Key)
    }

    /// The norm `part` of a slot in place, whose tensor has another name.
    pub fn rms_norm_named(&mut self, part: &str, tensor: &str, slot: Slot) -> Built {
        self.push_rms_norm(part, tensor, (slot, self.width(slot)), slot)
    }

    /// The norm `part` of every `width` elements of a slot.
    fn rms_norm_of(&mut self, part: &str, src: (Slot, usize), dst: Slot) -> Built {
        self.push_rms_norm(part, part, src, dst)
    }

    fn push_rms_norm(&mut self, part: &str, tensor: &str, (src, width): (Slot, usize), dst: Slot) -> Built {
        let eps = self.source.keys().required_float("attention.layer_norm_rms_epsilon", 1e-12, 1.0)?;
        let weight = self.vector(tensor, "weight", width)?;
        let out = (dst, self.width(src));
        self.push(part, RmsNorm { src, dst, weight, eps }, out);
        Ok(())
    }

    /// The product `part`, `rows` wide. Where the file has a norm `<part>_norm_in`, that is the matrix's own input norm.
    pub fn linear(&mut self, part: &str, mut src: Slot, dst: Slot, rows: usize) -> Built {
        let own = format!("{part}_norm_in");
        if self.source.has(&self.name(&format!("{own}.weight"))) {
            self.rms_norm(&own, src, Slot::Side)?;
            src = Slot::Side;
        }
        let weight = self.source.matrix(&self.name(&format!("{part}.weight")), rows, self.width(src))?;
        self.push(part, Linear { src, dst, weight }, (dst, rows));
        Ok(())
    }

    /// The vector `part`, e.g. its `weight` or `bias`.
    pub fn vector(&mut self, part: &str, kind: &str, width: usize) -> Result<VectorId, ModelError> {
        self.source.vector(&self.name(&format!("{part}.{kind}")), width)
    }

    /// The matrices `[count][rows][cols]` of the tensor `part`.
    pub fn experts(&mut self, part: &str, count: usize, rows: usize, cols: usize) -> Result<Vec<MatrixId>, ModelError> {
        self.source.stack(&self.name(&format!("{part}.weight")), count, rows, cols)
    }

    /// Multiplies a slot with a constant.
    pub fn scale(&mut self, part: &str, slot: Slot, factor: f32) {
        let out = (slot, self.width(slot));
        self.push(part, Scale { slot, factor }, out);
    }

    /// The bias of the product `part`, a step `<part>_bias`.
    pub fn bias(&mut self, part: &str, slot: Slot) -> Built {
        let out = (slot, self.width(slot));
        let bias = self.vector(part, "bias", out.1)?;
        self.push(&format!("{part}_bias"), Bias { slot, bias }, out);
        Ok(())
    }

    /// `attn_q`, `attn_k`, `attn_v` of [`Slot::Hidden`].
    pub fn qkv(&mut self) -> Built {
        let (q, kv) = (self.config().query_width(), self.config().kv_width());
        self.linear("attn_q", Slot::Hidden, Slot::Query, q)?;
        self.linear("attn_k", Slot::Hidden, Slot::Key, kv)?;
        self.linear("attn_v", Slot::Hidden, Slot::Value, kv)
    }

    /// The rotation that the file asks for.
    pub fn rope(&mut self) -> Result<RopeId, ModelError> {
        self.rope_with(("rope.freq_base", 10_000.0), true)
    }

    /// A rotation with a base of its own (its key and default), `scaled` as the file says or not at all.
    pub fn rope_with(&mut self, base: (&str, f32), scaled: bool) -> Result<RopeId, ModelError> {
        let spec = rope::read(self.source, base, scaled)?;
        self.parts.ropes.push(spec);
        Ok(RopeId(self.parts.ropes.len() - 1))
    }

    /// Rotates queries and keys.
    pub fn rotate(&mut self, kind: Rope, rope: RopeId) {
        let Config { heads, kv_heads, head_dim: dim, .. } = *self.config();
        for (part, slot, heads) in [("attn_q_rope", Slot::Query, heads), ("attn_k_rope", Slot::Key, kv_heads)] {
            self.push(part, Rotate { slot, heads, dim, kind, rope }, (slot, self.width(slot)));
        }
    }

    /// Attention over the block's cache, scores times `1 / sqrt(head)`.
    pub fn attend(&mut self) {
        self.attend_with((self.config().head_dim as f32).sqrt().recip(), None);
    }

    /// Attention with scores times `scale`, over a window.
    pub fn attend_with(&mut self, scale: f32, window: Option<usize>) {
        let Config { heads, kv_heads, head_dim: dim, .. } = *self.config();
        let layer = self.layer;
        self.push("cache", CacheAppend { layer }, (Slot::Key, self.width(Slot::Key)));
        let attention = Attention { layer, heads, kv_heads, dim, scale, window };
        self.push("attn", attention, (Slot::Query, self.width(Slot::Query)));
    }

    /// `attn_output` of the attention's result.
    pub fn attn_output(&mut self) -> Built {
        self.linear("attn_output", Slot::Query, Slot::Hidden, self.config().embedding_length)
    }

    /// Adds [`Slot::Hidden`] to the residual stream.
    pub fn add(&mut self, part: &str) {
        let out = (Slot::Residual, self.width(Slot::Residual));
        self.push(part, Add { src: Slot::Hidden, dst: Slot::Residual }, out);
    }

    /// `ffn_gate` and `ffn_up` of [`Slot::Hidden`], and the gate.
    pub fn gated(&mut self, gating: Gating) -> Built {
        let inner = self.config().feed_forward_length;
        if let Some(experts) = self.source.keys().count("expert_count", 0, MAX_DIM)?.filter(|n| *n > 0) {
            return Err(ModelError::Unsupported { what: format!("a mixture of {experts} experts") });
        }
        self.linear("ffn_gate", Slot::Hidden, Slot::Gate, inner)?;
        self.linear("ffn_up", Slot::Hidden, Slot::Up, inner)?;
        self.push("ffn_act", Gate(gating), (Slot::Gate, inner));
        Ok(())
    }

    /// A feed-forward block without anything between its parts: norm, gate, `ffn_down`, sum.
    pub fn feed_forward(&mut self, gating: Gating) -> Built {
        self.rms_norm("ffn_norm", Slot::Residual, Slot::Hidden)?;
        self.gated(gating)?;
        self.ffn_down()?;
        self.add("ffn_residual");
        Ok(())
    }

    /// `ffn_down` of the feed-forward block.
    pub fn ffn_down(&mut self) -> Built {
        self.linear("ffn_down", Slot::Gate, Slot::Hidden, self.config().embedding_length)
    }

    /// The whole plan of LLaMA's graph. `between` adds what a family has behind queries, keys and values.
    pub(super) fn decoder(&mut self, kind: Rope, between: fn(&mut Self) -> Built) -> Built {
        let rope = self.rope()?;
        self.embed()?;
        for layer in 0..self.config().block_count {
            self.enter(layer);
            self.rms_norm("attn_norm", Slot::Residual, Slot::Hidden)?;
            self.qkv()?;
            between(self)?;
            self.rotate(kind, rope);
            self.attend();
            self.attn_output()?;
            self.add("attn_residual");
            self.feed_forward(Gating::Silu)?;
        }
        self.finish()
    }

    /// Leaves the blocks: only the rows of which logits are wanted go on.
    pub fn leave(&mut self) {
        self.prefix.clear();
        let out = (Slot::Residual, self.width(Slot::Residual));
        self.push("select_rows", SelectRows { slot: Slot::Residual }, out);
    }

    /// What follows the blocks: selection of rows, `output_norm`, `output`.
    pub fn finish(&mut self) -> Built {
        self.leave();
        self.rms_norm("output_norm", Slot::Residual, Slot::Hidden)?;
        self.output()
    }

    /// `output` of [`Slot::Hidden`]; without such a matrix the embedding is tied to it.
    pub fn output(&mut self) -> Built {
        let Config { vocab_size, embedding_length, .. } = *self.config();
        let weight = match self.parts.plan.first() {
            Some(Step { op: Op::Embed(Embed { table, .. }), .. }) if !self.source.has("output.weight") => *table,
            _ => self.source.matrix("output.weight", vocab_size, embedding_length)?,
        };
        self.head(weight, vocab_size);
        Ok(())
    }

    fn head(&mut self, weight: MatrixId, vocab_size: usize) {
        self.push("output", Linear { src: Slot::Hidden, dst: Slot::Logits, weight }, (Slot::Logits, vocab_size));
    }
}
