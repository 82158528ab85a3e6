//! Two answers, position by position.
//!
//! The rule: at every position the distances stay within the limits, and the most likely token is the same wherever the
//! reference is clear about it, that is, its first logit leads its second by more than `clear_gap`. A comparison of
//! nothing is not agreement.

use bitnet_golden::thresholds::Thresholds;
use serde::{Deserialize, Serialize};

use super::distance;
use super::reference::{Logits, Row};

/// How many of the most likely tokens are compared as a set.
pub const TOP_K: usize = 5;

/// A limit that was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exceeded {
    /// The most likely token differs where the reference is clear.
    Top1,
    /// The cosine is below its limit, or no number.
    Cosine,
    /// The divergence is above its limit, or no number.
    Kl,
    /// One logit is further away than allowed, or no number.
    MaxAbs,
    /// One side has no logits of the position.
    Missing,
}

impl Exceeded {
    /// As in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Top1 => "top1",
            Self::Cosine => "cosine",
            Self::Kl => "kl",
            Self::MaxAbs => "max_abs",
            Self::Missing => "missing",
        }
    }
}

/// What was found at one position.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PositionReport {
    /// The position: its logits come after token `position`.
    pub position: usize,
    pub token: u32,
    pub top1_ours: Option<u32>,
    pub top1_reference: Option<u32>,
    /// By how much the reference's first logit leads its second.
    #[serde(with = "super::number")]
    pub gap: f64,
    /// Cosine of the rows (of the recorded logits, where the reference is a recording).
    #[serde(with = "super::number")]
    pub cosine: f64,
    #[serde(with = "super::number")]
    pub l2: f64,
    #[serde(with = "super::number")]
    pub max_abs: f64,
    /// Divergence from the reference's distribution to ours, in nats.
    #[serde(with = "super::number")]
    pub kl: f64,
    /// Share of the reference's [`TOP_K`] most likely tokens that are among ours.
    #[serde(with = "super::number")]
    pub top_k: f64,
    /// The limits that it exceeds; none: it agrees.
    pub exceeded: Vec<Exceeded>,
}

impl PositionReport {
    /// Whether it is within all limits.
    pub fn agrees(&self) -> bool {
        self.exceeded.is_empty()
    }
}

/// What was found over all positions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// Ascending.
    pub positions: Vec<PositionReport>,
    /// Positions where the reference is clear about its token.
    pub clear: usize,
    /// Positions with another most likely token, clear or not.
    pub top1_differs: usize,
    /// The first position that exceeds a limit.
    pub first_divergence: Option<usize>,
    #[serde(with = "super::number")]
    pub least_cosine: f64,
    #[serde(with = "super::number")]
    pub largest_kl: f64,
    #[serde(with = "super::number")]
    pub largest_abs: f64,
    /// Whether something was compared and everything agrees.
    pub agrees: bool,
}

impl Comparison {
    /// What is wrong in words, if anything.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        if self.positions.is_empty() {
            return Some("no position was compared".to_owned());
        }
        let bad = self.positions.iter().filter(|p| !p.agrees()).count();
        let first = self.positions.iter().find(|p| !p.agrees())?;
        let limits: Vec<&str> = first.exceeded.iter().map(|e| e.name()).collect();
        Some(format!(
            "{bad} of {} positions differ, first position {} ({}): token {} against {}, gap {:.3}, cosine {:.6}, KL \
             {:.3e}, max abs {:.4}",
            self.positions.len(),
            first.position,
            limits.join(", "),
            id(first.top1_ours),
            id(first.top1_reference),
            first.gap,
            first.cosine,
            first.kl,
            first.max_abs
        ))
    }
}

fn id(token: Option<u32>) -> String {
    token.map_or_else(|| "none".to_owned(), |id| id.to_string())
}

/// Compares our logits with the reference's at every position that either has. `tokens` is the sequence that both were fed.
pub fn compare_logits(tokens: &[u32], ours: &Logits, reference: &Logits, limits: &Thresholds) -> Comparison {
    let mut wanted: Vec<usize> = ours.positions.iter().chain(&reference.positions).copied().collect();
    wanted.sort_unstable();
    wanted.dedup();
    let positions: Vec<PositionReport> = wanted
        .into_iter()
        .map(|position| {
            let token = tokens.get(position).copied().unwrap_or(u32::MAX);
            compare_rows(position, token, ours.row(position), reference.row(position), limits)
        })
        .collect();
    summary(positions, limits)
}

