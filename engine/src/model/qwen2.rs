//! Qwen2 (arXiv:2407.10671): LLaMA's graph with biases behind queries, keys and values; rotary embeddings pair the halves of a head.

use super::Family;
use crate::ops::Slot;
use bitnet_kernels::Rope;

/// The architecture `qwen2`.
pub(super) static QWEN2: Family = Family {
    name: "Qwen2",
    architectures: &["qwen2"],
    trained: None,
    plan: |b| {
        b.decoder(Rope::Neox, |b| {
            b.bias("attn_q", Slot::Query)?;
            b.bias("attn_k", Slot::Key)?;
            b.bias("attn_v", Slot::Value)
        })
    },
};
