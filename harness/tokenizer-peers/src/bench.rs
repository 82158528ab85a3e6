//! Speed: every engine in turn, in rounds, on one thread.
//!
//! In each round an engine is loaded afresh on a new thread, so that no cache of it is warm; it encodes the first prompt
//! (which is when lazy tables are built), then the documents once (cold), then once more (warm). Time is that of the
//! process, in which nothing else runs: an engine that starts threads pays for them.

use crate::engines::{self, ALL, Encode, Engine, OURS, REFERENCE, guarded};
use crate::staged::{Staged, choose};
use crate::texts::{KINDS, Source, Texts};
use anyhow::ensure;
use bitnet_harness::bench::noise::{Guard, Moment};
use bitnet_harness::bench::ratio::Spread;
use bitnet_harness::bench::tokenizers::{EngineReport, PROMPT, Peer, Rate, State, TokenizersReport, Vocabulary};
use bitnet_harness::cpu_time::CpuTime;
use bitnet_harness::env::Env;
use bitnet_harness::paths::Paths;
use bitnet_harness::provenance::{self, HostInfo};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Of the text, what a slow engine is given.
const SLOW_SHARE: usize = 8;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A vocabulary; may be given several times [default: all that are here].
    #[arg(long, value_name = "NAME")]
    vocab: Vec<String>,
    /// A kind of text: mixed, english, code, multilingual; may be given several times [default: all].
    #[arg(long, value_name = "KIND")]
    text: Vec<String>,
    /// A peer; may be given several times [default: all].
    #[arg(long, value_name = "NAME")]
    peer: Vec<String>,
    /// Bytes of a document, in KiB. Sizes but the first are those of mixed text and of the first vocabulary, unless --text is given.
    #[arg(long, value_delimiter = ',', default_value = "4,100", value_parser = clap::value_parser!(u32).range(1..=1024))]
    documents: Vec<u32>,
    /// Text of each kind, in MB.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    megabytes: u32,
    /// Rounds, in each of which every engine is measured once.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Foreign load, in percent of the machine, from which on a measurement is repeated (twice at most).
    #[arg(long, default_value_t = 100.0 * Guard::USUAL.limit, value_name = "PERCENT")]
    noise: f64,
    /// A folder with english.txt, code.txt and multilingual.txt, in place of the fixtures.
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,
    /// Texts that are made from seeds: nothing is fetched, but their few words flatter caches.
    #[arg(long, conflicts_with = "corpus")]
    generated: bool,
    /// Where the record goes.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// One pass over everything by one engine.
struct Pass {
    load: Duration,
    cold: Duration,
    warm: Duration,
}

/// What is measured together: one kind of text in documents of one size.
struct Work<'a> {
    kind: &'static str,
    kib: u32,
    documents: Vec<&'a str>,
}

