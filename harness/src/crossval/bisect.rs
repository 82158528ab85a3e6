//! Which step is the first to go wrong.
//!
//! Two distances are taken of every step that both sides show. The *whole* one is between our trace and the
//! reference's: it grows from layer to layer, as roundings pile up. The *own* one is between the reference's result
//! and ours computed from the reference's inputs ([`super::replay`]); nothing piles up there, so it decides, by the
//! limit `step_peak`. Where there is no replay, the whole distance decides, by the limit `drift_peak`.

use std::collections::HashMap;

use bitnet_golden::thresholds::Thresholds;
use serde::{Deserialize, Serialize};

use super::distance;
use super::reference::Traced;
use super::replay::Replayed;

/// Values shown on each side of the worst one.
const NEIGHBOURS: usize = 3;

/// How far two results of a step are apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepDistance {
    /// Largest error of a value, in units of the root mean square of its row.
    #[serde(with = "super::number")]
    pub peak: f64,
    #[serde(with = "super::number")]
    pub max_abs: f64,
    #[serde(with = "super::number")]
    pub cosine: f64,
}

/// One step that both sides show.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepReport {
    pub step: String,
    /// Tokens.
    pub rows: usize,
    /// Values a token.
    pub width: usize,
    /// Our trace against the reference's.
    pub whole: StepDistance,
    /// Our result from the reference's inputs against the reference's, if it was computed.
    pub own: Option<StepDistance>,
    /// The steps that it reads, as far as the reference shows them.
    pub inputs: Vec<String>,
    pub diverges: bool,
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Element {
    /// Place in its row.
    pub column: usize,
    /// Our value.
    #[serde(with = "super::number")]
    pub ours: f64,
    /// The reference's.
    #[serde(with = "super::number")]
    pub reference: f64,
}

/// The first step that diverges.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    pub step: String,
    /// Its layer, if it belongs to one.
    pub layer: Option<usize>,
    /// Token of the worst value.
    pub row: usize,
    /// Place of the worst value in its row.
    pub column: usize,
    /// That value and its neighbours.
    pub around: Vec<Element>,
    /// Tokens whose value in that column is beyond the limit: all of them for a wrong weight, one for a wrong input.
    pub rows_beyond: usize,
    /// Whether our trace differed beyond the limit in an input of the step already; `None` for the first step.
    pub input_differed: Option<bool>,
    /// Whether the step was computed from the reference's inputs, so that it is itself to blame.
    pub from_reference_inputs: bool,
}

/// The comparison of two traces.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bisection {
    pub tokens: usize,
    /// In the order of the plan.
    pub steps: Vec<StepReport>,
    /// Steps of ours that the reference does not show, or shows in another shape.
    pub not_shown: Vec<String>,
    pub first: Option<Finding>,
    /// Whether something was compared and nothing diverges.
    pub agrees: bool,
}

impl Bisection {
    /// What is wrong in words, if anything.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        if self.steps.is_empty() {
            return Some("no step was compared".to_owned());
        }
        let first = self.first.as_ref()?;
        let input = match first.input_differed {
            Some(true) => "its input differed already",
            Some(false) => "its input was the same but for roundings",
            None => "it is the first step",
        };
        let blame = if first.from_reference_inputs {
            ", and from the reference's own input it differs too: the fault is in this step"
        } else {
            ""
        };
        Some(format!("first diverging step {}: {input}{blame}", first.step))
    }
}

