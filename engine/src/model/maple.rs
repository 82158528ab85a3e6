//! Maple: Qwen3's attention, rotated in the blocks with a window only, and experts in place of a feed-forward block.

use super::keys::MAX_DIM;
use super::window::Windows;
use super::{Builder, Family, ModelError};
use crate::ops::{Expert, Experts, Slot};
use bitnet_kernels::Rope;

/// The architecture `maple`.
pub(super) static MAPLE: Family = Family { name: "Maple", architectures: &["maple"], trained: None, plan };

fn plan(b: &mut Builder<'_, '_>) -> Result<(), ModelError> {
    let (keys, config) = (b.source.keys(), b.config());
    let (blocks, width) = (config.block_count, config.embedding_length);
    let count = keys.required("expert_count", 4096)?;
    let used = keys.required("expert_used_count", count as u64)?;
    let inner = keys.required("expert_feed_forward_length", MAX_DIM)?;
    let limits = keys.floats("swiglu_clamp_exp", blocks)?.ok_or_else(|| keys.missing("swiglu_clamp_exp"))?;
    let windows = Windows::read(keys, blocks, None)?;
    let base = keys.float("rope.freq_base", 1.0, 1e12)?.unwrap_or(10_000.0);
    let rope = b.rope_with(("rope.freq_base_swa", base), true)?;
    b.embed()?;
    for (layer, limit) in limits.into_iter().enumerate() {
        let window = windows.of(layer);
        b.enter(layer);
        b.rms_norm("attn_norm", Slot::Residual, Slot::Hidden)?;
        b.qkv()?;
        b.head_norms()?;
        if window.is_some() {
            b.rotate(Rope::Neox, rope);
        }
        b.attend_with((config.head_dim as f32).sqrt().recip(), window);
        b.attn_output()?;
        b.add("attn_residual");
        b.rms_norm("ffn_norm", Slot::Residual, Slot::Hidden)?;
        b.linear("ffn_gate_inp", Slot::Hidden, Slot::Router, count)?;
        let [gate, up] = ["ffn_gate_exps", "ffn_up_exps"].map(|part| b.experts(part, count, inner, width));
        let down = b.experts("ffn_down_exps", count, width, inner)?;
        let experts = gate?.into_iter().zip(up?).zip(down).map(|((gate, up), down)| Expert { gate, up, down });
        // A limit that is next to nothing means none.
        let limit = if limit < 1e-6 { f32::INFINITY } else { limit };
        let mixture = Experts { src: Slot::Hidden, dst: Slot::Hidden, experts: experts.collect(), used, limit };
        b.push("ffn_experts", mixture, (Slot::Hidden, width));
        b.add("ffn_residual");
    }
    b.finish()
}
