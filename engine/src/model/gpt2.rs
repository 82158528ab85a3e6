//! GPT-2: learnt positions, layer norms, queries, keys and values of one matrix, GELU without a gate, biases everywhere.

use super::keys::MAX_DIM;
use super::{Builder, Family, ModelError};
use crate::ops::{Gelu, LayerNorm, Positions, Slot, Split};

/// The architecture `gpt2`.
pub(super) static GPT2: Family = Family { name: "GPT-2", architectures: &["gpt2"], trained: None, plan };

fn plan(b: &mut Builder<'_, '_>) -> Result<(), ModelError> {
    let (width, inner) = (b.config().embedding_length, b.config().feed_forward_length);
    let (q, kv) = (b.config().query_width(), b.config().kv_width());
    let parts = [(Slot::Query, q), (Slot::Key, kv), (Slot::Value, kv)];
    let eps = b.source.keys().required_float("attention.layer_norm_epsilon", 1e-12, 1.0)?;
    let norm = |b: &mut Builder<'_, '_>, part: &str| {
        let weight = b.vector(part, "weight", width)?;
        let bias = b.vector(part, "bias", width)?;
        b.push(part, LayerNorm { src: Slot::Residual, dst: Slot::Hidden, weight, bias, eps }, (Slot::Hidden, width));
        Ok::<_, ModelError>(())
    };
    b.embed()?;
    let positions = b.source.keys().required("context_length", MAX_DIM)?;
    let table = b.source.matrix("position_embd.weight", positions, width)?;
    b.parts.positions = Some(positions);
    b.push("position_embd", Positions { slot: Slot::Residual, table }, (Slot::Residual, width));
    for layer in 0..b.config().block_count {
        b.enter(layer);
        norm(b, "attn_norm")?;
        b.linear("attn_qkv", Slot::Hidden, Slot::Side, q + 2 * kv)?;
        b.bias("attn_qkv", Slot::Side)?;
        b.push_all("attn_split", Split { src: Slot::Side, parts }, &parts);
        b.attend();
        b.attn_output()?;
        b.bias("attn_output", Slot::Hidden)?;
        b.add("attn_residual");
        norm(b, "ffn_norm")?;
        b.linear("ffn_up", Slot::Hidden, Slot::Gate, inner)?;
        b.bias("ffn_up", Slot::Gate)?;
        b.push("ffn_act", Gelu { slot: Slot::Gate }, (Slot::Gate, inner));
        b.ffn_down()?;
        b.bias("ffn_down", Slot::Hidden)?;
        b.add("ffn_residual");
    }
    b.leave();
    norm(b, "output_norm")?;
    b.output()
}
