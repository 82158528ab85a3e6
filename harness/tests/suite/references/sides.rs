//! Sides that differ, fail or know nothing: none of them may come out as parity.

use super::stage::{TEXT, asked, ours, report, tiny};
use crate::{check, trial};
use bitnet_harness::Failure;
use bitnet_harness::crossval::report::{Asked, CrossvalReport, judge};
use bitnet_harness::crossval::{
    Continuation, Logits, Ours, Positions, Reference, Row, Section, SideError, Traced, Verdict,
};
use bitnet_harness::roster::Named;
use bitnet_kernels::{Kernels, Rope, best, rope_table};
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) fn trials() -> Vec<Named> {
    vec![
        trial("tokens::other", other_tokens),
        trial("tokens::doubled_beginning", doubled_beginning),
        trial("sides::dies", dies),
        trial("sides::knows_nothing", knows_nothing),
        trial("sides::absent", absent),
        trial("sides::nothing_compared", nothing_compared),
        trial("sides::shows_no_steps", shows_no_steps),
        trial("sides::position_beyond", position_beyond),
        trial("sides::other_continuation", other_continuation),
        trial("sides::recorded", recorded),
        trial("sides::a_layer_that_turns_otherwise", other_rotation),
        trial("sides::roundings_that_pile_up", piled_up),
    ]
}

/// A side that passes every question on and spoils some answers.
struct Spoiled {
    inner: Ours,
    how: How,
}

#[derive(Clone, Copy, PartialEq)]
enum How {
    OtherTokens,
    DoubledBeginning,
    DiesInLogits,
    NoSteps,
    OtherContinuation,
    Sampled,
    Piled(f32),
}

impl Reference for Spoiled {
    fn name(&self) -> &str {
        "spoiled"
    }

    fn version(&self) -> serde_json::Value {
        json!({ "spoiled": true })
    }

    fn tokenize(&mut self, text: &str, add: bool, parse: bool) -> Result<Vec<u32>, SideError> {
        let mut ids = self.inner.tokenize(text, add, parse)?;
        match self.how {
            How::OtherTokens => ids.extend([5, 6]),
            How::DoubledBeginning => ids.insert(0, ids.first().copied().unwrap_or(0)),
            _ => {}
        }
        Ok(ids)
    }

    fn logits(&mut self, tokens: &[u32], positions: &Positions) -> Result<Logits, SideError> {
        if self.how == How::DiesInLogits {
            return Err(SideError::failed("spoiled", "logits", "killed by signal 9"));
        }
        let mut logits = self.inner.logits(tokens, positions)?;
        if self.how == How::Sampled {
            logits.rows = logits.rows.into_iter().map(sample).collect();
        }
        if let How::Piled(by) = self.how {
            for row in &mut logits.rows {
                let Row::Full(values) = row else { continue };
                if let Some(least) = values.iter_mut().min_by(|a, b| a.total_cmp(b)) {
                    *least -= by;
                }
            }
        }
        Ok(logits)
    }

    fn generate(&mut self, prompt: &[u32], max_tokens: usize) -> Result<Continuation, SideError> {
        let mut made = self.inner.generate(prompt, max_tokens)?;
        if self.how == How::OtherContinuation
            && let Some(token) = made.tokens.first_mut()
        {
            *token += 1;
        }
        Ok(made)
    }

    fn trace(&mut self, tokens: &[u32]) -> Result<Vec<Traced>, SideError> {
        if self.how == How::NoSteps { Ok(Vec::new()) } else { self.inner.trace(tokens) }
    }
}

/// Our kernels with the keys of one layer turned by angles of another base, as a fork may have them by mistake.
struct OtherBase {
    tokens: usize,
    /// Heads and layers of the model, and the base that it should have.
    heads: usize,
    kv_heads: usize,
    layers: usize,
    base: f32,
    /// Of `rope`: in every layer the heads of all queries, then those of all keys.
    calls: AtomicUsize,
}

const TURNED: usize = 1;

impl Kernels for OtherBase {
    fn name(&self) -> &'static str {
        "other-base"
    }
    bitnet_kernels::forward!(self, best(); prepare matmul rms_norm attention relu2_gate silu_gate add f32_to_f16);
    fn rope(&self, kind: Rope, x: &mut [f32], cos: &[f32], sin: &[f32]) {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let (queries, keys) = (self.tokens * self.heads, self.tokens * self.kv_heads);
        let (layer, at) = (call / (queries + keys) % self.layers, call % (queries + keys));
        if layer != TURNED || at < queries {
            return best().rope(kind, x, cos, sin);
        }
        let (mut c, mut s) = (cos.to_vec(), sin.to_vec());
        rope_table(2 * cos.len(), self.base * 1.02, None, (at - queries) / self.kv_heads, &mut c, &mut s);
        best().rope(kind, x, &c, &s);
    }
}

