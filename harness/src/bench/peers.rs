//! Our engine and others in turn on one machine, and what is left of it.
//!
//! For each number of threads every engine gets ready; then come the rounds. In a round each is measured once, and memory
//! too; even rounds go from the first engine to the last, odd ones back, so that what gets faster or slower within a round
//! hits nobody always. An engine that fails leaves with its reason and without figures for that number of threads.

use super::engine::{Ask, Engine, EngineError};
use super::noise::Guard;
use super::person::Wait;
use super::ratio::Spread;
use crate::provenance::HostInfo;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// An engine that was asked for.
pub struct Contender<'a> {
    pub name: String,
    /// What it is and how it is run.
    pub about: String,
    pub engine: Result<Box<dyn Engine + 'a>, EngineError>,
}

/// Figures of one kind, round by round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Series {
    pub samples: Vec<f64>,
    pub spread: Spread,
    /// How many times better ours is, by round; absent for ours.
    pub ours_is: Option<Spread>,
}

/// What an engine did on one number of threads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    pub threads: usize,
    pub engine: String,
    /// Prompt tokens a second.
    pub prefill: Option<Series>,
    /// New tokens a second.
    pub decode: Option<Series>,
    /// Seconds from the start of a process to the first token.
    pub first_token: Option<Series>,
    /// Tokens of the text for that.
    pub first_token_prompt: Option<usize>,
    /// The most memory of its process, in bytes.
    pub peak_rss: Option<u64>,
    /// The highest foreign load during a measurement, as a share of the machine, if the system says it.
    pub foreign: Option<f64>,
    /// Measurements with more foreign load than the guard allows, after all repetitions.
    pub noisy: usize,
    pub failure: Option<String>,
    pub remedy: Option<String>,
}

/// How fast memory was read on some threads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    pub threads: usize,
    pub bytes_per_second: Series,
    /// Tokens a second if all weights were read once a token, at the median.
    pub bound_tokens_per_second: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFile {
    /// Its name, without folders.
    pub name: String,
    pub bytes: u64,
    /// Bytes of weights that a token needs: all but an embedding that is not the output matrix too.
    pub weight_bytes: u64,
    /// `general.architecture`.
    pub architecture: String,
    /// Format of the linear layers.
    pub quant: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    pub name: String,
    pub about: String,
}

/// All that a run left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeersReport {
    /// When it ended, UTC.
    pub at: String,
    /// The checkout's commit, if known; it says nothing of changes that are not committed.
    pub commit: Option<String>,
    pub host: HostInfo,
    pub cpu: String,
    pub model: ModelFile,
    pub prompt: usize,
    pub generate: usize,
    pub rounds: usize,
    /// The engines, ours first.
    pub engines: Vec<Named>,
    /// Memory, by number of threads.
    pub memory: Vec<Memory>,
    /// Warmed rates, by number of threads, then by engine; without loading, and without what an engine makes once.
    pub rows: Vec<Row>,
    /// What a person waits for, from the start of a process.
    pub waits: Vec<Wait>,
    /// The tokens of a generation after so many others (its `prompt`), without load, preparation and the others.
    #[serde(default)]
    pub depths: Vec<Wait>,
}

impl PeersReport {
    /// Whether an engine has every figure that it was asked for, and one at least.
    pub fn is_complete(&self, engine: &str) -> bool {
        let warmed = self.rows.iter().filter(|row| row.engine == engine);
        let warmed = warmed.map(|row| row.prefill.is_some() && row.decode.is_some());
        let waits = self.waits.iter().chain(&self.depths).filter(|wait| wait.engine == engine);
        let waits = waits.map(|wait| wait.seconds.is_some());
        let mut all = warmed.chain(waits).peekable();
        all.peek().is_some() && all.all(|there| there)
    }
}

/// What is measured, apart from threads.
#[derive(Debug)]
pub struct PeersPlan {
    /// The question; its number of threads is each of `threads` in turn.
    pub ask: Ask,
    pub threads: Vec<usize>,
    pub rounds: usize,
    /// Between two measurements: threads of the one before that still spin go to sleep.
    pub pause: Duration,
    pub guard: Guard,
    /// Bytes of weights a token.
    pub weight_bytes: u64,
}

/// How fast so many threads read memory, in bytes a second.
pub type ReadMemory<'a> = dyn FnMut(usize) -> Result<f64, EngineError> + 'a;

/// What an engine has done so far.
#[derive(Default)]
struct Figures {
    prefill: Vec<f64>,
    decode: Vec<f64>,
    first: Vec<f64>,
    first_prompt: Option<usize>,
    peak_rss: Option<u64>,
    foreign: Option<f64>,
    noisy: usize,
    failure: Option<(String, Option<String>)>,
}

