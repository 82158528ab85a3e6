//! A card: its bits against the oracle's, then how fast it decodes and reads prompts, and which share that is of what its
//! memory allows.
//!
//! The bound of a context is the card's own: the bytes that one token reads (every weight once, keys and values of all
//! positions) at the rate at which the card copies its memory, by its own clock. A screened head reads fewer.

use super::peers::ModelFile;
use super::ratio::Spread;
use super::table::{digits, line};
use crate::check::Failure;
use crate::check::digest::digest;
use crate::golden::ORACLE_DEVICE;
use crate::models;
use crate::provenance::HostInfo;
use bitnet_engine::device::{self, Opened};
use bitnet_engine::inference::{Sampler, SamplerOptions, Session, Want};
use bitnet_engine::load::Loaded;
use bitnet_kernels::cuda::device::{Buffer, CudaError, Device};
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
    /// How often each is measured.
    pub rounds: usize,
    /// Bytes of a copy for the bandwidth.
    pub copy: usize,
    /// Threads of the processor, for the oracle.
    pub threads: usize,
}

/// The bits.
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
    #[must_use]
    pub fn equal(&self) -> bool {
        self.card.iter().all(|(_, digest)| *digest == self.oracle) && self.greedy[0] == self.greedy[1]
    }
}

/// A generation after so many tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decode {
    /// Tokens before it.
    pub context: usize,
    /// New tokens a second.
    pub tokens_per_second: Spread,
    /// Bytes that a token in the middle of it reads: weights, keys and values.
    pub token_bytes: u64,
    /// Tokens a second if memory were all.
    pub bound: f64,
    /// The median by the bound.
    pub share: f64,
}

/// A prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prefill {
    /// Its tokens.
    pub tokens: usize,
    /// Tokens a second, to what a greedy sampler needs of the last one's logits.
    pub tokens_per_second: Spread,
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// `measured`; `different` if the bits are not the oracle's.
    pub outcome: String,
    /// When.
    pub at: String,
    /// Of this checkout.
    pub commit: Option<String>,
    /// The machine.
    pub host: HostInfo,
    /// Whether the host's part was built with optimisation.
    pub optimised: bool,
    /// `cuda:0`.
    pub device: String,
    /// The card, its driver, the compiler.
    pub about: String,
    /// The model.
    pub model: ModelFile,
    /// The bits.
    pub bits: Bits,
    /// Bytes that the card reads and writes a second while it copies.
    pub copy_bytes_per_second: Spread,
    /// Tokens of a generation.
    pub generate: usize,
    /// By context.
    pub decode: Vec<Decode>,
    /// Prompt tokens that are computed together.
    pub chunk: usize,
    /// By length.
    pub prefill: Vec<Prefill>,
}

/// Figures of a card.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// See [`Report::copy_bytes_per_second`].
    pub copy: Spread,
    /// By context.
    pub decode: Vec<Decode>,
    /// By length.
    pub prefill: Vec<Prefill>,
}

/// Ids without meaning, spread over the vocabulary.
fn ids(loaded: &Loaded, count: usize) -> Vec<u32> {
    let vocab = loaded.model.config.vocab_size.max(1);
    (0..count).map(|i| ((i * 7919 + 1) % vocab) as u32).collect()
}

