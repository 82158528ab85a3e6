//! `bitnet embed`

use super::{Format, print_json};
use crate::common::{self, ComputeArgs, ModelArgs, TokenizerArgs};
use anyhow::Context;
use bitnet_engine::inference::{Head, Pooling, embed};
use bitnet_engine::settings::Settings;
use bitnet_engine::tokenizer::EncodeOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  bitnet embed --model embedding.gguf --text \"a query\"\n  bitnet embed --model embedding.gguf --text-file texts.txt --lines --format json"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    tokenizer: TokenizerArgs,
    #[command(flatten)]
    compute: ComputeArgs,
    /// The text.
    #[arg(long, conflicts_with = "text_file")]
    text: Option<String>,
    /// A file with the text; `-` is stdin, which is also read if neither is given.
    #[arg(long, value_name = "FILE")]
    text_file: Option<PathBuf>,
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
        let compute = self.compute.start(settings)?;
        let text = common::text(self.text.as_deref(), self.text_file.as_deref(), "text")?;
        let (loaded, _) = common::load_model(&self.model, &self.tokenizer, &self.compute, &compute, settings)?;
        let pooling = self.pooling.map_or_else(|| Pooling::of(&loaded.model), Ok)?;
        let mut session = self.compute.session(&loaded, &compute, Head::Whole)?;
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
                "model": common::model_name(&self.model, settings),
                "device": compute.device(),
                "pooling": pooling,
                "embeddings": embeddings,
            }))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
