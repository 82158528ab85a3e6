//! `cargo xtask crossval`: parts of the cross-validation by themselves.

use crate::crossval::{Comparing, OutArgs, SideArgs, compare, finish, report_usage};
use crate::root::root;
use bitnet_golden::texts;
use bitnet_harness::crossval::report::Asked;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask crossval --model golden/models/tiny-bitnet.gguf --tokenizer-parity\n  cargo xtask crossval --model model.gguf --performance --tokenizer-parity --format json\n\nExit codes: 0 parity, 1 divergence, 2 token mismatch, 3 usage, 4 backend unavailable."
)]
#[command(group = clap::ArgGroup::new("part").required(true).multiple(true))]
pub(crate) struct Args {
    #[command(flatten)]
    sides: SideArgs,
    #[command(flatten)]
    out: OutArgs,
    /// Speed of both sides on the same tokens; their answers are compared too, since times of wrong answers say
    /// nothing.
    #[arg(long, group = "part")]
    performance: bool,
    /// Tokens of the texts of golden/texts/strings.json on both sides.
    #[arg(long, group = "part")]
    tokenizer_parity: bool,
    /// The prompt whose continuation is timed.
    #[arg(short, long, default_value = "In the beginning God created the heaven and the earth, and the earth was")]
    prompt: String,
    /// Tokens that are generated.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(2..=4096))]
    max_tokens: u32,
    /// Timed runs of each side.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,
    /// Write a receipt.
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
}

pub(crate) const NAME: &str = "crossval";

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        report_usage(NAME, self.out.format, self.go())
    }

    fn go(&self) -> anyhow::Result<ExitCode> {
        let texts = match self.tokenizer_parity {
            true => Ok(texts::strings(&root().join("golden"))?),
            false => Err("--tokenizer-parity was not given".to_owned()),
        };
        let plan = Comparing {
            command: NAME,
            prompts: if self.performance { vec![self.prompt.clone()] } else { Vec::new() },
            template: "raw".to_owned(),
            asked: Asked {
                positions: None,
                max_tokens: usize::try_from(self.max_tokens)?,
                trace: false,
                cos_tol: self.sides.cos_tol,
            },
            texts,
            repeats: match self.performance {
                true => Ok(usize::from(self.runs)),
                false => Err("--performance was not given".to_owned()),
            },
        };
        finish(&compare(&self.sides, &plan)?, &self.out, self.receipt.as_deref())
    }
}
