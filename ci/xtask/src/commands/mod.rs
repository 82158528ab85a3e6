//! One file per command.

mod bless;
mod fixtures;
mod report;

use bitnet_engine::settings::Settings;
use std::process::ExitCode;

/// The commands.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Fetch the models and vocabularies that the repository does not hold.
    Fixtures(fixtures::Args),
    /// Write golden snapshots from the scalar oracle.
    Bless(bless::Args),
    /// Make reports from the records of one or more runs of the matrix.
    Report(report::Args),
    /// Continue a prompt: the same as `bitnet infer`.
    Infer(bitnet_cli::commands::infer::Args),
}

impl Command {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Fixtures(args) => args.run(),
            Self::Bless(args) => args.run(),
            Self::Report(args) => args.run(),
            Self::Infer(args) => args.run(&Settings::from_env()?),
        }
    }
}
