//! `bitnet detokenize`

use crate::common::{self, ModelArgs, TokenizerArgs};
use anyhow::Context;
use bitnet_engine::settings::Settings;
use std::io::Write;
use std::process::ExitCode;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  bitnet detokenize 12 345 67\n  bitnet tokenize --text Hello | bitnet detokenize --no-special"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    tokenizer: TokenizerArgs,
    /// The ids, separated by spaces or commas, brackets ignored; read from stdin if there are none.
    ids: Vec<String>,
    /// Leave control tokens out of the text.
    #[arg(long)]
    no_special: bool,
}

impl Args {
    pub(crate) fn run(&self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let tokenizer = common::tokenizer(&self.model, &self.tokenizer, settings)?.tokenizer;
        let argument = (!self.ids.is_empty()).then(|| self.ids.join(" "));
        let text = common::text(argument.as_deref(), None, "token ids")?;
        let words = text.split(|c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']')).filter(|w| !w.is_empty());
        let mut ids = Vec::new();
        for word in words {
            let id: u32 = word.parse().with_context(|| format!("`{word}` is not a token id"))?;
            anyhow::ensure!(
                (id as usize) < tokenizer.vocab_size(),
                "token {id} is outside of the vocabulary of {} tokens",
                tokenizer.vocab_size()
            );
            ids.push(id);
        }
        let mut out = std::io::stdout().lock();
        out.write_all(&tokenizer.decode(&ids, self.no_special))?;
        writeln!(out)?;
        Ok(ExitCode::SUCCESS)
    }
}
