//! Gemma 3 (arXiv:2503.19786): norms behind each block as well as before it, a norm over each head of queries and keys, GELU gates, and
//! blocks that see a window of positions, rotated from a base of their own. GGUF's norm weights contain the 1 that is added to them.

use super::window::Windows;
use super::{Builder, Family, ModelError};
use crate::ops::{Gating, Slot};
use bitnet_kernels::Rope;

/// The architecture `gemma3`.
pub(super) static GEMMA3: Family = Family { name: "Gemma 3", architectures: &["gemma3"], trained: None, plan };

fn plan(b: &mut Builder<'_, '_>) -> Result<(), ModelError> {
    let (keys, config) = (b.source.keys(), b.config());
    if keys.float("final_logit_softcapping", 0.0, 1e6)?.is_some_and(|cap| cap > 0.0) {
        return Err(ModelError::Unsupported { what: format!("`{}`", keys.name("final_logit_softcapping")) });
    }
    let windows = Windows::read(keys, config.block_count, Some(6))?;
    let global = b.rope()?;
    let local = if windows.any() { b.rope_with(("rope.freq_base_swa", 10_000.0), false)? } else { global };
    b.embed()?;
    b.scale("embd_scale", Slot::Residual, (config.embedding_length as f32).sqrt());
    for layer in 0..config.block_count {
        let window = windows.of(layer);
        b.enter(layer);
        b.rms_norm("attn_norm", Slot::Residual, Slot::Hidden)?;
        b.qkv()?;
        b.head_norms()?;
        b.rotate(Rope::Neox, if window.is_some() { local } else { global });
        // The 27B model divides by another width than that of its heads.
        let width = if config.block_count == 62 { config.embedding_length / config.heads } else { config.head_dim };
        b.scale("attn_q_scale", Slot::Query, (width as f32).sqrt().recip());
        b.attend_with(1.0, window);
        b.attn_output()?;
        b.rms_norm_named("attn_post_norm", "post_attention_norm", Slot::Hidden)?;
        b.add("attn_residual");
        b.rms_norm("ffn_norm", Slot::Residual, Slot::Hidden)?;
        b.gated(Gating::Gelu)?;
        b.ffn_down()?;
        b.rms_norm_named("ffn_post_norm", "post_ffw_norm", Slot::Hidden)?;
        b.add("ffn_residual");
    }
    b.finish()
}
