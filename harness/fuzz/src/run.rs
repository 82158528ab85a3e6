//! The loop: an input out of the pool, changed, executed under limits; what brings new words joins the pool.

use crate::Target;
use crate::limits::{Cost, Measured, SEEMS_LATE};
use crate::mutate::mutate;
use anyhow::Context;
use bitnet_engine::random::fnv1a;
use bitnet_harness::strings::Random;
use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Wall time after which an execution is taken for endless.
const ENDLESS: Duration = Duration::from_secs(20);
/// Inputs that are kept at most.
const POOL: usize = 4000;

#[derive(Debug)]
pub struct FuzzPlan<'a> {
    pub target: &'a Target,
    /// For how long.
    pub time: Duration,
    /// Executions at most.
    pub executions: u64,
    /// The run's inputs are those of its seed.
    pub seed: u64,
    /// Inputs to begin with, beside the target's own seeds.
    pub corpus: Vec<Vec<u8>>,
    /// The input of the moment is written here before it is executed: it is left when the process dies.
    pub current: Option<&'a Path>,
}

/// What a run came to.
#[derive(Debug, Default)]
pub struct FuzzOutcome {
    pub executions: u64,
    /// Inputs in the pool at the end.
    pub pool: usize,
    /// Different things that the target said.
    pub words: usize,
    /// The first input that broke a limit, and how.
    pub finding: Option<(Vec<u8>, String)>,
    /// The most that one execution held and took.
    pub most: Option<(Cost, usize)>,
}

/// Where the committed inputs of a target lie.
pub fn corpus_folder(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}

/// The files of a folder, in the order of their names; none if it is not there.
pub fn corpus(folder: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))).collect()
}

/// Executes one input; the target's words, or what was wrong.
///
/// # Errors
/// It panicked, computed for too long or held too much.
pub fn execute(target: &Target, input: &[u8]) -> Result<(String, Cost), String> {
    let once = |measured: Measured| {
        let said = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
        (said, measured.end())
    };
    let (mut said, mut cost) = once(Measured::start());
    if said.is_ok() && cost.time > SEEMS_LATE {
        (said, cost) = once(Measured::start_exactly());
    }
    let said = said.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        format!("panicked: {}", text.unwrap_or("without a message"))
    })?;
    match cost.excess(input.len()) {
        Some(why) => Err(why),
        None => Ok((said, cost)),
    }
}

/// Runs until the time is over or something breaks a limit.
pub fn run(plan: &FuzzPlan<'_>) -> anyhow::Result<FuzzOutcome> {
    let mut outcome = FuzzOutcome::default();
    let mut current =
        plan.current.map(|path| File::create(path).with_context(|| format!("cannot write {}", path.display())));
    let (mut current, mut written) = (current.take().transpose()?, 0);
    let (mut pool, mut heard): (Vec<Vec<u8>>, _) = (Vec::new(), HashSet::new());
    let mut r = Random::new(&format!("{} {}", plan.target.name, plan.seed));
    let end = Instant::now() + plan.time;
    let begin = (plan.target.seeds)().into_iter().chain(plan.corpus.iter().cloned());
    let seeds: Vec<Vec<u8>> = begin.collect();
    let (watch, seeded) = (Watch::start(), seeds.len());
    let mut next = seeds.into_iter();
    while outcome.executions < plan.executions && (Instant::now() < end || next.len() > 0) {
        let (input, sound) = match next.next() {
            Some(seed) => (seed, true),
            None if pool.is_empty() => (mutate(&mut r, &[], &[]), false),
            None => {
                // The seeds are changed as often as what was kept.
                let among = if r.below(2) == 0 { pool.len().min(seeded.max(1)) } else { pool.len() };
                // Short ones more often: they cost less.
                let (one, other) = (r.below(among), r.below(among));
                let index = if pool[one].len() <= pool[other].len() { one } else { other };
                (mutate(&mut r, &pool[index], &pool), false)
            }
        };
        if let Some(file) = &mut current {
            file.write_all_at(&input, 0)?;
            if input.len() < written {
                file.set_len(input.len() as u64)?;
            }
            written = input.len();
        }
        watch.begin();
        let executed = execute(plan.target, &input);
        watch.end();
        outcome.executions += 1;
        match executed {
            Err(why) => {
                outcome.finding = Some((input, why));
                break;
            }
            Ok((said, cost)) => {
                let new = heard.insert(shape(&said));
                if outcome.most.is_none_or(|(most, _)| cost.time > most.time) {
                    outcome.most = Some((cost, input.len()));
                }
                if sound || new {
                    if pool.len() < POOL {
                        pool.push(input);
                    } else {
                        // The seeds stay.
                        let index = seeded + r.below(POOL.saturating_sub(seeded).max(1));
                        if let Some(old) = pool.get_mut(index) {
                            *old = input;
                        }
                    }
                }
            }
        }
    }
    (outcome.pool, outcome.words) = (pool.len(), heard.len());
    Ok(outcome)
}

