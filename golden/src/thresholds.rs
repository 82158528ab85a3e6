//! How far an answer may be from a reference that sums in another order: data, from `thresholds.toml`.

use crate::{GoldenError, read_toml};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The limits of the training program's recording.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainerLimits {
    /// The reference's choice counts where its first logit leads by more than this.
    pub clear_gap: f32,
    /// Least cosine between the logits of a position.
    pub least_cosine: f64,
    /// Largest relative difference of the mean loss.
    pub relative_loss: f64,
}

/// The limits of a comparison with a C++ reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// The reference's choice counts where its first logit leads the second by more than this.
    pub clear_gap: f64,
    /// Least cosine between the logits of a position.
    pub least_cosine: f64,
    /// Largest Kullback-Leibler divergence of a position, from the reference's distribution to ours, in nats.
    pub largest_kl: f64,
    /// Largest distance of one logit.
    pub largest_abs: f64,
    /// Largest error of one value of a step that is computed from the reference's own inputs, in units of the root mean
    /// square of its row.
    pub step_peak: f64,
    /// The same for attention, where it needs another limit: a reference may round queries or probabilities to f16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention_peak: Option<f64>,
    /// The same of two whole traces, in which the roundings of all steps before have piled up.
    pub drift_peak: f64,
    /// What was measured, and why the limits are where they are.
    pub why: String,
}

impl Thresholds {
    /// The limit for a step that is computed from the reference's own inputs.
    pub fn of_step(&self, step: &str) -> f64 {
        let attention = self.attention_peak.filter(|_| step.ends_with(".attn"));
        attention.unwrap_or(self.step_peak)
    }
}

/// One `[[crossval]]` table: for what, and the limits. A name field is `*`, a value, or values joined by `|`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    backend: String,
    model: String,
    quant: String,
    #[serde(flatten)]
    limits: Thresholds,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    trainer: TrainerLimits,
    #[serde(default)]
    crossval: Vec<Rule>,
}

fn read(golden: &Path) -> Result<File, GoldenError> {
    let path = golden.join("thresholds.toml");
    let file: File = read_toml(&path)?;
    for (at, Rule { limits, .. }) in file.crossval.iter().enumerate() {
        // A limit that nothing can exceed would be no check.
        let attention = limits.attention_peak.unwrap_or(limits.step_peak);
        let bounded =
            [limits.clear_gap, limits.largest_kl, limits.largest_abs, limits.step_peak, limits.drift_peak, attention];
        let sound = bounded.iter().all(|limit| limit.is_finite() && *limit >= 0.0)
            && (0.0..=1.0).contains(&limits.least_cosine)
            && !limits.why.trim().is_empty();
        if !sound {
            let message = format!(
                "[[crossval]] number {} needs finite limits from 0 up, a cosine from 0 to 1, and a reason (`why`)",
                at + 1
            );
            return Err(GoldenError::Parse { path, message });
        }
    }
    Ok(file)
}

/// The limits for the training program's recording.
pub fn trainer(golden: &Path) -> Result<TrainerLimits, GoldenError> {
    Ok(read(golden)?.trainer)
}

/// The limits for a model in a quant against a backend: the first table that matches.
///
/// # Errors
/// The file cannot be read or understood, or no table matches.
pub fn crossval(golden: &Path, backend: &str, model: &str, quant: &str) -> Result<Thresholds, GoldenError> {
    let names = |field: &str, value: &str| field == "*" || field.split('|').any(|name| name == value);
    let file = read(golden)?;
    let rule = file
        .crossval
        .into_iter()
        .find(|rule| names(&rule.backend, backend) && names(&rule.model, model) && names(&rule.quant, quant));
    rule.map(|rule| rule.limits).ok_or_else(|| GoldenError::Parse {
        path: golden.join("thresholds.toml"),
        message: format!("no [[crossval]] table is for {model} in {quant} against {backend}; add one"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAINER: &str = "[trainer]\nclear_gap = 0.25\nleast_cosine = 0.999\nrelative_loss = 0.002\n";

    fn with(rules: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("temp dir");
        std::fs::write(dir.path().join("thresholds.toml"), format!("{TRAINER}{rules}")).expect("write");
        dir
    }

    fn rule(names: [&str; 3], cosine: f64, abs: &str) -> String {
        let [backend, model, quant] = names;
        format!(
            "[[crossval]]\nbackend = \"{backend}\"\nmodel = \"{model}\"\nquant = \"{quant}\"\nclear_gap = 0.25\n\
             least_cosine = {cosine:?}\nlargest_kl = 0.1\nlargest_abs = {abs}\nstep_peak = 0.1\ndrift_peak = 0.1\nwhy = \"measured\"\n"
        )
    }

    #[test]
    fn the_first_table_that_matches_counts() {
        let rules = [
            rule(["bitnet", "*", "f16|f32"], 0.5, "1.0"),
            rule(["bitnet", "tiny", "*"], 0.6, "1.0"),
            rule(["*", "*", "i2_s"], 0.7, "1.0"),
        ];
        let dir = with(&rules.concat());
        let cosine = |backend, model, quant| crossval(dir.path(), backend, model, quant).map(|t| t.least_cosine);
        assert!(matches!(cosine("bitnet", "tiny", "f32"), Ok(0.5)));
        assert!(matches!(cosine("bitnet", "tiny", "i2_s"), Ok(0.6)));
        assert!(matches!(cosine("llama", "tiny", "i2_s"), Ok(0.7)));
        let error = cosine("llama", "tiny", "q8_0").expect_err("none").to_string();
        assert!(error.contains("tiny in q8_0 against llama"), "{error}");
        assert!(matches!(trainer(dir.path()), Ok(TrainerLimits { clear_gap: 0.25, .. })));
    }

    #[test]
    fn a_limit_that_cannot_be_exceeded_is_refused() {
        for (cosine, abs) in [(0.9, "inf"), (0.9, "nan"), (-0.5, "1.0"), (0.9, "-1.0")] {
            let dir = with(&rule(["*", "*", "*"], cosine, abs));
            let error = crossval(dir.path(), "bitnet", "m", "q").expect_err("refused").to_string();
            assert!(error.contains("number 1"), "{error}");
        }
        let misspelt =
            with(&rule(["*", "*", "*"], 0.9, "1.0").replace("drift_peak", "atention_peak = 0.1\ndrift_peak"));
        let error = crossval(misspelt.path(), "bitnet", "m", "q").expect_err("refused").to_string();
        assert!(error.contains("atention_peak"), "{error}");
    }
}
