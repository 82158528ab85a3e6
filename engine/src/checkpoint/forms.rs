//! The families as HuggingFace has them: names of their tensors, as data.
//!
//! To add a family: one [`Form`] here; what its config.json says beyond sizes and rotation is read in `keys`.

use super::config::Sizes;

/// How a family is written.
#[derive(Debug)]
pub(super) struct Form {
    /// Classes in `architectures`.
    pub(super) classes: &'static [&'static str],
    /// Values of `model_type`, where no class is known.
    pub(super) types: &'static [&'static str],
    /// The activation that the graph has.
    pub(super) act: &'static str,
    /// `general.architecture`.
    pub(super) architecture: &'static str,
    /// What may stand before the names of all tensors but the head's.
    pub(super) prefix: &'static str,
    /// What stands before the number of a block.
    pub(super) blocks: &'static str,
    /// Before the blocks.
    pub(super) first: &'static [Part],
    /// Of every block.
    pub(super) block: &'static [&'static [Part]],
    /// After the blocks.
    pub(super) last: &'static [Part],
    /// Trained as BitNet: a float matrix of a block is a master.
    pub(super) bitnet: bool,
    /// Modules whose names end so are buffers, not weights.
    pub(super) buffers: &'static [&'static str],
}

/// A tensor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// Its name in the checkpoint; several where releases differ.
    pub(super) names: &'static [&'static str],
    /// Its name in GGUF.
    pub(super) gguf: &'static str,
    pub(super) what: What,
}

/// What a tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// Rows that are looked up.
    Table(Width),
    /// The head; absent where it is tied.
    Head,
    /// A matrix of a block, outputs and inputs.
    Matrix(Width, Width),
    /// The rows of heads are permuted in GGUF.
    Permuted(Width, Width),
    /// Stored `[in, out]`.
    Transposed(Width, Width),
    /// A norm or a bias.
    Vector(Width),
    /// A norm to which 1 is added.
    PlusOne(Width),
}

/// A size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Vocab,
    Context,
    Hidden,
    Ffn,
    Query,
    KeyValue,
    Head,
    /// Queries, keys and values in one.
    Fused,
}

impl Width {
    pub(super) fn of(self, sizes: &Sizes) -> usize {
        match self {
            Self::Vocab => sizes.vocab,
            Self::Context => sizes.context,
            Self::Hidden => sizes.hidden,
            Self::Ffn => sizes.ffn,
            Self::Query => sizes.heads * sizes.head,
            Self::KeyValue => sizes.kv_heads * sizes.head,
            Self::Head => sizes.head,
            Self::Fused => (sizes.heads + 2 * sizes.kv_heads) * sizes.head,
        }
    }
}

use What::{Head, Matrix, Permuted, PlusOne, Table, Transposed, Vector};
use Width::{Context, Ffn, Fused, Hidden, KeyValue, Query, Vocab};

const fn part(names: &'static [&'static str], gguf: &'static str, what: What) -> Part {
    Part { names, gguf, what }
}

const EMBEDDING: Part = part(&["embed_tokens.weight"], "token_embd.weight", Table(Vocab));
/// The head's name has no prefix.
pub(super) const LM_HEAD: &str = "lm_head.weight";
const HEAD: Part = part(&[LM_HEAD], "output.weight", Head);
const NORM: Part = part(&["norm.weight"], "output_norm.weight", Vector(Hidden));

