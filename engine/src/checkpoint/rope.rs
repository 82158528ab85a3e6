//! The rotation: `rope_theta` with `rope_scaling`, or `rope_parameters` of newer releases, as keys and tensors of GGUF.
//!
//! Defaults are those of `transformers` (modeling_rope_utils.py). What the engine cannot reproduce is refused by name.

use super::CheckpointError;
use super::config::{Object, Sizes};
use super::defaults::Defaults;
use super::error::{config, unsupported};
use crate::gguf::MetaValue;
use bitnet_kernels::trig::{exp, ln};

/// What GGUF says of a rotation.
#[derive(Debug, Default)]
pub(super) struct Rope {
    /// Keys below the architecture's name.
    pub(super) keys: Vec<(&'static str, MetaValue)>,
    /// Tensors of `head / 2` divisors.
    pub(super) tensors: Vec<(&'static str, Vec<f32>)>,
}

/// Reads the rotation. `inner` is the object in `rope_parameters` for one kind of block, where a family has several.
///
/// # Errors
/// A scaling that is not known, or a parameter that no reader of GGUF has.
pub(super) fn read(
    config_json: Object<'_>,
    (sizes, defaults): (&Sizes, &Defaults),
    inner: Option<&'static str>,
) -> Result<Rope, CheckpointError> {
    let parameters = match (config_json.object("rope_parameters", "rope_parameters.")?, inner) {
        (Some(all), Some(kind)) => all.object(kind, "rope_parameters.")?,
        (parameters, _) => parameters,
    };
    let scaling = match parameters {
        Some(parameters) => Some(parameters),
        None => config_json.object("rope_scaling", "rope_scaling.")?,
    };
    let float = |key: &str| scaling.map_or(Ok(None), |scaling| scaling.float(key));
    let theta = match float("rope_theta")? {
        Some(theta) => theta,
        None => config_json.float("rope_theta")?.unwrap_or(defaults.rope_theta),
    };
    let mut rope = Rope { keys: vec![("rope.freq_base", (theta as f32).into())], tensors: Vec::new() };
    for partial in [float("partial_rotary_factor")?, config_json.float("partial_rotary_factor")?] {
        if partial.is_some_and(|part| part != 1.0) {
            return Err(unsupported("heads that are rotated in part (`partial_rotary_factor`)"));
        }
    }
    let Some(scaling) = scaling else { return Ok(rope) };
    let kind = match scaling.text("rope_type")? {
        Some(kind) => kind,
        None => scaling.text("type")?.unwrap_or("default"),
    };
    let factor =
        || scaling.float("factor")?.filter(|f| *f > 0.0).ok_or_else(|| config("rope_scaling.factor", "is missing"));
    let original = || -> Result<usize, CheckpointError> {
        match scaling.count("original_max_position_embeddings")? {
            Some(original) => Ok(original),
            None => Ok(config_json.count("original_max_position_embeddings")?.unwrap_or(sizes.context)),
        }
    };
    let mut key = |name, value: MetaValue| rope.keys.push((name, value));
    match kind {
        "default" | "none" => {}
        "linear" => {
            key("rope.scaling.type", "linear".into());
            key("rope.scaling.factor", (factor()? as f32).into());
        }
        "yarn" => {
            let (factor, original) = (factor()?, original()?);
            for (name, usual) in [("beta_fast", 32.0), ("beta_slow", 1.0)] {
                if scaling.float(name)?.is_some_and(|beta| beta != usual) {
                    return Err(unsupported(format!("YaRN with `{name}` other than {usual}")));
                }
            }
            for name in ["mscale", "mscale_all_dim"] {
                if scaling.get(name).is_some() {
                    return Err(unsupported(format!("YaRN with `{name}`")));
                }
            }
            if scaling.flag("truncate")? == Some(false) {
                return Err(unsupported("YaRN with `truncate` false"));
            }
            key("rope.scaling.type", "yarn".into());
            key("rope.scaling.factor", (factor as f32).into());
            key("rope.scaling.original_context_length", count(original).into());
            if let Some(attention) = scaling.float("attention_factor")? {
                // Readers multiply this with the usual factor.
                let usual = (1.0 + 0.1 * ln(factor)).max(1.0);
                key("rope.scaling.attn_factor", ((attention / usual) as f32).into());
            }
        }
        "longrope" | "su" => {
            let original = original()?;
            let stretch = scaling.float("factor")?.unwrap_or(sizes.context as f64 / original.max(1) as f64);
            let usual = if stretch <= 1.0 { 1.0 } else { (1.0 + ln(stretch) / ln(original as f64)).sqrt() };
            key("rope.scaling.type", "longrope".into());
            key("rope.scaling.original_context_length", count(original).into());
            key("rope.scaling.attn_factor", (scaling.float("attention_factor")?.unwrap_or(usual) as f32).into());
            for (name, tensor) in
                [("long_factor", "rope_factors_long.weight"), ("short_factor", "rope_factors_short.weight")]
            {
                let factors = scaling.floats(name)?.filter(|factors| factors.len() == sizes.head / 2);
                let why = format!("is not a list of {} numbers", sizes.head / 2);
                rope.tensors.push((tensor, factors.ok_or_else(|| config(&format!("rope_scaling.{name}"), why))?));
            }
        }
        "llama3" => {
            let number = |name: &str, usual: f64| Ok::<_, CheckpointError>(scaling.float(name)?.unwrap_or(usual));
            let bounds = (number("low_freq_factor", 1.0)?, number("high_freq_factor", 4.0)?);
            let original = scaling.count("original_max_position_embeddings")?.unwrap_or(8192);
            rope.tensors.push(("rope_freqs.weight", llama3(sizes.head, theta, factor()?, bounds, original as f64)));
        }
        other => return Err(unsupported(format!("a rotation scaled by `{other}`"))),
    }
    Ok(rope)
}

fn count(n: usize) -> u32 {
    // Counts of config.json end at 2^31.
    n as u32
}

/// The divisors of Llama 3.1: waves shorter than `original / high` are kept, longer than `original / low` are stretched by the factor,
/// between them the frequency is mixed.
fn llama3(head: usize, theta: f64, factor: f64, (low, high): (f64, f64), original: f64) -> Vec<f32> {
    let divisor = |pair: usize| {
        let frequency = exp(-2.0 * pair as f64 / head as f64 * ln(theta));
        let turns = original * frequency / std::f64::consts::TAU;
        let smooth = (turns - low) / (high - low);
        if turns > high {
            1.0
        } else if turns < low {
            factor
        } else {
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    (0..head / 2).map(|pair| divisor(pair) as f32).collect()
}
