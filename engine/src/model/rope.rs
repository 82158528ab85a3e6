//! Which rotation a file asks for: base, scaling, divisors.
//!
//! | scaling | divisor of the frequency of pair `i` | magnitude |
//! |---|---|---|
//! | none | 1 | 1 |
//! | linear | the factor | 1 |
//! | llama3 | the file's `rope_freqs.weight` | 1 |
//! | yarn (arXiv:2309.00071) | `1 / ((1 - r_i) / factor + r_i)`, `r` a ramp from slow to fast pairs | `attn_factor * (1 + 0.1 ln factor)` |
//! | longrope (arXiv:2402.13753) | `rope_factors_long.weight` or `_short`, by the length of the context | `attn_factor` |
//!
//! Keys and defaults as llama.cpp reads them.

use super::keys::MAX_DIM;
use super::{ModelError, TensorSource};
use crate::ops::RopeSpec;

/// Rotations with which a frequency counts as fast or slow (`beta_fast`, `beta_slow` of the paper).
const FAST: f32 = 32.0;
const SLOW: f32 = 1.0;

/// The rotation of a model. `base` is the key of its frequencies' base and the default; `scaled` is false for the blocks of a model
/// whose rotation is never scaled.
///
/// # Errors
/// A key that is missing or out of range, an unknown scaling, divisors that are not positive.
pub(super) fn read(
    source: &mut TensorSource<'_>,
    (base, default): (&str, f32),
    scaled: bool,
) -> Result<RopeSpec, ModelError> {
    let (keys, head_dim) = (source.keys(), source.config().head_dim);
    let dims = keys.count("rope.dimension_count", 1, MAX_DIM)?.unwrap_or(head_dim);
    if dims > head_dim || dims % 2 != 0 {
        return Err(ModelError::Mismatch {
            what: format!(
                "`{}` {dims} does not fit heads of width {head_dim}: it must be even and at most that",
                keys.name("rope.dimension_count")
            ),
        });
    }
    let theta = keys.float(base, 1.0, 1e12)?.unwrap_or(default);
    let mut spec = RopeSpec { dims, theta, factors: None, magnitude: 1.0, beyond: None };
    if !scaled {
        return Ok(spec);
    }
    let half = dims / 2;
    // Without a type it is linear, either key may hold the factor, 0 means none.
    let factor = match keys.float("rope.scaling.factor", 0.0, 1e6)? {
        None => keys.float("rope.scale_linear", 0.0, 1e6)?,
        factor => factor,
    };
    let factor = factor.filter(|f| *f != 0.0);
    let attn_factor = || Ok::<_, ModelError>(keys.float("rope.scaling.attn_factor", 1e-6, 1e6)?.unwrap_or(1.0));
    let original = || keys.required("rope.scaling.original_context_length", 1 << 31);
    match keys.text("rope.scaling.type")? {
        Some("none") => {}
        None | Some("linear") => spec.factors = factor.filter(|f| *f != 1.0).map(|f| vec![f; half]),
        Some("yarn") => {
            let factor = factor.ok_or_else(|| keys.missing("rope.scaling.factor"))?;
            spec.factors = Some(yarn(dims, theta, factor, original()? as f32));
            spec.magnitude = attn_factor()? * (1.0 + 0.1 * factor.ln()).max(1.0);
        }
        Some("longrope") => {
            let (long, short) = ("rope_factors_long.weight", "rope_factors_short.weight");
            let mut divisors = |name: &str| source.divisors(name, half)?.ok_or_else(|| missing(name));
            spec.beyond = Some((original()?, divisors(long)?));
            spec.factors = Some(divisors(short)?);
            spec.magnitude = attn_factor()?;
        }
        Some(other) => {
            return Err(ModelError::Unsupported { what: format!("rope scaling of type `{other}`") });
        }
    }
    if let Some(divisors) = source.divisors("rope_freqs.weight", half)? {
        spec.factors = Some(match spec.factors {
            None => divisors,
            Some(factors) => factors.iter().zip(divisors).map(|(a, b)| b * a).collect(),
        });
    }
    Ok(spec)
}

fn missing(name: &str) -> ModelError {
    ModelError::MissingTensor { name: name.to_owned() }
}

/// The divisors of YaRN: pairs that turn at least [`FAST`] times in the original context keep their frequency, those that
/// turn at most [`SLOW`]ly once are divided by the factor, between them it is mixed.
fn yarn(dims: usize, theta: f32, factor: f32, original: f32) -> Vec<f32> {
    let pair = |turns: f32| dims as f32 * (original / (turns * std::f32::consts::TAU)).ln() / (2.0 * theta.ln());
    let low = pair(FAST).floor().max(0.0);
    let high = pair(SLOW).ceil().min(dims as f32 - 1.0);
    (0..dims / 2)
        .map(|i| {
            let ramp = 1.0 - ((i as f32 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
            1.0 / ((1.0 - ramp) / factor + ramp)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yarn_divides_slow_pairs_only() {
        let divisors = yarn(64, 10_000.0, 4.0, 2048.0);
        assert_eq!(divisors[0], 1.0);
        assert_eq!(divisors[31], 4.0);
        assert!(divisors.is_sorted(), "{divisors:?}");
        assert!(divisors.iter().any(|d| *d > 1.0 && *d < 4.0));
        assert!(yarn(64, 10_000.0, 1.0, 2048.0).iter().all(|d| *d == 1.0));
    }

    /// All pairs turn less than once: as in llama.cpp the ramp ends at the last dimension, of which there are twice as many.
    #[test]
    fn the_ramp_of_yarn_ends_at_the_last_dimension() {
        let divisors = yarn(16, 5.0, 4.0, 170.0);
        let expected = (0..8).map(|i| 1.0 / (1.0 - 0.75 * i as f32 / 15.0));
        assert!(divisors.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{divisors:?}");
    }
}
