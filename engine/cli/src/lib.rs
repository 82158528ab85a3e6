//! The command line of BitNet.rs: thin commands over the engine.
//!
//! stdout carries results only; progress, diagnostics and timings go to stderr. Exit codes: 0 done, 1 an error (on
//! stderr), 2 wrong usage, 130 ended by Ctrl-C.

pub mod commands;
mod common;
mod embedded;
mod generation;
mod memory;
mod model;
mod output;

use clap::Parser;
use std::io::IsTerminal;
use std::process::ExitCode;

/// Run ternary (BitNet b1.58) language models: a GGUF in, text out.
#[derive(Debug, Parser)]
#[command(
    name = "bitnet",
    version,
    after_help = "Examples:\n  bitnet infer --prompt \"In the beginning\"\n  bitnet infer --model model.gguf --prompt \"The capital of France is\" --temperature 0\n  bitnet infer --model hf:microsoft/bitnet-b1.58-2B-4T-gguf --auto-download --prompt \"Why is the sky blue?\"\n  bitnet inspect model.gguf\n  bitnet convert model.gguf --to q8_0 -o model-q8.gguf\n  bitnet download HuggingFaceTB/SmolLM2-135M-Instruct"
)]
pub struct Cli {
    /// Say more on stderr (twice: everything).
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: commands::Command,
}

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = match cli.verbose {
        0 => tracing::Level::WARN,
        1 => tracing::Level::INFO,
        _ => tracing::Level::TRACE,
    };
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).without_time();
    // It would panic where stderr cannot be written.
    let log = log.log_internal_errors(false);
    // Its default asks NO_COLOR, but not whether anybody sees the colours.
    if std::io::stderr().is_terminal() {
        log.init()
    } else {
        log.with_ansi(false).init()
    }
    report(cli.command.run())
}

/// Turns a command's result into an exit code, the error with its causes on stderr.
pub fn report(result: anyhow::Result<ExitCode>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) => {
            // A reader that closed the pipe has what it wanted.
            if error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) {
                return ExitCode::SUCCESS;
            }
            output::say(format_args!("error: {}", output::with_causes(&error)));
            ExitCode::FAILURE
        }
    }
}