/// A base that is 2 % off in the keys of one layer: too little for the logits' limits, and the steps name the layer.
fn other_rotation() -> Result<(), Failure> {
    let run = |trace| {
        let mut fork = ours(tiny()?)?;
        let config = &fork.loaded.model.config;
        let tokens = fork.prompt(TEXT, false)?.len();
        let base = fork.loaded.file.metadata().f32("bitnet-b1.58.rope.freq_base")?.unwrap_or(10_000.0);
        fork.kernels = Box::leak(Box::new(OtherBase {
            tokens,
            heads: config.heads,
            kv_heads: config.kv_heads,
            layers: config.block_count,
            base,
            calls: AtomicUsize::new(0),
        }));
        Ok::<_, Failure>(report(&mut ours(tiny()?)?, &mut fork, &asked(0, trace))?.0)
    };
    let logits = run(false)?;
    let found = logits.prompts.first().and_then(|p| p.logits.ran()).ok_or_else(|| Failure::new("no logits"))?;
    check(found.comparison.largest_abs > 0.0, "the fault changes nothing")?;
    check(logits.verdict == Verdict::Parity, format_args!("the logits show it: {}", logits.reason))?;
    let steps = run(true)?;
    check(
        steps.verdict == Verdict::Divergence && steps.reason.contains(&format!("blk.{TURNED}.attn_k_rope")),
        &steps.reason,
    )
}

/// One unlikely logit of every row is further off than its limit, and no step is.
fn piled_up() -> Result<(), Failure> {
    let run = |by, trace| spoiled(How::Piled(by), &asked(0, trace));
    let explained = run(4.0, true)?;
    check(
        explained.verdict == Verdict::Parity && explained.reason.contains("which roundings explain"),
        &explained.reason,
    )?;
    let unexplained = run(4.0, false)?;
    check(unexplained.verdict == Verdict::Divergence, format_args!("without steps: {}", unexplained.reason))?;
    let far = run(20.0, true)?;
    check(far.verdict == Verdict::Divergence && far.reason.contains("max_abs"), &far.reason)
}

/// The twelve most likely tokens and every hundredth of the others.
fn sample(row: Row) -> Row {
    let Row::Full(all) = row else { return row };
    let top = bitnet_harness::crossval::distance::top(&all, 12);
    let rest = (0..u32::try_from(all.len()).unwrap_or(0)).step_by(100).filter(|id| !top.contains(id));
    let ids: Vec<u32> = top.iter().copied().chain(rest).collect();
    let values = ids.iter().filter_map(|&id| all.get(id as usize).copied()).collect();
    Row::Sampled { ids, values, top: top.len(), log_sum: bitnet_harness::crossval::distance::log_sum_exp(&all) }
}

fn spoiled(how: How, asked: &Asked) -> Result<CrossvalReport, Failure> {
    let mut reference = Spoiled { inner: ours(tiny()?)?, how };
    Ok(report(&mut ours(tiny()?)?, &mut reference, asked)?.0)
}

fn nothing_behind_the_gate(report: &CrossvalReport) -> Result<(), Failure> {
    let behind = report.prompts.iter().any(|p| p.logits.ran().is_some() || p.generation.ran().is_some());
    check(!behind, "something was compared although the tokens differ")
}

fn other_tokens() -> Result<(), Failure> {
    let report = spoiled(How::OtherTokens, &asked(4, true))?;
    check(report.verdict == Verdict::TokenMismatch && report.exit_code == 2, &report.reason)?;
    nothing_behind_the_gate(&report)?;
    let tokens = report.prompts.first().and_then(|p| p.tokens.ran()).ok_or_else(|| Failure::new("no tokens"))?;
    check(
        tokens.reference.len() == tokens.ours.len() + 2 && tokens.first_difference == Some(tokens.ours.len()),
        format_args!("{tokens:?}"),
    )
}

fn doubled_beginning() -> Result<(), Failure> {
    let report = spoiled(How::DoubledBeginning, &asked(4, false))?;
    check(report.exit_code == 2, &report.reason)?;
    let tokens = report.prompts.first().and_then(|p| p.tokens.ran()).ok_or_else(|| Failure::new("no tokens"))?;
    check(tokens.hints.iter().any(|h| h.code == "bos_doubled"), format_args!("{:?}", tokens.hints))
}

