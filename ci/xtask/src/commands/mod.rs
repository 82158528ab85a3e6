//! One file per command.

mod benchmark;
mod bless;
mod fixtures;
mod preflight;
mod report;
mod setup_cpp;
mod soak;
mod stage;

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
    /// Measure what is held against the limits in golden/.
    Benchmark(benchmark::Args),
    /// Download under random faults and kill -9, with several processes on one cache.
    Soak(soak::Args),
    /// Write a model without a tokenizer, and a folder for the mock hub that has it.
    Stage(stage::Args),
    /// Build the workers of the C++ references.
    SetupCpp(setup_cpp::Args),
    /// Say whether the C++ references can be used, and what is missing.
    Preflight(preflight::Args),
    /// Continue a prompt: the same as `bitnet infer`.
    Infer(bitnet_cli::commands::infer::Args),
}

impl Command {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Fixtures(args) => args.run(),
            Self::Bless(args) => args.run(),
            Self::Report(args) => args.run(),
            Self::Benchmark(args) => args.run(),
            Self::Soak(args) => args.run(),
            Self::Stage(args) => args.run(),
            Self::SetupCpp(args) => args.run(),
            Self::Preflight(args) => args.run(),
            Self::Infer(args) => args.run(&Settings::from_env()?),
        }
    }
}
