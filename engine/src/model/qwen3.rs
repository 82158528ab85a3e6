//! Qwen3 (arXiv:2505.09388), and with it Bonsai and BitNet's embedding model: LLaMA's graph with a norm over each head of queries and
//! keys before they are rotated, heads of a width of their own, no biases.

use super::{Builder, Family, ModelError};
use crate::ops::{Gating, Slot};
use bitnet_kernels::Rope;

/// The architecture `qwen3`.
pub(super) static QWEN3: Family = Family { name: "Qwen3", architectures: &["qwen3"], trained: None, plan };

fn plan(b: &mut Builder<'_, '_>) -> Result<(), ModelError> {
    let rope = b.rope()?;
    b.embed()?;
    for layer in 0..b.config().block_count {
        b.enter(layer);
        b.rms_norm("attn_norm", Slot::Residual, Slot::Hidden)?;
        b.qkv()?;
        b.head_norms()?;
        b.rotate(Rope::Neox, rope);
        b.attend();
        b.attn_output()?;
        b.add("attn_residual");
        b.feed_forward(Gating::Silu)?;
    }
    b.finish()
}
