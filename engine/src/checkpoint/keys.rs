//! From config.json to the keys `<architecture>.*` of GGUF.

use super::CheckpointError;
use super::config::{Object, Sizes};
use super::defaults::{Defaults, GEMMA3_LOCAL_THETA, GEMMA3_PERIOD, GEMMA3_SCALAR, GEMMA3_WINDOW};
use super::error::{config, unsupported};
use super::forms::Form;
use super::rope::{self, Rope};
use crate::gguf::MetaValue;

/// What GGUF says of the graph.
#[derive(Debug, Default)]
pub(super) struct Graph {
    /// Keys below the architecture's name.
    pub(super) keys: Vec<(&'static str, MetaValue)>,
    /// Vectors that are not tensors of the checkpoint.
    pub(super) tensors: Vec<(&'static str, Vec<f32>)>,
}

/// Reads the keys of a family.
///
/// # Errors
/// A key that is missing, or asks for a graph that the family does not have.
pub(super) fn read(
    form: &Form,
    sizes: &Sizes,
    defaults: &Defaults,
    config_json: Object<'_>,
) -> Result<Graph, CheckpointError> {
    let mut graph = Graph::default();
    let mut count = |key, n: usize| graph.keys.push((key, (n as u32).into()));
    count("vocab_size", sizes.vocab);
    count("context_length", sizes.context);
    count("embedding_length", sizes.hidden);
    count("block_count", sizes.layers);
    count("feed_forward_length", sizes.ffn);
    count("attention.head_count", sizes.heads);
    if form.architecture == "gpt2" {
        gpt2(config_json, &mut graph)?;
        return Ok(graph);
    }
    count("attention.head_count_kv", sizes.kv_heads);
    count("attention.key_length", sizes.head);
    count("attention.value_length", sizes.head);
    count("rope.dimension_count", sizes.head);
    let eps = config_json.float("rms_norm_eps")?.unwrap_or(defaults.rms_norm_eps);
    graph.keys.push(("attention.layer_norm_rms_epsilon", (eps as f32).into()));
    config_json.refuse(&[
        "mlp_bias",
        "attn_logit_softcapping",
        "final_logit_softcapping",
        "use_bidirectional_attention",
    ])?;
    if form.architecture != "gemma3" {
        config_json.refuse(&["use_sliding_window"])?;
    }
    match form.architecture {
        "minicpm" => minicpm(sizes, config_json, &mut graph)?,
        "gemma3" => return gemma3((sizes, defaults), config_json, graph),
        _ => {}
    }
    graph.take(rope::read(config_json, (sizes, defaults), None)?);
    Ok(graph)
}

impl Graph {
    fn take(&mut self, rope: Rope) {
        self.keys.extend(rope.keys);
        self.tensors.extend(rope.tensors);
    }

    fn float(&mut self, key: &'static str, value: f64) {
        self.keys.push((key, (value as f32).into()));
    }
}

fn gpt2(config_json: Object<'_>, graph: &mut Graph) -> Result<(), CheckpointError> {
    config_json.refuse(&["scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "add_cross_attention"])?;
    if config_json.flag("scale_attn_weights")? == Some(false) {
        return Err(unsupported("attention without its scale (`scale_attn_weights` false)"));
    }
    graph.float("attention.layer_norm_epsilon", config_json.float("layer_norm_epsilon")?.unwrap_or(1e-5));
    Ok(())
}

fn minicpm(sizes: &Sizes, config_json: Object<'_>, graph: &mut Graph) -> Result<(), CheckpointError> {
    let required = |key: &str| config_json.float(key)?.ok_or_else(|| config(key, "is missing"));
    graph.float("embedding_scale", required("scale_emb")?);
    graph.float("residual_scale", required("scale_depth")? / (sizes.layers as f64).sqrt());
    graph.float("logit_scale", sizes.hidden as f64 / required("dim_model_base")?);
    Ok(())
}

fn gemma3(
    (sizes, defaults): (&Sizes, &Defaults),
    config_json: Object<'_>,
    mut graph: Graph,
) -> Result<Graph, CheckpointError> {
    // What queries are divided by the root of; the 27B model, of 62 blocks, has a width of its own.
    let divisor = if sizes.layers == 62 { sizes.hidden / sizes.heads } else { sizes.head };
    let scalar = config_json.float("query_pre_attn_scalar")?.unwrap_or(GEMMA3_SCALAR);
    if scalar != divisor as f64 {
        return Err(unsupported(format!("`query_pre_attn_scalar` {scalar}, other than {divisor}")));
    }
    let split = config_json.object("rope_parameters", "rope_parameters.")?;
    let local = match split.map(|all| all.object("sliding_attention", "rope_parameters.")).transpose()?.flatten() {
        Some(local) => {
            let kind = local.text("rope_type")?.unwrap_or("default");
            if kind != "default" {
                return Err(unsupported(format!("a rotation scaled by `{kind}` in blocks with a window")));
            }
            local.float("rope_theta")?
        }
        None => config_json.float("rope_local_base_freq")?,
    };
    let full = split.is_some_and(|all| all.get("full_attention").is_some());
    graph.take(rope::read(config_json, (sizes, defaults), full.then_some("full_attention"))?);
    let window = match config_json.count("sliding_window")? {
        None if config_json.absent("sliding_window") => GEMMA3_WINDOW,
        window => window.unwrap_or(0),
    };
    let locals: Vec<bool> = match config_json.texts("layer_types")? {
        Some(types) if types.len() == sizes.layers => {
            if let Some(other) = types.iter().find(|t| !["sliding_attention", "full_attention"].contains(*t)) {
                return Err(config("layer_types", format!("has `{other}`")));
            }
            types.iter().map(|t| *t == "sliding_attention").collect()
        }
        Some(types) => {
            return Err(config("layer_types", format!("has {} entries for {} blocks", types.len(), sizes.layers)));
        }
        None => {
            let period = match config_json.count("sliding_window_pattern")? {
                None => config_json.count("_sliding_window_pattern")?.unwrap_or(GEMMA3_PERIOD),
                Some(period) => period,
            };
            (1..=sizes.layers).map(|block| period == 0 || !block.is_multiple_of(period)).collect()
        }
    };
    if !locals.contains(&true) {
        return Ok(graph);
    }
    if window == 0 {
        return Err(config("sliding_window", "is null or 0, and blocks have a window"));
    }
    graph.keys.push(("attention.sliding_window", (window as u32).into()));
    graph.keys.push(("attention.sliding_window_pattern", locals.into()));
    graph.float("rope.freq_base_swa", local.unwrap_or(GEMMA3_LOCAL_THETA));
    Ok(graph)
}
