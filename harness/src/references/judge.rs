//! What agreement with a reference is. Ids must be equal, all of them. Logits must be near, and the most likely token the
//! same wherever the reference is clear about it. A continuation must be the same up to the first token about which the
//! reference is not clear; what comes after that says nothing.

use super::questions::{Questions, Subject, options};
use crate::crossval::generation::{GenerationParity, forced};
use crate::crossval::reference::Continuation;
use crate::crossval::{Comparison, Ours, Positions, Reference, Row, Thresholds, compare_logits, distance};
use crate::failure::Failure;
use crate::metrics::Metrics;

/// Ids shown of each side, around the first difference.
const SHOWN: usize = 24;

/// A third opinion on the bare ids of a text: HuggingFace's, where there is one.
pub type Opinion<'a> = &'a dyn Fn(&str) -> Option<Vec<u32>>;

/// The ids of all texts, each bare and with special tokens.
///
/// # Errors
/// The first text whose ids differ, with those of both sides and of HuggingFace; or a side gave no answer.
pub fn tokens(subject: &Subject, reference: &mut dyn Reference, opinion: Opinion<'_>) -> Result<Metrics, Failure> {
    let (mut asked, mut ids, mut different) = (0usize, 0usize, 0usize);
    let mut first = None;
    for special in [false, true] {
        for text in &subject.questions.texts {
            let ours = subject.tokenizer.encode(text, options(special))?;
            let theirs = reference.tokenize(text, special, special)?;
            asked += 1;
            ids += theirs.len();
            if ours != theirs {
                different += 1;
                first.get_or_insert((text, special, ours, theirs));
            }
        }
    }
    let metrics = Metrics::new().with("texts", asked).with("ids", ids).with("different_texts", different);
    let Some((text, special, ours, theirs)) = first else {
        return if asked == 0 { Err(Failure::new("no text was asked")) } else { Ok(metrics) };
    };
    let at = ours.iter().zip(&theirs).take_while(|(a, b)| a == b).count();
    let third = match opinion(text).filter(|_| !special) {
        None => String::new(),
        Some(third) if third == ours => "; HuggingFace has ours".to_owned(),
        Some(third) if third == theirs => "; HuggingFace has the reference's".to_owned(),
        Some(third) => format!("; HuggingFace has {}", around(&third, at)),
    };
    let how = if special { ", special tokens read" } else { "" };
    let (name, text): (_, String) = (reference.name(), text.chars().take(80).collect());
    Err(Failure::new(format_args!(
        "{different} of {asked} texts have other ids, first {text:?}{how}, from id {at} on: {name} has {}, we have {}{third}",
        around(&theirs, at),
        around(&ours, at)
    ))
    .with_metrics(metrics))
}

/// The ids from a little before `at` on.
fn around(ids: &[u32], at: usize) -> String {
    let from = at.saturating_sub(2).min(ids.len());
    let shown = &ids[from..ids.len().min(from + SHOWN)];
    let dots = |on: bool| if on { "... " } else { "" };
    let list: Vec<String> = shown.iter().map(u32::to_string).collect();
    format!("[{}{}{}]", dots(from > 0), list.join(" "), if from + SHOWN < ids.len() { " ..." } else { "" })
}

/// The logits of every position of the passages.
///
/// # Errors
/// The first position that is too far off, with its figures; or a side gave no answer.
pub fn logits(
    ours: &Ours,
    questions: &Questions,
    reference: &mut dyn Reference,
    limits: &Thresholds,
) -> Result<Metrics, Failure> {
    let mut compared = Vec::new();
    for tokens in &questions.passages {
        let theirs = reference.logits(tokens, &Positions::All)?;
        compared.push(compare_logits(tokens, &ours.logits(tokens, &Positions::All)?, &theirs, limits));
    }
    let metrics = figures(&compared).ran(ours.kernels.name());
    if compared.is_empty() {
        return Err(Failure::new("no passage was asked"));
    }
    match compared.iter().find_map(Comparison::problem) {
        None => Ok(metrics),
        Some(problem) => Err(Failure::new(format_args!("{}: {problem}", reference.name())).with_metrics(metrics)),
    }
}

