//! BitNet b1.58: a LLaMA-like decoder with ternary weights, int8 activations and a norm before every projection that
//! leaves a block. Sources: arXiv:2402.17764 and 2504.12285, and the tensor names of Microsoft's GGUF files.

use super::decoder::Family;
use super::plan::{Gating, Rope};

/// BitNet b1.58 2B-4T and its first release: squared ReLU.
pub(super) static B158: Family = Family {
    name: "BitNet b1.58",
    architectures: &["bitnet-b1.58", "bitnet-25"],
    rope: Rope::Neox,
    gating: Gating::Relu2,
    sub_norms: true,
};

/// The first open BitNet models (0.7B, 3B): the same with SiLU.
pub(super) static BITNET: Family = Family { name: "BitNet", architectures: &["bitnet"], gating: Gating::Silu, ..B158 };
