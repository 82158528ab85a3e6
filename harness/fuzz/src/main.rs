//! The runner: one target for some time, in a process that may die of it. `cargo xtask fuzz` starts it.

use anyhow::Context;
use bitnet_fuzz::limits::Counting;
use bitnet_fuzz::run::{FuzzPlan, corpus, corpus_folder, execute, run};
use bitnet_fuzz::{ALL, FINDING, by_name};
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Feeds one target.
#[derive(Debug, Parser)]
struct Args {
    /// Its name.
    target: String,
    /// For how long.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Executions at most.
    #[arg(long, default_value_t = u64::MAX)]
    executions: u64,
    /// The run's inputs are those of its seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The input of the moment, and what is found, are written here.
    #[arg(long)]
    out: PathBuf,
    /// Execute this input and nothing else.
    #[arg(long)]
    input: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    // What panics is told with its input; some readers catch panics of crates that they use.
    std::panic::set_hook(Box::new(|_| {}));
    let names = || ALL.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
    let target =
        by_name(&args.target).with_context(|| format!("unknown target `{}`; there are {}", args.target, names()))?;
    if let Some(path) = &args.input {
        let input = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        return Ok(match execute(target, &input)? {
            Ok((said, cost)) => {
                println!("{said}\n{} bytes held, {:.3} s", cost.bytes, cost.time.as_secs_f64());
                ExitCode::SUCCESS
            }
            Err(why) => {
                println!("{why}");
                ExitCode::from(FINDING)
            }
        });
    }
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let current = args.out.join("current");
    let plan = FuzzPlan {
        target,
        time: Duration::from_secs(args.seconds),
        executions: args.executions,
        seed: args.seed,
        corpus: corpus(&corpus_folder(target))?,
        current: Some(&current),
    };
    let outcome = run(&plan)?;
    let (time, bytes) = outcome.most.map_or((0.0, 0), |(cost, input)| (1e3 * cost.time.as_secs_f64(), input));
    println!(
        "{}: {} executions, {} inputs kept, {} different answers, slowest {time:.1} ms for {bytes} bytes",
        target.name, outcome.executions, outcome.pool, outcome.words
    );
    let Some((input, why)) = outcome.finding else { return Ok(ExitCode::SUCCESS) };
    let path = args.out.join("finding");
    std::fs::write(&path, input)?;
    println!("{}: {why}", target.name);
    Ok(ExitCode::from(FINDING))
}
