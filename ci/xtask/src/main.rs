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
            let args: Vec<String> = std::env::args().skip(1).collect();
            let command = args.first().map(String::as_str);
            let code = commands::usage_code(command);
            if crossval::wants_json(&args) {
                let _ = crossval::print_usage(command.unwrap_or_default(), code, error.to_string().trim());
            }
            return ExitCode::from(code);
        }
    };
    bitnet_cli::report(cli.command.run())
}