impl Figures {
    fn fail(&mut self, error: &EngineError) {
        let remedy = match error {
            EngineError::Missing { command, .. } => Some(command.clone()),
            _ => None,
        };
        *self = Self { failure: Some((error.to_string(), remedy)), ..Self::default() };
    }

    fn measure(&mut self, engine: &mut dyn Engine, ask: &Ask, plan: &PeersPlan) -> Result<(), EngineError> {
        std::thread::sleep(plan.pause);
        let (rates, foreign) = plan.guard.quiet(|| engine.measure(ask))?;
        self.prefill.push(rates.prefill);
        self.decode.push(rates.decode);
        self.peak_rss = self.peak_rss.max(rates.peak_rss);
        self.heard(foreign, plan.guard.limit);
        std::thread::sleep(plan.pause);
        if let (Some(first), foreign) = plan.guard.quiet(|| engine.whole(ask, 1))? {
            self.first.push(first.seconds);
            self.first_prompt = Some(first.tokens);
            self.heard(foreign, plan.guard.limit);
        }
        Ok(())
    }

    fn heard(&mut self, foreign: Option<f64>, limit: f64) {
        self.noisy += usize::from(foreign.is_some_and(|foreign| foreign > limit));
        self.foreign = self.foreign.into_iter().chain(foreign).reduce(f64::max);
    }
}

/// Measures all contenders, of which the first is ours. `tell` hears of each round.
///
/// # Errors
/// Memory could not be read: that is measured by our own program, without which there is nothing to compare.
pub fn compare(
    contenders: &mut [Contender<'_>],
    plan: &PeersPlan,
    read_memory: &mut ReadMemory<'_>,
    tell: &mut dyn FnMut(&str),
) -> Result<(Vec<Memory>, Vec<Row>), EngineError> {
    let (mut memory, mut rows) = (Vec::new(), Vec::new());
    for &threads in &plan.threads {
        let ask = Ask { threads, ..plan.ask.clone() };
        let mut figures: Vec<Figures> = contenders.iter().map(|_| Figures::default()).collect();
        for (contender, figures) in contenders.iter_mut().zip(&mut figures) {
            let ready = match &mut contender.engine {
                Ok(engine) => engine.begin(&ask),
                Err(error) => {
                    figures.fail(error);
                    continue;
                }
            };
            if let Err(error) = ready {
                figures.fail(&error);
            }
        }
        let mut reads = Vec::new();
        for round in 0..plan.rounds {
            tell(&format!("{threads} threads, round {} of {}", round + 1, plan.rounds));
            reads.push(read_memory(threads)?);
            let order: Vec<usize> = (0..contenders.len()).collect();
            let order = if round % 2 == 0 { order } else { order.into_iter().rev().collect() };
            for index in order {
                let (Some(contender), Some(figures)) = (contenders.get_mut(index), figures.get_mut(index)) else {
                    continue;
                };
                let (Ok(engine), None) = (&mut contender.engine, &figures.failure) else { continue };
                if let Err(error) = figures.measure(&mut **engine, &ask, plan) {
                    tell(&format!("{}: {error}", contender.name));
                    figures.fail(&error);
                }
            }
        }
        for engine in contenders.iter_mut().filter_map(|contender| contender.engine.as_mut().ok()) {
            engine.end();
        }
        if let Some(bytes_per_second) = series(&reads, None) {
            let bound_tokens_per_second = bytes_per_second.spread.median / plan.weight_bytes.max(1) as f64;
            memory.push(Memory { threads, bytes_per_second, bound_tokens_per_second });
        }
        rows.extend(rows_of(contenders, &figures, threads));
    }
    Ok((memory, rows))
}

fn rows_of(contenders: &[Contender<'_>], figures: &[Figures], threads: usize) -> Vec<Row> {
    let ours = figures.first();
    let row = |(index, (contender, own)): (usize, (&Contender<'_>, &Figures))| {
        let ours = ours.filter(|_| index > 0);
        let (failure, remedy) = own.failure.clone().unzip();
        Row {
            threads,
            engine: contender.name.clone(),
            prefill: series(&own.prefill, ours.and_then(|o| Spread::of_ratios(&o.prefill, &own.prefill))),
            decode: series(&own.decode, ours.and_then(|o| Spread::of_ratios(&o.decode, &own.decode))),
            // Fewer seconds are better.
            first_token: series(&own.first, ours.and_then(|o| Spread::of_ratios(&own.first, &o.first))),
            first_token_prompt: own.first_prompt,
            peak_rss: own.peak_rss,
            foreign: own.foreign,
            noisy: own.noisy,
            failure,
            remedy: remedy.flatten(),
        }
    };
    contenders.iter().zip(figures).enumerate().map(row).collect()
}

pub(super) fn series(samples: &[f64], ours_is: Option<Spread>) -> Option<Series> {
    Spread::of(samples).map(|spread| Series { samples: samples.to_vec(), spread, ours_is })
}

#[cfg(test)]
pub(super) mod tests;
