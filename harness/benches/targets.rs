//! `golden/targets.toml`, held: encoding against the crate `tokenizers`, in turns, on the same texts; what a tokenizer holds; how
//! long it takes to find one, in a cache and on a hub of this machine.
//!
//! `cargo bench --bench targets [-- VOCABULARY...]`. A row's figures are medians of the CPU time of
//! this thread, over rounds in which both engines encode the same documents one after the other (first us, then them, then
//! them first), so that what else the machine does hits both. Exit code 1 if a ratio is below its floor or a size or time above
//! its limit, 2 if nothing was measured. Speeds are reported beside the seed's figures.

use bitnet_engine::discovery::{DiscoverySettings, TokenizerDiscovery, TokenizerFallbackChain};
use bitnet_engine::gguf::GgufWriter;
use bitnet_engine::hub::HubSettings;
use bitnet_engine::tokenizer::{EncodeOptions, from_gguf};
use bitnet_harness::Failure;
use bitnet_harness::bench::ratio::median;
use bitnet_harness::cpu_time::CpuTime;
use bitnet_harness::data::targets::{Floor, Targets, read};
use bitnet_harness::env::Env;
use bitnet_harness::paths::Paths;
use bitnet_harness::strings::documents;
use bitnet_harness::verdict::Availability;
use bitnet_harness::vocabularies::by_name;
use bitnet_mock_hub::{MockHub, Repo, Storage};
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

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
    match found(&targets, &paths) {
        Ok(above) => low += above,
        Err(failure) => {
            eprintln!("targets: discovery: {}", failure.message);
            return ExitCode::from(2);
        }
    }
    let floor = targets.encode.times_tokenizers;
    eprintln!("targets: {rows} rows, {low} below {floor} times tokenizers or above a limit");
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
    let gguf = vocabulary.gguf()?;
    let before = HELD.load(Ordering::Relaxed);
    let ours = from_gguf(gguf.metadata())?.tokenizer;
    black_box(ours.encode(&documents("mixed", 1 << 20, 1 << 20)[0], OPTIONS)?);
    let held = HELD.load(Ordering::Relaxed).saturating_sub(before) as f64 / 1e6;
    let above = held > floor.seed_mb;
    let note = if above { " ABOVE" } else { "" };
    eprintln!("targets: {}: {held:.1} MB held, {:.0} at most{note}", floor.name, floor.seed_mb);
    let theirs = tokenizers::Tokenizer::from_str(&vocabulary.json.to_string())
        .map_err(|e| Failure::new(format_args!("tokenizers: {e}")))?;
    let (mut rows, mut low) = (0, usize::from(above));
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

/// Milliseconds to a tokenizer that is not in the model's file: from a hub of this machine, and then from the cache. How many are
/// above their limits.
fn found(targets: &Targets, paths: &Paths) -> Result<usize, Failure> {
    let dir = tempfile::tempdir()?;
    let gpt2 = by_name("gpt2").ok_or_else(|| Failure::new("there is no gpt2"))?.load(paths)?;
    let model = dir.path().join("model.gguf");
    let whole = gpt2.gguf()?;
    let mut writer = GgufWriter::new(3, 32)?;
    writer.copy_all_meta(whole.metadata(), |key| !key.starts_with("tokenizer."))?;
    writer.meta("llama.vocab_size", 50_257u32)?;
    writer.write_file(&model)?;
    let named = TokenizerDiscovery::from_gguf(&model)?.chain(&DiscoverySettings::default());
    let wanted = named.needs_download.ok_or_else(|| Failure::new("the model is not recognised as GPT-2's"))?;
    let body = gpt2.json.to_string().into_bytes();
    let mut repo = Repo::new(&wanted.repo);
    for file in &wanted.files {
        repo = repo.file(file, body.clone(), Storage::Lfs);
    }
    let hub = MockHub::builder().repo(repo).start()?;
    let mut client = HubSettings::new(dir.path().join("cache"));
    client.endpoint = hub.endpoint().to_owned();
    let settings = DiscoverySettings { auto_download: true, hub: Some(client), ..DiscoverySettings::default() };
    let once = || -> Result<f64, Failure> {
        let start = Instant::now();
        let discovery = TokenizerDiscovery::from_gguf(&model)?;
        black_box(TokenizerFallbackChain::new(settings.clone()).resolve(&discovery)?);
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    let download = once()?;
    let cached = (0..ROUNDS).map(|_| once()).collect::<Result<Vec<_>, _>>()?;
    let rows = [
        ("discovery with a download", download, targets.discovery.download_ms),
        ("discovery in the cache", median(&cached), targets.discovery.cached_ms),
    ];
    for (what, took, limit) in rows {
        let note = if took > limit { " ABOVE" } else { "" };
        eprintln!("targets: {what}: {took:.1} ms, {limit:.0} at most{note}");
    }
    Ok(rows.iter().filter(|(_, took, limit)| took > limit).count())
}

/// Bytes of heap that this program holds.
static HELD: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting touches an atomic only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}
