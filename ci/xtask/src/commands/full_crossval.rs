//! `cargo xtask full-crossval`: everything about a model, and one receipt of it.

use crate::crossval::{Comparing, OutArgs, SideArgs, compare, default_receipt, finish, report_usage};
use crate::root::root;
use bitnet_golden::texts;
use bitnet_harness::crossval::report::Asked;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask full-crossval --model golden/models/tiny-bitnet.gguf\n  BITNET_GGUF=model.gguf cargo xtask full-crossval --format json\n\nExit codes: 0 parity, 1 divergence, 2 token mismatch, 3 usage, 4 backend unavailable. The receipt is written in every case but 3."
)]
pub(crate) struct Args {
    #[command(flatten)]
    sides: SideArgs,
    #[command(flatten)]
    out: OutArgs,
    /// Prompts [default: three, of prose and of code].
    #[arg(short, long)]
    prompt: Vec<String>,
    /// auto, raw, instruct or llama3-chat: how prompts are wrapped.
    #[arg(long, default_value = "raw")]
    prompt_template: String,
    /// Tokens that both sides generate.
    #[arg(long, default_value_t = 8)]
    max_tokens: usize,
    /// Leave out the comparison of steps.
    #[arg(long)]
    no_trace: bool,
    /// Timed runs of each side.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,
    /// The receipt [default: <target>/crossval/<model>.receipt.json].
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
}

pub(crate) const NAME: &str = "full-crossval";

/// Prompts for a model of which nothing is known.
const PROMPTS: [&str; 3] = ["In the beginning", "The capital of France is", "fn main() {"];

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        report_usage(NAME, self.out.format, self.go())
    }

    fn go(&self) -> anyhow::Result<ExitCode> {
        let golden = root().join("golden");
        let prompts = if self.prompt.is_empty() { PROMPTS.map(str::to_owned).to_vec() } else { self.prompt.clone() };
        let plan = Comparing {
            command: NAME,
            prompts,
            template: self.prompt_template.clone(),
            asked: Asked {
                positions: None,
                max_tokens: self.max_tokens,
                trace: !self.no_trace,
                cos_tol: self.sides.cos_tol,
            },
            texts: Ok(texts::strings(&golden)?),
            repeats: Ok(usize::from(self.runs)),
        };
        let receipt = match &self.receipt {
            Some(path) => path.clone(),
            None => default_receipt(&self.sides.path()?),
        };
        finish(&compare(&self.sides, &plan)?, &self.out, Some(&receipt))
    }
}
