//! `bitnet tokenizer`

use crate::common::print_diagnostics;
use crate::output::{counted, say};
use anyhow::Context;
use bitnet_engine::gguf::{GgufFile, is_gguf, same_file};
use bitnet_engine::tokenizer::files::{Hints, load_path};
use bitnet_engine::tokenizer::{Loaded, compiled, from_gguf};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  bitnet tokenizer compile model.gguf -o llama3.tokenizer\n  bitnet tokenizer compile tokenizer.json -o llama3.tokenizer\n  bitnet tokenize --model model.gguf --tokenizer llama3.tokenizer --text \"Hello, world\"\n\nCommands keep the tokenizers that they build compiled in $BITNET_COMPILED_TOKENIZERS, else in the system's folder for caches; with BITNET_COMPILED_TOKENIZERS=off they neither keep nor use any."
)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Compile a tokenizer into one file, which opens in microseconds: it is used from the memory map.
    Compile {
        /// A GGUF with its tokenizer, a tokenizer file, or a folder with tokenizer files.
        source: PathBuf,
        /// The file to write.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let Action::Compile { source, output } = &self.action;
        anyhow::ensure!(
            !same_file(source, output),
            "{} is the input itself, which is never overwritten; name another file with -o",
            output.display()
        );
        let loaded = load(source).with_context(|| format!("cannot compile {}", source.display()))?;
        print_diagnostics(&loaded.diagnostics);
        let bytes = compiled::write(&loaded, output)?;
        let tokenizer = &loaded.tokenizer;
        let pre = tokenizer.pre().map_or_else(String::new, |pre| format!(", pre-tokenizer {pre}"));
        say(format_args!(
            "{}: {}{pre}, {}, {bytes} bytes",
            output.display(),
            tokenizer.kind(),
            counted(tokenizer.vocab_size(), "token")
        ));
        Ok(ExitCode::SUCCESS)
    }
}

fn load(source: &Path) -> anyhow::Result<Loaded> {
    // A folder, or what is shorter, is for others to complain about.
    if is_gguf(source) {
        return Ok(from_gguf(GgufFile::open(source)?.metadata())?);
    }
    Ok(load_path(source, &Hints::default())?)
}
