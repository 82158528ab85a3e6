//! `bitnet perplexity`

use super::{Format, print_json};
use crate::common::{self, RunArgs};
use crate::output::counted;
use bitnet_engine::inference::{Head, Perplexity, perplexity};
use bitnet_engine::settings::Settings;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  bitnet perplexity --model model.gguf --text-file book.txt --format json")]
pub struct Args {
    #[command(flatten)]
    run: RunArgs,
    /// The text; `-` is stdin.
    #[arg(long, value_name = "FILE")]
    text_file: PathBuf,
    /// Output.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(serde::Serialize)]
struct Report<'a> {
    model: String,
    device: &'a str,
    #[serde(flatten)]
    result: Perplexity,
}

impl Args {
    pub(crate) fn run(&self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let compute = self.run.compute.start(settings)?;
        let text = common::text(None, Some(&self.text_file), "text")?;
        let loaded = self.run.load(&compute, settings)?;
        let mut session = self.run.compute.session(&loaded, &compute, Head::Whole)?;
        let bar = common::progress(0, "tokens");
        let result = perplexity(&mut session, &*loaded.tokenizer, &text, &mut |done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        })?;
        bar.finish_and_clear();
        let model = self.run.name(settings);
        let device = compute.device();
        if self.format == Format::Json {
            print_json(&Report { model, device: &device, result })?;
            return Ok(ExitCode::SUCCESS);
        }
        let r = &result;
        writeln!(
            std::io::stdout().lock(),
            "{model} on {device}: {} in {}, {}\n\
             perplexity          {:.4}\nbits per token      {:.4}\nbits per character  {:.4}\n\
             first choice right  {:.2} %",
            counted(r.tokens, "token"),
            counted(r.characters, "character"),
            counted(r.windows, "window"),
            r.perplexity,
            r.bits_per_token,
            r.bits_per_character,
            100.0 * r.top1
        )?;
        Ok(ExitCode::SUCCESS)
    }
}
