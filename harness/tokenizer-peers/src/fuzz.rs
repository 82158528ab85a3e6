//! Ids: random texts, ours against HuggingFace's two implementations, until the time is over or a difference is found.
//!
//! | module | what |
//! |---|---|
//! | [`inputs`] | the texts |
//! | [`shrink`] | a smaller text that shows the same |
//! | [`known`] | differences that are known, with their reasons |
//!
//! Every text goes through ours and the fast reference; every 32nd one also through the slow one. Byte-level vocabularies must
//! also give back the bytes that went in, whether they are UTF-8 or not, and a text must have the ids of the same bytes.

mod inputs;
mod known;
mod shrink;

use crate::engines::{self, Encode, ORACLE, OURS, REFERENCE, guarded, open_ours};
use crate::staged::{Staged, choose};
use crate::texts::{Source, Texts};
use anyhow::{Context, ensure};
use bitnet_engine::tokenizer::{EncodeOptions, Tokenizer};
use bitnet_harness::cpu_time::CpuTime;
use bitnet_harness::env::Env;
use bitnet_harness::paths::Paths;
use bitnet_harness::provenance;
use bitnet_harness::strings::Random;
use inputs::Inputs;
use known::Known;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Of the texts, how many go through the slow reference: one in so many, and none longer than this.
const ORACLE_EVERY: u64 = 32;
const ORACLE_BYTES: usize = 64 << 10;
/// Of the texts, how many are looked at as bytes: one in so many.
const BYTES_EVERY: u64 = 8;
/// How long one vocabulary is tried before the next has its turn.
const TURN: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The texts of a run are those of its seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A vocabulary; may be given several times [default: all that are here].
    #[arg(long, value_name = "NAME")]
    vocab: Vec<String>,
    /// Compare this text and nothing else: a difference that was found before.
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// A folder with english.txt, code.txt and multilingual.txt, in place of the fixtures.
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,
    /// Texts that are made from seeds, in place of the fixtures.
    #[arg(long, conflicts_with = "corpus")]
    generated: bool,
    /// A folder for the record and for texts that show a difference.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// A vocabulary, loaded by all.
struct Subject {
    staged: Arc<Staged>,
    tokenizer: Arc<dyn Tokenizer>,
    ours: Encode,
    /// Absent where it refuses the vocabulary: then the slow one is asked every text.
    reference: Option<Encode>,
    oracle: Encode,
    counts: Counts,
}

