//! A card: its bits against the oracle's, then how fast it decodes and reads prompts, and which share that is of what its
//! memory allows.
//!
//! The bound of a context is the card's own: the bytes that one token reads (every weight once, keys and values of all
//! positions) at the rate at which the card copies its memory, by its own clock. A screened head reads fewer.
//!
//! Tokens a second are what a user sees, by the host's clock. Beside them stands what the card takes by its own: of a
//! generation without the host between its tokens, of a prompt from its first kernel to its last ([`clock`]). What is between
//! the two figures is the host's.

pub mod clock;
mod page;

pub use page::page;

use super::inputs::ids;
use super::peers::ModelFile;
use super::ratio::Spread;
use crate::failure::Failure;
use crate::golden::ORACLE_DEVICE;
use crate::models::{self, digest};
use crate::provenance::HostInfo;
use bitnet_engine::device::{self, Opened};
use bitnet_engine::inference::Want;
use bitnet_engine::load::Loaded;
use bitnet_kernels::cuda::device::{Buffer, CudaError, Device};
use bitnet_kernels::cuda::metered::Metered;
use clock::{alone, by_its_clock, steps};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Greedy steps that are held against the processor's.
const GREEDY: usize = 16;
/// Copies for one figure of the bandwidth.
const COPIES: usize = 10;
/// Steps before the first that counts.
const WARM_UP: usize = 3;

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Tokens whose logits must be the oracle's.
    pub digest: usize,
    /// Tokens in the cache before a generation.
    pub contexts: Vec<usize>,
    /// Tokens of a generation.
    pub generate: usize,
    /// Lengths of prompts.
    pub prompts: Vec<usize>,
    /// Prompt tokens that are computed together.
    pub chunk: usize,
    pub rounds: usize,
    /// Bytes of a copy for the bandwidth.
    pub copy: usize,
    /// Threads of the processor, for the oracle.
    pub threads: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bits {
    /// Tokens whose logits were compared.
    pub tokens: usize,
    /// SHA-256 of the oracle's logits.
    pub oracle: String,
    /// Of the card's, by the size of the chunks: of one token (as a generation computes) and of all.
    pub card: Vec<(usize, String)>,
    /// Greedy tokens by the processor and by the card, which picks them itself.
    pub greedy: [Vec<u32>; 2],
}

impl Bits {
    /// Whether the card's are the oracle's.
    pub fn equal(&self) -> bool {
        self.card.iter().all(|(_, digest)| *digest == self.oracle) && self.greedy[0] == self.greedy[1]
    }
}

/// What a card takes by its own clock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clock {
    /// Tokens a second; none where a token is more than one recording.
    pub tokens_per_second: Option<Spread>,
    /// Kernels of a generated token, or of a prompt.
    pub launches: usize,
}

/// A generation after so many tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decode {
    pub context: usize,
    pub tokens_per_second: Spread,
    /// Without the host between them.
    pub card: Clock,
    /// Bytes that a token in the middle of it reads: weights, keys and values.
    pub token_bytes: u64,
    /// Tokens a second if memory were all.
    pub bound: f64,
    /// The median by the bound.
    pub share: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prefill {
    pub tokens: usize,
    /// Tokens a second, to what a greedy sampler needs of the last one's logits.
    pub tokens_per_second: Spread,
    /// From the first kernel to the last.
    pub card: Clock,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardReport {
    /// `measured`; `different` if the bits are not the oracle's.
    pub outcome: String,
    pub at: String,
    pub commit: Option<String>,
    pub host: HostInfo,
    /// Whether the host's part was built with optimisation.
    pub optimised: bool,
    /// `cuda:0`.
    pub device: String,
    /// The card, its driver, the compiler.
    pub about: String,
    pub model: ModelFile,
    pub bits: Bits,
    /// Bytes that the card reads and writes a second while it copies.
    pub copy_bytes_per_second: Spread,
    pub generate: usize,
    pub decode: Vec<Decode>,
    /// Prompt tokens that are computed together.
    pub chunk: usize,
    pub prefill: Vec<Prefill>,
}

/// Figures of a card.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// See [`CardReport::copy_bytes_per_second`].
    pub copy: Spread,
    pub decode: Vec<Decode>,
    pub prefill: Vec<Prefill>,
}

/// The card's bits and the oracle's.
///
/// # Errors
/// Either cannot compute.
pub fn bits(loaded: &Loaded, card: &Opened, ask: &Ask) -> Result<Bits, Failure> {
    let ids = ids(loaded.model.config.vocab_size, ask.digest);
    let oracle = Opened { kernels: device::kernels(ORACLE_DEVICE)?, card: None };
    let best = Opened { kernels: card.kernels, card: None };
    let all = ids.len();
    let of = |chunk| Ok::<_, Failure>((chunk, digest(loaded, card, &ids, 1, chunk)?));
    let greedy = |opened: &Opened| {
        let mut session = models::session(loaded, opened.clone(), ask.threads, all, all + GREEDY)?;
        session.forward(&ids[..all - 1], Want::Nothing, &mut |_, _| {})?;
        steps(&mut session, all - 1, ids[all - 1], GREEDY)
    };
    Ok(Bits {
        tokens: all,
        oracle: digest(loaded, &oracle, &ids, ask.threads, all)?,
        card: vec![of(1)?, of(all)?],
        greedy: [greedy(&best)?, greedy(card)?],
    })
}

