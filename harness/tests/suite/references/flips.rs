//! One wrong weight, and the trace must name its step; no wrong weight, and it must name none.

use super::stage::{TEXT, asked, flipped, limits, ours, report, tiny};
use crate::{check, trial};
use bitnet_engine::tokenizer::EncodeOptions;
use bitnet_harness::Failure;
use bitnet_harness::crossval::{Thresholds, Verdict, bisect, replay};
use bitnet_harness::roster::Named;

/// Tensors of a layer, and the steps that compute with them.
const STEPS: [&str; 7] = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];
const LAYERS: usize = 2;

pub(crate) fn trials() -> Vec<Named> {
    let mut out = vec![
        trial("same::parity", same),
        trial("same::bits", bits),
        trial("chunks", chunks),
        trial("flip::output_norm", || found("output_norm.weight", 0, 9, "output_norm", None)),
        trial("flip::attn_sub_norm", || found("blk.1.attn_sub_norm.weight", 0, 3, "blk.1.attn_sub_norm", Some(1))),
        trial("flip::token_embd", embedding),
        trial("flip::without_replay", without_replay),
    ];
    for step in STEPS {
        out.push(trial(format!("flip::{step}"), move || layer(LAYERS - 1, step)));
    }
    for at in 0..LAYERS {
        out.push(trial(format!("layers::{at}"), move || layer(at, "ffn_up")));
    }
    out
}

fn same() -> Result<(), Failure> {
    let (mut a, mut b) = (ours(tiny()?)?, ours(tiny()?)?);
    let (report, _) = report(&mut a, &mut b, &asked(6, true))?;
    check(report.verdict == Verdict::Parity && report.exit_code == 0, format_args!("{report:?}"))?;
    let prompt = report.prompts.first().ok_or_else(|| Failure::new("no prompt"))?;
    let trace = prompt.trace.ran().ok_or_else(|| Failure::new("no trace"))?;
    let exact = trace.steps.iter().all(|s| s.whole.peak == 0.0 && s.own.is_some_and(|d| d.peak == 0.0));
    check(exact && trace.not_shown.is_empty(), format_args!("{trace:?}"))?;
    let positions = prompt.logits.ran().map_or(0, |l| l.comparison.positions.len());
    let generated = prompt.generation.ran().map_or(0, |g| g.reference.tokens.len());
    let ids = prompt.tokens.ran().map_or(0, |t| t.ours.len());
    check(generated == 6 && positions == ids + generated - 1, format_args!("{positions} positions, {generated} tokens"))
}

/// Replaying our own trace gives our own trace, whatever steps are shown.
fn bits() -> Result<(), Failure> {
    let side = ours(tiny()?)?;
    let ids = side.loaded.tokenizer.encode(TEXT, EncodeOptions { add_special: true, parse_special: false })?;
    let whole = side.trace(&ids)?;
    let hidden = ["attn_q", "attn_k_rope", "ffn_gate", "ffn_residual", "attn_sub_norm", "token_embd"];
    let part: Vec<_> = whole.iter().filter(|t| !hidden.iter().any(|h| t.step.ends_with(h))).cloned().collect();
    check(part.len() < whole.len(), "nothing was hidden")?;
    for shown in [&whole, &part] {
        let replayed = replay(&side.loaded.model, side.kernels, &side.pool, (&ids, 0), shown)?;
        let same = replayed.iter().map(|r| &r.result).eq(shown.iter());
        check(same, "a replayed step has other bits than the step")?;
    }
    Ok(())
}

fn chunks() -> Result<(), Failure> {
    let mut side = ours(tiny()?)?;
    let ids: Vec<u32> = (0..20).map(|i| 10 + 7 * i).collect();
    let whole = side.trace(&ids)?;
    side.chunk = 6;
    check(side.trace(&ids)? == whole, "a trace in chunks of six tokens is another one")
}

/// A weight of a linear layer: the trace must name the step, blame it, and say that its input was the same.
fn layer(layer: usize, step: &str) -> Result<(), Failure> {
    let input = match step {
        "attn_output" => "attn_sub_norm",
        "ffn_gate" | "ffn_up" => "ffn_norm",
        "ffn_down" => "ffn_sub_norm",
        _ => "attn_norm",
    };
    let column = loudest(&format!("blk.{layer}.{input}"))?;
    found(&format!("blk.{layer}.{step}.weight"), 5, column, &format!("blk.{layer}.{step}"), Some(layer))
}