/// The figures over all positions, from those of each: what a receipt is checked with.
pub fn summary(positions: Vec<PositionReport>, limits: &Thresholds) -> Comparison {
    let over = |value: fn(&PositionReport) -> f64, worse: fn(f64, f64) -> f64| {
        positions.iter().map(value).reduce(|a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { worse(a, b) })
    };
    let first_divergence = positions.iter().find(|p| !p.agrees()).map(|p| p.position);
    Comparison {
        clear: positions.iter().filter(|p| p.gap > limits.clear_gap).count(),
        top1_differs: positions.iter().filter(|p| p.top1_ours != p.top1_reference).count(),
        first_divergence,
        least_cosine: over(|p| p.cosine, f64::min).unwrap_or(f64::NAN),
        largest_kl: over(|p| p.kl, f64::max).unwrap_or(f64::NAN),
        largest_abs: over(|p| p.max_abs, f64::max).unwrap_or(f64::NAN),
        agrees: !positions.is_empty() && first_divergence.is_none(),
        positions,
    }
}

/// The figures of one position.
struct Figures {
    top1_ours: Option<u32>,
    top1_reference: Option<u32>,
    gap: f64,
    cosine: f64,
    l2: f64,
    max_abs: f64,
    kl: f64,
    top_k: f64,
}

/// Compares one position.
pub fn compare_rows(
    position: usize,
    token: u32,
    ours: Option<&Row>,
    reference: Option<&Row>,
    limits: &Thresholds,
) -> PositionReport {
    let figures = match (ours, reference) {
        (Some(Row::Full(ours)), Some(Row::Full(reference))) => Some(full(ours, reference)),
        (Some(Row::Full(ours)), Some(Row::Sampled { ids, values, top, log_sum })) => {
            Some(sampled(ours, ids, values, *top, *log_sum))
        }
        // Our side computes; it has whole rows or none.
        _ => None,
    };
    let missing = figures.is_none();
    let nan = f64::NAN;
    let f = figures.unwrap_or(Figures {
        top1_ours: None,
        top1_reference: None,
        gap: nan,
        cosine: nan,
        l2: nan,
        max_abs: nan,
        kl: nan,
        top_k: nan,
    });
    let mut report = PositionReport {
        position,
        token,
        top1_ours: f.top1_ours,
        top1_reference: f.top1_reference,
        gap: f.gap,
        cosine: f.cosine,
        l2: f.l2,
        max_abs: f.max_abs,
        kl: f.kl,
        top_k: f.top_k,
        exceeded: Vec::new(),
    };
    report.exceeded = if missing { vec![Exceeded::Missing] } else { exceeded(&report, limits) };
    report
}

/// The limits that a position exceeds, from its figures; what is not a number exceeds its limit.
pub fn exceeded(report: &PositionReport, limits: &Thresholds) -> Vec<Exceeded> {
    let mut out = Vec::new();
    let clear = report.gap > limits.clear_gap || report.gap.is_nan();
    if clear && report.top1_ours != report.top1_reference || report.top1_ours.is_none() {
        out.push(Exceeded::Top1);
    }
    let within = |value: f64, limit: f64| value <= limit;
    for (good, limit) in [
        (within(limits.least_cosine, report.cosine), Exceeded::Cosine),
        (within(report.kl, limits.largest_kl), Exceeded::Kl),
        (within(report.max_abs, limits.largest_abs), Exceeded::MaxAbs),
    ] {
        if !good {
            out.push(limit);
        }
    }
    out
}

fn full(ours: &[f32], reference: &[f32]) -> Figures {
    let (top_ours, top_reference) = (distance::top(ours, TOP_K), distance::top(reference, TOP_K));
    Figures {
        top1_ours: top_ours.first().copied(),
        top1_reference: top_reference.first().copied(),
        gap: distance::gap(reference),
        cosine: distance::cosine(ours, reference),
        l2: distance::l2(ours, reference),
        max_abs: distance::max_abs(ours, reference),
        kl: distance::kl(ours, reference),
        top_k: distance::agreement(&top_ours, &top_reference),
    }
}

