//! `cargo xtask bench-peers`: our engine and others in turn on one model, with ratios that are paired by round.
//!
//! Ours is the release `bitnet`, built by this command, a process for each measurement; the C++ references are the workers of
//! `setup-cpp`; any program with the interface of `llama-bench` (`-m FILE -p N -n N -t T -r N -o json`) can be named.
//!
//! Two kinds of figures. `person`: what a person waits for, from the start of a process to the last of some tokens, with everything
//! that lies between (`bitnet infer` as it comes; of a reference, its worker from its start). `warmed`: rates of the arithmetic,
//! without load and preparation.
//! Exit codes: 0 every engine that was named has figures (of the references that are tried unnamed, one is enough), 4 not,
//! 1 ours has none.

use super::setup_cpp::UNAVAILABLE;
use crate::crossval::Format;
use crate::root::{cargo, root, target};
use anyhow::{Context, ensure};
use bitnet_cli::usage;
use bitnet_engine::gguf::GgufFile;
use bitnet_engine::tokenizer::{self, EncodeOptions};
use bitnet_harness::bench::engine::{Ask, Engine, EngineError, Program};
use bitnet_harness::bench::models::large;
use bitnet_harness::bench::noise::Guard;
use bitnet_harness::bench::peers::{Contender, ModelFile, Named, PeersPlan, PeersReport, compare};
use bitnet_harness::bench::person::{self, Waits};
use bitnet_harness::bench::worker::Worker;
use bitnet_harness::bench::{curve, plot, table};
use bitnet_harness::crossval::live::facts;
use bitnet_harness::env::Env;
use bitnet_harness::models::first_linear;
use bitnet_harness::paths::Paths;
use bitnet_harness::provenance::{self, HostInfo};
use cpp_sys::{CppBackend, ModelFacts};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

const OURS: &str = "ours";
/// About 34 tokens for a vocabulary of 128,000; repeated for longer prompts.
const TEXT: &str = "The history of computing is the story of machines that were built to count, then to calculate, and at \
                    last to answer questions that nobody had thought of asking before.";

