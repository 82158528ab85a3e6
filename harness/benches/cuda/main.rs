//! A card by its own clock (CUDA events): the kernels of a token and of a prompt, whole models, batches of texts.
//!
//! `cargo bench --bench cuda [-- FILTER]`, on the card that `BITNET_BENCH_DEVICE` names (`cuda:1`; `cuda` without).
//! `BITNET_BENCH_DEVICE=cuda-emu` takes the emulation and a tiny shape, to see that all of it runs, which `cargo test` does; its
//! times mean nothing. Names end with the device:
//!
//! | name | what | throughput |
//! |---|---|---|
//! | `copy/BYTES` | a copy within the card: the bound of what follows | bytes read and written |
//! | `token/PRODUCTS-ROWSxCOLS` | ternary products of one token (q k v; o; gate up; down), with the norm before them and what follows them | bytes of weights |
//! | `token/attention-CONTEXT` | attention of one token in one layer, so many positions, its own among them | bytes of keys and values |
//! | `token/head-whole`, `token/head-screened` | the best token by the f16 output matrix, by its int8 copy | bytes of that |
//! | `token/...` | the rest: embedding, last norm, the next token | elements |
//! | `prompt/PRODUCTS-ROWSxCOLS`, `prompt/attention-TOKENS` | the same for a prompt | products of weight and activation; of query and key, of weight and value |
//! | `prompt/...` | the rest: embedding, norms with quantisation, rotation and append | elements |
//! | `decode/MODEL` | a token of a generation, with no host between tokens | tokens |
//! | `prefill/MODEL` | a prompt of 512 tokens in one chunk | tokens |
//! | `encode/VOCABULARY/TEXT-NxBYTES` | `DEVICE-kernels`: texts to ids, the card's clock. `DEVICE`: with transfers and all that the host does, its clock. `cpu`: one thread of the processor | bytes of text |
//!
//! Models and vocabularies as in the benches `decode` and `tokenizer`; shapes are those of BitNet-b1.58-2B-4T.
//!
//! A kernel of a microsecond is over before the host has started the next, so launches are measured as they are used: recorded,
//! one behind the other, and replayed. Weights and keys of a layer would stay in the card's second cache (50 MB of an H100)
//! when one launch is repeated; so there are as many copies of them as make [`BEYOND_CACHE`], which take turns, as a model's
//! layers do. Activations are where they are in a model: in that cache.
//!
//! A card that is not there is `unavailable`, with the reason; exit code 4 if it was named.

mod kernels;
mod whole;

use bitnet_engine::device;
use bitnet_engine::settings::Settings;
use bitnet_golden::matrix::Shape;
use bitnet_harness::Failure;
use bitnet_harness::bench::inputs;
use bitnet_harness::env::{BITNET_BENCH_DEVICE, Env};
use bitnet_harness::generate::streamed::SHAPES;
use bitnet_kernels::cuda::device::{Buffer, CudaError, Device, Replay, record};
use bitnet_kernels::cuda::launches::{Heads, Launches};
use criterion::{Criterion, Throughput};
use std::cell::OnceCell;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of weights that no cache of a card keeps from one turn to the next.
const BEYOND_CACHE: usize = 256 << 20;
/// Launches that are recorded together, at least.
const LAUNCHES: usize = 16;
/// As for the commands of `cargo xtask`.
const UNAVAILABLE: u8 = 4;

/// A card and what it is to do.
pub(crate) struct Card {
    pub(crate) device: Arc<dyn Device>,
    pub(crate) launches: Launches,
    pub(crate) shape: Shape,
    /// Positions of the cache that a token looks at.
    pub(crate) contexts: [usize; 3],
    /// Tokens of a prompt.
    pub(crate) prompt: usize,
    /// Whether it is the emulation.
    pub(crate) emulated: bool,
    /// The output matrix, once it was asked for.
    output: OnceCell<Buffer>,
}

/// What a case starts, over and over.
pub(crate) struct Work {
    /// Copies of what it reads, which take turns.
    pub(crate) copies: usize,
    /// Whether all of it is launches, which can be recorded.
    pub(crate) recorded: bool,
    /// With the so-many-th copy.
    pub(crate) start: Box<dyn Fn(usize) -> Result<(), CudaError>>,
}

/// Makes [`Work`].
type Make = Box<dyn Fn(&Card) -> Result<Work, Failure>>;

/// Something that is measured.
pub(crate) struct Case {
    name: String,
    throughput: Throughput,
    make: Make,
}

impl Case {
    /// `make` is asked when the filter lets the case through.
    pub(crate) fn new(
        name: impl Into<String>,
        throughput: Throughput,
        make: impl Fn(&Card) -> Result<Work, Failure> + 'static,
    ) -> Self {
        Self { name: name.into(), throughput, make: Box::new(make) }
    }
}

/// Launches that are ready: so many of them at a time.
struct Ready {
    work: Work,
    count: usize,
    replay: Option<Replay>,
}

impl Ready {
    fn new(card: &Card, case: &Case) -> Result<Self, Failure> {
        let work = (case.make)(card)?;
        let least = if card.emulated || !work.recorded { 1 } else { LAUNCHES };
        let count = least.next_multiple_of(work.copies.max(1));
        let all = || (0..count).try_for_each(|i| (work.start)(i % work.copies));
        let replay = if work.recorded { Some(record(&*card.device, &mut || all())?) } else { None };
        let ready = Self { replay, count, work };
        ready.start()?;
        card.device.finish()?;
        Ok(ready)
    }

