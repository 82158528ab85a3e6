//! `cargo xtask`: what developers and CI do with the suite. One file per command in `commands/`.

mod commands;
mod root;

use clap::Parser;
use std::process::ExitCode;

/// Developer commands of BitNet.rs.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: commands::Command,
}

fn main() -> ExitCode {
    bitnet_cli::report(Cli::parse().command.run())
}