fn dies() -> Result<(), Failure> {
    let report = spoiled(How::DiesInLogits, &asked(4, true))?;
    check(
        report.verdict == Verdict::Unavailable && report.exit_code == 4 && report.reason.contains("signal 9"),
        &report.reason,
    )?;
    let prompt = report.prompts.first().ok_or_else(|| Failure::new("no prompt"))?;
    check(matches!(prompt.logits, Section::Failed { .. }), "its logits are said to be something else than failed")?;
    check(matches!(prompt.trace, Section::NotRun { .. }), "a trace without logits")
}

struct KnowsNothing;

impl Reference for KnowsNothing {
    fn name(&self) -> &str {
        "nothing"
    }

    fn version(&self) -> serde_json::Value {
        json!({})
    }

    fn tokenize(&mut self, _: &str, _: bool, _: bool) -> Result<Vec<u32>, SideError> {
        Err(SideError::absent("nothing", "tokens", "they were not recorded"))
    }

    fn logits(&mut self, _: &[u32], _: &Positions) -> Result<Logits, SideError> {
        Err(SideError::absent("nothing", "logits", "they were not recorded"))
    }

    fn generate(&mut self, _: &[u32], _: usize) -> Result<Continuation, SideError> {
        Err(SideError::absent("nothing", "generation", "it was not recorded"))
    }

    fn trace(&mut self, _: &[u32]) -> Result<Vec<Traced>, SideError> {
        Err(SideError::absent("nothing", "trace", "it was not recorded"))
    }
}

fn knows_nothing() -> Result<(), Failure> {
    let (report, _) = report(&mut ours(tiny()?)?, &mut KnowsNothing, &asked(4, true))?;
    check(report.exit_code == 4 && report.reason == "nothing was compared", &report.reason)
}

/// No reference at all.
fn absent() -> Result<(), Failure> {
    let (mut report, _) = report(&mut ours(tiny()?)?, &mut KnowsNothing, &asked(4, true))?;
    report.prompts.clear();
    report.reference = Section::not_run("the worker is not built: cargo xtask setup-cpp bitnet");
    let (verdict, reason) = judge(&report);
    check(verdict == Verdict::Unavailable && reason.contains("setup-cpp"), reason)
}

fn nothing_compared() -> Result<(), Failure> {
    let mut reference = ours(tiny()?)?;
    let nothing = Asked { positions: Some(Vec::new()), ..asked(0, false) };
    let (report, _) = report(&mut ours(tiny()?)?, &mut reference, &nothing)?;
    check(report.verdict == Verdict::Divergence && report.reason.contains("no position"), &report.reason)
}

fn shows_no_steps() -> Result<(), Failure> {
    let report = spoiled(How::NoSteps, &asked(0, true))?;
    check(report.exit_code == 1 && report.reason.contains("no step was compared"), &report.reason)
}

fn position_beyond() -> Result<(), Failure> {
    let beyond = Asked { positions: Some(vec![0, 999]), ..asked(2, false) };
    let report = spoiled(How::NoSteps, &beyond)?;
    check(report.exit_code == 3 && report.reason.contains("999"), &report.reason)
}

fn other_continuation() -> Result<(), Failure> {
    let report = spoiled(How::OtherContinuation, &asked(4, false))?;
    let generation = report.prompts.first().and_then(|p| p.generation.ran());
    let generation = generation.ok_or_else(|| Failure::new("no generation"))?;
    check(generation.first_difference == Some(0) && generation.gap.is_some(), format_args!("{generation:?}"))?;
    // Whether it counts depends on how clear the model is about its first token.
    let clear = generation.gap.is_some_and(|gap| gap > report.limits.clear_gap);
    check(generation.agrees != clear && (report.exit_code == 1) == clear, &report.reason)
}

/// A recording has some logits of each row; what it has agrees.
fn recorded() -> Result<(), Failure> {
    let report = spoiled(How::Sampled, &asked(3, false))?;
    check(report.exit_code == 0, &report.reason)?;
    let logits = report.prompts.first().and_then(|p| p.logits.ran()).ok_or_else(|| Failure::new("no logits"))?;
    let exact = logits.comparison.positions.iter().all(|p| p.max_abs == 0.0 && p.kl < 1e-9 && p.top_k == 1.0);
    check(exact, format_args!("{:?}", logits.comparison))
}
