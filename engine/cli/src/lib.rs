//! The command line of BitNet.rs: thin commands over the engine.
//!
//! stdout carries results only; progress, diagnostics and timings go to stderr. Exit codes: 0 done, 1 an error (on
//! stderr), 2 wrong usage (arguments that are wrong whatever the model is), 130 ended by Ctrl-C. Where JSON was asked for, an error is a
//! document on stdout too: `{"error": TEXT}`.

pub mod commands;
mod common;
mod embedded;
mod generation;
mod memory;
mod model;
mod output;

pub use output::with_causes;

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
    let json = wants_json();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are not errors.
            if json && error.use_stderr() {
                print_error(error.to_string().trim().trim_start_matches("error: "));
            }
            error.exit()
        }
    };
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
    report(cli.command.run(), json)
}

/// Whether the process's arguments ask for JSON. They may be wrong otherwise.
pub fn wants_json() -> bool {
    let args: Vec<_> = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    // `-o` is a file elsewhere.
    let bench = args.iter().any(|arg| arg == "bench");
    let names: &[&str] = if bench { &["--format", "--output", "-o"] } else { &["--format"] };
    let joined = |arg: &str| {
        names.iter().any(|name| arg.strip_prefix(name).is_some_and(|v| v.trim_start_matches('=') == "json"))
    };
    args.windows(2).any(|pair| names.contains(&pair[0].as_str()) && pair[1] == "json")
        || args.iter().any(|arg| joined(arg))
}

fn print_error(text: &str) {
    // Who cannot be written to reads nothing.
    let _unread = commands::print_json(&serde_json::json!({ "error": text }));
}

/// Arguments that do not go together.
#[derive(Debug)]
struct Usage(String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// An error that ends with exit code 2.
///
/// # Errors
/// Always.
pub fn usage<T>(why: impl std::fmt::Display) -> anyhow::Result<T> {
    Err(Usage(why.to_string()).into())
}

/// Turns a command's result into an exit code, the error with its causes on stderr; also on stdout, as a document, for `json`.
pub fn report(result: anyhow::Result<ExitCode>, json: bool) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) => {
            // A reader that closed the pipe has what it wanted.
            if error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) {
                return ExitCode::SUCCESS;
            }
            let text = with_causes(&error);
            output::say(format_args!("error: {text}"));
            if json {
                print_error(&text);
            }
            if error.is::<Usage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}