fn sampled(ours: &[f32], ids: &[u32], values: &[f32], top: usize, log_sum: f64) -> Figures {
    // A token that we do not have is not a number, and so exceeds every limit.
    let picked: Vec<f32> = ids.iter().map(|&id| ours.get(id as usize).copied().unwrap_or(f32::NAN)).collect();
    let pairs: Vec<(f32, f32)> = picked.iter().copied().zip(values.iter().copied()).collect();
    let top_reference = &ids[..top.min(TOP_K).min(ids.len())];
    let top_ours = distance::top(ours, top_reference.len().max(1));
    Figures {
        top1_ours: top_ours.first().copied(),
        top1_reference: top_reference.first().copied(),
        gap: match values {
            [first, second, ..] if top >= 2 => f64::from(*first) - f64::from(*second),
            _ => f64::NAN,
        },
        cosine: distance::cosine(&picked, values),
        l2: distance::l2(&picked, values),
        max_abs: distance::max_abs(&picked, values),
        kl: distance::kl_sampled(&pairs, distance::log_sum_exp(ours), log_sum),
        top_k: distance::agreement(&top_ours, top_reference),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn limits() -> Thresholds {
        Thresholds {
            clear_gap: 0.25,
            least_cosine: 0.99,
            largest_kl: 0.05,
            largest_abs: 0.5,
            step_peak: 0.1,
            attention_peak: None,
            drift_peak: 0.1,
            why: "test".to_owned(),
        }
    }

    fn logits(rows: &[&[f32]]) -> Logits {
        let vocab = rows.first().map_or(0, |row| row.len());
        let rows: Vec<Row> = rows.iter().map(|row| Row::Full(row.to_vec())).collect();
        Logits { positions: (0..rows.len()).collect(), vocab, rows }
    }

    fn only(ours: &[f32], reference: &[f32]) -> PositionReport {
        compare_logits(&[7], &logits(&[ours]), &logits(&[reference]), &limits()).positions.remove(0)
    }

    #[test]
    fn equal_rows_agree_and_nothing_does_not() {
        let row: &[f32] = &[1.0, 5.0, -2.0];
        let same = compare_logits(&[1, 2], &logits(&[row, row]), &logits(&[row, row]), &limits());
        assert!(same.agrees && same.problem().is_none() && same.clear == 2);
        assert_eq!((same.least_cosine, same.largest_kl, same.largest_abs), (1.0, 0.0, 0.0));
        let nothing = compare_logits(&[1], &logits(&[]), &logits(&[]), &limits());
        assert!(!nothing.agrees && nothing.problem().is_some_and(|p| p.contains("no position")));
    }

    #[test]
    fn each_limit_turns_it_red() {
        assert_eq!(only(&[5.0, 4.9, -2.0], &[4.9, 5.0, -2.0]).exceeded, [], "the reference is not clear");
        assert_eq!(only(&[5.2, 5.0, -9.0], &[5.0, 5.3, -9.0]).exceeded, [Exceeded::Top1]);
        assert_eq!(only(&[9.0, 3.0, 5.0], &[9.0, 4.0, 5.0]).exceeded, [Exceeded::MaxAbs]);
        assert_eq!(only(&[0.3, 0.1, 0.0], &[0.3, -0.1, 0.0]).exceeded, [Exceeded::Cosine]);
        assert_eq!(only(&[1.0, f32::NAN], &[1.0, 0.0]).exceeded, [Exceeded::Cosine, Exceeded::Kl, Exceeded::MaxAbs]);
        let wide = Thresholds { least_cosine: 0.0, largest_abs: 9.0, ..limits() };
        let kl = compare_rows(0, 7, Some(&Row::Full(vec![2.0, 0.0])), Some(&Row::Full(vec![1.0, 0.0])), &wide);
        assert_eq!(kl.exceeded, [Exceeded::Kl]);
    }

    #[test]
    fn a_position_that_one_side_lacks_is_a_divergence() {
        let row: &[f32] = &[1.0, 5.0];
        let found = compare_logits(&[1, 2], &logits(&[row, row]), &logits(&[row]), &limits());
        assert_eq!((found.first_divergence, found.agrees), (Some(1), false));
        assert_eq!(found.positions[1].exceeded, [Exceeded::Missing]);
        assert!(found.least_cosine.is_nan(), "a NaN must not get lost in a minimum");
    }

    #[test]
    fn a_recording_is_compared_where_it_has_logits() {
        let ours = Row::Full(vec![0.0, 4.0, 1.0, 3.0]);
        let recorded = |values: [f32; 3]| Row::Sampled {
            ids: vec![1, 3, 0],
            values: values.to_vec(),
            top: 2,
            log_sum: distance::log_sum_exp(&[0.0, 4.0, 1.0, 3.0]),
        };
        let good = compare_rows(0, 7, Some(&ours), Some(&recorded([4.0, 3.0, 0.0])), &limits());
        assert!(good.agrees() && good.gap == 1.0 && good.top_k == 1.0 && good.kl < 1e-9, "{good:?}");
        let bad = compare_rows(0, 7, Some(&ours), Some(&recorded([4.0, 3.0, 0.9])), &limits());
        assert_eq!(bad.exceeded, [Exceeded::Cosine, Exceeded::MaxAbs]);
    }

    #[test]
    fn a_problem_in_words() {
        let ours = logits(&[&[4.0, 1.0, 0.0], &[1.0, 2.0, 0.5], &[0.0, 1.0, 3.0]]);
        let reference = Logits { positions: vec![0, 1], ..logits(&[&[4.0, 1.0, 0.0], &[3.0, 1.0, 0.5]]) };
        let found = compare_logits(&[7, 8, 9], &ours, &reference, &limits());
        assert_eq!((found.clear, found.top1_differs, found.first_divergence), (2, 1, Some(1)));
        assert_eq!(found.positions.iter().map(|p| p.token).collect::<Vec<_>>(), [7, 8, 9]);
        let words = "2 of 3 positions differ, first position 1 (top1, cosine, kl, max_abs): token 1 against 0, gap 2.000, \
                     cosine 0.715678, KL ";
        let problem = found.problem().unwrap_or_default();
        assert!(problem.starts_with(words) && problem.ends_with(", max abs 2.0000"), "{problem}");
        let last = summary(found.positions[2..].to_vec(), &limits()).problem().unwrap_or_default();
        assert!(last.contains("position 2 (missing): token none against none, gap NaN"), "{last}");
    }

    /// Of the limits themselves: a lead of `clear_gap` is not clear yet, and a distance of a limit is within it.
    #[test]
    fn limits_are_within() {
        let at = PositionReport {
            top1_ours: Some(3),
            gap: 0.25,
            cosine: 0.99,
            max_abs: 0.5,
            kl: 0.05,
            ..only(&[5.0, 1.0], &[5.0, 1.0])
        };
        assert_eq!(exceeded(&at, &limits()), []);
        assert_eq!(summary(vec![at.clone()], &limits()).clear, 0);
        // A lead that is no number counts as a clear one.
        assert_eq!(exceeded(&PositionReport { gap: f64::NAN, ..at.clone() }, &limits()), [Exceeded::Top1]);
        let none = PositionReport { top1_ours: None, top1_reference: None, ..at };
        assert_eq!(exceeded(&none, &limits()), [Exceeded::Top1], "nothing is no token");
    }

    #[test]
    fn a_lead_needs_two_of_the_most_likely_tokens() {
        let ours = Row::Full(vec![0.0, 4.0, 1.0, 3.0]);
        let of = |top| Row::Sampled { ids: vec![1, 3], values: vec![4.0, 3.5], top, log_sum: 5.0 };
        let gap = |top| compare_rows(0, 7, Some(&ours), Some(&of(top)), &limits()).gap;
        assert_eq!((gap(2), gap(3)), (0.5, 0.5));
        assert!(gap(1).is_nan(), "the second value is that of any token");
    }
}