/// Measures a card. `weight_bytes` is what a token reads of the model; `say` is told what comes next.
///
/// # Errors
/// The card fails, or a length does not fit the model.
pub fn figures(
    loaded: &Loaded,
    card: &Opened,
    weight_bytes: u64,
    ask: &Ask,
    say: &mut dyn FnMut(&str),
) -> Result<Figures, Failure> {
    let device = card.card.as_ref().ok_or_else(|| Failure::new("only a card is measured here"))?;
    say("copying memory");
    let copy = bandwidth(device, ask.copy, ask.rounds)?;
    let new = ask.generate.max(WARM_UP) + clock::BEFORE;
    let longest = ask.contexts.iter().map(|c| c + new).chain(ask.prompts.iter().copied()).max();
    let longest = longest.unwrap_or(0);
    let most = loaded.model.config.context_length;
    if longest == 0 || longest > most {
        return Err(Failure::new(format_args!("{longest} tokens do not fit the model, whose context is {most}")));
    }
    let ids = ids(loaded.model.config.vocab_size, longest);
    let metered = Metered::new(device);
    let opened = Opened { kernels: card.kernels, card: Some(Arc::new(metered.clone())) };
    let mut session = models::session(loaded, opened, 1, ask.chunk, longest)?;
    let mut decode = Vec::new();
    for &context in &ask.contexts {
        say(&format!("generating {} tokens after {context}", ask.generate));
        session.truncate(0);
        session.forward(&ids[..context], Want::Nothing, &mut |_, _| {})?;
        steps(&mut session, context, ids[context], WARM_UP)?;
        let tokens_per_second = rate(ask.rounds, ask.generate, || {
            let started = Instant::now();
            steps(&mut session, context, ids[context], ask.generate)?;
            Ok(started.elapsed())
        })?;
        let (mut launches, mut rates) = (0, Vec::new());
        for _ in 0..ask.rounds {
            let count = new - clock::BEFORE;
            let found = alone(&mut session, &metered, (context, ids[context]), count)?;
            launches = found.launches;
            rates.extend(found.time.map(|time| count as f64 / time.as_secs_f64().max(1e-9)));
        }
        let card = Clock { tokens_per_second: Spread::of(&rates), launches };
        let token_bytes = weight_bytes + cache_bytes(loaded) * (context + ask.generate / 2) as u64;
        let bound = copy.median / token_bytes as f64;
        let share = tokens_per_second.median / bound;
        decode.push(Decode { context, token_bytes, bound, share, tokens_per_second, card });
    }
    let mut prefill = Vec::new();
    for &tokens in &ask.prompts {
        say(&format!("prompts of {tokens} tokens"));
        let mut prompt = || clock::prompt(&mut session, &ids[..tokens]);
        prompt()?;
        let tokens_per_second = rate(ask.rounds, tokens, || {
            let started = Instant::now();
            prompt()?;
            Ok(started.elapsed())
        })?;
        let before = metered.counts();
        let on_card = rate(ask.rounds, tokens, || by_its_clock(&metered, &mut prompt))?;
        let launches = (metered.counts() - before).launches / ask.rounds.max(1);
        prefill.push(Prefill { tokens, tokens_per_second, card: Clock { tokens_per_second: Some(on_card), launches } });
    }
    Ok(Figures { copy, decode, prefill })
}

/// Bytes of keys and values of one position, f16.
fn cache_bytes(loaded: &Loaded) -> u64 {
    let config = &loaded.model.config;
    (2 * 2 * config.block_count * config.kv_heads * config.head_dim) as u64
}

/// So many tokens in each of some times, a second.
fn rate(rounds: usize, tokens: usize, mut time: impl FnMut() -> Result<Duration, Failure>) -> Result<Spread, Failure> {
    let rates = (0..rounds).map(|_| Ok(tokens as f64 / time()?.as_secs_f64().max(1e-9)));
    spread(&rates.collect::<Result<Vec<_>, Failure>>()?)
}

fn spread(values: &[f64]) -> Result<Spread, Failure> {
    Spread::of(values).ok_or_else(|| Failure::new("nothing was measured"))
}

/// Bytes a second, read and written, of copies within the card.
fn bandwidth(device: &Arc<dyn Device>, bytes: usize, rounds: usize) -> Result<Spread, Failure> {
    let buffer = || Buffer::new::<u8>(device, bytes, "measuring the bandwidth");
    let (from, to) = (buffer()?, buffer()?);
    let copy = || to.copy_of(&from);
    copy()?;
    let mut all = || (0..COPIES).try_for_each(|_| copy());
    let rates = (0..rounds).map(|_| {
        let seconds = device.time(&mut all)?.as_secs_f64().max(1e-9);
        Ok((2 * bytes * COPIES) as f64 / seconds)
    });
    spread(&rates.collect::<Result<Vec<_>, CudaError>>()?)
}
