//! `golden/targets.toml`, held: encoding against the crate `tokenizers`, in turns, on the same texts.
//!
//! `cargo bench --bench targets [-- VOCABULARY...]`. A row's figures are medians of the CPU time of
//! this thread, over rounds in which both engines encode the same documents one after the other (first us, then them, then
//! them first), so that what else the machine does hits both. Exit code 1 if a ratio is below its floor, 2 if nothing was
//! measured. Speeds are reported beside the seed's figures.

use bitnet_engine::tokenizer::{EncodeOptions, from_gguf};
use bitnet_harness::check::Failure;
use bitnet_harness::cpu_time::CpuTime;
use bitnet_harness::crossval::performance::median;
use bitnet_harness::data::targets::{Floor, Targets, read};
use bitnet_harness::env::Env;
use bitnet_harness::paths::Paths;
use bitnet_harness::strings::documents;
use bitnet_harness::verdict::Availability;
use bitnet_harness::vocabularies::by_name;
use std::hint::black_box;
use std::process::ExitCode;
use std::str::FromStr;

const ROUNDS: usize = 7;
/// What an engine encodes a round: enough for the clock, which counts milliseconds.
const OURS: usize = 8 << 20;
const THEIRS: usize = 512 << 10;
const OPTIONS: EncodeOptions = EncodeOptions { add_special: false, parse_special: true };

fn main() -> ExitCode {
    let paths = Paths::discover(&Env::read());
    // cargo adds `--bench`.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let targets = match read(&paths.golden) {
        Ok(targets) => targets,
        Err(error) => {
            eprintln!("targets: {error}");
            return ExitCode::from(2);
        }
    };
    let (mut rows, mut low) = (0, 0);
    println!("| vocabulary | text | bitnet MB/s | tokenizers MB/s | ratio | bitnet tokens/s | of the seed's |");
    println!("|---|---|---|---|---|---|---|");
    for floor in targets.encode.vocabulary.iter().filter(|f| wanted.is_empty() || wanted.contains(&f.name)) {
        match measure(floor, &targets, &paths) {
            Ok((measured, below)) => {
                rows += measured;
                low += below;
            }
            Err(failure) => {
                eprintln!("targets: {}: {}", floor.name, failure.message);
                return ExitCode::from(2);
            }
        }
    }
    let floor = targets.encode.times_tokenizers;
    eprintln!("targets: {rows} rows, {low} below {floor} times tokenizers");
    match (rows, low) {
        (0, _) => ExitCode::from(2),
        (_, 0) => ExitCode::SUCCESS,
        _ => ExitCode::from(1),
    }
}

/// Rows measured, and how many of them are below the floor.
fn measure(floor: &Floor, targets: &Targets, paths: &Paths) -> Result<(usize, usize), Failure> {
    let entry =
        by_name(&floor.name).ok_or_else(|| Failure::new("targets.toml names a vocabulary that does not exist"))?;
    if let Availability::Unavailable { reason, remedy, .. } = entry.availability(paths) {
        eprintln!("targets: {}: unavailable: {reason}; {remedy}", floor.name);
        return Ok((0, 0));
    }
    let vocabulary = entry.load(paths)?;
    let ours = from_gguf(vocabulary.gguf()?.metadata())?.tokenizer;
    let theirs = tokenizers::Tokenizer::from_str(&vocabulary.json.to_string())
        .map_err(|e| Failure::new(format_args!("tokenizers: {e}")))?;
    let (mut rows, mut low) = (0, 0);
    for kind in ["english", "mixed", "multilingual", "code"] {
        for bytes in [4 << 10, 100 << 10] {
            let texts = documents(kind, bytes, OURS);
            let few = &texts[..THEIRS.div_ceil(bytes)];
            // CPU seconds a byte, and tokens.
            let us = || -> Result<(f64, usize), Failure> {
                let (start, mut tokens) = (CpuTime::now(), 0);
                for text in &texts {
                    tokens += black_box(ours.encode(text, OPTIONS)?).len();
                }
                Ok((start.elapsed().as_secs_f64() / (texts.len() * bytes) as f64, tokens))
            };
            let them = || -> Result<f64, Failure> {
                let start = CpuTime::now();
                for text in few {
                    black_box(theirs.encode_fast(text.as_str(), false).map_err(|e| Failure::new(format_args!("{e}")))?);
                }
                Ok(start.elapsed().as_secs_f64() / (few.len() * bytes) as f64)
            };
            let (_, tokens) = us()?;
            them()?;
            let (mut a, mut b, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
            for round in 0..ROUNDS {
                let pair = if round % 2 == 0 {
                    let a = us()?.0;
                    (a, them()?)
                } else {
                    let b = them()?;
                    (us()?.0, b)
                };
                a.push(pair.0);
                b.push(pair.1);
                ratios.push(pair.1 / pair.0);
            }
            let (a, b, ratio) = (median(&a), median(&b), median(&ratios));
            let speed = tokens as f64 / (a * (texts.len() * bytes) as f64);
            let seed = floor.seed_tokens_per_second.map_or("-".to_owned(), |seed| {
                let times = speed / seed;
                let met = if times < targets.encode.times_seed { " (LOW)" } else { "" };
                format!("{times:.0} x{met}")
            });
            let below = ratio < targets.encode.times_tokenizers;
            println!(
                "| {} | {kind} {}K | {:.1} | {:.2} | {ratio:.1}{} | {speed:.2e} | {seed} |",
                floor.name,
                bytes >> 10,
                1e-6 / a,
                1e-6 / b,
                if below { " BELOW" } else { "" }
            );
            rows += 1;
            low += usize::from(below);
        }
    }
    Ok((rows, low))
}
