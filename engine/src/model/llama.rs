//! LLaMA 2 and 3, and what is built alike: SmolLM2, Mistral, Falcon3, Falcon-E, TriLM, and 1.58-bit conversions, whose linear
//! layers are ternary tensors in the same graph. GGUF stores the query and key rows permuted, so that rotary
//! embeddings pair neighbouring dimensions.

use super::{Builder, Family, ModelError};
use crate::ops::{Gating, Slot};
use bitnet_kernels::Rope;

/// The architecture `llama`.
pub(super) static LLAMA: Family = Family { name: "LLaMA", architectures: &["llama"], trained: None, plan };

fn plan(b: &mut Builder<'_, '_>) -> Result<(), ModelError> {
    let rope = b.rope()?;
    b.embed()?;
    for layer in 0..b.config().block_count {
        b.enter(layer);
        b.rms_norm("attn_norm", Slot::Residual, Slot::Hidden)?;
        b.qkv()?;
        b.rotate(Rope::Norm, rope);
        b.attend();
        b.attn_output()?;
        b.add("attn_residual");
        b.feed_forward(Gating::Silu)?;
    }
    b.finish()
}
