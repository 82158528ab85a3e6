//! `cargo xtask`: what developers and CI do with the suite. One file per command in `commands/`.

mod commands;
mod crossval;
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
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are no errors.
        Err(error) if !error.use_stderr() => error.exit(),
        Err(error) => {
            // What cannot be printed has nobody to read it.
            let _ = error.print();
            return ExitCode::from(commands::usage_code(std::env::args().nth(1).as_deref()));
        }
    };
    bitnet_cli::report(cli.command.run())
}