/// What was done with one vocabulary.
#[derive(Default)]
struct Counts {
    texts: u64,
    bytes: u64,
    oracle_bytes: u64,
    round_trip_bytes: u64,
    kinds: BTreeMap<&'static str, u64>,
    known: BTreeMap<String, u64>,
    /// Of our encoding: nanoseconds a byte, bytes, kind.
    slowest: (f64, usize, &'static str),
}

/// Two sides that disagree.
struct Difference {
    with: &'static str,
    text: String,
    expected: String,
    got: String,
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let env = Env::read();
        let paths = Paths::discover(&env);
        let folder = tempfile::tempdir()?;
        let known = Known::read(&paths.golden)?;
        let mut subjects = Vec::new();
        for entry in choose(&self.vocab, &paths)? {
            subjects.push(Subject::load(Arc::new(Staged::write(entry, &paths, folder.path())?))?);
        }
        std::fs::create_dir_all(&self.out).with_context(|| format!("cannot make {}", self.out.display()))?;
        if let Some(path) = &self.text {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            return repeat(&subjects, &text);
        }
        let source = match &self.corpus {
            Some(folder) => Source::Folder(folder),
            None if self.generated => Source::Generated,
            None => Source::Fixtures,
        };
        let texts = Texts::read(&source, &paths, 4 << 20)?;
        let stageds: Vec<Arc<Staged>> = subjects.iter().map(|subject| Arc::clone(&subject.staged)).collect();
        let inputs: Vec<Inputs<'_>> = stageds.iter().map(|staged| Inputs::new(staged, &texts)).collect();
        let end = Instant::now() + Duration::from_secs(self.seconds);
        let mut found = Vec::new();
        let mut random = Random::new(&format!("tokenizers {}", self.seed));
        while Instant::now() < end && found.is_empty() {
            for (subject, inputs) in subjects.iter_mut().zip(&inputs) {
                let turn = (Instant::now() + TURN).min(end);
                while Instant::now() < turn {
                    let (kind, text) = inputs.next(&mut random);
                    if let Some(difference) = subject.compare(kind, &text, &known, &mut random) {
                        found.push((subject.staged.name, difference));
                        break;
                    }
                }
            }
        }
        self.record(&subjects, &found, &paths, &env)?;
        for (vocabulary, difference) in &found {
            self.show(subjects.iter().find(|s| s.staged.name == *vocabulary), difference)?;
        }
        ensure!(subjects.iter().all(|s| s.counts.texts > 0), "the time was too short: a vocabulary had no turn");
        Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn record(
        &self,
        subjects: &[Subject],
        found: &[(&str, Difference)],
        paths: &Paths,
        env: &Env,
    ) -> anyhow::Result<()> {
        let of = |subject: &Subject| {
            let c = &subject.counts;
            json!({
                "vocabulary": subject.staged.name, "texts": c.texts, "bytes": c.bytes, "oracle_bytes": c.oracle_bytes,
                "round_trip_bytes": c.round_trip_bytes, "bytes_by_kind": c.kinds, "known_differences": c.known,
                "slowest": {"ns_per_byte": c.slowest.0, "bytes": c.slowest.1, "kind": c.slowest.2},
            })
        };
        let total: u64 = subjects.iter().map(|s| s.counts.bytes + s.counts.oracle_bytes).sum();
        let record = json!({
            "at": provenance::now(), "commit": provenance::commit(&paths.root, env), "cpu": cpp_sys::workers::cpu(),
            "seed": self.seed, "seconds": self.seconds, "reference": REFERENCE, "oracle": ORACLE, "bytes": total,
            "differences": found.len(), "vocabularies": subjects.iter().map(of).collect::<Vec<_>>(),
        });
        let path = self.out.join(format!("seed-{}.json", self.seed));
        std::fs::write(&path, serde_json::to_string_pretty(&record)? + "\n")?;
        for subject in subjects {
            let c = &subject.counts;
            println!(
                "{}: {} texts, {:.1} MB against {REFERENCE}, {:.1} MB against {ORACLE}, {:.1} MB to bytes and back, {} known \
                 differences",
                subject.staged.name,
                c.texts,
                1e-6 * c.bytes as f64,
                1e-6 * c.oracle_bytes as f64,
                1e-6 * c.round_trip_bytes as f64,
                c.known.values().sum::<u64>(),
            );
        }
        println!("{:.1} MB in all, {} differences; record: {}", 1e-6 * total as f64, found.len(), path.display());
        Ok(())
    }

    fn show(&self, subject: Option<&Subject>, difference: &Difference) -> anyhow::Result<()> {
        let Some(subject) = subject else { return Ok(()) };
        let (name, path) = (subject.staged.name, self.out.join(format!("{}-{}.txt", subject.staged.name, self.seed)));
        std::fs::write(&path, &difference.text)?;
        println!("\n{name}: ours differs from {}", difference.with);
        println!("  text      {:?}", shortened(&difference.text));
        println!("  expected  {}", shortened(&difference.expected));
        println!("  got       {}", shortened(&difference.got));
        println!("  again     cargo xtask fuzz-tokenizer --vocab {name} --text {}", path.display());
        Ok(())
    }
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(400).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short
}

fn ids(encode: &Encode, text: &str) -> Result<Vec<u32>, String> {
    guarded(|| {
        let mut out = Vec::new();
        encode(text, &mut out)?;
        Ok(out)
    })
}

const OPTIONS: EncodeOptions = EncodeOptions { add_special: false, parse_special: true };

impl Subject {
    fn load(staged: Arc<Staged>) -> anyhow::Result<Self> {
        let engine = |name: &str| -> anyhow::Result<Encode> {
            let engine = engines::by_name(name).with_context(|| format!("no engine {name}"))?;
            engine.load(&staged).map_err(|why| anyhow::anyhow!("{}, {name}: {why}", staged.name))
        };
        let (ours, oracle) = (engine(OURS)?, engine(ORACLE)?);
        let reference = engine(REFERENCE).inspect_err(|why| eprintln!("{why:#}; {ORACLE} is asked every text")).ok();
        let tokenizer = open_ours(&staged.gguf).map_err(|why| anyhow::anyhow!(why))?;
        eprintln!("{}: loaded", staged.name);
        Ok(Self { staged, tokenizer, ours, reference, oracle, counts: Counts::default() })
    }

    /// Whether bytes come back as they were.
    fn keeps_bytes(&self) -> bool {
        matches!(self.staged.name, "llama3" | "gpt2")
    }

