//! `bitnet bench`: how fast a model runs here. The flags that count and the JSON are those of llama.cpp's `llama-bench`, so
//! that one script can ask both.
//!
//! A prompt is `-p` tokens in chunks, to the logits of its last token; a generation is `-n` greedy steps after one token.
//! Neither has a text: ids are fixed. A short run of both before the first figure is not counted: in it the session makes the copies
//! that pay in the long run (a screened head, weights in huge pages).

mod bandwidth;

use super::{Format, print_json};
use crate::common::{Compute, ComputeArgs, ModelArgs, RunArgs, TokenizerArgs};
use crate::memory;
use crate::model::FetchArgs;
use crate::usage;
use anyhow::Context;
use bitnet_engine::inference::{Head, Sampler, SamplerOptions, Session, WARM_STEPS};
use bitnet_engine::model::HugePages;
use bitnet_engine::settings::Settings;
use bitnet_kernels::Pool;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  bitnet bench\n  bitnet bench --model model.gguf -p 512 -n 32 -t 1,2 -o json\n  bitnet bench --bandwidth -t 1,2"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    fetch: FetchArgs,
    /// Tokens of the prompt (0: no such test).
    #[arg(short = 'p', long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(0..=1 << 20))]
    prompt: u32,
    /// Tokens to generate (0: no such test).
    #[arg(short = 'n', long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(0..=1 << 20))]
    generate: u32,
    /// Tokens that come before those of a generation, and are not counted; may be several.
    #[arg(short, long, value_delimiter = ',', default_value = "0", value_parser = clap::value_parser!(u32).range(0..=1 << 20))]
    depth: Vec<u32>,
    /// Numbers of threads [default: one per processor].
    #[arg(short, long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Vec<u16>,
    /// How often each test is run.
    #[arg(short, long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repetitions: u32,
    /// auto, cpu, or one that `bitnet devices` lists [default: $BITNET_DEVICE, else auto].
    #[arg(long, value_parser = crate::common::device_name)]
    device: Option<String>,
    /// Prompt tokens computed together.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=65536))]
    chunk: u32,
    /// The output matrix while generating: auto, whole or screened.
    #[arg(long, default_value = "auto", value_name = "auto|whole|screened")]
    head: Head,
    /// Whether weights are copied into huge pages: auto, on or off.
    #[arg(long, default_value = "auto", value_name = "auto|on|off")]
    huge_pages: HugePages,
    /// Only how fast memory is read, without a model.
    #[arg(long, conflicts_with_all = ["model", "prompt", "generate", "depth", "device", "chunk", "head", "huge_pages"])]
    bandwidth: bool,
    /// Output; json is what llama-bench prints, with some fields more.
    #[arg(short, long, visible_alias = "format", value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// One test; names of fields as in llama-bench.
#[derive(Debug, serde::Serialize)]
struct Test {
    model_filename: String,
    model_type: String,
    model_size: usize,
    device: String,
    optimised: bool,
    n_batch: u32,
    n_threads: usize,
    n_prompt: u32,
    n_gen: u32,
    n_depth: u32,
    avg_ns: f64,
    stddev_ns: f64,
    avg_ts: f64,
    stddev_ts: f64,
    samples_ns: Vec<u64>,
    samples_ts: Vec<f64>,
    /// Exact rows of the output matrix a generated token, where it was screened.
    screened_rows: Option<f64>,
    /// The most memory that this process has had so far, in bytes; absent where the system does not say.
    peak_rss: Option<u64>,
}