/// What is said, without what differs from input to input: numbers, and what stands in quotes.
fn shape(said: &str) -> u64 {
    let mut quoted = false;
    fnv1a(said.bytes().take(400).filter(|byte| {
        let quote = matches!(byte, b'`' | b'"' | b'\'');
        quoted ^= quote;
        !quote && !quoted && !byte.is_ascii_digit()
    }))
}

/// Ends the process when an execution never ends.
struct Watch(&'static AtomicU64);

/// Milliseconds since the start of the watch at which the execution began; 0 between executions.
static BEGAN: AtomicU64 = AtomicU64::new(0);

impl Watch {
    fn start() -> Self {
        BEGAN.store(0, Ordering::Relaxed);
        // A thread that outlives the run only looks at an atomic.
        std::thread::spawn(|| {
            loop {
                std::thread::sleep(Duration::from_millis(500));
                let began = BEGAN.load(Ordering::Relaxed);
                if began != 0 && now().saturating_sub(began) > ENDLESS.as_millis() as u64 {
                    eprintln!("an execution did not end within {} s", ENDLESS.as_secs());
                    std::process::abort();
                }
            }
        });
        Self(&BEGAN)
    }

    fn begin(&self) {
        self.0.store(now().max(1), Ordering::Relaxed);
    }

    fn end(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

fn now() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(target: &Target) -> FuzzPlan<'_> {
        let time = Duration::from_secs(20);
        FuzzPlan { target, time, executions: 200_000, seed: 1, corpus: Vec::new(), current: None }
    }

    const PLANTED: Target = Target {
        name: "planted",
        about: "panics on a text with a number of ten digits in it",
        seeds: || vec![b"{\"size\": 12}".to_vec()],
        run: |bytes| {
            let digits = bytes.iter().filter(|byte| byte.is_ascii_digit()).count();
            assert!(digits < 10 || !bytes.starts_with(b"{\"size\""), "planted");
            format!("{digits} digits")
        },
    };

    #[test]
    fn a_planted_panic_is_found_and_its_input_given() {
        let outcome = run(&plan(&PLANTED)).expect("a run");
        let (input, why) = outcome.finding.expect("a finding");
        assert!(why.contains("planted") && execute(&PLANTED, &input).is_err());
        assert!(outcome.executions > 1);
    }

    #[test]
    fn a_target_that_computes_for_ever_breaks_the_limit() {
        let slow = Target {
            name: "slow",
            about: "computes for more than a second",
            seeds: || vec![vec![1]],
            run: |_| {
                let start = bitnet_harness::cpu_time::CpuTime::process();
                while start.elapsed() < crate::limits::TIME + Duration::from_millis(50) {
                    std::hint::black_box(start);
                }
                String::new()
            },
        };
        let outcome = run(&plan(&slow)).expect("a run");
        assert!(outcome.finding.is_some_and(|(_, why)| why.contains("computed for")));
    }

    #[test]
    fn words_without_numbers_and_quotes_are_the_same() {
        assert_eq!(shape("byte 12 of `a`"), shape("byte 7 of `bc`"));
        assert_ne!(shape("byte 12"), shape("bytes 12"));
    }
}
