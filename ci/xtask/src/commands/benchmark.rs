//! `cargo xtask benchmark`: figures that are held against the data in `golden/`.
//!
//! `--tokenizer-discovery-overhead`: what finding the tokenizer adds to an inference. Each run does four things on the same
//! open file, in this order in even runs and the other way round in odd ones: build the embedded tokenizer without any
//! discovery; walk the chain of discovery, which builds it too; look at the chain without building (`bitnet discover`);
//! load the model and continue a prompt. What discovery adds is the median of (walk - build); its share is the
//! median over the runs of (walk - build) / inference.

use crate::crossval::Format;
use crate::root::{root, target};
use anyhow::{Context, ensure};
use bitnet_engine::discovery::{DiscoverySettings, TokenizerDiscovery, TokenizerFallbackChain};
use bitnet_engine::gguf::GgufFile;
use bitnet_engine::inference::{GenerateOptions, generate};
use bitnet_engine::load::load;
use bitnet_engine::tokenizer::{self, EncodeOptions};
use bitnet_golden::overhead::{self, TokenizerDiscovery as Limits};
use bitnet_harness::bench::ratio::median;
use bitnet_harness::models;
use std::hint::black_box;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  cargo xtask benchmark --tokenizer-discovery-overhead --format json\n\nExits with 1 above the limit of golden/overhead.toml. Times of a debug build are of a debug build."
)]
pub(crate) struct Args {
    /// Discovery's share of a short inference.
    #[arg(long, required = true)]
    tokenizer_discovery_overhead: bool,
    /// A model [default: the embedded one, and SmolLM2 if it has been fetched].
    #[arg(long, value_name = "FILE")]
    model: Vec<PathBuf>,
    /// Paired runs [default: as golden/overhead.toml says].
    #[arg(long)]
    runs: Option<usize>,
    /// Threads of the inference.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=1024))]
    threads: u64,
    /// Output.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(serde::Serialize)]
struct Overhead {
    goal_percent: f64,
    limit_percent: f64,
    optimised: bool,
    models: Vec<Line>,
}

/// Medians of one model, in milliseconds.
#[derive(Debug, serde::Serialize)]
struct Line {
    model: String,
    runs: usize,
    /// Building the embedded tokenizer, which any inference must do.
    build_ms: f64,
    /// What discovery adds to that.
    added_ms: f64,
    /// The chain without building anything.
    look_ms: f64,
    /// Loading, prompt and new tokens.
    inference_ms: f64,
    /// Median over the runs of added / inference.
    added_percent: f64,
    /// Median over the runs of look / inference.
    look_percent: f64,
    verdict: &'static str,
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let mut limits = overhead::tokenizer_discovery(&root().join("golden"))?;
        limits.runs = self.runs.unwrap_or(limits.runs);
        ensure!(limits.runs > 0, "a median needs at least one run");
        let threads = usize::try_from(self.threads)?;
        let mut lines = Vec::new();
        for path in self.models() {
            lines.push(measure(&path, &limits, threads).with_context(|| format!("cannot measure {}", path.display()))?);
        }
        let over = lines.iter().any(|line| line.verdict == ABOVE_LIMIT);
        let mut out = std::io::stdout().lock();
        match self.format {
            Format::Json => {
                let Limits { goal_percent, limit_percent, .. } = limits;
                let report =
                    Overhead { goal_percent, limit_percent, optimised: !cfg!(debug_assertions), models: lines };
                writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
            }
            Format::Text => {
                writeln!(
                    out,
                    "{:<28} {:>9} {:>9} {:>9} {:>12}  share of the inference",
                    "model", "build ms", "adds ms", "look ms", "inference ms"
                )?;
                for l in &lines {
                    writeln!(
                        out,
                        "{:<28} {:>9.3} {:>9.3} {:>9.3} {:>12.2}  {:.3} % (look {:.3} %), {}",
                        l.model,
                        l.build_ms,
                        l.added_ms,
                        l.look_ms,
                        l.inference_ms,
                        l.added_percent,
                        l.look_percent,
                        l.verdict
                    )?;
                }
                writeln!(
                    out,
                    "medians of {} paired runs, {} new tokens, {threads} threads; goal {} %, limit {} %",
                    limits.runs, limits.new_tokens, limits.goal_percent, limits.limit_percent
                )?;
            }
        }
        Ok(if over { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn models(&self) -> Vec<PathBuf> {
        if !self.model.is_empty() {
            return self.model.clone();
        }
        let fetched = target().join("fixtures/smollm2-135m-q4_1.gguf");
        let mut models = vec![root().join("golden/models/tiny-bitnet.gguf")];
        if fetched.is_file() {
            models.push(fetched);
        } else {
            eprintln!("{} has not been fetched: cargo xtask fixtures fetch smollm2-135m", fetched.display());
        }
        models
    }
}

const ABOVE_LIMIT: &str = "ABOVE THE LIMIT";

#[derive(Debug, Clone, Copy, Default)]
struct Run {
    build: Duration,
    walk: Duration,
    look: Duration,
    inference: Duration,
}

impl Run {
    /// Seconds; less than nothing is the noise of the clock, and kept as that.
    fn added(&self) -> f64 {
        self.walk.as_secs_f64() - self.build.as_secs_f64()
    }
}

fn measure(path: &Path, limits: &Limits, threads: usize) -> anyhow::Result<Line> {
    let file = GgufFile::open(path)?;
    // The page cache and the branch predictors of the first run are nobody's overhead.
    once(&file, limits, threads, false)?;
    let runs =
        (0..limits.runs).map(|i| once(&file, limits, threads, i % 2 == 1)).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(line(&path.file_stem().unwrap_or_default().to_string_lossy(), &runs, limits))
}

fn line(model: &str, runs: &[Run], limits: &Limits) -> Line {
    let ms = |value: fn(&Run) -> f64| median(&runs.iter().map(value).collect::<Vec<_>>()) * 1e3;
    let percent = |value: fn(&Run) -> f64| {
        median(&runs.iter().map(|run| value(run) / run.inference.as_secs_f64().max(1e-9)).collect::<Vec<_>>()) * 100.0
    };
    let (added_percent, look_percent) = (percent(Run::added), percent(|run| run.look.as_secs_f64()));
    let verdict = if added_percent > limits.limit_percent {
        ABOVE_LIMIT
    } else if added_percent > limits.goal_percent {
        "above the goal"
    } else {
        "within the goal"
    };
    Line {
        model: model.to_owned(),
        runs: runs.len(),
        build_ms: ms(|run| run.build.as_secs_f64()),
        added_ms: ms(Run::added),
        look_ms: ms(|run| run.look.as_secs_f64()),
        inference_ms: ms(|run| run.inference.as_secs_f64()),
        added_percent,
        look_percent,
        verdict,
    }
}

fn once(file: &GgufFile, limits: &Limits, threads: usize, backwards: bool) -> anyhow::Result<Run> {
    let mut run = Run::default();
    let mut steps = [0, 1, 2, 3];
    if backwards {
        steps.reverse();
    }
    for step in steps {
        let started = Instant::now();
        match step {
            0 => {
                black_box(tokenizer::from_gguf(file.metadata())?);
                run.build = started.elapsed();
            }
            1 => {
                let discovery = TokenizerDiscovery::from_file(file)?;
                black_box(TokenizerFallbackChain::new(DiscoverySettings::default()).resolve(&discovery)?);
                run.walk = started.elapsed();
            }
            2 => {
                black_box(TokenizerDiscovery::from_file(file)?.chain(&DiscoverySettings::default()));
                run.look = started.elapsed();
            }
            _ => {
                infer(file, limits, threads)?;
                run.inference = started.elapsed();
            }
        }
    }
    Ok(run)
}

fn infer(file: &GgufFile, limits: &Limits, threads: usize) -> anyhow::Result<()> {
    let failed = |failure: bitnet_harness::Failure| anyhow::anyhow!(failure.message);
    let loaded = load(file.clone(), None, bitnet_kernels::best(), &models::pool(threads).map_err(failed)?)?;
    let ids = loaded.tokenizer.encode(&limits.prompt, EncodeOptions { add_special: true, parse_special: false })?;
    let context = ids.len() + limits.new_tokens + 1;
    let mut session = models::session(&loaded, bitnet_kernels::best(), threads, 64, context).map_err(failed)?;
    let options = GenerateOptions { max_tokens: Some(limits.new_tokens), ignore_eos: true, ..Default::default() };
    let made = generate(&mut session, &*loaded.tokenizer, &ids, &options, &AtomicBool::new(false), &mut |_| {})?;
    ensure!(
        made.tokens.len() == limits.new_tokens,
        "{} tokens were made, not {}",
        made.tokens.len(),
        limits.new_tokens
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { prompt: String::new(), new_tokens: 1, runs: 3, goal_percent: 0.5, limit_percent: 5.0 }
    }

    fn run(added_us: u64) -> Run {
        let micros = Duration::from_micros;
        Run { build: micros(100), walk: micros(100 + added_us), look: micros(50), inference: micros(10_000) }
    }

    #[test]
    fn the_median_of_the_differences_counts() {
        let line = line("m", &[run(10), run(900), run(20)], &limits());
        assert!((line.added_ms - 0.02).abs() < 1e-9, "{line:?}");
        assert!((line.added_percent - 0.2).abs() < 1e-9 && (line.look_percent - 0.5).abs() < 1e-9, "{line:?}");
        assert_eq!(line.verdict, "within the goal");
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
    }

    #[test]
    fn above_goal_and_limit_are_said() {
        assert_eq!(super::line("m", &[run(51)], &limits()).verdict, "above the goal");
        assert_eq!(super::line("m", &[run(501)], &limits()).verdict, ABOVE_LIMIT);
    }
}