/// What `infer` decides by itself, decided: an answer as it comes should lose to none of these.
const SETTINGS: [(&str, &[&str]); 4] = [
    ("ours, head whole, no huge pages", &["--head", "whole", "--huge-pages", "off"]),
    ("ours, head whole, huge pages", &["--head", "whole", "--huge-pages", "on"]),
    ("ours, head screened, no huge pages", &["--head", "screened", "--huge-pages", "off"]),
    ("ours, head screened, huge pages", &["--head", "screened", "--huge-pages", "on"]),
];

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask make-model --shape 2b4t --as microsoft\n  cargo xtask bench-peers --threads 1,2 --rounds 5\n  cargo xtask bench-peers --model model.gguf --peer bitnet --program ik=/opt/ik/llama-bench --plot peers.svg\n\nExit codes: 0 measured, 1 an error, 4 an engine that was named has no figures."
)]
pub(crate) struct Args {
    /// The GGUF file [default: $BITNET_BENCH_MODEL, else the one of `make-model --shape 2b4t --as microsoft`].
    #[arg(short, long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// A reference: bitnet or llama; may be given several times [default: both, if no --program is given].
    #[arg(long, value_name = "NAME", value_parser = backend)]
    peer: Vec<CppBackend>,
    /// A program like llama-bench, by a name of your choice; may be given several times.
    #[arg(long, value_name = "NAME=PATH", value_parser = program)]
    program: Vec<(String, PathBuf)>,
    /// What is measured: person (from the start of a process to the last token), warmed (rates without load and preparation).
    #[arg(long, value_enum, value_delimiter = ',', default_value = "person,warmed", value_name = "KIND")]
    measure: Vec<Measure>,
    /// Tokens of the prompts that a person waits for, by our tokenizer.
    #[arg(long, value_delimiter = ',', default_value = "32,512", value_parser = clap::value_parser!(u32).range(1..=65536))]
    texts: Vec<u32>,
    /// New tokens that a person waits for, beside the first.
    #[arg(long, value_delimiter = ',', default_value = "16,64,256", value_parser = clap::value_parser!(u32).range(1..=65536))]
    answers: Vec<u32>,
    /// Also measure how fast tokens come after so many others.
    #[arg(long, value_delimiter = ',', value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=65536))]
    depths: Vec<u32>,
    /// For a person, also measure ours with the head whole and screened, with huge pages and without.
    #[arg(long)]
    settings: bool,
    /// Foreign load, in percent of the machine, from which on a run is repeated (twice at most) and then marked.
    #[arg(long, default_value_t = 100.0 * Guard::USUAL.limit, value_name = "PERCENT")]
    noise: f64,
    /// Numbers of threads.
    #[arg(long, value_delimiter = ',', default_value = "1,2", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Vec<u16>,
    /// Tokens of the prompt whose rate is measured, warmed.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65536))]
    prompt: u32,
    /// Tokens to generate, warmed.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=65536))]
    generate: u32,
    /// Rounds, in each of which every engine is measured once.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Seconds that one measurement may take.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// Our program, instead of the release build of this checkout.
    #[arg(long, value_name = "PATH")]
    ours: Option<PathBuf>,
    /// The record [default: <target>/bench/peers.json].
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Also draw ours against the others.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Also draw what a person waits over the number of new tokens.
    #[arg(long, value_name = "FILE.svg")]
    curve: Option<PathBuf>,
    /// A table for people, or the record as one JSON document.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, clap::ValueEnum)]
enum Measure {
    Person,
    Warmed,
}

fn backend(name: &str) -> Result<CppBackend, String> {
    name.parse().map_err(|error: cpp_sys::UnknownBackend| error.to_string())
}

fn program(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("NAME=PATH is wanted, as in ik=/opt/ik/llama-bench")?;
    if name.is_empty() || path.is_empty() || name == OURS {
        return Err(format!("a name other than `{OURS}` and a path are wanted, as in ik=/opt/ik/llama-bench"));
    }
    Ok((name.to_owned(), PathBuf::from(path)))
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let paths = Paths::discover(&Env::read());
        let model = match &self.model {
            Some(path) => path.clone(),
            None => large(&paths, &Env::read()).map_err(|why| anyhow::anyhow!("{why}, or name one with --model"))?,
        };
        let file = GgufFile::open(&model)?;
        let named = self.named();
        if named.iter().enumerate().any(|(i, name)| named[..i].contains(name)) {
            return usage(format!("two peers have one name: {}", named.join(", ")));
        }
        let ours = self.our_program()?;
        let model_file = model_file(&file, &model);
        let ask = Ask {
            model: std::path::absolute(&model)?,
            threads: 1,
            prompt: self.prompt as usize,
            generate: self.generate as usize,
            text: TEXT.to_owned(),
            limit: Duration::from_secs(self.timeout),
        };
        let threads: Vec<usize> = self.threads.iter().map(|n| usize::from(*n)).collect();
        let pause = Duration::from_millis(300);
        let (rounds, weight_bytes) = (self.rounds as usize, model_file.weight_bytes);
        ensure!(self.noise.is_finite() && self.noise >= 0.0, "--noise {}: a share in percent is wanted", self.noise);
        let guard = Guard { limit: self.noise / 100.0, ..Guard::USUAL };
        let mut contenders = self.contenders(&ours, &facts(&file, &model));
        let tell = &mut |line: &str| eprintln!("{line}");
        let waits = if self.measure.contains(&Measure::Person) {
            let texts = self.texts(&file)?;
            let answers = once(std::iter::once(1).chain(self.answers.iter().map(|n| *n as usize)));
            let plan = Waits { texts, answers, threads: threads.clone(), rounds, guard };
            let known = contenders.len();
            let settings = if self.settings { &SETTINGS[..] } else { &[] };
            contenders.extend(settings.iter().map(|(name, flags)| Contender {
                name: (*name).to_owned(),
                about: format!("infer {}", flags.join(" ")),
                engine: Ok(Box::new(Program::ours(ours.clone()).with(flags))),
            }));
            let waits = person::waits(&mut contenders, &ask, &plan, tell);
            contenders.truncate(known);
            waits
        } else {
            Vec::new()
        };
        let deep = Waits { texts: Vec::new(), answers: Vec::new(), threads: threads.clone(), rounds, guard };
        let depths = once(self.depths.iter().map(|n| *n as usize));
        let depths = person::depths(&mut contenders, &ask, &depths, &deep, tell);
        let threads = if self.measure.contains(&Measure::Warmed) { threads } else { Vec::new() };
        let plan = PeersPlan { ask, threads, rounds, pause, guard, weight_bytes };
        let reader = Program::ours(ours);
        let mut read = |threads| reader.bandwidth(threads, plan.ask.limit);
        let (memory, rows) = compare(&mut contenders, &plan, &mut read, tell)?;
        let report = PeersReport {
            at: provenance::now(),
            commit: provenance::commit(&root(), &Env::read()),
            host: HostInfo::here(),
            cpu: cpp_sys::workers::cpu(),
            model: model_file,
            prompt: plan.ask.prompt,
            generate: plan.ask.generate,
            rounds: plan.rounds,
            engines: contenders.into_iter().map(|c| Named { name: c.name, about: c.about }).collect(),
            memory,
            rows,
            waits,
            depths,
        };
        self.write(&report)?;
        self.verdict(&report, &named)
    }

    /// The prompts that a person waits for, by our tokenizer.
    fn texts(&self, file: &GgufFile) -> anyhow::Result<Vec<(usize, String)>> {
        let tokenizer = tokenizer::from_gguf(file.metadata())?.tokenizer;
        let options = EncodeOptions { add_special: true, parse_special: false };
        let count = |text: &str| tokenizer.encode(text, options).map(|ids| ids.len());
        let wanted = once(self.texts.iter().map(|n| *n as usize));
        wanted.into_iter().map(|tokens| Ok(person::text_of(TEXT, tokens, count)?)).collect()
    }

