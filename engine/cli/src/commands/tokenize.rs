//! `bitnet tokenize`

use super::print_json;
use crate::common::{self, ModelArgs, TokenizerArgs};
use bitnet_engine::settings::Settings;
use bitnet_engine::tokenizer::EncodeOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  bitnet tokenize --text \"Hello, world\"\n  bitnet tokenize --model model.gguf --text-file page.txt --format pieces\n  echo -n text | bitnet tokenize --no-bos"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    tokenizer: TokenizerArgs,
    /// The text.
    #[arg(long, conflicts_with = "text_file")]
    text: Option<String>,
    /// A file with the text; `-` is stdin, which is also read if neither is given.
    #[arg(long, value_name = "FILE")]
    text_file: Option<PathBuf>,
    /// Add no beginning- or end-of-sequence token.
    #[arg(long)]
    no_bos: bool,
    /// Read control tokens such as `<|endoftext|>` in the text as plain characters.
    #[arg(long)]
    no_special: bool,
    /// Output.
    #[arg(long, value_enum, default_value_t = Output::Ids)]
    format: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// The ids in one line.
    Ids,
    /// One token a line: id and text.
    Pieces,
    /// One JSON document.
    Json,
}

#[derive(serde::Serialize)]
struct Piece {
    id: u32,
    text: String,
}

impl Args {
    pub(crate) fn run(&self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let tokenizer = common::tokenizer(&self.model, &self.tokenizer, settings)?.tokenizer;
        let text = common::text(self.text.as_deref(), self.text_file.as_deref(), "text")?;
        let options = EncodeOptions { add_special: !self.no_bos, parse_special: !self.no_special };
        let ids = tokenizer.encode(&text, options)?;
        let piece = |id: u32| {
            let bytes = tokenizer.token_bytes(id, true).unwrap_or_default();
            Piece { id, text: String::from_utf8_lossy(&bytes).into_owned() }
        };
        let mut out = std::io::stdout().lock();
        match self.format {
            Output::Ids => {
                let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
                writeln!(out, "{}", ids.join(" "))?;
            }
            Output::Pieces => {
                for p in ids.iter().map(|&id| piece(id)) {
                    writeln!(out, "{:>7} {:?}", p.id, p.text)?;
                }
            }
            Output::Json => {
                drop(out);
                let pieces: Vec<Piece> = ids.iter().map(|&id| piece(id)).collect();
                print_json(&serde_json::json!({
                    "tokenizer": tokenizer.kind(),
                    "pre": tokenizer.pre(),
                    "ids": ids,
                    "pieces": pieces,
                }))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
