//! `cargo xtask crossval-per-token`: a prompt through our engine and through a C++ reference, token by token.

use crate::crossval::{Comparing, OutArgs, SideArgs, compare, finish, report_usage};
use anyhow::{Context, ensure};
use bitnet_harness::crossval::report::Asked;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask crossval-per-token --model golden/models/tiny-bitnet.gguf --prompt \"In the beginning\" --max-tokens 8\n  cargo xtask crossval-per-token --model model.gguf --cpp-backend llama --prompt \"Hello\" --trace --format json\n\nExit codes: 0 parity, 1 divergence, 2 token mismatch, 3 usage, 4 backend unavailable."
)]
pub(crate) struct Args {
    #[command(flatten)]
    sides: SideArgs,
    #[command(flatten)]
    out: OutArgs,
    /// The text; several are compared one after another with the model loaded once.
    #[arg(short, long, required = true)]
    prompt: Vec<String>,
    /// How the prompt is wrapped: auto, raw, instruct, llama3-chat, or the name of one of the model's templates.
    #[arg(long, default_value = "raw")]
    prompt_template: String,
    /// Tokens that both sides generate; their logits are compared too.
    #[arg(long, default_value_t = 4)]
    max_tokens: usize,
    /// Positions whose logits are compared: all, or a list as 0,2,5-8.
    #[arg(long, default_value = "all")]
    positions: String,
    /// Compare every step of the forward pass and name the first that diverges: the default.
    #[arg(long, overrides_with = "no_trace")]
    trace: bool,
    /// Compare logits alone. A small fault in one layer may then pass.
    #[arg(long)]
    no_trace: bool,
    /// Write a receipt.
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
}

pub(crate) const NAME: &str = "crossval-per-token";

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        report_usage(NAME, self.out.format, self.go())
    }

    fn go(&self) -> anyhow::Result<ExitCode> {
        let plan = Comparing {
            command: NAME,
            prompts: self.prompt.clone(),
            template: self.prompt_template.clone(),
            asked: Asked {
                positions: positions(&self.positions)?,
                max_tokens: self.max_tokens,
                trace: self.trace || !self.no_trace,
                cos_tol: self.sides.cos_tol,
            },
            texts: Err("the prompts' tokens are compared above".to_owned()),
            repeats: Err("see full-crossval".to_owned()),
        };
        finish(&compare(&self.sides, &plan)?, &self.out, self.receipt.as_deref())
    }
}

/// `all`, or numbers and ranges joined by commas.
fn positions(text: &str) -> anyhow::Result<Option<Vec<usize>>> {
    if text == "all" {
        return Ok(None);
    }
    let number = |text: &str| text.trim().parse::<usize>();
    let mut out = Vec::new();
    for part in text.split(',') {
        let wrong = || format!("--positions: `{part}` is neither `all`, a number, nor a range like 5-8");
        match part.split_once('-') {
            None => out.push(number(part).with_context(wrong)?),
            Some((first, last)) => {
                let (first, last) = (number(first).with_context(wrong)?, number(last).with_context(wrong)?);
                ensure!(first <= last && last - first < 1 << 20, wrong());
                out.extend(first..=last);
            }
        }
    }
    out.sort_unstable();
    out.dedup();
    Ok(Some(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_lists_of_numbers_and_ranges() {
        assert_eq!(positions("all").expect("all"), None);
        assert_eq!(positions("7,0,2-4,3").expect("list"), Some(vec![0, 2, 3, 4, 7]));
        for bad in ["", "x", "4-2", "1,,2", "-3", "0-99999999999"] {
            assert!(positions(bad).is_err(), "{bad}");
        }
    }
}
