//! What `cargo xtask bench-tokenizers` found: our tokenizers against other crates, in one process.
//!
//! The measuring program is `harness/tokenizer-peers`, a workspace of its own. Here is its record, and what people see of it:
//! a table for each vocabulary (`table`) and a drawing (`plot`).

mod plot;
mod table;

pub use plot::svg;
pub use table::markdown;

use super::ratio::Spread;
use crate::provenance::HostInfo;
use bitnet_golden::targets::Beside;
use serde::{Deserialize, Serialize};

/// The first prompt: 34 tokens or so.
pub const PROMPT: &str = "The history of computing is the story of machines that were built to count, then to calculate, and \
                          at last to answer questions that nobody had thought of asking before.";

const OURS: &str = "ours";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizersReport {
    /// When, in RFC 3339.
    pub at: String,
    pub commit: Option<String>,
    pub host: HostInfo,
    pub cpu: String,
    pub rounds: usize,
    pub texts: Vec<Text>,
    /// Who was measured, ours first.
    pub engines: Vec<Peer>,
    /// Who could not be, and why.
    pub absent: Vec<Peer>,
    pub vocabularies: Vec<Vocabulary>,
}

/// One kind of text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// `mixed`, `english`, `code`, `multilingual`.
    pub kind: String,
    /// Where it comes from.
    pub about: String,
    /// Bytes that there are of it; 0 where it is made of the others.
    pub bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Crate and version.
    pub name: String,
    pub about: String,
}

impl Peer {
    pub fn new(name: &str, about: &str) -> Self {
        Self { name: name.to_owned(), about: about.to_owned() }
    }
}

/// Everything about one vocabulary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vocabulary {
    pub name: String,
    pub about: String,
    /// Share of the machine that went to others meanwhile, from 0 to 1.
    pub foreign: Option<f64>,
    /// In the order of [`TokenizersReport::engines`].
    pub engines: Vec<EngineReport>,
}

/// One engine with one vocabulary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineReport {
    pub engine: String,
    pub failure: Option<String>,
    /// The first difference of its ids from the reference's.
    pub inexact: Option<String>,
    /// Loading and the first prompt, in milliseconds of CPU time.
    pub load_ms: Option<Spread>,
    pub rates: Vec<Rate>,
}

impl EngineReport {
    pub fn new(engine: &str) -> Self {
        Self { engine: engine.to_owned(), failure: None, inexact: None, load_ms: None, rates: Vec::new() }
    }

    /// Its figures for a kind of text, a size of documents and a state.
    pub fn rate(&self, text: &str, kib: u32, state: State) -> Option<&Rate> {
        self.rates.iter().find(|rate| rate.text == text && rate.kib == kib && rate.state == state)
    }
}

/// How fast an engine encodes one kind of text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    pub text: String,
    /// Of a document.
    pub kib: u32,
    /// Of the engine's caches.
    pub state: State,
    /// Bytes of text in a second of CPU time.
    pub megabytes_per_second: Spread,
    /// Our rate divided by this one, round by round.
    pub ours_is: Option<Spread>,
}

/// What an engine has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// One prompt.
    Cold,
    /// The same documents.
    Warm,
}

impl State {
    /// In the order of the table.
    pub const ALL: [Self; 2] = [Self::Cold, Self::Warm];

    fn title(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
        }
    }
}

impl TokenizersReport {
    /// Whether ours has figures and the reference's ids for every vocabulary.
    pub fn ours_is_exact(&self) -> bool {
        let ours = |vocabulary: &Vocabulary| {
            let mut ours = vocabulary.engines.iter().filter(|engine| engine.engine.starts_with(OURS)).peekable();
            ours.peek().is_some() && ours.all(|engine| engine.failure.is_none() && engine.inexact.is_none())
        };
        !self.vocabularies.is_empty() && self.vocabularies.iter().all(ours)
    }

    /// What is slower than its floor, in words. What was not measured is not.
    pub fn below(&self, floors: &[Beside]) -> Vec<String> {
        let mut below = Vec::new();
        for floor in floors {
            let Some(vocabulary) = self.vocabularies.iter().find(|found| found.name == floor.vocabulary) else {
                continue;
            };
            let Some((_, kib)) = vocabulary.cells().into_iter().find(|(text, _)| *text == floor.text) else { continue };
            for (state, least) in [(State::Cold, floor.cold), (State::Warm, floor.warm)] {
                let Some((peer, rate)) = vocabulary.fastest(&floor.text, kib, state) else { continue };
                if let Some(ours) = rate.ours_is.map(|ratio| ratio.median).filter(|ours| *ours < least) {
                    let Beside { vocabulary, text, .. } = floor;
                    let state = state.title();
                    below.push(format!(
                        "{vocabulary}, {text}, {state}: {ours:.2} times {peer}, where {least:.2} was reached"
                    ));
                }
            }
        }
        below
    }
}

impl Vocabulary {
    /// Kinds of text and sizes of documents, in the order in which they were measured.
    fn cells(&self) -> Vec<(&str, u32)> {
        let mut cells: Vec<(&str, u32)> = Vec::new();
        for rate in self.engines.iter().flat_map(|engine| &engine.rates) {
            if !cells.contains(&(&rate.text, rate.kib)) {
                cells.push((&rate.text, rate.kib));
            }
        }
        cells
    }