    /// The ids of ours and of another, where they differ and no known difference explains it.
    fn differ(&self, with: &'static str, text: &str, known: &Known) -> Option<(Result<String, String>, String)> {
        let other = self.reference.as_ref().filter(|_| with == REFERENCE).unwrap_or(&self.oracle);
        let (got, expected) = (ids(&self.ours, text), ids(other, text));
        if got == expected {
            return None;
        }
        // Text in which the characters of a known difference are others: then they must agree.
        if let Some((name, plain)) = known.without(with, self.staged.name, text)
            && ids(&self.ours, &plain) == ids(other, &plain)
        {
            return Some((Err(name), String::new()));
        }
        Some((Ok(format!("{expected:?}")), format!("{got:?}")))
    }

    fn compare(&mut self, kind: &'static str, text: &str, known: &Known, random: &mut Random) -> Option<Difference> {
        // What is slow is worth knowing.
        let start = CpuTime::now();
        let mine = ids(&self.ours, text);
        let nanos = start.elapsed().as_secs_f64() * 1e9 / text.len().max(4096) as f64;
        if nanos > self.counts.slowest.0 {
            self.counts.slowest = (nanos, text.len(), kind);
        }
        let number = self.counts.texts;
        self.counts.texts += 1;
        *self.counts.kinds.entry(kind).or_default() += text.len() as u64;
        let slow = number.is_multiple_of(ORACLE_EVERY) && text.len() <= ORACLE_BYTES;
        if let Some(reference) = &self.reference {
            self.counts.bytes += text.len() as u64;
            if mine != ids(reference, text)
                && let Some(difference) = self.judge(REFERENCE, text, known)
            {
                return Some(difference);
            }
        }
        if slow || self.reference.is_none() {
            self.counts.oracle_bytes += text.len() as u64;
            if mine != ids(&self.oracle, text)
                && let Some(difference) = self.judge(ORACLE, text, known)
            {
                return Some(difference);
            }
        }
        if number.is_multiple_of(BYTES_EVERY) {
            return self.as_bytes(text, mine.as_deref().unwrap_or_default(), random);
        }
        None
    }

    fn judge(&mut self, with: &'static str, text: &str, known: &Known) -> Option<Difference> {
        match self.differ(with, text, known)? {
            (Err(name), _) => {
                *self.counts.known.entry(name).or_default() += 1;
                None
            }
            (Ok(_), _) => {
                let shows = |text: &str| matches!(self.differ(with, text, known), Some((Ok(_), _)));
                let small = shrink::shrink(text, &shows);
                let (expected, got) = self.differ(with, &small, known)?;
                Some(Difference { with, text: small, expected: expected.unwrap_or_default(), got })
            }
        }
    }

    /// The same text as bytes, and with its ends cut off at any byte.
    fn as_bytes(&mut self, text: &str, expected: &[u32], random: &mut Random) -> Option<Difference> {
        let difference =
            |with, expected: String, got: String| Some(Difference { with, text: text.to_owned(), expected, got });
        let encode = |bytes: &[u8]| guarded(|| self.tokenizer.encode_bytes(bytes, OPTIONS).map_err(|e| e.to_string()));
        let got = encode(text.as_bytes());
        if got.as_deref() != Ok(expected) {
            return difference("itself on the same bytes", format!("{expected:?}"), format!("{got:?}"));
        }
        if !self.keeps_bytes() || text.is_empty() {
            return None;
        }
        let from = random.below(text.len().min(8));
        let part = text.as_bytes().get(from..text.len() - random.below(text.len().min(8))).unwrap_or_default();
        self.counts.round_trip_bytes += part.len() as u64;
        let back = encode(part).map(|ids| self.tokenizer.decode(&ids, false));
        if back.as_deref() != Ok(part) {
            return difference("the bytes that went in", format!("{part:?}"), format!("{back:?}"));
        }
        None
    }
}

/// Compares one text with everything.
fn repeat(subjects: &[Subject], text: &str) -> anyhow::Result<ExitCode> {
    let mut equal = true;
    for subject in subjects {
        let expected = ids(&subject.oracle, text);
        println!("{}: {ORACLE}  {}", subject.staged.name, shortened(&format!("{expected:?}")));
        let reference = subject.reference.as_ref().map(|encode| (REFERENCE, encode));
        for (name, encode) in reference.into_iter().chain([(OURS, &subject.ours)]) {
            let got = ids(encode, text);
            equal &= got == expected;
            let same = if got == expected { "the same".to_owned() } else { shortened(&format!("{got:?}")) };
            println!("{}: {name}  {same}", subject.staged.name);
        }
    }
    Ok(if equal { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
