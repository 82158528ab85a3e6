//! What the files of a family hold: one table each, in the order in which the tensors of a block are written.
//!
//! Names and shapes are those that llama.cpp's loader wants (`src/models/<family>.cpp` there); BitNet's own families are
//! in `engine/src/model`.

use super::Failure;
use Dim::{ExpertFfn, Experts, Ffn, Fused, Head, Hidden, Kv, Query};
use Part::{Bias, Expert, Matrix, Norm, Router};
use bitnet_golden::matrix::Shape;

/// A width, by what has it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Dim {
    /// The residual stream.
    Hidden,
    /// All query heads.
    Query,
    /// All key heads, and all value heads.
    Kv,
    /// Query, key and value heads, one behind the other.
    Fused,
    Head,
    /// The feed-forward part.
    Ffn,
    Experts,
    /// The feed-forward part of one expert.
    ExpertFfn,
}

impl Dim {
    /// The width in a shape, in elements.
    pub(super) fn of(self, shape: &Shape) -> usize {
        let (head, experts) = (shape.head_width(), shape.experts);
        match self {
            Hidden => shape.hidden,
            Query => shape.heads * head,
            Kv => shape.kv_heads * head,
            Fused => (shape.heads + 2 * shape.kv_heads) * head,
            Head => head,
            Ffn => shape.ffn,
            Experts => experts.map_or(0, |e| e.count),
            ExpertFfn => experts.map_or(0, |e| e.ffn),
        }
    }
}

/// A tensor of a block. The name stands between `blk.N.` and `.weight` or `.bias`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    /// A matrix in the format of the model: name, rows, columns.
    Matrix(&'static str, Dim, Dim),
    /// The same, one for each expert, in one tensor of three dimensions.
    Expert(&'static str, Dim, Dim),
    /// The matrix that chooses experts, which llama.cpp never quantises.
    Router(&'static str, Dim, Dim),
    /// Weights of a norm, near one.
    Norm(&'static str, Dim),
    /// What is added to a product or a norm, near zero.
    Bias(&'static str, Dim),
}

#[derive(Debug)]
pub(super) struct Family {
    /// `general.architecture`.
    pub(super) name: &'static str,
    /// `tokenizer.ggml.pre` with a byte-level BPE.
    pub(super) pre: &'static str,
    /// Base of the rotary embedding; without, there is a table of positions.
    pub(super) rope_base: Option<f32>,
    /// Norms subtract the mean and add a bias.
    pub(super) layer_norm: bool,
    /// The embedding is the output matrix too.
    pub(super) tied: bool,
    /// Which blocks have a window is said block by block, not as the length of a turn.
    pub(super) window_list: bool,
    /// Tensors of a block.
    pub(super) block: &'static [&'static [Part]],
}

const ATTENTION: &[Part] = &[
    Matrix("attn_q", Query, Hidden),
    Matrix("attn_k", Kv, Hidden),
    Matrix("attn_v", Kv, Hidden),
    Matrix("attn_output", Hidden, Query),
];
const GATED: &[Part] =
    &[Matrix("ffn_gate", Ffn, Hidden), Matrix("ffn_up", Ffn, Hidden), Matrix("ffn_down", Hidden, Ffn)];
const NORMS: &[Part] = &[Norm("attn_norm", Hidden), Norm("ffn_norm", Hidden)];
const SUB_NORMS: &[Part] = &[Norm("attn_sub_norm", Hidden), Norm("ffn_sub_norm", Ffn)];
const HEAD_NORMS: &[Part] = &[Norm("attn_q_norm", Head), Norm("attn_k_norm", Head)];
const POST_NORMS: &[Part] = &[Norm("post_attention_norm", Hidden), Norm("post_ffw_norm", Hidden)];
const QKV_BIASES: &[Part] = &[Bias("attn_q", Query), Bias("attn_k", Kv), Bias("attn_v", Kv)];
const EXPERTS: &[Part] = &[
    Router("ffn_gate_inp", Experts, Hidden),
    Expert("ffn_gate_exps", ExpertFfn, Hidden),
    Expert("ffn_up_exps", ExpertFfn, Hidden),
    Expert("ffn_down_exps", Hidden, ExpertFfn),
];
const GPT2: &[Part] = &[
    Norm("attn_norm", Hidden),
    Bias("attn_norm", Hidden),
    Matrix("attn_qkv", Fused, Hidden),
    Bias("attn_qkv", Fused),
    Matrix("attn_output", Hidden, Query),
    Bias("attn_output", Hidden),
    Norm("ffn_norm", Hidden),
    Bias("ffn_norm", Hidden),
    Matrix("ffn_up", Ffn, Hidden),
    Bias("ffn_up", Ffn),
    Matrix("ffn_down", Hidden, Ffn),
    Bias("ffn_down", Hidden),
];

const LLAMA: Family = Family {
    name: "llama",
    pre: "llama-bpe",
    rope_base: Some(10_000.0),
    layer_norm: false,
    tied: false,
    window_list: false,
    block: &[ATTENTION, GATED, NORMS],
};
const BITNET: Family =
    Family { name: "bitnet", pre: "gpt-2", tied: true, block: &[ATTENTION, GATED, NORMS, SUB_NORMS], ..LLAMA };
const QWEN: Family = Family { pre: "qwen2", rope_base: Some(1_000_000.0), ..LLAMA };

static FAMILIES: &[Family] = &[
    LLAMA,
    BITNET,
    Family { name: "bitnet-b1.58", ..BITNET },
    // The converter writes the head a second time, though the embedding is tied to it.
    Family { name: "gpt2", pre: "gpt-2", rope_base: None, layer_norm: true, block: &[GPT2], ..LLAMA },
    Family { name: "qwen2", block: &[ATTENTION, GATED, NORMS, QKV_BIASES], ..QWEN },
    Family { name: "qwen3", block: &[ATTENTION, GATED, NORMS, HEAD_NORMS], ..QWEN },
    Family { name: "minicpm", tied: true, ..LLAMA },
    Family {
        name: "gemma3",
        rope_base: Some(1_000_000.0),
        tied: true,
        block: &[ATTENTION, GATED, NORMS, HEAD_NORMS, POST_NORMS],
        ..LLAMA
    },
    Family { name: "maple", pre: "gpt-2", window_list: true, block: &[ATTENTION, EXPERTS, NORMS, HEAD_NORMS], ..LLAMA },
];

/// The family of an architecture.
pub(super) fn by_name(name: &str) -> Result<&'static Family, Failure> {
    let family = FAMILIES.iter().find(|family| family.name == name);
    family.ok_or_else(|| Failure::new(format_args!("no generator for the family `{name}`")))
}
