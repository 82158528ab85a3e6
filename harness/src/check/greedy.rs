//! `greedy`: the most likely token at every position of a fixed text, and a free continuation, token by token. The oracle and the
//! emulation of a card, which are slow, are asked a short continuation of the first prompt, unless the oracle blesses.

use super::{Check, Context, Failure};
use crate::axes::Cell;
use crate::golden::{Mode, ORACLE_DEVICE};
use crate::metrics::Metrics;
use crate::models;
use bitnet_engine::device::{Opened, cuda};
use bitnet_engine::inference::{GenerateOptions, Want, argmax, generate};
use bitnet_engine::load::Loaded;
use bitnet_engine::tokenizer::EncodeOptions;
use bitnet_golden::texts;
use serde::Serialize;
use std::sync::atomic::AtomicBool;

pub struct Greedy;

/// What is held against the snapshot.
#[derive(Debug, Serialize, PartialEq)]
pub struct Answer {
    prompt: String,
    /// Most likely token after each position of the prompt, teacher-forced.
    argmax: String,
    /// Tokens of the free run.
    tokens: String,
    text: String,
}

impl Check for Greedy {
    fn name(&self) -> &'static str {
        "greedy"
    }

    fn run(&self, cell: &Cell, ctx: &Context) -> Result<Metrics, Failure> {
        let loaded = models::loaded(ctx, cell)?;
        let plan = texts::plan(&ctx.paths.golden, &cell.model)?;
        if plan.prompts.is_empty() || plan.new_tokens == 0 {
            return Err(Failure::new(
                "golden/texts/plan.toml gives this model no prompts or no tokens: nothing would be checked",
            ));
        }
        let device = models::device(cell)?;
        let ask = |prompts: &[String], new_tokens| -> Result<Vec<Answer>, Failure> {
            prompts.iter().map(|prompt| answer(&loaded, &device, prompt, new_tokens)).collect()
        };
        let slow = [cuda::EMULATED, ORACLE_DEVICE].contains(&cell.device.as_str()) && plan.start_new_tokens > 0;
        let mut answers = Vec::new();
        if slow {
            answers = ask(&plan.prompts[..1], plan.start_new_tokens)?;
            ctx.assert_golden_json(cell, "start", &answers)?;
        }
        if !slow || ctx.golden.mode() == Mode::Bless {
            answers = ask(&plan.prompts, plan.new_tokens)?;
            ctx.assert_golden_json(cell, "", &answers)?;
        }
        Ok(Metrics::new()
            .with("prompts", answers.len())
            .with("new_tokens", answers.iter().map(|answer| answer.tokens.split(' ').count()).sum::<usize>())
            .ran(device.name())
            .of_model(loaded.file.content_hash()))
    }
}

/// The answer of a model to a prompt on a device.
pub fn answer(loaded: &Loaded, device: &Opened, prompt: &str, new_tokens: usize) -> Result<Answer, Failure> {
    let tokenizer = &*loaded.tokenizer;
    let ids = tokenizer.encode(prompt, EncodeOptions { add_special: true, parse_special: false })?;
    let mut session = models::session(loaded, device.clone(), 1, 16, ids.len() + new_tokens + 1)?;
    let mut forced = Vec::new();
    session.forward(&ids, Want::All, &mut |_, logits| forced.push(argmax(logits)))?;
    session.truncate(0);
    let options = GenerateOptions { max_tokens: Some(new_tokens), ignore_eos: true, ..Default::default() };
    let free = generate(&mut session, tokenizer, &ids, &options, &AtomicBool::new(false), &mut |_| {})?;
    let join = |ids: &[u32]| ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    Ok(Answer { prompt: prompt.to_owned(), argmax: join(&forced), tokens: join(&free.tokens), text: free.text })
}