/// The column of a step with the largest values. Inputs of a ternary layer are rounded to int8, and one that is
/// rounded to zero in every token hides the weight that it meets: nobody could find that.
fn loudest(step: &str) -> Result<usize, Failure> {
    let trace = ours(tiny()?)?.trace(&tiny_ids()?)?;
    let found = trace.iter().find(|t| t.step == step).ok_or_else(|| Failure::new(format_args!("no step {step}")))?;
    let mut sums = vec![0.0f32; found.width];
    for row in found.values.chunks_exact(found.width) {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x.abs());
    }
    let most = (0..sums.len()).max_by(|&a, &b| sums[a].total_cmp(&sums[b]));
    most.ok_or_else(|| Failure::new("a step without values"))
}

fn found(tensor: &str, row: usize, column: usize, step: &str, layer: Option<usize>) -> Result<(), Failure> {
    let (mut a, mut b) = (ours(tiny()?)?, flipped(tensor, row, column)?);
    let (report, _) = report(&mut a, &mut b, &asked(0, true))?;
    check(report.verdict == Verdict::Divergence && report.exit_code == 1, format_args!("{}", report.reason))?;
    let trace = report.prompts.first().and_then(|p| p.trace.ran()).ok_or_else(|| Failure::new("no trace"))?;
    let first = trace.first.as_ref().ok_or_else(|| Failure::new("no step was named"))?;
    check(first.step == step && first.layer == layer, format_args!("named {first:?} instead of {step}"))?;
    check(first.input_differed == Some(false), format_args!("the input was the same: {first:?}"))?;
    // A matrix has one output per row, a norm one weight per column.
    let worst = if tensor.contains("norm") { column } else { row };
    check(first.column == worst && first.from_reference_inputs, format_args!("{first:?}"))?;
    let others = trace.steps.iter().filter(|s| s.diverges && s.step != step).map(|s| &s.step).collect::<Vec<_>>();
    check(others.is_empty(), format_args!("only {step} is wrong, but {others:?} are blamed too"))
}

/// The embedding of a token that the prompt has.
fn embedding() -> Result<(), Failure> {
    let ids = tiny_ids()?;
    let token = *ids.get(2).ok_or_else(|| Failure::new("a short prompt"))? as usize;
    let (mut a, mut b) = (ours(tiny()?)?, flipped("token_embd.weight", token, 4)?);
    let (report, _) = report(&mut a, &mut b, &asked(0, true))?;
    let trace = report.prompts.first().and_then(|p| p.trace.ran()).ok_or_else(|| Failure::new("no trace"))?;
    let first = trace.first.as_ref().ok_or_else(|| Failure::new("no step was named"))?;
    check(
        (first.step.as_str(), first.layer, first.input_differed) == ("token_embd", None, None)
            && ids.get(first.row).is_some_and(|&id| id as usize == token)
            && first.column == 4,
        format_args!("{first:?}"),
    )
}

fn tiny_ids() -> Result<Vec<u32>, Failure> {
    let side = ours(tiny()?)?;
    Ok(side.loaded.tokenizer.encode(TEXT, EncodeOptions { add_special: true, parse_special: false })?)
}

/// With the replay one step is blamed; without it the first is named too, from the traces alone.
fn without_replay() -> Result<(), Failure> {
    let (a, b) = (ours(tiny()?)?, flipped("blk.0.ffn_down.weight", 3, loudest("blk.0.ffn_sub_norm")?)?);
    let ids = tiny_ids()?;
    let theirs = b.trace(&ids)?;
    let mine = a.trace(&ids)?;
    // The sides are one engine: nothing piles up.
    let limits = Thresholds { drift_peak: 1e-4, ..limits()? };
    let without = bisect(&mine, &theirs, &[], &limits);
    check(without.first.as_ref().is_some_and(|f| f.step == "blk.0.ffn_down"), format_args!("{:?}", without.first))?;
    let replayed = replay(&a.loaded.model, a.kernels, &a.pool, (&ids, 0), &theirs)?;
    let with = bisect(&mine, &theirs, &replayed, &limits);
    let blamed = |steps: &[bitnet_harness::crossval::bisect::StepReport]| steps.iter().filter(|s| s.diverges).count();
    check(blamed(&with.steps) == 1, format_args!("{} steps are blamed", blamed(&with.steps)))
}