impl Args {
    /// Runs the command.
    ///
    /// # Errors
    /// What went wrong, with its causes.
    pub fn run(&self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<usize> = match self.threads.as_slice() {
            [] => vec![settings.threads.unwrap_or_else(processors)],
            some => some.iter().map(|n| usize::from(*n)).collect(),
        };
        if self.bandwidth {
            let measured = threads.iter().map(|&n| bandwidth::read(n, self.repetitions as usize));
            let measured = measured.collect::<anyhow::Result<Vec<_>>>()?;
            match self.output {
                Format::Json => print_json(&measured)?,
                Format::Text => {
                    let mut out = std::io::stdout().lock();
                    for line in &measured {
                        writeln!(out, "{line}")?;
                    }
                }
            }
            return Ok(ExitCode::SUCCESS);
        }
        if self.prompt == 0 && self.generate == 0 {
            return usage("nothing to measure: give -p or -n more than 0");
        }
        let tests = self.measure(settings, &threads)?;
        match self.output {
            Format::Json => print_json(&tests)?,
            Format::Text => self.table(&tests)?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn measure(&self, settings: &Settings, threads: &[usize]) -> anyhow::Result<Vec<Test>> {
        let most = threads.iter().copied().max().unwrap_or(1);
        let deepest = self.depth.iter().copied().max().unwrap_or(0);
        let compute = ComputeArgs {
            device: self.device.clone(),
            threads: Some(u16::try_from(most)?),
            context: Some(
                self.prompt.max(deepest + self.generate + 1).max(u32::try_from(WARM_UP.max(WARM_STEPS) + 1)?),
            ),
            chunk: self.chunk,
            i2s_layout: "auto".to_owned(),
            huge_pages: self.huge_pages,
        };
        let FetchArgs { auto_download, offline } = self.fetch;
        let tokenizer = TokenizerArgs { auto_download, offline, ..TokenizerArgs::default() };
        let run = RunArgs { model: self.model.clone(), tokenizer, compute };
        let compute = run.compute.start(settings)?;
        let loaded = run.load(&compute, settings)?;
        let mut tests = Vec::new();
        for &n in threads {
            let pool = if n == most {
                Arc::clone(&compute.pool)
            } else {
                Arc::new(Pool::new(n).with_context(|| format!("cannot start {n} threads"))?)
            };
            let compute = Compute { pool, ..compute.clone() };
            let mut session = run.compute.session(&loaded, &compute, self.head)?;
            prompt(&mut session, WARM_UP)?;
            session.expect(usize::MAX);
            generate(&mut session, 0, WARM_STEPS)?;
            let generations = self.depth.iter().map(|depth| (0, self.generate, *depth));
            for (n_prompt, n_gen, n_depth) in std::iter::once((self.prompt, 0, 0)).chain(generations) {
                if n_prompt + n_gen == 0 {
                    continue;
                }
                let before = session.screening();
                let mut times = Vec::new();
                for _ in 0..self.repetitions {
                    times.push(match n_gen {
                        0 => prompt(&mut session, n_prompt as usize)?,
                        _ => generate(&mut session, n_depth as usize, n_gen as usize)?,
                    });
                }
                let screened = session.screening().since(before);
                let tokens = f64::from(n_prompt + n_gen);
                let ns: Vec<f64> = times.iter().map(|t| t.as_nanos() as f64).collect();
                let rates: Vec<f64> = times.iter().map(|t| tokens / t.as_secs_f64().max(1e-9)).collect();
                let ((avg_ns, stddev_ns), (avg_ts, stddev_ts)) = (moments(&ns), moments(&rates));
                tests.push(Test {
                    model_filename: run.name(settings),
                    model_type: loaded.model.config.architecture.clone(),
                    model_size: loaded.model.weights.matrices().map(|(_, m)| m.data.len()).sum(),
                    device: compute.device(),
                    optimised: !cfg!(debug_assertions),
                    n_batch: self.chunk,
                    n_threads: n,
                    n_prompt,
                    n_gen,
                    n_depth,
                    avg_ns,
                    stddev_ns,
                    avg_ts,
                    stddev_ts,
                    samples_ns: ns.iter().map(|ns| *ns as u64).collect(),
                    samples_ts: rates,
                    screened_rows: (screened.tokens > 0).then(|| screened.rows as f64 / screened.tokens as f64),
                    peak_rss: memory::peak_rss(),
                });
            }
        }
        Ok(tests)
    }

    fn table(&self, tests: &[Test]) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        if let Some(Test { model_filename, model_type, device, optimised, .. }) = tests.first() {
            let build = if *optimised { "" } else { " (a debug build: figures mean nothing)" };
            writeln!(out, "{model_filename} ({model_type}) on {device}{build}")?;
        }
        writeln!(out, "| test | threads | tokens/s | ± |\n|---|---|---|---|")?;
        for Test { n_prompt, n_gen, n_depth, n_threads, avg_ts, stddev_ts, .. } in tests {
            let name = match (n_gen, n_depth) {
                (0, _) => format!("prompt {n_prompt}"),
                (n, 0) => format!("generate {n}"),
                (n, depth) => format!("generate {n} at depth {depth}"),
            };
            writeln!(out, "| {name} | {n_threads} | {avg_ts:.2} | {stddev_ts:.2} |")?;
        }
        if let Some(rows) = tests.iter().find_map(|test| test.screened_rows) {
            writeln!(out, "the head was screened: {rows:.1} exact rows a generated token")?;
        }
        Ok(())
    }
}

/// Tokens of the prompt that is not counted.
const WARM_UP: usize = 32;

/// Ids without meaning, spread over the vocabulary.
fn ids(session: &Session, count: usize) -> Vec<u32> {
    let vocab = session.model().config.vocab_size.max(1);
    (0..count).map(|i| ((i * 7919 + 1) % vocab) as u32).collect()
}

/// The time of a prompt of so many tokens, to what a greedy sampler needs of the logits of the last one.
fn prompt(session: &mut Session, tokens: usize) -> anyhow::Result<Duration> {
    let sampler = Sampler::new(SamplerOptions::default())?;
    let ids = ids(session, tokens);
    session.truncate(0);
    let started = Instant::now();
    session.hold(&ids, 1)?;
    session.held(0, sampler.needs(&ids).as_ref())?;
    Ok(started.elapsed())
}

/// The time of so many greedy steps after `depth` tokens and one.
fn generate(session: &mut Session, depth: usize, steps: usize) -> anyhow::Result<Duration> {
    let mut sampler = Sampler::new(SamplerOptions::default())?;
    let mut history = ids(session, depth + 1);
    session.truncate(0);
    if depth > 0 {
        session.hold(&history[..depth], 1)?;
    }
    let started = Instant::now();
    for _ in 0..steps {
        let last = history.last().copied().into_iter().collect::<Vec<u32>>();
        session.hold(&last, 1)?;
        let logits = session.held(0, sampler.needs(&history).as_ref())?;
        let token = sampler.sample(logits, &history);
        history.push(token);
    }
    Ok(started.elapsed())
}

/// Mean and standard deviation (of the sample; 0 of a single value).
fn moments(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (mean, (squares / values.len().saturating_sub(1).max(1) as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::moments;

    #[test]
    fn one_run_has_no_spread() {
        assert_eq!(moments(&[3.0]), (3.0, 0.0));
        assert_eq!(moments(&[1.0, 3.0]), (2.0, 2f64.sqrt()));
        assert_eq!(moments(&[]), (0.0, 0.0));
    }
}
