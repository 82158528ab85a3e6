//! BitNet b1.58: a LLaMA-like decoder with ternary weights, int8 activations and a norm before every projection that
//! leaves a block. Sources: arXiv:2402.17764 and 2504.12285, and the tensor names of Microsoft's GGUF files.

use super::{Builder, Family, ModelError};
use crate::ops::{Gating, Slot};
use bitnet_kernels::{ActKind, Rope};

/// BitNet b1.58 2B-4T and its first release: squared ReLU.
pub(super) static B158: Family = Family {
    name: "BitNet b1.58",
    architectures: &["bitnet-b1.58", "bitnet-25"],
    trained: Some(ActKind::I8),
    plan: |b| plan(b, Gating::Relu2),
};

/// The first open BitNet models (0.7B, 3B): the same with SiLU.
pub(super) static BITNET: Family =
    Family { name: "BitNet", architectures: &["bitnet"], plan: |b| plan(b, Gating::Silu), ..B158 };

fn plan(b: &mut Builder<'_, '_>, gating: Gating) -> Result<(), ModelError> {
    let rope = b.rope()?;
    b.embed()?;
    for layer in 0..b.config().block_count {
        b.enter(layer);
        b.rms_norm("attn_norm", Slot::Residual, Slot::Hidden)?;
        b.qkv()?;
        b.rotate(Rope::Neox, rope);
        b.attend();
        b.rms_norm("attn_sub_norm", Slot::Query, Slot::Query)?;
        b.attn_output()?;
        b.add("attn_residual");
        b.rms_norm("ffn_norm", Slot::Residual, Slot::Hidden)?;
        b.gated(gating)?;
        b.rms_norm("ffn_sub_norm", Slot::Gate, Slot::Gate)?;
        b.ffn_down()?;
        b.add("ffn_residual");
    }
    b.finish()
}
