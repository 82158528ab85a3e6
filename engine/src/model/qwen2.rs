//! Qwen2 (arXiv:2407.10671): LLaMA's graph with biases behind queries, keys and values; rotary embeddings pair the halves of a head.

use super::{Builder, Family, ModelError};
use crate::ops::{Gating, Slot};
use bitnet_kernels::Rope;

/// The architecture `qwen2`.
pub(super) static QWEN2: Family = Family { name: "Qwen2", architectures: &["qwen2"], trained: None, plan };

fn plan(b: &mut Builder<'_, '_>) -> Result<(), ModelError> {
    let rope = b.rope()?;
    b.embed()?;
    for layer in 0..b.config().block_count {
        b.enter(layer);
        b.rms_norm("attn_norm", Slot::Residual, Slot::Hidden)?;
        b.qkv()?;
        for (part, slot) in [("attn_q", Slot::Query), ("attn_k", Slot::Key), ("attn_v", Slot::Value)] {
            b.bias(part, slot)?;
        }
        b.rotate(Rope::Neox, rope);
        b.attend();
        b.attn_output()?;
        b.add("attn_residual");
        b.feed_forward(Gating::Silu)?;
    }
    b.finish()
}
