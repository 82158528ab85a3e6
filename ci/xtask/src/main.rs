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
        // Help and version are not errors.
        Err(error) if !error.use_stderr() => error.exit(),
        Err(error) => {
            // What cannot be printed has nobody to read it.
            let _ = error.print();
            let command = std::env::args().nth(1);
            let code = commands::usage_code(command.as_deref());
            if bitnet_cli::wants_json() {
                let _ = crossval::print_usage(&command.unwrap_or_default(), code, error.to_string().trim());
            }
            return ExitCode::from(code);
        }
    };
    bitnet_cli::report(cli.command.run(), bitnet_cli::wants_json())
}
