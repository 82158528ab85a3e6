//! `bitnet detokenize`

use crate::common::{self, ModelArgs};
use anyhow::Context;
use bitnet_engine::settings::Settings;
use bitnet_engine::tokenizer::from_gguf;
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
    /// The ids, separated by spaces or commas, brackets ignored; read from stdin if there are none.
    ids: Vec<String>,
    /// Leave control tokens out of the text.
    #[arg(long)]
    no_special: bool,
}

impl Args {
    pub(crate) fn run(&self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let file = self.model.open(settings)?;
        let loaded = from_gguf(file.metadata())
            .with_context(|| format!("cannot use {}", common::model_name(&self.model, settings)))?;
        common::print_diagnostics(&loaded.diagnostics);
        let tokenizer = loaded.tokenizer;
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
