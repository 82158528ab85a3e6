//! `gate-driver count|pairs`: see the crate's documentation. `cargo xtask gate` starts it.

use anyhow::{Context, ensure};
use bitnet_kernels::cpu::scalar::Scalar;
use bitnet_kernels::{Kernels, by_name};
use clap::Parser;
use gate_driver::cases::{self, Case};
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
        /// Have the plainer set do the work of both, as if the one under test had lost its kernels.
        #[arg(long)]
        fall_back: bool,
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
        Command::Pairs { pairs, fall_back } => {
            let all = || pairs.iter().try_for_each(|(set, against)| time(cli, set, against, *fall_back));
            // The system moves the first thread's stack and heap by some bytes in each process. Those of another begin at a page, and its
            // heap (of glibc) at a multiple of 64 MiB.
            std::thread::scope(|scope| scope.spawn(all).join())
                .unwrap_or_else(|_| Err(anyhow::anyhow!("the thread that times panicked")))
        }
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
    let wants = |case: &str| cli.wants(case);
    for set in sets {
        let of_none = set == ANY;
        // Any will do for what no set computes.
        let Some(kernels) = kernels(if of_none { Scalar.name() } else { set })? else { continue };
        let each = &mut |mut case: Case| {
            // Buffers grow and tables are made on the first call.
            case.call(kernels, 1);
            requests::count(&trigger(set, &case.name), || case.call(kernels, calls));
            print(&Line::Counted { set: set.clone(), case: case.name })
        };
        if of_none { cases::of_none(&wants, each)? } else { cases::of_set((set, kernels), &wants, each)? }
    }
    Ok(())
}

fn time(cli: &Cli, set: &str, against: &str, fall_back: bool) -> anyhow::Result<()> {
    let (Some(fast), Some(plain)) = (kernels(set)?, kernels(against)?) else { return Ok(()) };
    let fast = if fall_back { plain } else { fast };
    cases::of_set((set, plain), &|case| cli.wants(case), &mut |mut case| {
        print(&Line::Paired(pairs::run(&mut case, (set, fast), (against, plain), cli.plant)))
    })
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
