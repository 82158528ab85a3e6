//! The decoder that all families here share: pre-norm attention and feed-forward blocks with residuals.
//!
//! What differs is said in three words by each family: how rotary embeddings pair dimensions, how the feed-forward
//! block is gated, and whether a second norm stands before the output projection of each block (BitNet's sub-norms).

use super::plan::{Gating, Op, PlanBuilder, Rope, Slot};
use super::{Config, ModelError, Step, TensorSource};

/// What a family adds to the common decoder.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// Name in messages and reports.
    pub name: &'static str,
    /// Values of `general.architecture` that belong to it.
    pub architectures: &'static [&'static str],
    /// Pairing of rotated dimensions.
    pub rope: Rope,
    /// Gate of the feed-forward block.
    pub gating: Gating,
    /// `attn_sub_norm` before `attn_output`, `ffn_sub_norm` before `ffn_down`.
    pub sub_norms: bool,
}

impl Family {
    /// The plan of this family for the tensors of `source`.
    ///
    /// # Errors
    /// A tensor that is missing or does not fit.
    pub fn plan(&self, source: &mut TensorSource<'_>) -> Result<Vec<Step>, ModelError> {
        let config = source.config();
        let mut plan = PlanBuilder::default();
        let width = config.embedding_length;
        let table = source.matrix("token_embd.weight", config.vocab_size, width)?;
        plan.push("token_embd", Op::Embed { table, dst: Slot::Residual });
        for layer in 0..config.block_count {
            self.attention(source, config, layer, &mut plan)?;
            self.feed_forward(source, config, layer, &mut plan)?;
        }
        plan.push("select_rows", Op::SelectRows);
        let norm = source.norm("output_norm.weight", width)?;
        plan.push("output_norm", Op::RmsNorm { src: Slot::Residual, dst: Slot::Hidden, weight: norm });
        // Without an output matrix the embedding is tied to it.
        let head =
            if source.has("output.weight") { source.matrix("output.weight", config.vocab_size, width)? } else { table };
        plan.push("output", Op::Linear { src: Slot::Hidden, dst: Slot::Logits, weight: head });
        Ok(plan.finish())
    }

    fn attention(
        &self,
        source: &mut TensorSource<'_>,
        config: &Config,
        layer: usize,
        plan: &mut PlanBuilder,
    ) -> Result<(), ModelError> {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let (width, q_width, kv_width) = (config.embedding_length, config.query_width(), config.kv_width());
        let norm = source.norm(&name("attn_norm.weight"), width)?;
        plan.push(name("attn_norm"), Op::RmsNorm { src: Slot::Residual, dst: Slot::Hidden, weight: norm });
        for (part, dst, rows) in
            [("attn_q", Slot::Query, q_width), ("attn_k", Slot::Key, kv_width), ("attn_v", Slot::Value, kv_width)]
        {
            let weight = source.matrix(&name(&format!("{part}.weight")), rows, width)?;
            plan.push(name(part), Op::Linear { src: Slot::Hidden, dst, weight });
        }
        let kind = self.rope;
        plan.push(name("attn_q_rope"), Op::Rope { slot: Slot::Query, heads: config.heads, kind });
        plan.push(name("attn_k_rope"), Op::Rope { slot: Slot::Key, heads: config.kv_heads, kind });
        plan.push(name("cache"), Op::CacheAppend { layer });
        plan.push(name("attn"), Op::Attention { layer });
        if self.sub_norms {
            let weight = source.norm(&name("attn_sub_norm.weight"), q_width)?;
            plan.push(name("attn_sub_norm"), Op::RmsNorm { src: Slot::Query, dst: Slot::Query, weight });
        }
        let weight = source.matrix(&name("attn_output.weight"), width, q_width)?;
        plan.push(name("attn_output"), Op::Linear { src: Slot::Query, dst: Slot::Hidden, weight });
        plan.push(name("attn_residual"), Op::Add { src: Slot::Hidden });
        Ok(())
    }

    fn feed_forward(
        &self,
        source: &mut TensorSource<'_>,
        config: &Config,
        layer: usize,
        plan: &mut PlanBuilder,
    ) -> Result<(), ModelError> {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let (width, inner) = (config.embedding_length, config.feed_forward_length);
        let norm = source.norm(&name("ffn_norm.weight"), width)?;
        plan.push(name("ffn_norm"), Op::RmsNorm { src: Slot::Residual, dst: Slot::Hidden, weight: norm });
        for (part, dst) in [("ffn_gate", Slot::Gate), ("ffn_up", Slot::Up)] {
            let weight = source.matrix(&name(&format!("{part}.weight")), inner, width)?;
            plan.push(name(part), Op::Linear { src: Slot::Hidden, dst, weight });
        }
        plan.push(name("ffn_act"), Op::Gate(self.gating));
        if self.sub_norms {
            let weight = source.norm(&name("ffn_sub_norm.weight"), inner)?;
            plan.push(name("ffn_sub_norm"), Op::RmsNorm { src: Slot::Gate, dst: Slot::Gate, weight });
        }
        let weight = source.matrix(&name("ffn_down.weight"), width, inner)?;
        plan.push(name("ffn_down"), Op::Linear { src: Slot::Gate, dst: Slot::Hidden, weight });
        plan.push(name("ffn_residual"), Op::Add { src: Slot::Hidden });
        Ok(())
    }
}