    /// The fastest peer with the reference's ids.
    fn fastest(&self, text: &str, kib: u32, state: State) -> Option<(&str, &Rate)> {
        let exact = self.engines.iter().filter(|engine| engine.inexact.is_none() && engine.failure.is_none());
        let peers = exact.filter(|engine| !engine.engine.starts_with(OURS));
        let rates = peers.filter_map(|engine| Some((engine.engine.as_str(), engine.rate(text, kib, state)?)));
        rates.max_by(|a, b| a.1.megabytes_per_second.median.total_cmp(&b.1.megabytes_per_second.median))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn played() -> TokenizersReport {
        let spread = |median: f64| Spread { median, least: median / 2.0, most: median * 2.0 };
        let rate = |state, rate, ours: Option<f64>| Rate {
            text: "mixed".into(),
            kib: 4,
            state,
            megabytes_per_second: spread(rate),
            ours_is: ours.map(spread),
        };
        let engine = |name: &str, load: f64, rates: Vec<Rate>| EngineReport {
            load_ms: Some(spread(load)),
            rates,
            ..EngineReport::new(name)
        };
        let wrong = EngineReport {
            inexact: Some("mixed text, token 3".into()),
            ..engine("wrong", 1.0, vec![rate(State::Cold, 999.0, Some(0.1))])
        };
        let broken = EngineReport { failure: Some("panicked: | here".into()), ..EngineReport::new("broken") };
        let engines = vec![
            engine(OURS, 40.0, vec![rate(State::Cold, 100.0, None), rate(State::Warm, 300.0, None)]),
            engine("ours, tokenizer.json", 90.0, Vec::new()),
            engine("fast", 400.0, vec![rate(State::Cold, 50.0, Some(2.0)), rate(State::Warm, 200.0, Some(1.5))]),
            engine("slow", 300.0, vec![rate(State::Cold, 4.0, Some(25.0))]),
            wrong,
            broken,
        ];
        TokenizersReport {
            at: "2026-11-28T12:00:00Z".into(),
            commit: Some("abc".into()),
            host: HostInfo::here(),
            cpu: "a processor".into(),
            rounds: 3,
            texts: vec![Text { kind: "english".into(), about: "a book".into(), bytes: 5_900_000 }],
            engines: engines.iter().map(|e| Peer::new(&e.engine, "about")).collect(),
            absent: vec![Peer::new("gone", "not built")],
            vocabularies: vec![Vocabulary {
                name: "v".into(),
                about: "a vocabulary".into(),
                foreign: Some(0.5),
                engines,
            }],
        }
    }

    #[test]
    fn what_is_below_its_floor_is_named() {
        let floor = |text: &str, cold, warm| Beside { vocabulary: "v".into(), text: text.into(), cold, warm };
        assert!(played().below(&[floor("mixed", 2.0, 1.5), floor("code", 9.0, 9.0)]).is_empty());
        let below = played().below(&[floor("mixed", 2.1, 1.6)]);
        assert_eq!(below.len(), 2);
        assert_eq!(below[1], "v, mixed, warm: 1.50 times fast, where 1.60 was reached");
    }

    #[test]
    fn the_committed_record_reaches_its_floors() {
        let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden");
        let text = std::fs::read_to_string(golden.join("records/tokenizers.json")).expect("the record");
        let record: TokenizersReport = serde_json::from_str(&text).expect("a record");
        assert!(record.ours_is_exact());
        let floors = bitnet_golden::targets::read(&golden).expect("targets.toml").peers;
        let measured = |floor: &Beside| record.vocabularies.iter().any(|found| found.name == floor.vocabulary);
        assert!(!floors.is_empty() && floors.iter().all(measured));
        assert_eq!(record.below(&floors), [""; 0]);
    }

    #[test]
    fn the_fastest_is_exact_and_not_ours() {
        let report = played();
        let vocabulary = &report.vocabularies[0];
        let name = |state| vocabulary.fastest("mixed", 4, state).map(|(name, _)| name);
        assert_eq!((name(State::Cold), name(State::Warm)), (Some("fast"), Some("fast")));
        assert_eq!(vocabulary.fastest("mixed", 100, State::Cold), None);
        assert_eq!(vocabulary.cells(), [("mixed", 4)]);
    }

    #[test]
    fn ours_must_be_exact_in_every_vocabulary() {
        let mut report = played();
        assert!(report.ours_is_exact());
        report.vocabularies[0].engines[1].inexact = Some("x".into());
        assert!(!report.ours_is_exact());
        report.vocabularies[0].engines.drain(..2);
        assert!(!report.ours_is_exact(), "ours is missing");
        report.vocabularies.clear();
        assert!(!report.ours_is_exact(), "nothing was measured");
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let text = serde_json::to_string(&played()).expect("JSON");
        assert_eq!(serde_json::from_str::<TokenizersReport>(&text).expect("a record"), played());
    }
}
