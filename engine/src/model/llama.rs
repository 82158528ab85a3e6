//! LLaMA 2 and 3, and what is built alike: SmolLM2, Mistral, Falcon3, Falcon-E, TriLM, and 1.58-bit conversions, whose linear
//! layers are ternary tensors in the same graph. GGUF stores the query and key rows permuted, so that rotary
//! embeddings pair neighbouring dimensions.

use super::Family;
use bitnet_kernels::Rope;

/// The architecture `llama`.
pub(super) static LLAMA: Family =
    Family { name: "LLaMA", architectures: &["llama"], trained: None, plan: |b| b.decoder(Rope::Norm, |_| Ok(())) };
