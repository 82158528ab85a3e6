//! `gate-driver count|pairs`: see the crate's documentation. `cargo xtask gate` starts it.

use anyhow::{Context, ensure};
use bitnet_kernels::{Kernels, by_name};
use clap::Parser;
use gate_driver::cases;
use gate_driver::{ANY, Build, CALLS, Line, pairs, requests, trigger};
use std::io::Write;
use std::process::ExitCode;

/// Runs fixed pieces of the engine's work, to be counted or timed.
#[derive(Debug, Parser)]
#[command(name = "gate-driver")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Do so many percent of the work once more (of `pairs`: on the set under test).
    #[arg(long, global = true, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1000))]
    plant: u32,
    /// Only cases whose name begins with this; may be repeated.
    #[arg(long, global = true, value_name = "NAME")]
    case: Vec<String>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Say what this program is.
    Build,
    /// Count instructions: under `valgrind --tool=callgrind --instr-atstart=no`.
    Count {
        /// Kernel sets, or `any` for what no set computes. Named and not chosen: valgrind hides instructions that it lacks.
        #[arg(required = true)]
        sets: Vec<String>,
    },
    /// Time kernel sets against plainer ones.
    Pairs {
        /// Pairs such as `avx512:avx2`.
        #[arg(required = true, value_parser = pair)]
        pairs: Vec<(String, String)>,
    },
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (set, against) = text.split_once(':').ok_or_else(|| format!("`{text}` is not a pair such as avx512:avx2"))?;
    Ok((set.to_owned(), against.to_owned()))
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gate-driver: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    print(&Line::Build(Build::here()))?;
    match &cli.command {
        Command::Build => Ok(()),
        Command::Count { sets } => count(cli, sets),
        Command::Pairs { pairs } => pairs.iter().try_for_each(|(set, against)| time(cli, set, against)),
    }
}

impl Cli {
    fn wants(&self, case: &str) -> bool {
        self.case.is_empty() || self.case.iter().any(|name| case.starts_with(name.as_str()))
    }
}

fn count(cli: &Cli, sets: &[String]) -> anyhow::Result<()> {
    ensure!(requests::SUPPORTED, "valgrind's client requests are written for x86_64, not {}", std::env::consts::ARCH);
    ensure!(requests::under_valgrind(), "`count` means something under valgrind only: cargo xtask gate");
    let calls = CALLS + CALLS * cli.plant / 100;
    for set in sets {
        let cases = if set == ANY {
            cases::of_none(&|case| cli.wants(case))?
        } else {
            match kernels(set)? {
                Some(kernels) => cases::of_set(kernels, &|case| cli.wants(case))?,
                None => continue,
            }
        };
        for mut case in cases {
            // Buffers grow and tables are made on the first call.
            case.call(1);
            requests::count(&trigger(set, &case.name), || case.call(calls));
            print(&Line::Counted { set: set.clone(), case: case.name })?;
        }
    }
    Ok(())
}

fn time(cli: &Cli, set: &str, against: &str) -> anyhow::Result<()> {
    let (Some(fast), Some(plain)) = (kernels(set)?, kernels(against)?) else { return Ok(()) };
    let wants = |case: &str| cli.wants(case);
    let mut yardsticks = cases::of_set(plain, &wants)?;
    for mut case in cases::of_set(fast, &wants)? {
        if let Some(yardstick) = yardsticks.iter_mut().find(|yardstick| yardstick.name == case.name) {
            print(&Line::Paired(pairs::run((set, &mut case), (against, yardstick), cli.plant)))?;
        }
    }
    Ok(())
}

/// The set, or a line that says why it is not here.
fn kernels(set: &str) -> anyhow::Result<Option<&'static dyn Kernels>> {
    match by_name(set) {
        Ok(kernels) => Ok(Some(kernels)),
        Err(bitnet_kernels::KernelError::Unavailable(missing)) => {
            print(&Line::Unavailable { set: set.to_owned(), reason: missing.reason })?;
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn print(line: &Line) -> anyhow::Result<()> {
    let text = serde_json::to_string(line).context("cannot write JSON")?;
    Ok(writeln!(std::io::stdout().lock(), "{text}")?)
}
