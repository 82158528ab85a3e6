//! Qwen3 (arXiv:2505.09388), and with it Bonsai and BitNet's embedding model: LLaMA's graph with a norm over each head of queries and
//! keys before they are rotated, heads of a width of their own, no biases.

use super::Family;
use bitnet_kernels::Rope;

/// The architecture `qwen3`.
pub(super) static QWEN3: Family = Family {
    name: "Qwen3",
    architectures: &["qwen3"],
    trained: None,
    plan: |b| b.decoder(Rope::Neox, |b| b.head_norms()),
};
