//! Against C++: SentencePiece's own library, the reference of LLaMA-2's kind of tokenizer, on Mistral v1's file as it was
//! published. The same ids on whole documents, and no slower.
//!
//! The library comes from PyPI (`python3 -m pip install --target target/fixtures/python sentencepiece`) and runs in a
//! process of its own. Rounds alternate, both count their thread's CPU time, medians are compared; ours runs in whatever
//! profile the tests were built in, theirs as released.

use crate::setup;
use bitnet_engine::tokenizer::EncodeOptions;
use bitnet_harness::Failure;
use bitnet_harness::bench::ratio::median;
use bitnet_harness::cpu_time::CpuTime;
use bitnet_harness::paths::Paths;
use bitnet_harness::roster::Named;
use bitnet_harness::strings::documents;
use bitnet_harness::verdict::Availability;
use bitnet_harness::vocabularies::by_name;
use serde::Deserialize;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

/// What `--require` calls it.
pub(crate) const PEER: &str = "sentencepiece";
const ROUNDS: usize = 9;
const OPTIONS: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };

/// The trial; its name is the one that the roadmap gave it.
pub(crate) fn trial(paths: &Arc<Paths>) -> Named {
    let packages = paths.fixtures.join("python");
    let availability = if packages.join("sentencepiece").is_dir() {
        Availability::Available
    } else {
        let place = packages.display();
        let remedy = format!("python3 -m pip install --target {place} sentencepiece");
        Availability::unavailable(PEER, format!("{place} has no sentencepiece"), remedy)
    };
    let paths = Arc::clone(paths);
    Named { name: "test_tokenization_performance_vs_cpp".into(), availability, run: Arc::new(move || run(&paths)) }
}

fn run(paths: &Paths) -> Result<(), Failure> {
    let entry = by_name("mistral-v1").ok_or_else(|| Failure::new("there is no vocabulary mistral-v1"))?;
    let stage = setup::stage(entry, paths)?;
    let ours = stage.ours("tokenizer-model")?;
    for kind in ["english", "code", "multilingual"] {
        let texts = documents(kind, 16 << 10, 512 << 10);
        let mut peer = Peer::start(paths, &texts)?;
        for (text, want) in texts.iter().zip(&peer.hello.ids) {
            let found = ours.encode(text, OPTIONS)?;
            if found != *want {
                let at = found.iter().zip(want).take_while(|(a, b)| a == b).count();
                return Err(Failure::new(format_args!(
                    "{kind}: ids part at {at}: ours {:?}, SentencePiece {} has {:?}",
                    found.get(at..(at + 4).min(found.len())),
                    peer.hello.version,
                    want.get(at..(at + 4).min(want.len()))
                )));
            }
        }
        let (mut us, mut them) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let start = CpuTime::now();
            for text in &texts {
                black_box(ours.encode(text, OPTIONS)?);
            }
            us.push(start.elapsed().as_secs_f64());
            them.push(peer.round()?);
        }
        let (us, them) = (median(&us), median(&them));
        let megabytes = texts.iter().map(String::len).sum::<usize>() as f64 * 1e-6;
        let (fast, slow) = (megabytes / us, megabytes / them);
        eprintln!("{kind}: {fast:.1} MB/s, SentencePiece {} {slow:.1} MB/s: {:.1} x", peer.hello.version, them / us);
        if us > them {
            return Err(Failure::new(format_args!("{kind}: {fast:.1} MB/s, SentencePiece has {slow:.1}")));
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Hello {
    version: String,
    ids: Vec<Vec<u32>>,
}

struct Peer {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    hello: Hello,
}

impl Peer {
    fn start(paths: &Paths, texts: &[String]) -> Result<Self, Failure> {
        let model: PathBuf = paths.golden.join("vocab/mistral-v1/tokenizer.model");
        let script = paths.root.join("harness/tests/tokenizer_discovery_crossval/sentencepiece_peer.py");
        let mut child = Command::new("python3")
            .arg(script)
            .arg(model)
            .env("PYTHONPATH", paths.fixtures.join("python"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| Failure::new(format_args!("python3 cannot be started: {e}")))?;
        let (Some(mut to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::new("python3 has no pipes"));
        };
        writeln!(to, "{}", serde_json::to_string(texts)?)?;
        let mut from = BufReader::new(from);
        let hello = serde_json::from_str(&line(&mut from)?)?;
        Ok(Self { child, to, from, hello })
    }

    /// Seconds of CPU time for all texts.
    fn round(&mut self) -> Result<f64, Failure> {
        writeln!(self.to, "go")?;
        Ok(line(&mut self.from)?.trim().parse()?)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line(from: &mut impl BufRead) -> Result<String, Failure> {
    let mut line = String::new();
    match from.read_line(&mut line)? {
        0 => Err(Failure::new("sentencepiece_peer.py ended early; what it said is on stderr")),
        _ => Ok(line),
    }
}
