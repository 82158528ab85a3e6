//! Our tokenizers and other crates in one process: `bench` measures them in turn, `fuzz` compares their ids.
//!
//! Started by `cargo xtask bench-tokenizers` and `cargo xtask fuzz-tokenizer`. A workspace of its own, so that nobody who
//! builds the engine builds the peers.
//!
//! | module | what |
//! |---|---|
//! | [`engines`] | the engines, ours first, behind one interface |
//! | [`staged`] | a vocabulary as the files that the engines read |
//! | [`texts`] | the texts |
//! | [`bench`] | speed |
//! | [`fuzz`] | ids |

mod bench;
mod engines;
mod fuzz;
mod staged;
mod texts;

use clap::Parser;
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(name = "tokenizer-peers", about = "Our tokenizers against other crates in one process")]
enum Cli {
    /// Measure all engines in turn.
    Bench(bench::Args),
    /// Compare the ids of random texts.
    Fuzz(fuzz::Args),
}

fn main() -> ExitCode {
    // Every engine computes on one thread; what starts a pool all the same is seen in the time of the process.
    let result = match Cli::parse() {
        Cli::Bench(args) => args.run(),
        Cli::Fuzz(args) => args.run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
