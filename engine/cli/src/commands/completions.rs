//! `bitnet completions`

use clap::CommandFactory;
use std::io::Write;
use std::process::ExitCode;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  bitnet completions bash > ~/.local/share/bash-completion/completions/bitnet")]
pub struct Args {
    /// The shell.
    shell: clap_complete::Shell,
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut crate::Cli::command(), "bitnet", &mut script);
        std::io::stdout().write_all(&script)?;
        Ok(ExitCode::SUCCESS)
    }
}