    fn start(&self) -> Result<(), CudaError> {
        match &self.replay {
            Some(replay) => replay.start(),
            None => (0..self.count).try_for_each(|i| (self.work.start)(i % self.work.copies)),
        }
    }

    /// So many launches by the card's clock; whole rounds run, and the time is their share.
    fn time(&self, device: &dyn Device, launches: u64) -> Result<Duration, CudaError> {
        let rounds = launches.div_ceil(self.count as u64);
        let time = device.time(&mut || (0..rounds).try_for_each(|_| self.start()))?;
        Ok(time.mul_f64(launches as f64 / (rounds * self.count as u64) as f64))
    }
}

impl Card {
    /// The one that `name` says.
    fn open(name: &str) -> Result<Self, String> {
        let settings = Settings::from_env().map_err(|error| error.to_string())?;
        let opened = device::open(name, &settings).map_err(|error| error.to_string())?;
        let device = opened.card.ok_or_else(|| format!("`{name}` is not a card; unset {BITNET_BENCH_DEVICE}"))?;
        let emulated = name == device::cuda::EMULATED;
        let of = |name: &str| SHAPES.iter().find(|shape| shape.name == name).map(|shape| shape.shape);
        let shape = of(if emulated { "tiny" } else { "2b4t" }).ok_or("a shape without its name")?;
        let (contexts, prompt) = if emulated { ([40, 130, 256], 20) } else { ([512, 2048, 4096], 512) };
        let launches = Launches::new(&device);
        Ok(Self { device, launches, shape, contexts, prompt, emulated, output: OnceCell::new() })
    }

    /// Heads, and a cache for the longest context.
    pub(crate) fn heads(&self) -> Heads {
        let Shape { hidden, heads, kv_heads, .. } = self.shape;
        let capacity = self.contexts.into_iter().fold(self.prompt, usize::max);
        Heads { heads, kv_heads, dim: hidden / heads, capacity }
    }

    /// How many copies of so many bytes take turns.
    pub(crate) fn copies(&self, bytes: usize) -> usize {
        if self.emulated { 2 } else { BEYOND_CACHE.div_ceil(bytes.max(1)) }
    }

    /// So many copies of a buffer, itself among them.
    pub(crate) fn copied(&self, first: Buffer, copies: usize) -> Result<Vec<Buffer>, Failure> {
        let mut all = Vec::with_capacity(copies);
        for _ in 1..copies {
            let copy = Buffer::new::<u8>(&self.device, first.bytes(), "copies")?;
            copy.copy_of(&first)?;
            all.push(copy);
        }
        all.push(first);
        Ok(all)
    }

    /// f32 values.
    pub(crate) fn values(&self, n: usize) -> Result<Buffer, Failure> {
        Ok(Buffer::of(&self.device, &inputs::values(n), "activations")?)
    }

    /// Room for f32 values.
    pub(crate) fn room(&self, n: usize) -> Result<Buffer, Failure> {
        Ok(Buffer::new::<f32>(&self.device, n, "activations")?)
    }

    /// The output matrix, which is the embedding too.
    pub(crate) fn output(&self) -> Result<Buffer, Failure> {
        if let Some(output) = self.output.get() {
            return Ok(output.clone());
        }
        let bytes = inputs::output((self.shape.vocab, self.shape.hidden))?;
        let made = Buffer::of(&self.device, &bytes, "the output matrix")?;
        Ok(self.output.get_or_init(|| made).clone())
    }
}

/// The result, or the bench ends with the words of what failed.
pub(crate) fn good<T>(result: Result<T, impl Into<Failure>>) -> T {
    result.unwrap_or_else(|error| panic!("{}", error.into().message))
}

fn measure(criterion: &mut Criterion, card: &Card, group: &str, cases: Vec<Case>) {
    let mut group = criterion.benchmark_group(group);
    for case in cases {
        group.throughput(case.throughput.clone());
        // Made once, when the first sample is asked for, and gone before the next case.
        let mut ready = None;
        group.bench_function(format!("{}/{}", case.name, card.device.name()), |b| {
            let ready = ready.get_or_insert_with(|| good(Ready::new(card, &case)));
            b.iter_custom(|launches| good(ready.time(&*card.device, launches)));
        });
    }
    group.finish();
}

fn main() -> ExitCode {
    let has = |flag: &str| std::env::args().any(|arg| arg == flag);
    // `cargo bench` adds `--bench`, and criterion measures then.
    let measures = has("--bench") && !has("--test");
    let env = Env::read();
    let named = env.get(BITNET_BENCH_DEVICE);
    let name = named.unwrap_or(if measures { device::cuda::NAME } else { device::cuda::EMULATED });
    let card = match Card::open(name) {
        Ok(card) => card,
        Err(reason) => {
            eprintln!("cuda: unavailable: {reason}; {BITNET_BENCH_DEVICE} names another card, or cuda-emu");
            return if named.is_some() { ExitCode::from(UNAVAILABLE) } else { ExitCode::SUCCESS };
        }
    };
    eprintln!("{}: {}", card.device.name(), card.device.describe());
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .configure_from_args();
    measure(&mut criterion, &card, "copy", kernels::copies(&card));
    measure(&mut criterion, &card, "token", kernels::token(&card));
    measure(&mut criterion, &card, "prompt", kernels::prompt(&card));
    whole::models(&mut criterion, &card);
    whole::texts(&mut criterion, &card);
    criterion.final_summary();
    ExitCode::SUCCESS
}
