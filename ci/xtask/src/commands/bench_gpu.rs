//! `cargo xtask bench-gpu`: everything about a card in one command. It makes the model if it is not there, holds the card's bits
//! against the scalar oracle's, and measures how fast memory is copied, tokens are generated and prompts are read.
//!
//! Exit codes: 0 measured; 1 the bits are not the oracle's, or an error; 2 wrong usage; 4 the device is not here.

use super::bench_peers::{model_file, put};
use super::make_model;
use super::setup_cpp::UNAVAILABLE;
use crate::crossval::Format;
use crate::root::{root, target};
use bitnet_cli::usage;
use bitnet_engine::device::{self, DeviceError};
use bitnet_engine::gguf::GgufFile;
use bitnet_engine::load::load;
use bitnet_engine::settings::Settings;
use bitnet_harness::Failure;
use bitnet_harness::bench::gpu::{Ask, CardReport, Figures, bits, figures, page};
use bitnet_harness::bench::models::folder;
use bitnet_harness::bench::ratio::Spread;
use bitnet_harness::env::Env;
use bitnet_harness::generate::streamed::Recipe;
use bitnet_harness::models::pool;
use bitnet_harness::provenance::{self, HostInfo};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask bench-gpu\n  cargo run --release -p xtask -- bench-gpu --device cuda:1 --format json\n  cargo xtask bench-gpu --device cuda-emu --small\n\nExit codes: 0 measured, 1 other bits than the oracle's or an error, 4 the device is not here."
)]
pub(crate) struct Args {
    /// cuda, cuda:N or cuda-emu.
    #[arg(long, default_value = "cuda")]
    device: String,
    /// The GGUF file [default: the one of `make-model --shape 2b4t`, made if it is not there].
    #[arg(short, long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// A tiny model and short lengths: shows that the command works.
    #[arg(long)]
    small: bool,
    /// Tokens in the cache before a generation [default: 128,1024,3900; small: 8].
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    contexts: Vec<u32>,
    /// Tokens to generate [default: 64; small: 4].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65536))]
    generate: Option<u32>,
    /// Lengths of prompts [default: 128,512,2048; small: 16].
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    prompts: Vec<u32>,
    /// Prompt tokens computed together [default: 512; small: 8].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65536))]
    chunk: Option<u32>,
    /// How often each is measured [default: 5; small: 1].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Tokens whose logits must be the oracle's, which takes the processor a while [default: 144; small: 6].
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..=65536))]
    digest_tokens: Option<u32>,
    /// The record [default: <target>/bench/gpu.json].
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// A page for people, or the record as one JSON document.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

impl Args {
    pub(crate) fn run(&self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let opened = match device::open(&self.device, settings) {
            Ok(opened) => opened,
            Err(error @ DeviceError::Unavailable { .. }) => return self.unavailable(&error),
            Err(error) => return usage(error),
        };
        let Some(card) = &opened.card else {
            return usage(format!(
                "`{}` is not a card: `cargo xtask benchmark` and `bitnet bench` measure processors",
                self.device
            ));
        };
        eprintln!("{}: {}", card.name(), card.describe());
        let path = self.model()?;
        let failed = |failure: Failure| anyhow::anyhow!(failure.message);
        let ask = self.ask();
        let file = GgufFile::open(&path)?;
        let model = model_file(&file, &path);
        let loaded = load(file, None, opened.kernels, &pool(ask.threads).map_err(failed)?)?;
        eprintln!("logits of {} tokens, by the scalar oracle and by the card", ask.digest);
        let bits = bits(&loaded, &opened, &ask).map_err(failed)?;
        let equal = bits.equal();
        let measured = if equal {
            figures(&loaded, &opened, model.weight_bytes, &ask, &mut |what| eprintln!("{what}")).map_err(failed)?
        } else {
            // Other bits have no speed.
            let none = Spread { median: 0.0, least: 0.0, most: 0.0 };
            Figures { copy: none, decode: Vec::new(), prefill: Vec::new() }
        };
        let Figures { copy, decode, prefill } = measured;
        let report = CardReport {
            outcome: if equal { "measured" } else { "different" }.to_owned(),
            at: provenance::now(),
            commit: provenance::commit(&root(), &Env::read()),
            host: HostInfo::here(),
            optimised: !cfg!(debug_assertions),
            device: card.name().to_owned(),
            about: card.describe(),
            model,
            bits,
            copy_bytes_per_second: copy,
            generate: ask.generate,
            decode,
            chunk: ask.chunk,
            prefill,
        };
        self.write(&report)?;
        Ok(if equal { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn ask(&self) -> Ask {
        let or = |given: Option<u32>, [large, small]: [usize; 2]| {
            given.map_or(if self.small { small } else { large }, |n| n as usize)
        };
        let lengths = |given: &[u32], [large, small]: [&[usize]; 2]| {
            let given: Vec<usize> = given.iter().map(|n| *n as usize).collect();
            if given.is_empty() { if self.small { small } else { large }.to_vec() } else { given }
        };
        Ask {
            digest: or(self.digest_tokens, [144, 6]),
            contexts: lengths(&self.contexts, [&[128, 1024, 3900], &[8]]),
            generate: or(self.generate, [64, 4]),
            prompts: lengths(&self.prompts, [&[128, 512, 2048], &[16]]),
            chunk: or(self.chunk, [512, 8]),
            rounds: or(self.rounds, [5, 1]),
            copy: or(None, [1 << 30, 1 << 20]),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }

    /// The model that was named, else the generated one, made if it is not there.
    fn model(&self) -> anyhow::Result<PathBuf> {
        if let Some(path) = &self.model {
            return Ok(path.clone());
        }
        let recipe = Recipe::new(if self.small { "tiny" } else { "2b4t" }, "i2_s", 1, None)?;
        let path = folder(&target()).join(recipe.file_name());
        if !path.is_file() {
            eprintln!("making {}", path.display());
            make_model::write(&recipe, &path)?;
        }
        Ok(path)
    }

    fn unavailable(&self, error: &DeviceError) -> anyhow::Result<ExitCode> {
        match self.format {
            Format::Json => {
                let said = serde_json::json!({ "outcome": "unavailable", "reason": error.to_string() });
                writeln!(std::io::stdout().lock(), "{said:#}")?;
            }
            Format::Text => eprintln!("unavailable: {error}"),
        }
        Ok(ExitCode::from(UNAVAILABLE))
    }

    fn write(&self, report: &CardReport) -> anyhow::Result<()> {
        let json = serde_json::to_string_pretty(report)?;
        let record = self.out.clone().unwrap_or_else(|| target().join("bench/gpu.json"));
        put(&record, &format!("{json}\n"))?;
        eprintln!("record: {}", record.display());
        let mut out = std::io::stdout().lock();
        match self.format {
            Format::Json => writeln!(out, "{json}")?,
            Format::Text => out.write_all(page(report).as_bytes())?,
        }
        Ok(())
    }
}
