//! Whole models and batches of texts.

use crate::{Card, good};
use bitnet_engine::device::Opened;
use bitnet_engine::inference::{Session, Want};
use bitnet_engine::load::Loaded;
use bitnet_engine::tokenizer::gpu::{GpuTokenizer, Report};
use bitnet_engine::tokenizer::{EncodeOptions, from_gguf};
use bitnet_harness::Failure;
use bitnet_harness::bench::gpu::clock::{BEFORE, alone, by_its_clock, prompt, steps};
use bitnet_harness::bench::{inputs, models};
use bitnet_harness::env::Env;
use bitnet_harness::models::{pool, session};
use bitnet_harness::paths::Paths;
use bitnet_harness::strings::document;
use bitnet_harness::verdict::Availability;
use bitnet_harness::vocabularies::{Entry, by_name};
use bitnet_kernels::best;
use bitnet_kernels::cuda::metered::Metered;
use criterion::{Criterion, Throughput};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Tokens in the cache before a generation, and the most that are generated before it begins again.
const BETWEEN: (usize, usize) = (64, 64);
const OPTIONS: EncodeOptions = EncodeOptions { add_special: false, parse_special: true };

/// A model on a card.
struct Running {
    session: Session,
    metered: Metered,
    ids: Vec<u32>,
}

impl Running {
    fn new(card: &Card, loaded: &Loaded, length: usize) -> Result<Self, Failure> {
        let metered = Metered::new(&card.device);
        let opened = Opened { kernels: best(), card: Some(Arc::new(metered.clone())) };
        let session = session(loaded, opened, 1, length, length)?;
        Ok(Self { session, metered, ids: inputs::ids(loaded.model.config.vocab_size, length) })
    }

    /// So many generated tokens.
    fn decode(&mut self, mut tokens: u64) -> Result<Duration, Failure> {
        let (after, most) = BETWEEN;
        let mut time = Duration::ZERO;
        while tokens > 0 {
            let count = tokens.min(most as u64);
            let found = alone(&mut self.session, &self.metered, (after, self.ids[after]), count as usize)?;
            time += found.time.ok_or_else(|| Failure::new("a token is more than one recording"))?;
            tokens -= count;
        }
        Ok(time)
    }

    /// So many prompts.
    fn prefill(&mut self, prompts: u64) -> Result<Duration, Failure> {
        let Self { session, metered, ids } = self;
        by_its_clock(metered, &mut || (0..prompts).try_for_each(|_| prompt(session, ids)))
    }
}

/// Generation and prompts of every model of the benches; of the smallest only where the card is emulated.
pub(crate) fn models(criterion: &mut Criterion, card: &Card) {
    let name = card.device.name();
    let embedded = || vec![models::named(models::embedded(&Paths::discover(&Env::read())))];
    for (model, path) in if card.emulated { embedded() } else { models::paths() } {
        let loaded = good(models::open(&path));
        let most = loaded.model.config.context_length;
        let mut group = criterion.benchmark_group("decode");
        group.throughput(Throughput::Elements(1));
        let mut running = None;
        group.bench_function(format!("{model}/{name}"), |b| {
            let running = running.get_or_insert_with(|| {
                let (after, new) = BETWEEN;
                let mut running = good(Running::new(card, &loaded, (after + BEFORE + new).min(most)));
                good(running.session.forward(&running.ids[..after], Want::Nothing, &mut |_, _| {}));
                // The first tokens record.
                good(steps(&mut running.session, after, running.ids[after], BEFORE + 1));
                running
            });
            b.iter_custom(|tokens| good(running.decode(tokens)));
        });
        group.finish();
        drop(running);

        let length = card.prompt.min(most);
        let mut group = criterion.benchmark_group("prefill");
        group.throughput(Throughput::Elements(length as u64));
        let mut running = None;
        group.bench_function(format!("{model}/{name}"), |b| {
            let running = running.get_or_insert_with(|| {
                let mut running = good(Running::new(card, &loaded, length));
                good(running.prefill(1));
                running
            });
            b.iter_custom(|prompts| good(running.prefill(prompts)));
        });
        group.finish();
    }
}

/// A tokenizer here and on the card, with texts.
struct Texts {
    gpu: GpuTokenizer,
    texts: Vec<String>,
}

impl Texts {
    fn new(card: &Card, entry: &Entry, paths: &Paths, texts: Vec<String>) -> Result<Self, Failure> {
        let inner = from_gguf(entry.load(paths)?.gguf()?.metadata())?.tokenizer;
        let gpu = GpuTokenizer::new(&card.device, inner)?;
        let all = Self { gpu, texts };
        // Memory for them is there from now on, and the ids are right.
        let (ids, _) = all.on_card()?;
        if ids != all.on_cpu()? {
            return Err(Failure::new(format_args!("{}: other ids than the processor's", entry.name)));
        }
        Ok(all)
    }

    fn on_card(&self) -> Result<(Vec<Vec<u32>>, Report), Failure> {
        let texts: Vec<&str> = self.texts.iter().map(String::as_str).collect();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(self.gpu.encode_on_device(&texts, OPTIONS, &*pool(threads)?)??)
    }

    fn on_cpu(&self) -> Result<Vec<Vec<u32>>, Failure> {
        let texts: Vec<&str> = self.texts.iter().map(String::as_str).collect();
        Ok(self.gpu.inner().encode_batch(&texts, OPTIONS, &*pool(1)?)?)
    }
}

/// So many times, by the host's clock.
fn by_the_hosts(times: u64, mut work: impl FnMut() -> Result<(), Failure>) -> Result<Duration, Failure> {
    let started = Instant::now();
    (0..times).try_for_each(|_| work())?;
    Ok(started.elapsed())
}

/// A thousand documents as one batch; few short ones of the smallest vocabulary where the card is emulated.
pub(crate) fn texts(criterion: &mut Criterion, card: &Card) {
    let paths = Paths::discover(&Env::read());
    let (vocabularies, kinds, documents, bytes): (&[&str], &[&str], usize, usize) = if card.emulated {
        (&["tiny-bitnet"], &["mixed"], 8, 128)
    } else {
        (&["llama3", "gpt2"], &["english", "mixed"], 1000, 4 << 10)
    };
    for entry in vocabularies.iter().filter_map(|name| by_name(name)) {
        if let Availability::Unavailable { reason, remedy, .. } = entry.availability(&paths) {
            eprintln!("{}: unavailable: {reason}; {remedy}", entry.name);
            continue;
        }
        for kind in kinds {
            let texts: Vec<String> = (0..documents).map(|number| document(kind, bytes, number)).collect();
            let mut group = criterion.benchmark_group(format!("encode/{}/{kind}-{documents}x{bytes}", entry.name));
            group.throughput(Throughput::Bytes(texts.iter().map(String::len).sum::<usize>() as u64));
            let ready = std::cell::OnceCell::new();
            let ready = || ready.get_or_init(|| good(Texts::new(card, entry, &paths, texts.clone())));
            let name = card.device.name();
            group.bench_function(format!("{name}-kernels"), |b| {
                b.iter_custom(|times| {
                    let kernels = (0..times).map(|_| good(ready().on_card()).1.times.kernels);
                    kernels.sum()
                });
            });
            group.bench_function(name, |b| {
                b.iter_custom(|times| good(by_the_hosts(times, || ready().on_card().map(|ids| drop(black_box(ids))))));
            });
            group.bench_function("cpu", |b| {
                b.iter_custom(|times| good(by_the_hosts(times, || ready().on_cpu().map(|ids| drop(black_box(ids))))));
            });
            group.finish();
        }
    }
}