    /// Names of the peers, in the order of the report.
    fn named(&self) -> Vec<String> {
        let programs = self.program.iter().map(|(name, _)| name.clone());
        self.backends().iter().map(|backend| backend.title().to_owned()).chain(programs).collect()
    }

    fn backends(&self) -> Vec<CppBackend> {
        if self.peer.is_empty() && self.program.is_empty() { CppBackend::ALL.to_vec() } else { self.peer.clone() }
    }

    fn contenders(&self, ours: &Path, facts: &ModelFacts) -> Vec<Contender<'static>> {
        let boxed = |program: Program| -> Result<Box<dyn Engine>, EngineError> { Ok(Box::new(program)) };
        let about = format!(
            "{}, greedy, a process for each measurement: `infer` with default settings for a person, `bench` warmed up",
            ours.display()
        );
        let mut all = vec![Contender { name: OURS.to_owned(), about, engine: boxed(Program::ours(ours.to_owned())) }];
        for backend in self.backends() {
            let found = Worker::find(backend, &target(), facts);
            let about = found.as_ref().map_or_else(|_| "not measured".to_owned(), Worker::about);
            let engine = found.map(|worker| Box::new(worker) as Box<dyn Engine>);
            all.push(Contender { name: backend.title().to_owned(), about, engine });
        }
        for (name, path) in &self.program {
            let about = format!("{}, a process for each measurement", path.display());
            all.push(Contender { name: name.clone(), about, engine: boxed(Program::new(path.clone())) });
        }
        all
    }

    /// Builds the release program, so that what is measured is this checkout.
    fn our_program(&self) -> anyhow::Result<PathBuf> {
        if let Some(path) = &self.ours {
            ensure!(path.is_file(), "{} is not a file", path.display());
            return Ok(std::path::absolute(path)?);
        }
        let args = ["build", "--release", "--quiet", "--package", "bitnet-cli"];
        let status = cargo().args(args).status().context("cannot start cargo")?;
        ensure!(status.success(), "cargo {} failed: {status}", args.join(" "));
        Ok(target().join("release").join(format!("bitnet{}", std::env::consts::EXE_SUFFIX)))
    }

    fn write(&self, report: &PeersReport) -> anyhow::Result<()> {
        let json = serde_json::to_string_pretty(report)?;
        let record = self.out.clone().unwrap_or_else(|| target().join("bench/peers.json"));
        put(&record, &format!("{json}\n"))?;
        eprintln!("record: {}", record.display());
        let mut out = std::io::stdout().lock();
        match self.format {
            Format::Json => writeln!(out, "{json}")?,
            Format::Text => out.write_all(table::table(report).as_bytes())?,
        }
        type Draw = fn(&PeersReport) -> Result<String, plot::PlotError>;
        let drawings: [(&Option<PathBuf>, Draw); 2] = [(&self.plot, plot::svg), (&self.curve, curve::svg)];
        for (path, draw) in drawings {
            let Some(path) = path else { continue };
            match draw(report) {
                Ok(svg) => put(path, &svg)?,
                Err(plot::PlotError::Nothing) => eprintln!("{}: {}", path.display(), plot::PlotError::Nothing),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn verdict(&self, report: &PeersReport, named: &[String]) -> anyhow::Result<ExitCode> {
        let warmed = report.rows.iter().filter(|row| row.engine == OURS).find_map(|row| row.failure.clone());
        let wait = report
            .waits
            .iter()
            .chain(&report.depths)
            .filter(|wait| wait.engine == OURS)
            .find_map(|wait| wait.failure.clone());
        let failure = warmed.or(wait);
        ensure!(report.is_complete(OURS), "ours has no figures: {}", failure.unwrap_or_default());
        let complete = |name: &String| report.is_complete(name);
        let chosen = !self.peer.is_empty() || !self.program.is_empty();
        let enough = if chosen { named.iter().all(complete) } else { named.iter().any(complete) };
        Ok(if enough { ExitCode::SUCCESS } else { ExitCode::from(UNAVAILABLE) })
    }
}

/// Each number once, from the smallest to the largest.
fn once(numbers: impl Iterator<Item = usize>) -> Vec<usize> {
    numbers.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Writes a file, and its folder if that is not there.
pub(super) fn put(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// What a report says of a model.
pub(super) fn model_file(file: &GgufFile, path: &Path) -> ModelFile {
    let embedding = "token_embd.weight";
    let own_output = file.tensor("output.weight").is_some();
    let read = |name: &str| !(own_output && name == embedding);
    let linear = first_linear(file).map_or("unknown", |view| file.type_name(view.info));
    ModelFile {
        name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        bytes: std::fs::metadata(path).map_or(0, |meta| meta.len()),
        weight_bytes: file.tensors().iter().filter(|t| read(&t.name)).map(|t| t.size).sum(),
        architecture: file.metadata().str("general.architecture").ok().flatten().unwrap_or("unknown").to_owned(),
        quant: linear.to_owned(),
    }
}