fn figures(compared: &[Comparison]) -> Metrics {
    // `min` and `max` would drop a NaN.
    let over = |value: fn(&Comparison) -> f64, worse: fn(f64, f64) -> f64| {
        let values = compared.iter().map(value);
        values.reduce(|a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { worse(a, b) }).unwrap_or(f64::NAN)
    };
    let count = |value: fn(&Comparison) -> usize| compared.iter().map(value).sum::<usize>();
    Metrics::new()
        .with("positions", count(|c| c.positions.len()))
        .with("clear_positions", count(|c| c.clear))
        .with("top1_differs", count(|c| c.top1_differs))
        .with("least_cosine", over(|c| c.least_cosine, f64::min))
        .with("largest_kl_nats", over(|c| c.largest_kl, f64::max))
        .with("largest_abs", over(|c| c.largest_abs, f64::max))
}

/// Greedy continuations of the prompts.
///
/// # Errors
/// A token that differs although the reference is clear about it, a reference that contradicts its own logits, or a side
/// that gave no answer.
pub fn continuation(
    ours: &Ours,
    questions: &Questions,
    reference: &mut dyn Reference,
    limits: &Thresholds,
) -> Result<Metrics, Failure> {
    let (mut same, mut unclear) = (0usize, 0usize);
    for prompt in &questions.prompts {
        let theirs = reference.generate(prompt, questions.new_tokens)?;
        let name = reference.name().to_owned();
        if theirs.tokens.len() > questions.new_tokens || (theirs.tokens.len() < questions.new_tokens && !theirs.ended) {
            return Err(Failure::new(format_args!(
                "{name} went on from {prompt:?} with {:?}, which are not {} tokens and do not end",
                theirs.tokens, questions.new_tokens
            )));
        }
        let gaps = gaps(ours, prompt, &theirs, reference, limits)?;
        let own = ours.generate(prompt, questions.new_tokens)?;
        // Position of the last token of the prompt, whose logits chose the first new one.
        let from = prompt.len().saturating_sub(1);
        let lead = |position: usize| position.checked_sub(from).and_then(|at| gaps.get(at)).copied();
        let sides = (own, theirs);
        let found =
            GenerationParity::of(questions.new_tokens, sides, String::new(), prompt.len(), &lead, limits.clear_gap);
        if let Some(problem) = found.problem() {
            let (theirs, own) = (&found.reference.tokens, &found.ours.tokens);
            return Err(Failure::new(format_args!("{name} after {prompt:?}: {problem}: {theirs:?}, {own:?} for us")));
        }
        let ended = usize::from(found.reference.ended);
        same += found.first_difference.unwrap_or(found.reference.tokens.len() + ended);
        unclear += usize::from(!found.equal);
    }
    let metrics =
        Metrics::new().with("equal_tokens", same).with("ended_by_an_unclear_token", unclear).ran(ours.kernels.name());
    if same + unclear == 0 { Err(Failure::new("no token was compared")) } else { Ok(metrics) }
}

/// By how much each token of a continuation (and what ended it) led, by the reference's own logits.
fn gaps(
    ours: &Ours,
    prompt: &[u32],
    made: &Continuation,
    reference: &mut dyn Reference,
    limits: &Thresholds,
) -> Result<Vec<f64>, Failure> {
    let (sequence, from) = forced(prompt, made);
    let logits = reference.logits(&sequence, &Positions::List((from..sequence.len()).collect()))?;
    let mut gaps = Vec::new();
    for position in from..sequence.len() {
        let (first, gap) = match logits.row(position) {
            Some(Row::Full(row)) => (distance::top(row, 1).first().copied(), distance::gap(row)),
            Some(Row::Sampled { ids, values, .. }) => match values[..] {
                [first, second, ..] => (ids.first().copied(), f64::from(first) - f64::from(second)),
                _ => (None, f64::NAN),
            },
            None => (None, f64::NAN),
        };
        let as_made = match made.tokens.get(position - from) {
            Some(token) => first == Some(*token),
            None => first.is_some_and(|token| ours.loaded.tokenizer.is_eog(token)),
        };
        // Batches and single tokens are summed in other orders, so what is not clear may tip.
        if !as_made && (gap.is_nan() || gap > limits.clear_gap) {
            return Err(Failure::new(format_args!(
                "{} contradicts itself: it went on with {:?}, where its logits of position {position} have {first:?} first by {gap:.3}",
                reference.name(),
                made.tokens.get(position - from)
            )));
        }
        gaps.push(gap);
    }
    Ok(gaps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_shown_from_where_they_part() {
        let ids: Vec<u32> = (0..60).collect();
        assert_eq!(around(&ids[..3], 1), "[0 1 2]");
        let shown = around(&ids, 10);
        assert!(shown.starts_with("[... 8 9 10 ") && shown.ends_with("31 ...]"), "{shown}");
        assert_eq!(around(&[], 0), "[]");
    }
}