/// Compares traces step by step, in our order. `replayed` may be empty.
pub fn bisect(ours: &[Traced], reference: &[Traced], replayed: &[Replayed], limits: &Thresholds) -> Bisection {
    let theirs: HashMap<&str, &Traced> = reference.iter().map(|t| (t.step.as_str(), t)).collect();
    let own: HashMap<&str, &Replayed> = replayed.iter().map(|r| (r.result.step.as_str(), r)).collect();
    let (mut steps, mut not_shown) = (Vec::new(), Vec::new());
    let mut first: Option<Finding> = None;
    let mut beyond: HashMap<&str, bool> = HashMap::new();
    let mut before: Option<&str> = None;
    for step in ours {
        let name = step.step.as_str();
        let shape = |t: &Traced| (t.rows, t.width, t.values.len()) == (step.rows, step.width, step.values.len());
        let Some(reference) = theirs.get(name).copied().filter(|t| shape(t)) else {
            not_shown.push(name.to_owned());
            continue;
        };
        let replayed = own.get(name).copied().filter(|r| shape(&r.result));
        let whole = step_distance(step, reference);
        let own = replayed.map(|r| step_distance(&r.result, reference));
        let diverges = diverges(name, &whole, own.as_ref(), limits);
        let inputs: Vec<String> = match replayed {
            Some(r) => r.inputs.clone(),
            None => before.iter().map(|&name| name.to_owned()).collect(),
        };
        if diverges && first.is_none() {
            let side = replayed.map_or(step, |r| &r.result);
            let input_differed =
                inputs.iter().filter_map(|name| beyond.get(name.as_str()).copied()).reduce(|a, b| a || b);
            first = Some(finding(side, reference, limits, input_differed, replayed.is_some()));
        }
        beyond.insert(name, exceeds(whole.peak, limits.drift_peak));
        before = Some(name);
        steps.push(StepReport {
            step: name.to_owned(),
            rows: step.rows,
            width: step.width,
            whole,
            own,
            inputs,
            diverges,
        });
    }
    let tokens = ours.first().map_or(0, |step| step.rows);
    Bisection { tokens, agrees: !steps.is_empty() && first.is_none(), steps, not_shown, first }
}

/// Whether a step diverges, from its distances; what is not a number does.
pub fn diverges(step: &str, whole: &StepDistance, own: Option<&StepDistance>, limits: &Thresholds) -> bool {
    match own {
        Some(own) => exceeds(own.peak, limits.of_step(step)),
        None => exceeds(whole.peak, limits.drift_peak),
    }
}

fn exceeds(peak: f64, limit: f64) -> bool {
    peak.is_nan() || peak > limit
}

fn step_distance(ours: &Traced, reference: &Traced) -> StepDistance {
    let width = reference.width.max(1);
    let peaks = ours.values.chunks(width).zip(reference.values.chunks(width)).map(|(a, b)| {
        let most = distance::max_abs(a, b);
        if most == 0.0 { 0.0 } else { most / rms(b) }
    });
    StepDistance {
        peak: peaks.fold(0.0, |m: f64, p| if p.is_nan() || m.is_nan() { f64::NAN } else { m.max(p) }),
        max_abs: distance::max_abs(&ours.values, &reference.values),
        cosine: distance::cosine(&ours.values, &reference.values),
    }
}

fn rms(row: &[f32]) -> f64 {
    (row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / row.len().max(1) as f64).sqrt()
}

fn finding(
    ours: &Traced,
    reference: &Traced,
    limits: &Thresholds,
    input_differed: Option<bool>,
    from_reference_inputs: bool,
) -> Finding {
    let width = reference.width.max(1);
    // Error of a value in units of its row; what is not a number is the worst of all.
    let error = |at: usize, unit: f64| {
        let (a, b) = (f64::from(ours.values[at]), f64::from(reference.values[at]));
        let error = if a == b { 0.0 } else { (a - b).abs() / unit };
        if error.is_nan() { f64::INFINITY } else { error }
    };
    let units: Vec<f64> = reference.values.chunks(width).map(rms).collect();
    let (mut worst, mut most) = (0, -1.0);
    for at in 0..ours.values.len() {
        let found = error(at, units[at / width]);
        if found > most {
            (worst, most) = (at, found);
        }
    }
    let (row, column) = (worst / width, worst % width);
    let columns = column.saturating_sub(NEIGHBOURS)..(column + NEIGHBOURS + 1).min(width);
    let around = columns
        .map(|column| Element {
            column,
            ours: f64::from(ours.values[row * width + column]),
            reference: f64::from(reference.values[row * width + column]),
        })
        .collect();
    let limit = if from_reference_inputs { limits.of_step(&reference.step) } else { limits.drift_peak };
    let rows_beyond =
        units.iter().enumerate().filter(|(row, unit)| error(row * width + column, **unit) > limit).count();
    Finding {
        step: reference.step.clone(),
        layer: layer(&reference.step),
        row,
        column,
        around,
        rows_beyond,
        input_differed,
        from_reference_inputs,
    }
}

