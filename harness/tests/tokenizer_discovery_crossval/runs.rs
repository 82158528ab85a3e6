//! A million characters of one kind: the oracle's ids, in time that grows with the text.

use crate::compare::{OPTIONS, differ};
use crate::setup::Stage;
use bitnet_engine::tokenizer::Tokenizer;
use bitnet_harness::Failure;
use bitnet_harness::cpu_time::CpuTime;
use std::time::Duration;

const CHARACTERS: usize = 1_000_000;
const UNITS: &[&str] = &[" ", "a", "1", "\n", "日", "ab", "!", "😀"];
/// The same characters in one text and in ten: equal work if it is linear, ten times as much if it is quadratic.
const MOST: f64 = 3.0;
const TRIES: usize = 5;

pub(crate) fn run(stage: &Stage, way: &str) -> Result<(), Failure> {
    let ours = stage.ours(way)?;
    // The ways differ in how a tokenizer is read, not in how it encodes: the whole length is for one of them.
    let whole = way == "gguf";
    for unit in UNITS {
        let characters = if whole { CHARACTERS } else { CHARACTERS / 10 };
        let text = unit.repeat(characters / unit.chars().count());
        let found = ours.encode(&text, OPTIONS[0])?;
        let want = stage.oracle.encode_once(&text)?;
        if found != *want {
            return Err(differ(&text, OPTIONS[0], &want, &found));
        }
        let decoded = ours.decode(&found, false);
        if decoded != text.as_bytes() && stage.vocabulary.name != "smollm2" {
            return Err(Failure::new(format_args!("{unit:?} x {characters} does not come back")));
        }
        if whole {
            linear(&*ours, unit, &text)?;
        }
    }
    Ok(())
}

fn linear(ours: &dyn Tokenizer, unit: &str, text: &str) -> Result<(), Failure> {
    let tenth = unit.repeat(CHARACTERS / 10 / unit.chars().count());
    let mut best = f64::INFINITY;
    for _ in 0..TRIES {
        let whole = time(|| ours.encode(text, OPTIONS[0]).map(|ids| ids.len()))?;
        let tenths = time(|| (0..10).map(|_| ours.encode(&tenth, OPTIONS[0]).map(|ids| ids.len())).sum())?;
        // What is too short to measure is linear enough.
        best = best.min(whole.as_secs_f64() / tenths.max(Duration::from_millis(4)).as_secs_f64());
        if best < MOST {
            return Ok(());
        }
    }
    Err(Failure::new(format_args!(
        "{unit:?}: one text of {CHARACTERS} characters takes {best:.1} times as long as ten of a tenth"
    )))
}

fn time<E>(work: impl FnOnce() -> Result<usize, E>) -> Result<Duration, E> {
    let start = CpuTime::now();
    std::hint::black_box(work()?);
    Ok(start.elapsed())
}
