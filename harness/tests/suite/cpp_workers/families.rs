//! Every generated model that is held against a reference, whatever its family.

use super::{PATIENCE, Stage, check};
use bitnet_golden::matrix::Source;
use bitnet_harness::env::Env;
use bitnet_harness::models;
use bitnet_harness::setup::declare;
use bitnet_harness::{Context, Failure};
use cpp_sys::{LoadOptions, Positions, TraceStep};
use std::collections::BTreeSet;

/// Longer than every window and than the context from which YaRN stretches.
const TEXT: &str = "In the beginning God created the heaven and the earth. And the earth was without form, and void.";

/// Steps of block 0 that are asked of each family beside those of [`ALL`].
const STEPS: &[(&str, &str)] = &[
    (
        "gpt2",
        "attn_qkv attn_qkv_bias attn attn_output_bias ffn_up_bias ffn_act ffn_down_bias attn_residual ffn_residual",
    ),
    ("qwen2", "attn_q_bias attn_k_bias attn_v_bias attn_q_rope attn_k_rope ffn_gate ffn_act"),
    ("qwen3", "attn_q_norm attn_k_norm attn_q_rope attn_k_rope ffn_gate ffn_act"),
    ("minicpm", "attn_q_rope attn_k_rope attn_output_scale ffn_gate ffn_act ffn_scale"),
    ("gemma3", "attn_q_norm attn_q_rope attn_q_scale attn_k_rope attn_post_norm ffn_gate ffn_act ffn_post_norm"),
    ("maple", "attn_q_norm attn_k_norm attn_q_rope attn_k_rope ffn_gate_inp ffn_experts"),
    ("llama", "attn_q_rope attn_k_rope ffn_gate ffn_act"),
    ("bitnet", "attn_q_rope attn_k_rope attn_sub_norm ffn_gate ffn_act ffn_sub_norm"),
    ("bitnet-b1.58", "attn_q_rope attn_k_rope attn_sub_norm ffn_gate ffn_act ffn_sub_norm"),
];
const ALL: &str = "attn_norm attn attn_output attn_residual ffn_norm ffn_residual";

pub(crate) fn families(stage: &Stage) -> Result<(), Failure> {
    let problems = |found: Vec<_>| Failure::new(format_args!("golden/ is not consistent: {found:?}"));
    let declaration = declare(&stage.paths.golden).map_err(problems)?;
    let asked: BTreeSet<(&str, &str)> = declaration
        .cells
        .iter()
        .filter(|d| d.cell.check == "logits" && d.cell.backend == stage.backend.name() && d.unsupported.is_none())
        .map(|d| (d.cell.model.as_str(), d.cell.quant.as_str()))
        .collect();
    let ctx = Context::new(declaration.matrix.clone(), stage.paths.as_ref().clone(), &Env::read());
    let (mut session, folder) = (stage.session(PATIENCE)?, tempfile::tempdir()?);
    let mut opened = 0;
    for (name, quant) in asked {
        let Some(model) = ctx.matrix.model(name).filter(|m| matches!(m.source, Source::Generated { .. })) else {
            continue;
        };
        let path = folder.path().join(format!("{name}-{quant}.gguf"));
        let mut bytes = Vec::new();
        models::file(&ctx, model, quant)?.copy_to(&mut bytes)?;
        std::fs::write(&path, bytes)?;
        session.load(&path, LoadOptions::default())?;
        let tokens = session.tokenize(TEXT, true, false)?;
        let logits = session.logits(&tokens, &Positions::All, 16)?;
        let spread = logits.values.chunks(logits.vocab).map(|row| {
            let (low, high) = row.iter().fold((f32::MAX, f32::MIN), |(low, high), &x| (low.min(x), high.max(x)));
            if row.iter().all(|x| x.is_finite()) { high - low } else { f32::NAN }
        });
        let (least, most) = spread.fold((f32::MAX, f32::MIN), |(least, most), x| (least.min(x), most.max(x)));
        // Largest less smallest of some hundred values of one bell curve: about six times its width.
        check(least > 1.0 && most < 50.0, format_args!("{name} in {quant}: logits spread from {least} to {most}"))?;
        shows(&session.trace(&tokens, &[])?, &model.family)
            .map_err(|what| Failure::new(format_args!("{name} in {quant}: {what}")))?;
        opened += 1;
    }
    check(opened > 10, format_args!("only {opened} models are held against {}", stage.backend.title()))
}

/// Every step has a name of ours, each once, and those of the family are there.
fn shows(trace: &[TraceStep], family: &str) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for step in trace {
        let name = step.step.as_deref().ok_or_else(|| format!("{} has no step", step.tensor))?;
        if !seen.insert(name) {
            return Err(format!("{name} comes twice"));
        }
    }
    let own = STEPS.iter().find(|(name, _)| *name == family).map(|(_, steps)| *steps).ok_or("no steps are known")?;
    let block = format!("{ALL} {own}");
    let mut wanted: Vec<String> = block.split(' ').map(|step| format!("blk.0.{step}")).collect();
    wanted.extend(["token_embd", "output_norm", "output"].map(str::to_owned));
    wanted.extend((family == "gpt2").then(|| "position_embd".to_owned()));
    wanted.extend(matches!(family, "minicpm" | "gemma3").then(|| "embd_scale".to_owned()));
    let missing: Vec<&String> = wanted.iter().filter(|step| !seen.contains(step.as_str())).collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("steps that are not shown: {missing:?}")) }
}
