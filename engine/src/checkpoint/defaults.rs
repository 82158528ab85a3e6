//! What an absent key of config.json means: the defaults of the configuration classes, by `model_type`.
//!
//! Source: `configuration_*.py` of `transformers` 4.57; of MiniCPM the code beside its checkpoints.

/// Defaults of a configuration class.
#[derive(Debug)]
pub(super) struct Defaults {
    /// `model_type`.
    model_type: &'static str,
    /// `hidden_act`, or what the class calls it.
    pub(super) act: &'static str,
    /// Base of the rotation's frequencies.
    pub(super) rope_theta: f64,
    pub(super) rms_norm_eps: f64,
    /// `num_key_value_heads`; as many as heads where there is none.
    pub(super) kv_heads: Option<usize>,
    /// `head_dim`; the width divided by the heads where there is none.
    pub(super) head_dim: Option<usize>,
    /// `max_position_embeddings`.
    pub(super) context: usize,
    /// `tie_word_embeddings`.
    pub(super) tied: bool,
}

const LLAMA: Defaults = Defaults {
    model_type: "llama",
    act: "silu",
    rope_theta: 10_000.0,
    rms_norm_eps: 1e-6,
    kv_heads: None,
    head_dim: None,
    context: 2048,
    tied: false,
};
const QWEN2: Defaults = Defaults { model_type: "qwen2", kv_heads: Some(32), context: 32_768, ..LLAMA };

static DEFAULTS: &[Defaults] = &[
    LLAMA,
    Defaults {
        model_type: "bitnet",
        act: "relu2",
        rope_theta: 500_000.0,
        rms_norm_eps: 1e-5,
        kv_heads: Some(5),
        ..LLAMA
    },
    QWEN2,
    Defaults { model_type: "qwen3", head_dim: Some(128), ..QWEN2 },
    Defaults { model_type: "minicpm", ..LLAMA },
    Defaults {
        model_type: "gemma3_text",
        act: "gelu_pytorch_tanh",
        rope_theta: 1_000_000.0,
        kv_heads: Some(4),
        head_dim: Some(256),
        context: 131_072,
        tied: true,
        ..LLAMA
    },
    Defaults { model_type: "gpt2", act: "gelu_new", context: 1024, tied: true, ..LLAMA },
];

/// `sliding_window` of Gemma 3.
pub(super) const GEMMA3_WINDOW: usize = 4096;
/// `sliding_window_pattern` of Gemma 3.
pub(super) const GEMMA3_PERIOD: usize = 6;
/// `query_pre_attn_scalar` of Gemma 3.
pub(super) const GEMMA3_SCALAR: f64 = 256.0;
/// `rope_local_base_freq` of Gemma 3.
pub(super) const GEMMA3_LOCAL_THETA: f64 = 10_000.0;

/// Those of a `model_type`.
pub(super) fn of_type(model_type: &str) -> Option<&'static Defaults> {
    DEFAULTS.iter().find(|defaults| defaults.model_type == model_type)
}

/// Those of a checkpoint: by its `model_type`, as transformers takes its class, or else by the types of its family.
pub(super) fn of(model_type: &str, types: &[&str]) -> &'static Defaults {
    let of_family = || types.iter().copied().find_map(of_type);
    of_type(model_type).or_else(of_family).unwrap_or(&DEFAULTS[0])
}
