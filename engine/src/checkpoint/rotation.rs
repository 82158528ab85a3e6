//! The rotation by the formulas of `transformers` (modeling_rope_utils.py), for comparison.
//!
//! It shares nothing with `rope`, which writes keys, nor with what reads them: a mistake in either is seen.

use super::defaults::{Defaults, GEMMA3_LOCAL_THETA};
use serde_json::Value;
use std::f64::consts::TAU;

/// How the pairs of a head turn.
#[derive(Debug)]
pub(super) struct Rotation {
    /// Radians a position, `[head / 2]`.
    pub(super) frequencies: Vec<f64>,
    /// What cosines and sines are multiplied with.
    pub(super) magnitude: f64,
}

/// The rotation of a config.json that was understood, for heads of `head` elements in a sequence of so many positions; `local` is
/// that of blocks with a window.
pub(super) fn read(json: &Value, defaults: &Defaults, head: usize, positions: usize, local: bool) -> Rotation {
    let there = |value: &Value, key: &str| value.get(key).filter(|value| !value.is_null()).cloned();
    let kind = if local { "sliding_attention" } else { "full_attention" };
    let parameters = match there(json, "rope_parameters") {
        Some(all) => there(&all, kind).or((!local).then_some(all)),
        None if local => None,
        None => there(json, "rope_scaling"),
    };
    let parameters = parameters.unwrap_or(Value::Null);
    let number = |key: &str| parameters.get(key).and_then(Value::as_f64);
    let top = |key: &str| json.get(key).and_then(Value::as_f64);
    let theta = match local {
        true => number("rope_theta").or(top("rope_local_base_freq")).unwrap_or(GEMMA3_LOCAL_THETA),
        false => number("rope_theta").or(top("rope_theta")).unwrap_or(defaults.rope_theta),
    };
    let mut frequencies: Vec<f64> = (0..head / 2).map(|pair| theta.powf(-2.0 * pair as f64 / head as f64)).collect();
    let context = top("max_position_embeddings").unwrap_or(defaults.context as f64);
    let original = number("original_max_position_embeddings").or(top("original_max_position_embeddings"));
    let factor = number("factor");
    let mut magnitude = 1.0;
    let name = parameters.get("rope_type").or(parameters.get("type")).and_then(Value::as_str);
    match (name.unwrap_or("default"), factor) {
        ("linear", Some(factor)) => frequencies.iter_mut().for_each(|f| *f /= factor),
        ("llama3", Some(factor)) => {
            let (low, high) = (number("low_freq_factor").unwrap_or(1.0), number("high_freq_factor").unwrap_or(4.0));
            let original = number("original_max_position_embeddings").unwrap_or(8192.0);
            for frequency in &mut frequencies {
                let wave = TAU / *frequency;
                let smooth = ((original / wave - low) / (high - low)).clamp(0.0, 1.0);
                *frequency *= (1.0 - smooth) / factor + smooth;
            }
        }
        ("yarn", Some(factor)) => {
            let original = original.unwrap_or(context);
            let pair = |turns: f64| head as f64 * (original / (turns * TAU)).ln() / (2.0 * theta.ln());
            let first = pair(32.0).floor().max(0.0);
            let mut last = pair(1.0).ceil().min(head as f64 - 1.0);
            if first == last {
                last += 0.001;
            }
            for (i, frequency) in frequencies.iter_mut().enumerate() {
                let stretched = ((i as f64 - first) / (last - first)).clamp(0.0, 1.0);
                *frequency *= stretched / factor + 1.0 - stretched;
            }
            let usual = if factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 };
            magnitude = number("attention_factor").unwrap_or(usual);
        }
        ("longrope" | "su", factor) => {
            let original = original.unwrap_or(context);
            let list = if positions as f64 > original { "long_factor" } else { "short_factor" };
            let divisors = parameters.get(list).and_then(Value::as_array).into_iter().flatten();
            for (frequency, divisor) in frequencies.iter_mut().zip(divisors) {
                *frequency /= divisor.as_f64().unwrap_or(f64::NAN);
            }
            let factor = factor.unwrap_or(context / original);
            let usual = if factor > 1.0 { (1.0 + factor.ln() / original.ln()).sqrt() } else { 1.0 };
            magnitude = number("attention_factor").unwrap_or(usual);
        }
        _ => {}
    }
    Rotation { frequencies, magnitude }
}
