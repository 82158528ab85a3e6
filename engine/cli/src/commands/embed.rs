//! `bitnet embed`

use super::{Format, print_json};
use crate::common::{RunArgs, TextArgs};
use anyhow::Context;
use bitnet_engine::inference::{Head, Pooling, embed};
use bitnet_engine::settings::Settings;
use bitnet_engine::tokenizer::EncodeOptions;
use std::io::Write;
use std::process::ExitCode;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  bitnet embed --model embedding.gguf --text \"a query\"\n  bitnet embed --model embedding.gguf --text-file texts.txt --lines --format json"
)]
pub struct Args {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    text: TextArgs,
    /// Every line is a text of its own.
    #[arg(long)]
    lines: bool,
    /// How the vectors of a text's tokens become one [default: what the file says, else last].
    #[arg(long, value_name = "mean|cls|last")]
    pooling: Option<Pooling>,
    /// text prints the numbers of each vector in a line.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(serde::Serialize)]
struct Embedding {
    tokens: usize,
    embedding: Vec<f32>,
}

impl Args {
    pub(crate) fn run(&self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let compute = self.run.compute.start(settings)?;
        let text = self.text.read()?;
        let loaded = self.run.load(&compute, settings)?;
        let pooling = self.pooling.map_or_else(|| Pooling::of(&loaded.model), Ok)?;
        let mut session = self.run.compute.session(&loaded, &compute, Head::Whole)?;
        let texts: Vec<&str> = if self.lines { text.lines().collect() } else { vec![&text] };
        let mut embeddings = Vec::with_capacity(texts.len());
        for (i, text) in texts.into_iter().enumerate() {
            let ids = loaded.tokenizer.encode(text, EncodeOptions { add_special: true, parse_special: false })?;
            let embedding = embed(&mut session, &ids, pooling).with_context(|| format!("text {}", i + 1))?;
            if self.format == Format::Text {
                let line: Vec<String> = embedding.iter().map(f32::to_string).collect();
                writeln!(std::io::stdout().lock(), "{}", line.join(" "))?;
            }
            embeddings.push(Embedding { tokens: ids.len(), embedding });
        }
        if self.format == Format::Json {
            print_json(&serde_json::json!({
                "model": self.run.name(settings),
                "device": compute.device(),
                "pooling": pooling,
                "embeddings": embeddings,
            }))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