impl Work<'_> {
    /// The documents of an engine.
    fn of(&self, engine: &Engine) -> &[&str] {
        let count = if engine.slow { self.documents.len().div_ceil(SLOW_SHARE) } else { self.documents.len() };
        self.documents.get(..count).unwrap_or_default()
    }
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let env = Env::read();
        let paths = Paths::discover(&env);
        let source = match &self.corpus {
            Some(folder) => Source::Folder(folder),
            None if self.generated => Source::Generated,
            None => Source::Fixtures,
        };
        ensure!(self.noise.is_finite() && self.noise >= 0.0, "--noise {}: a share in percent is wanted", self.noise);
        let kinds = self.kinds()?;
        let engines = self.engines()?;
        let total = self.megabytes as usize * 1_000_000;
        let texts = Texts::read(&source, &paths, total)?;
        let folder = tempfile::tempdir()?;
        let mut report = TokenizersReport {
            at: provenance::now(),
            commit: provenance::commit(&paths.root, &env),
            host: HostInfo::here(),
            cpu: cpp_sys::workers::cpu(),
            rounds: self.rounds as usize,
            texts: texts.about(&source, &paths)?,
            engines: engines.iter().map(|engine| Peer::new(engine.name, engine.about)).collect(),
            absent: engines::ABSENT.iter().map(|(name, why)| Peer::new(name, why)).collect(),
            vocabularies: Vec::new(),
        };
        for (number, entry) in choose(&self.vocab, &paths)?.into_iter().enumerate() {
            let staged = Staged::write(entry, &paths, folder.path())?;
            let works: Vec<Work<'_>> = kinds
                .iter()
                .flat_map(|kind| self.documents.iter().map(move |kib| (*kind, *kib)))
                .filter(|(kind, kib)| {
                    let more = !self.text.is_empty() || number == 0 && *kind == "mixed";
                    more || self.documents.first() == Some(kib)
                })
                .map(|(kind, kib)| Work { kind, kib, documents: texts.documents(kind, kib as usize * 1024, total) })
                .collect();
            report.vocabularies.push(self.measure(&staged, &works, &engines));
            // After every vocabulary: a long run that is stopped leaves what it has.
            std::fs::write(&self.out, serde_json::to_string_pretty(&report)? + "\n")?;
        }
        Ok(if report.ours_is_exact() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn kinds(&self) -> anyhow::Result<Vec<&'static str>> {
        if self.text.is_empty() {
            return Ok(KINDS.to_vec());
        }
        let find = |name: &String| KINDS.into_iter().find(|kind| kind == name);
        let found: Option<Vec<_>> = self.text.iter().map(find).collect();
        found.ok_or_else(|| anyhow::anyhow!("unknown kind of text; there are {}", KINDS.join(", ")))
    }

    fn engines(&self) -> anyhow::Result<Vec<&'static Engine>> {
        for name in &self.peer {
            let known = ALL.iter().map(|engine| engine.name).collect::<Vec<_>>().join(", ");
            ensure!(engines::by_name(name).is_some(), "unknown peer `{name}`; there are {known}");
        }
        let chosen = |engine: &&Engine| {
            let always = engine.name.starts_with(OURS) || engine.name == REFERENCE;
            self.peer.is_empty() || always || self.peer.iter().any(|name| name == engine.name)
        };
        Ok(ALL.iter().filter(chosen).collect())
    }

    fn measure(&self, staged: &Staged, works: &[Work<'_>], engines: &[&'static Engine]) -> Vocabulary {
        let mut reports: Vec<EngineReport> = engines.iter().map(|engine| EngineReport::new(engine.name)).collect();
        compare(staged, works, engines, &mut reports);
        let guard = Guard { limit: self.noise / 100.0, ..Guard::USUAL };
        let mut loads: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        let start = Moment::now();
        for work in works {
            let mut rates: BTreeMap<usize, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
            for round in 0..self.rounds as usize {
                for turn in 0..engines.len() {
                    // Another one begins in every round.
                    let index = (turn + round) % engines.len();
                    let (Some(engine), Some(report)) = (engines.get(index), reports.get_mut(index)) else { continue };
                    if report.failure.is_some() {
                        continue;
                    }
                    let documents = if engine.load_only { &[][..] } else { work.of(engine) };
                    match guard.quiet(|| pass(engine, staged, documents)) {
                        Ok((pass, _)) => {
                            loads.entry(index).or_default().push(1e3 * pass.load.as_secs_f64());
                            let bytes: usize = documents.iter().map(|document| document.len()).sum();
                            let rate = |time: Duration| 1e-6 * bytes as f64 / time.as_secs_f64();
                            let (cold, warm) = rates.entry(index).or_default();
                            cold.push(rate(pass.cold));
                            warm.push(rate(pass.warm));
                        }
                        Err(failure) => report.failure = Some(failure),
                    }
                }
            }
            let ours = rates.get(&0).cloned();
            for (index, (cold, warm)) in rates {
                let Some(report) = reports.get_mut(index).filter(|_| !engines[index].load_only) else { continue };
                for (state, values) in [(State::Cold, cold), (State::Warm, warm)] {
                    let mine = ours.as_ref().map(|(cold, warm)| if state == State::Cold { cold } else { warm });
                    let ours_is = mine.filter(|_| index != 0).and_then(|mine| Spread::of_ratios(mine, &values));
                    let Some(spread) = Spread::of(&values) else { continue };
                    report.rates.push(Rate {
                        text: work.kind.to_owned(),
                        kib: work.kib,
                        state,
                        megabytes_per_second: spread,
                        ours_is,
                    });
                }
            }
            eprintln!("{}, {}, documents of {} KiB: measured", staged.name, work.kind, work.kib);
        }
        for (index, values) in loads {
            if let Some(report) = reports.get_mut(index) {
                report.load_ms = Spread::of(&values);
            }
        }
        let whole = start.zip(Moment::now()).map(|(start, end)| start.foreign(end));
        Vocabulary { name: staged.name.to_owned(), about: staged.about.to_owned(), foreign: whole, engines: reports }
    }
}

/// Loads an engine on a thread of its own and encodes everything twice.
fn pass(engine: &Engine, staged: &Staged, documents: &[&str]) -> Result<Pass, String> {
    let run = || {
        guarded(|| {
            let start = CpuTime::process();
            let encode = engine.load(staged)?;
            let mut ids = Vec::new();
            encode(PROMPT, &mut ids)?;
            let load = start.elapsed();
            let mut all = || -> Result<Duration, String> {
                let start = CpuTime::process();
                for document in documents {
                    ids.clear();
                    encode(document, &mut ids)?;
                    std::hint::black_box(&ids);
                }
                Ok(start.elapsed())
            };
            Ok(Pass { load, cold: all()?, warm: all()? })
        })
    };
    std::thread::scope(|scope| scope.spawn(run).join()).unwrap_or_else(|_| Err("its thread panicked".to_owned()))
}

/// Holds the ids of all against the reference's, before anything is measured.
fn compare(staged: &Staged, works: &[Work<'_>], engines: &[&'static Engine], reports: &mut [EngineReport]) {
    let load = |engine: &Engine| -> Result<Encode, String> { engine.load(staged) };
    let reference = engines::by_name(REFERENCE).ok_or_else(|| "there is no reference".to_owned()).and_then(load);
    for (engine, report) in engines.iter().zip(reports) {
        let encode = match load(engine) {
            Ok(encode) => encode,
            Err(failure) => {
                report.failure = Some(failure);
                continue;
            }
        };
        let Ok(reference) = &reference else { continue };
        'all: for work in works {
            for (number, document) in work.of(engine).iter().enumerate() {
                let (mut expected, mut got) = (Vec::new(), Vec::new());
                if let Err(failure) = guarded(|| encode(document, &mut got)) {
                    report.failure = Some(format!("{} text, document {number}: {failure}", work.kind));
                    break 'all;
                }
                if guarded(|| reference(document, &mut expected)).is_err() || expected == got {
                    continue;
                }
                let at = expected.iter().zip(&got).take_while(|(a, b)| a == b).count();
                report.inexact = Some(format!(
                    "{} text, document {number} of {} KiB, token {at}: {:?} where the reference has {:?}",
                    work.kind,
                    work.kib,
                    got.get(at),
                    expected.get(at),
                ));
                break 'all;
            }
        }
        let state = report.failure.as_ref().or(report.inexact.as_ref()).map_or("the reference's ids", |why| why);
        eprintln!("{}, {}: {state}", staged.name, engine.name);
    }
}