const ATTN_NORM: &[Part] = &[part(&["input_layernorm.weight"], "attn_norm.weight", Vector(Hidden))];
const ATTENTION: &[Part] = &[
    part(&["self_attn.q_proj.weight"], "attn_q.weight", Matrix(Query, Hidden)),
    part(&["self_attn.k_proj.weight"], "attn_k.weight", Matrix(KeyValue, Hidden)),
    part(&["self_attn.v_proj.weight"], "attn_v.weight", Matrix(KeyValue, Hidden)),
    OUT,
];
const OUT: Part = part(&["self_attn.o_proj.weight"], "attn_output.weight", Matrix(Hidden, Query));
const PERMUTED: &[Part] = &[
    part(&["self_attn.q_proj.weight"], "attn_q.weight", Permuted(Query, Hidden)),
    part(&["self_attn.k_proj.weight"], "attn_k.weight", Permuted(KeyValue, Hidden)),
    part(&["self_attn.v_proj.weight"], "attn_v.weight", Matrix(KeyValue, Hidden)),
    OUT,
];
const QKV_BIAS: &[Part] = &[
    part(&["self_attn.q_proj.bias"], "attn_q.bias", Vector(Query)),
    part(&["self_attn.k_proj.bias"], "attn_k.bias", Vector(KeyValue)),
    part(&["self_attn.v_proj.bias"], "attn_v.bias", Vector(KeyValue)),
];
const HEAD_NORMS: &[Part] = &[
    part(&["self_attn.q_norm.weight"], "attn_q_norm.weight", Vector(Width::Head)),
    part(&["self_attn.k_norm.weight"], "attn_k_norm.weight", Vector(Width::Head)),
];
const SUB_NORMS: &[Part] = &[
    part(&["self_attn.attn_sub_norm.weight", "self_attn.inner_attn_ln.weight"], "attn_sub_norm.weight", Vector(Query)),
    part(&["mlp.ffn_sub_norm.weight", "mlp.ffn_layernorm.weight"], "ffn_sub_norm.weight", Vector(Ffn)),
];
const FFN_NORM: &[Part] = &[part(&["post_attention_layernorm.weight"], "ffn_norm.weight", Vector(Hidden))];
const FFN: &[Part] = &[
    part(&["mlp.gate_proj.weight"], "ffn_gate.weight", Matrix(Ffn, Hidden)),
    part(&["mlp.up_proj.weight"], "ffn_up.weight", Matrix(Ffn, Hidden)),
    part(&["mlp.down_proj.weight"], "ffn_down.weight", Matrix(Hidden, Ffn)),
];
const GEMMA_NORMS: &[Part] = &[
    part(&["input_layernorm.weight"], "attn_norm.weight", PlusOne(Hidden)),
    part(&["self_attn.q_norm.weight"], "attn_q_norm.weight", PlusOne(Width::Head)),
    part(&["self_attn.k_norm.weight"], "attn_k_norm.weight", PlusOne(Width::Head)),
    part(&["post_attention_layernorm.weight"], "post_attention_norm.weight", PlusOne(Hidden)),
    part(&["pre_feedforward_layernorm.weight"], "ffn_norm.weight", PlusOne(Hidden)),
    part(&["post_feedforward_layernorm.weight"], "post_ffw_norm.weight", PlusOne(Hidden)),
];
const GPT2: &[Part] = &[
    part(&["ln_1.weight"], "attn_norm.weight", Vector(Hidden)),
    part(&["ln_1.bias"], "attn_norm.bias", Vector(Hidden)),
    part(&["attn.c_attn.weight"], "attn_qkv.weight", Transposed(Fused, Hidden)),
    part(&["attn.c_attn.bias"], "attn_qkv.bias", Vector(Fused)),
    part(&["attn.c_proj.weight"], "attn_output.weight", Transposed(Hidden, Query)),
    part(&["attn.c_proj.bias"], "attn_output.bias", Vector(Hidden)),
    part(&["ln_2.weight"], "ffn_norm.weight", Vector(Hidden)),
    part(&["ln_2.bias"], "ffn_norm.bias", Vector(Hidden)),
    part(&["mlp.c_fc.weight"], "ffn_up.weight", Transposed(Ffn, Hidden)),
    part(&["mlp.c_fc.bias"], "ffn_up.bias", Vector(Ffn)),
    part(&["mlp.c_proj.weight"], "ffn_down.weight", Transposed(Hidden, Ffn)),
    part(&["mlp.c_proj.bias"], "ffn_down.bias", Vector(Hidden)),
];

/// Llama's, on which the others are built.
const LLAMA: Form = Form {
    classes: &["LlamaForCausalLM"],
    types: &["llama"],
    act: "silu",
    architecture: "llama",
    prefix: "model.",
    blocks: "layers.",
    first: &[EMBEDDING],
    block: &[ATTN_NORM, PERMUTED, FFN_NORM, FFN],
    last: &[NORM, HEAD],
    bitnet: false,
    buffers: &[".rotary_emb.inv_freq"],
};

/// Every form, first match first. Maple's is not known: no checkpoint of it has been published.
pub(super) static FORMS: &[Form] = &[
    Form {
        classes: &["BitNetForCausalLM", "BitnetForCausalLM"],
        types: &["bitnet"],
        act: "relu2",
        architecture: "bitnet-b1.58",
        block: &[ATTN_NORM, ATTENTION, SUB_NORMS, FFN_NORM, FFN],
        bitnet: true,
        ..LLAMA
    },
    Form {
        classes: &["BitNetForCausalLM", "BitnetForCausalLM"],
        types: &["bitnet"],
        architecture: "bitnet",
        block: &[ATTN_NORM, ATTENTION, SUB_NORMS, FFN_NORM, FFN],
        bitnet: true,
        ..LLAMA
    },
    LLAMA,
    Form {
        classes: &["Qwen2ForCausalLM", "Qwen2Model"],
        types: &["qwen2"],
        architecture: "qwen2",
        block: &[ATTN_NORM, ATTENTION, QKV_BIAS, FFN_NORM, FFN],
        ..LLAMA
    },
    Form {
        classes: &["Qwen3ForCausalLM", "Qwen3Model"],
        types: &["qwen3"],
        architecture: "qwen3",
        block: &[ATTN_NORM, ATTENTION, HEAD_NORMS, FFN_NORM, FFN],
        ..LLAMA
    },
    Form { classes: &["MiniCPMForCausalLM"], types: &["minicpm"], architecture: "minicpm", ..LLAMA },
    Form {
        classes: &["Gemma3ForCausalLM", "Gemma3TextModel"],
        types: &["gemma3_text"],
        act: "gelu_pytorch_tanh",
        architecture: "gemma3",
        block: &[ATTENTION, GEMMA_NORMS, FFN],
        last: &[part(&["norm.weight"], "output_norm.weight", PlusOne(Hidden)), HEAD],
        ..LLAMA
    },
    Form {
        classes: &["GPT2LMHeadModel", "GPT2Model"],
        types: &["gpt2"],
        act: "gelu_new",
        architecture: "gpt2",
        prefix: "transformer.",
        blocks: "h.",
        first: &[
            part(&["wte.weight"], "token_embd.weight", Table(Vocab)),
            part(&["wpe.weight"], "position_embd.weight", Table(Context)),
        ],
        block: &[GPT2],
        last: &[
            part(&["ln_f.weight"], "output_norm.weight", Vector(Hidden)),
            part(&["ln_f.bias"], "output_norm.bias", Vector(Hidden)),
            HEAD,
        ],
        buffers: &[".attn.bias", ".attn.masked_bias"],
        ..LLAMA
    },
];
