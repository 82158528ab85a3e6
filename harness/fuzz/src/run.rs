//! The loop: an input out of the pool, changed, executed under limits; what brings new words joins the pool.
//!
//! What is not the target's own work is kept small: an execution has two looks at the clock, its input is copied twice, and nothing is
//! asked of the system.

use crate::Target;
use crate::limits::{Cost, Measured, SEEMS_LATE};
use crate::mutate::{LONGEST, mutate};
use crate::pool::Pool;
use crate::targets::Unable;
use anyhow::{Context, bail};
use bitnet_harness::strings::Random;
use memmap2::MmapMut;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;

/// How often the watch looks.
const LOOK: Duration = Duration::from_millis(500);
/// Looks during which one execution may go on. They are counted, since a process that was stopped for a while is not to blame.
const ENDLESS: u32 = 40;
/// Inputs grow to twice the length of what they were made of, or to this if that is less; seldom to [`LONGEST`].
const SHORT: usize = 1024;

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

/// Executes one input; the target's words, or what was wrong: it panicked, computed for too long or held too much.
///
/// # Errors
/// The machine keeps the target from running: its files cannot be written.
pub fn execute(target: &Target, input: &[u8]) -> anyhow::Result<Result<(String, Cost), String>> {
    let once = |measured: Measured| {
        let said = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
        (said, measured.end())
    };
    let (mut said, mut cost) = once(Measured::start());
    if said.is_ok() && cost.time > SEEMS_LATE {
        (said, cost) = once(Measured::start_exactly());
    }
    let said = match said {
        Ok(said) => said,
        Err(panic) => {
            if let Some(Unable(why)) = panic.downcast_ref() {
                bail!("`{}` cannot run here: {why}", target.name);
            }
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            return Ok(Err(format!("panicked: {}", text.unwrap_or("without a message"))));
        }
    };
    Ok(match cost.excess(input.len()) {
        Some(why) => Err(why),
        None => Ok((said, cost)),
    })
}

/// Runs until the time is over or something breaks a limit.
pub fn run(plan: &FuzzPlan<'_>) -> anyhow::Result<FuzzOutcome> {
    let mut outcome = FuzzOutcome::default();
    let (mut pool, mut r) = (Pool::default(), Random::new(&format!("{} {}", plan.target.name, plan.seed)));
    let seeds: Vec<Vec<u8>> = (plan.target.seeds)().into_iter().chain(plan.corpus.iter().cloned()).collect();
    let longest = seeds.iter().map(Vec::len).max().unwrap_or_default().max(LONGEST);
    let mut current = plan.current.map(|path| Current::create(path, longest)).transpose()?;
    let (mut next, mut input) = (seeds.into_iter(), Vec::new());
    let (mut now, watch) = (Instant::now(), Watch::start());
    let end = now + plan.time;
    while outcome.executions < plan.executions && (now < end || next.len() > 0) {
        let seed = next.next();
        let sound = seed.is_some();
        match seed {
            Some(seed) => input = seed,
            None => {
                let from = pool.pick(&mut r);
                let most = if r.below(64) == 0 { LONGEST } else { (2 * from.len()).clamp(SHORT, LONGEST) };
                mutate(&mut r, from, pool.inputs(), most, &mut input);
            }
        }
        if let Some(current) = &mut current {
            current.put(&input);
        }
        outcome.executions += 1;
        watch.executes(outcome.executions);
        match execute(plan.target, &input)? {
            Err(why) => {
                outcome.finding = Some((input, why));
                break;
            }
            Ok((said, cost)) => {
                if outcome.most.is_none_or(|(most, _)| cost.time > most.time) {
                    outcome.most = Some((cost, input.len()));
                }
                if sound {
                    pool.begin_with(&input, &said);
                } else {
                    pool.consider(&mut r, &input, &said);
                }
            }
        }
        now = Instant::now();
    }
    (outcome.pool, outcome.words) = (pool.inputs().len(), pool.heard());
    Ok(outcome)
}

/// The input of the moment in a file that is mapped: it is left however the process ends, and costs a copy. The file begins with the
/// length of the input, a `u64` in the machine's order.
struct Current(MmapMut);

const LENGTH: usize = size_of::<u64>();

impl Current {
    fn create(path: &Path, longest: usize) -> anyhow::Result<Self> {
        let make = || {
            let mut file = NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
            // Written, so that a full disk is an error here and not a signal later.
            file.write_all(&vec![0; LENGTH + longest])?;
            let file = file.persist(path)?;
            // SAFETY: it is a new file that only this function opens to write. Another runner with the same path gives the name to another
            // file, and this one keeps its length.
            unsafe { MmapMut::map_mut(&file) }
        };
        make().map(Self).with_context(|| format!("cannot write {}", path.display()))
    }

    fn put(&mut self, input: &[u8]) {
        if let Some(place) = self.0.get_mut(LENGTH..LENGTH + input.len()) {
            place.copy_from_slice(input);
            self.0[..LENGTH].copy_from_slice(&(input.len() as u64).to_ne_bytes());
        }
    }
}

/// The input that a process was executing when it ended.
///
/// # Errors
/// The file cannot be read, or no runner wrote it.
pub fn left(path: &Path) -> anyhow::Result<Vec<u8>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let input = bytes.split_first_chunk::<LENGTH>().and_then(|(length, rest)| {
        let length = usize::try_from(u64::from_ne_bytes(*length)).ok()?;
        rest.get(..length)
    });
    Ok(input.with_context(|| format!("{} is shorter than the input in it", path.display()))?.to_vec())
}

/// Ends the process when an execution never ends.
struct Watch;

/// The number of the execution that goes on; 0 where none does.
static EXECUTION: AtomicU64 = AtomicU64::new(0);

impl Watch {
    fn start() -> Self {
        static THREAD: std::sync::Once = std::sync::Once::new();
        // A thread that outlives the run only looks at an atomic.
        THREAD.call_once(|| drop(std::thread::spawn(watch)));
        Self
    }

    fn executes(&self, number: u64) {
        EXECUTION.store(number, Ordering::Relaxed);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        EXECUTION.store(0, Ordering::Relaxed);
    }
}

fn watch() {
    let (mut seen, mut looks) = (0, 0);
    loop {
        std::thread::sleep(LOOK);
        let goes_on = EXECUTION.load(Ordering::Relaxed);
        looks = if goes_on != 0 && goes_on == seen { looks + 1 } else { 0 };
        seen = goes_on;
        if looks > ENDLESS {
            eprintln!("an execution did not end within {} s", (LOOK * ENDLESS).as_secs());
            std::process::abort();
        }
    }
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
        assert!(why.contains("planted") && execute(&PLANTED, &input).expect("executed").is_err());
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
    fn an_input_is_left_as_it_was_written_last() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("current");
        let mut current = Current::create(&path, 10).expect("a file");
        for input in [&b"0123456789"[..], b"short", b""] {
            current.put(input);
            assert_eq!(left(&path).expect("an input"), input);
        }
        // Another runner's, beside it.
        let mut other = Current::create(&path, 3).expect("a file");
        current.put(b"0123456789");
        other.put(b"new");
        assert_eq!(left(&path).expect("an input"), b"new");
        std::fs::write(&path, [&9_u64.to_ne_bytes()[..], b"only"].concat()).expect("written");
        assert!(left(&path).expect_err("cut").to_string().contains("shorter"));
        assert!(left(dir.path()).is_err());
    }
}
