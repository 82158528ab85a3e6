//! One file per command.

pub mod bench;
pub mod cache;
pub mod chat;
pub mod completions;
pub mod convert;
pub mod detokenize;
pub mod devices;
pub mod discover;
pub mod download;
pub mod embed;
pub mod infer;
pub mod inspect;
pub mod perplexity;
pub mod repair_tokenizer;
pub mod tokenize;
pub mod tokenizer;
pub mod verify;

use bitnet_engine::settings::Settings;
use std::process::ExitCode;

/// The commands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Continue a prompt, streaming the text.
    Infer(infer::Args),
    /// Talk with a model, turn by turn.
    Chat(chat::Args),
    /// Turn a text into token ids.
    Tokenize(tokenize::Args),
    /// Compile tokenizers.
    Tokenizer(tokenizer::Args),
    /// Turn token ids into a text.
    Detokenize(detokenize::Args),
    /// Show what a GGUF holds and what would run.
    Inspect(inspect::Args),
    /// Show where the tokenizer of a model comes from, step by step, and why.
    Discover(discover::Args),
    /// Write a copy of a model with the tokenizer keys that it lacks.
    RepairTokenizer(repair_tokenizer::Args),
    /// Turn texts into vectors.
    Embed(embed::Args),
    /// Measure how well a model predicts a text.
    Perplexity(perplexity::Args),
    /// Say whether a model is whole and this machine computes it right.
    Verify(verify::Args),
    /// Measure how fast a model runs here.
    Bench(bench::Args),
    /// Write a model in another weight format, or with other metadata.
    Convert(convert::Args),
    /// Fetch files from the HuggingFace hub, verified and cached.
    Download(download::Args),
    /// Look after the cache of downloads.
    Cache(cache::Args),
    /// List the devices and whether they can be used here.
    Devices(devices::Args),
    /// Print a completion script for a shell.
    Completions(completions::Args),
}

impl Command {
    /// Runs the command with the process's environment.
    ///
    /// # Errors
    /// What went wrong, with its causes.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let settings = Settings::from_env()?;
        match self {
            Self::Infer(args) => args.run(&settings),
            Self::Chat(args) => args.run(&settings),
            Self::Tokenize(args) => args.run(&settings),
            Self::Tokenizer(args) => args.run(),
            Self::Detokenize(args) => args.run(&settings),
            Self::Inspect(args) => args.run(&settings),
            Self::Discover(args) => args.run(&settings),
            Self::RepairTokenizer(args) => args.run(),
            Self::Embed(args) => args.run(&settings),
            Self::Perplexity(args) => args.run(&settings),
            Self::Verify(args) => args.run(&settings),
            Self::Bench(args) => args.run(&settings),
            Self::Convert(args) => args.run(&settings),
            Self::Download(args) => args.run(),
            Self::Cache(args) => args.run(),
            Self::Devices(args) => args.run(&settings),
            Self::Completions(args) => args.run(),
        }
    }
}

/// Output of a command that prints one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[value(alias = "table")]
    Text,
    /// One JSON document.
    Json,
}

/// Prints a JSON document to stdout.
pub(crate) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    use std::io::Write;
    let text = serde_json::to_string_pretty(value).map_err(std::io::Error::from)?;
    writeln!(std::io::stdout().lock(), "{}", crate::output::json(&text))?;
    Ok(())
}
