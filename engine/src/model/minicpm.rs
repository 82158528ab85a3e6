//! MiniCPM (arXiv:2404.06395), and with it BitCPM: LLaMA's graph with three constants, for the embedding, what joins the residual stream,
//! and the logits.

use super::{Builder, Family, ModelError};
use crate::ops::{Gating, Slot};
use bitnet_kernels::Rope;

/// The architecture `minicpm`.
pub(super) static MINICPM: Family = Family { name: "MiniCPM", architectures: &["minicpm"], trained: None, plan };

fn plan(b: &mut Builder<'_, '_>) -> Result<(), ModelError> {
    let (keys, blocks, width) = (b.source.keys(), b.config().block_count, b.config().embedding_length);
    let scale = |key: &str, default: f32| Ok::<_, ModelError>(keys.float(key, 1e-6, 1e6)?.unwrap_or(default));
    let embedding = scale("embedding_scale", 12.0)?;
    let residual = scale("residual_scale", 1.4 / (blocks as f32).sqrt())?;
    // Logits are divided by the width over that of the model whose hyper-parameters were tuned.
    let logits = scale("logit_scale", width as f32 / 256.0)?;
    let rope = b.rope()?;
    b.embed()?;
    b.scale("embd_scale", Slot::Residual, embedding);
    for layer in 0..blocks {
        b.enter(layer);
        b.rms_norm("attn_norm", Slot::Residual, Slot::Hidden)?;
        b.qkv()?;
        b.rotate(Rope::Norm, rope);
        b.attend();
        b.attn_output()?;
        b.scale("attn_output_scale", Slot::Hidden, residual);
        b.add("attn_residual");
        b.rms_norm("ffn_norm", Slot::Residual, Slot::Hidden)?;
        b.gated(Gating::Silu)?;
        b.ffn_down()?;
        b.scale("ffn_scale", Slot::Hidden, residual);
        b.add("ffn_residual");
    }
    b.leave();
    b.rms_norm("output_norm", Slot::Residual, Slot::Hidden)?;
    // Before the output matrix, so that what screens it need not know.
    b.scale("output_scale", Slot::Hidden, logits.recip());
    b.output()
}