/// The card's bits and the oracle's.
///
/// # Errors
/// Either cannot compute.
pub fn bits(loaded: &Loaded, card: &Opened, ask: &Ask) -> Result<Bits, Failure> {
    let ids = ids(loaded, ask.digest);
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

/// Greedy steps from `position` on, beginning with `token`.
fn steps(session: &mut Session, position: usize, token: u32, count: usize) -> Result<Vec<u32>, Failure> {
    let mut sampler = Sampler::new(SamplerOptions { temperature: 0.0, ..SamplerOptions::default() })?;
    session.truncate(position);
    let mut tokens = vec![token];
    for _ in 0..count {
        let last = tokens.last().copied().unwrap_or(token);
        session.hold(&[last], 1)?;
        let logits = session.held(0, sampler.needs(&tokens).as_ref())?;
        tokens.push(sampler.sample(logits, &tokens));
    }
    tokens.remove(0);
    Ok(tokens)
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
    let longest = ask.contexts.iter().map(|c| c + ask.generate.max(WARM_UP)).chain(ask.prompts.iter().copied()).max();
    let longest = longest.unwrap_or(0);
    let most = loaded.model.config.context_length;
    if longest == 0 || longest > most {
        return Err(Failure::new(format_args!("{longest} tokens do not fit the model, whose context is {most}")));
    }
    let ids = ids(loaded, longest);
    let mut session = models::session(loaded, card.clone(), 1, ask.chunk, longest)?;
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
        let token_bytes = weight_bytes + cache_bytes(loaded) * (context + ask.generate / 2) as u64;
        let bound = copy.median / token_bytes as f64;
        decode.push(Decode { context, token_bytes, bound, share: tokens_per_second.median / bound, tokens_per_second });
    }
    let mut prefill = Vec::new();
    for &tokens in &ask.prompts {
        say(&format!("prompts of {tokens} tokens"));
        let mut prompt = || {
            let sampler = Sampler::new(SamplerOptions::default())?;
            session.truncate(0);
            let started = Instant::now();
            session.hold(&ids[..tokens], 1)?;
            session.held(0, sampler.needs(&ids[..tokens]).as_ref())?;
            Ok(started.elapsed())
        };
        prompt()?;
        prefill.push(Prefill { tokens, tokens_per_second: rate(ask.rounds, tokens, prompt)? });
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

/// The report as one page of text.
#[must_use]
pub fn page(report: &Report) -> String {
    let Report { model, bits, copy_bytes_per_second: copy, .. } = report;
    let mut out = String::new();
    let commit = report.commit.as_deref().unwrap_or("unknown");
    line(&mut out, format_args!("{}: {}, commit {commit:.12}, {}", report.device, report.about, report.at));
    if !report.optimised {
        line(&mut out, format_args!("the host's part is a debug build: `cargo run --release -p xtask -- bench-gpu`"));
    }
    line(
        &mut out,
        format_args!(
            "{} ({}, {}), {:.2} GB, of which {:.2} GB are read a token",
            model.name,
            model.architecture,
            model.quant,
            1e-9 * model.bytes as f64,
            1e-9 * model.weight_bytes as f64,
        ),
    );
    for (chunk, digest) in &bits.card {
        let verdict = if *digest == bits.oracle { "the scalar oracle's" } else { "NOT the scalar oracle's" };
        line(&mut out, format_args!("logits of {} tokens in chunks of {chunk}: {verdict}, {digest}", bits.tokens));
    }
    let verdict = if bits.greedy[0] == bits.greedy[1] { "the processor's" } else { "NOT the processor's" };
    line(&mut out, format_args!("{} greedy tokens: {verdict}", bits.greedy[1].len()));
    if report.decode.is_empty() && report.prefill.is_empty() {
        line(&mut out, format_args!("not measured: other bits have no speed"));
        return out;
    }
    line(
        &mut out,
        format_args!(
            "memory is copied at {} GB/s ({}..{}, read and written)",
            digits(1e-9 * copy.median),
            digits(1e-9 * copy.least),
            digits(1e-9 * copy.most),
        ),
    );
    let rate = |s: &Spread| format!("{} ({}..{})", digits(s.median), digits(s.least), digits(s.most));
    let generate = report.generate;
    line(
        &mut out,
        format_args!("\n| context | generate {generate}, tokens/s | GB a token | bound, tokens/s | of the bound |"),
    );
    line(&mut out, format_args!("|---|---|---|---|---|"));
    for row in &report.decode {
        let (rate, bytes, share) = (rate(&row.tokens_per_second), 1e-9 * row.token_bytes as f64, 100.0 * row.share);
        let bound = digits(row.bound);
        line(&mut out, format_args!("| {} | {rate} | {bytes:.3} | {bound} | {share:.1} % |", row.context));
    }
    line(&mut out, format_args!("\n| prompt | tokens/s, in chunks of {} |", report.chunk));
    line(&mut out, format_args!("|---|---|"));
    for row in &report.prefill {
        line(&mut out, format_args!("| {} | {} |", row.tokens, rate(&row.tokens_per_second)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let one = |v| Spread { median: v, least: v / 2.0, most: v * 2.0 };
        Report {
            outcome: "measured".to_owned(),
            at: "now".to_owned(),
            commit: Some("0123456789abcdef".to_owned()),
            host: HostInfo::here(),
            optimised: false,
            device: "cuda:0".to_owned(),
            about: "a card".to_owned(),
            model: ModelFile {
                name: "m.gguf".to_owned(),
                bytes: 1_300_000_000,
                weight_bytes: 1_200_000_000,
                architecture: "bitnet-b1.58".to_owned(),
                quant: "i2_s".to_owned(),
            },
            bits: Bits {
                tokens: 9,
                oracle: "aa".to_owned(),
                card: vec![(1, "aa".to_owned()), (9, "aa".to_owned())],
                greedy: [vec![1, 2], vec![1, 2]],
            },
            copy_bytes_per_second: one(3e12),
            generate: 64,
            decode: vec![Decode {
                context: 128,
                tokens_per_second: one(1500.0),
                token_bytes: 1_212_000_000,
                bound: 2475.0,
                share: 0.606,
            }],
            chunk: 512,
            prefill: vec![Prefill { tokens: 512, tokens_per_second: one(20_000.0) }],
        }
    }

    #[test]
    fn a_page_has_figures_and_the_bits() {
        let page = page(&report());
        for words in [
            "cuda:0: a card, commit 0123456789ab, now",
            "the host's part is a debug build",
            "m.gguf (bitnet-b1.58, i2_s), 1.30 GB, of which 1.20 GB are read a token",
            "logits of 9 tokens in chunks of 1: the scalar oracle's, aa",
            "2 greedy tokens: the processor's",
            "memory is copied at 3000 GB/s (1500..6000, read and written)",
            "| context | generate 64, tokens/s | GB a token | bound, tokens/s | of the bound |",
            "| 128 | 1500 (750.0..3000) | 1.212 | 2475 | 60.6 % |",
            "| 512 | 20000 (10000..40000) |",
        ] {
            assert!(page.contains(words), "{words:?} is not in\n{page}");
        }
    }

    #[test]
    fn other_bits_are_said() {
        let mut wrong = report();
        assert!(wrong.bits.equal());
        wrong.bits.card[0].1 = "bb".to_owned();
        (wrong.decode, wrong.prefill) = (Vec::new(), Vec::new());
        let page = page(&wrong);
        assert!(!wrong.bits.equal() && page.contains("in chunks of 1: NOT the scalar oracle's, bb"), "{page}");
        assert!(page.ends_with("not measured: other bits have no speed\n"), "{page}");
        let mut wrong = report();
        wrong.bits.greedy[1] = vec![1, 3];
        assert!(!wrong.bits.equal() && super::page(&wrong).contains("2 greedy tokens: NOT the processor's"));
    }
}