/// The layer in a step's name: 3 of `blk.3.attn_q`.
pub fn layer(step: &str) -> Option<usize> {
    step.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crossval::compare::tests::limits;

    fn step(name: &str, values: &[f32]) -> Traced {
        Traced { step: name.to_owned(), rows: 2, width: values.len() / 2, values: values.to_vec() }
    }

    #[test]
    fn the_first_step_that_diverges_is_named_with_its_worst_value() {
        let reference = [step("a", &[1.0, 1.0, 1.0, 1.0]), step("blk.2.b", &[1.0, -1.0, 1.0, -1.0])];
        let ours = [step("a", &[1.0, 1.0, 1.0, 1.01]), step("blk.2.b", &[1.0, -1.0, 1.5, -1.0])];
        let found = bisect(&ours, &reference, &[], &limits());
        let first = found.first.expect("a finding");
        assert_eq!((first.step.as_str(), first.layer, first.row, first.column), ("blk.2.b", Some(2), 1, 0));
        assert_eq!((first.input_differed, first.rows_beyond), (Some(false), 1));
        assert_eq!(first.around[0], Element { column: 0, ours: 1.5, reference: 1.0 });
        let drift = [step("a", &[1.0, 1.0, 1.0, 1.2]), step("blk.2.b", &[1.0, -1.0, 1.5, -1.0])];
        assert_eq!(bisect(&drift, &reference, &[], &limits()).first.map(|f| f.step).as_deref(), Some("a"));
    }

    #[test]
    fn with_a_replay_only_the_step_itself_is_to_blame() {
        let reference = [step("a", &[1.0; 4]), step("b", &[2.0; 4]), step("c", &[3.0; 4])];
        // Our own trace is off everywhere, but each step is right given the reference's input, save `c`.
        let ours = [step("a", &[1.3; 4]), step("b", &[2.6; 4]), step("c", &[9.0; 4])];
        let own = |name: &str, values: [f32; 4], inputs: &[&str]| Replayed {
            result: step(name, &values),
            inputs: inputs.iter().map(|s| (*s).to_owned()).collect(),
        };
        let replayed = [own("a", [1.0; 4], &[]), own("b", [2.0; 4], &["a"]), own("c", [4.0; 4], &["b"])];
        let found = bisect(&ours, &reference, &replayed, &limits());
        let first = found.first.as_ref().expect("a finding");
        assert_eq!((first.step.as_str(), first.input_differed, first.from_reference_inputs), ("c", Some(true), true));
        assert!(found.problem().is_some_and(|p| p.contains("the fault is in this step")));
    }

    #[test]
    fn nothing_compared_and_what_is_no_number_do_not_agree() {
        let one = [step("a", &[1.0; 4])];
        assert!(bisect(&one, &one, &[], &limits()).agrees);
        let nothing = bisect(&one, &[step("b", &[1.0; 4])], &[], &limits());
        assert!(!nothing.agrees && nothing.not_shown == ["a"] && nothing.problem().is_some());
        let other_shape = bisect(&one, &[step("a", &[1.0; 6])], &[], &limits());
        assert!(!other_shape.agrees);
        let nan = bisect(&[step("a", &[1.0, f32::NAN, 1.0, 1.0])], &one, &[], &limits());
        assert_eq!(nan.first.map(|f| (f.row, f.column)), Some((0, 1)));
        let zero = [step("a", &[0.0; 4])];
        assert!(bisect(&zero, &zero, &[], &limits()).agrees, "rows of zeros");
    }
}
