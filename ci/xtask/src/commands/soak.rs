//! `cargo xtask soak`: many downloads, several processes, one cache, a bad network, and kill -9.
//!
//! The processes want the same files at about the same time, so that they meet at the locks. The mock hub does by chance
//! everything that it can do wrong; processes are killed while they transfer, and started again. What must hold at the end:
//! every download that was wanted came, byte for byte; nothing is corrupt, lost or hanging; and almost nothing came twice.
//! A seed decides the faults, the order of the files and the victims (when exactly a kill strikes is up to the machine).

mod promises;
mod worker;

use crate::crossval::Format;
use anyhow::{Context, ensure};
use bitnet_engine::hub::Cache;
use bitnet_engine::hub::blocking::BlockingDownload;
use bitnet_harness::generate::Noise;
use bitnet_mock_hub::{MockHub, MockHubBuilder, Repo, Rule, Side, Storage};
use promises::Summary;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use worker::Notes;

/// What the network does. All but the first strike by chance.
const FAULTS: &[&str] = &[
    "drip=2000/10ms,on=cdn",
    "cut=900,on=cdn,chance=20",
    "length=-800,on=cdn,chance=6",
    "nolength,on=cdn,chance=10",
    "norange,on=cdn,chance=4",
    "corrupt=9,on=cdn,chance=3",
    "stall=500/20s,on=cdn,chance=2",
    "html=200,chance=2",
    "html=403,on=cdn,chance=2",
    "html=500,chance=2",
    "status=503,chance=3",
    "refuse,chance=4",
    "delay=30ms,chance=5",
    "retry-after=0,on=hub,chance=2",
    "ratelimit=0,on=hub,chance=1",
    "away,on=hub,method=GET,chance=3",
    "loop,on=hub,chance=1",
];

/// If nobody has anything to report for this long, they hang.
const SILENCE: Duration = Duration::from_secs(90);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask soak\n  cargo xtask soak --downloads 5000 --processes 16 --seed 7 --format json\n\nExits with 1 if a promise is broken, and says which."
)]
pub(crate) struct Args {
    /// Downloads that are wanted, all processes together.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    downloads: u64,
    /// Processes on one cache.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..))]
    processes: u64,
    /// Times that a process is killed [default: one for every ten downloads].
    #[arg(long)]
    kills: Option<u64>,
    /// Decides faults, orders and victims.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Output.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Be one of the processes (used by this command itself).
    #[arg(long, hide = true, requires_all = ["endpoint", "scratch"])]
    worker: Option<u64>,
    #[arg(long, hide = true)]
    endpoint: Option<String>,
    #[arg(long, hide = true)]
    scratch: Option<PathBuf>,
    /// Expect other bytes of file 0 than the hub has, to prove that this turns the run red.
    #[arg(long, hide = true)]
    planted: bool,
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        if let (Some(worker), Some(endpoint), Some(scratch)) = (self.worker, &self.endpoint, &self.scratch) {
            worker::work(&self.wants(worker), self.planted, endpoint, scratch, worker)?;
            return Ok(ExitCode::SUCCESS);
        }
        let summary = self.soak()?;
        let mut out = std::io::stdout().lock();
        match self.format {
            Format::Text => write!(out, "{summary}")?,
            Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&summary)?)?,
        }
        Ok(if summary.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Different files: every process wants each of them once.
    fn files(&self) -> u64 {
        self.downloads.div_ceil(self.processes)
    }

    /// What a process wants, in its order: shuffled a little, so that processes meet, but not in step.
    fn wants(&self, worker: u64) -> Vec<u64> {
        let mut files: Vec<u64> = (0..self.files()).collect();
        let mut random = Noise(self.seed ^ (worker + 1).wrapping_mul(0x9E37_79B9));
        for block in files.chunks_mut(4) {
            for i in (1..block.len()).rev() {
                block.swap(i, random.below(i + 1));
            }
        }
        let full = self.downloads / self.processes;
        let mine = full + u64::from(worker < self.downloads % self.processes);
        files.truncate(usize::try_from(mine).unwrap_or(usize::MAX));
        files
    }

    fn hub(&self) -> anyhow::Result<MockHub> {
        let repo = (0..self.files()).fold(Repo::new(worker::REPO), |repo, n| {
            let storage = if n % 7 == 0 { Storage::Xet } else { Storage::Lfs };
            repo.file(&worker::name(n), worker::contents(n), storage)
        });
        let rules = FAULTS.iter().map(|text| text.parse::<Rule>()).collect::<Result<Vec<_>, _>>()?;
        Ok(rules.into_iter().fold(MockHub::builder().repo(repo).seed(self.seed), MockHubBuilder::rule).start()?)
    }

    fn soak(&self) -> anyhow::Result<Summary> {
        let (hub, scratch) = (self.hub()?, tempfile::tempdir()?);
        let kills = self.kills.unwrap_or(self.downloads / 10);
        let began = Instant::now();
        let mut crew = Crew::start(self, &hub, scratch.path())?;
        let (mut random, mut killed) = (Noise(self.seed ^ 0xDEAD), 0);
        let (mut last, mut silent_since, mut hanging) = (0, Instant::now(), false);
        while crew.working()? > 0 {
            let notes = Notes::read(scratch.path())?;
            if notes.lines != last {
                (last, silent_since) = (notes.lines, Instant::now());
            } else if silent_since.elapsed() > SILENCE {
                hanging = true;
                break;
            }
            // Spread over the first two thirds, so that none is left when the work is done. A kill waits for a transfer to disturb.
            if killed < kills && notes.sound * (kills + 1) * 3 >= (killed + 1) * self.downloads * 2 {
                let (seen, waited) = (contents(&hub), Instant::now());
                while contents(&hub) == seen && waited.elapsed() < Duration::from_millis(30) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                std::thread::sleep(Duration::from_millis(random.below(15) as u64));
                killed += u64::from(crew.kill_one(&mut random)?);
            } else {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        drop(crew);
        let seconds = began.elapsed().as_secs_f64();
        self.sum_up(&hub, scratch.path(), Run { seconds, kills, killed, hanging })
    }

    /// Looks at what is left: the notes, the cache, the hub's log, and a last client without faults.
    fn sum_up(&self, hub: &MockHub, scratch: &Path, run: Run) -> anyhow::Result<Summary> {
        let notes = Notes::read(scratch)?;
        let unique: u64 = (0..self.files()).map(|n| worker::contents(n).len() as u64).sum();
        let wanted: u64 =
            (0..self.processes).flat_map(|w| self.wants(w)).map(|n| worker::contents(n).len() as u64).sum();
        let log = hub.log().entries();
        let struck: BTreeSet<String> = log.iter().flat_map(|e| &e.faults).map(|fault| format!("{fault:?}")).collect();
        let mut summary = Summary {
            downloads: self.downloads,
            processes: self.processes,
            seed: self.seed,
            files: self.files(),
            sound: notes.sound,
            corrupt: notes.wrong,
            errors: notes.errors,
            hangs: notes.hangs + u64::from(run.hanging),
            trouble: notes.trouble,
            kills_wanted: run.kills,
            kills: run.killed,
            requests: log.len() as u64,
            faulty: log
                .iter()
                .filter(|e| e.faults.iter().any(|f| !matches!(f, bitnet_mock_hub::Fault::Drip { .. })))
                .count() as u64,
            kinds: struck.len() as u64,
            resumed: log.iter().filter(|e| e.range.is_some() && e.status == 206).count() as u64,
            transfers: notes.transfers,
            unique_bytes: unique,
            wanted_bytes: wanted,
            sent_bytes: hub.log().bytes(Side::Cdn) + hub.log().bytes(Side::Elsewhere),
            seconds: run.seconds,
            ..Summary::default()
        };
        hub.heal();
        hub.log().clear();
        let cache = Cache::new(worker::cache(scratch));
        let found = cache.verify().context("the cache cannot be verified")?;
        summary.corrupt += found.damaged.len() as u64;
        let client = BlockingDownload::new(worker::settings(hub.endpoint(), scratch), None)?;
        for n in 0..self.files() {
            match client.fetch(worker::REPO, "main", &worker::name(n)).and_then(|file| file.read()) {
                Ok(bytes) if *bytes == worker::contents(n) => {}
                Ok(_) => summary.corrupt += 1,
                Err(error) => {
                    summary.lost += 1;
                    summary.trouble.push(format!("{} at the end: {error}", worker::name(n)));
                }
            }
        }
        // What had been fetched and is not in the cache any more had to come again.
        summary.lost += hub.log().count(|entry| entry.side != Side::Hub) as u64;
        summary.judge();
        Ok(summary)
    }
}

struct Run {
    seconds: f64,
    kills: u64,
    killed: u64,
    hanging: bool,
}

/// Requests for contents so far.
fn contents(hub: &MockHub) -> usize {
    hub.log().count(|entry| entry.side == Side::Cdn)
}

/// The processes. Dropping it ends them.
struct Crew<'a> {
    args: &'a Args,
    endpoint: String,
    scratch: &'a Path,
    children: Vec<Option<Child>>,
}

impl<'a> Crew<'a> {
    fn start(args: &'a Args, hub: &MockHub, scratch: &'a Path) -> anyhow::Result<Self> {
        let mut crew = Self { args, endpoint: hub.endpoint().to_owned(), scratch, children: Vec::new() };
        for worker in 0..args.processes {
            let child = crew.spawn(worker)?;
            crew.children.push(Some(child));
        }
        Ok(crew)
    }

    fn spawn(&self, worker: u64) -> anyhow::Result<Child> {
        let mut command = Command::new(std::env::current_exe().context("this program has no path")?);
        command.arg("soak");
        for (flag, value) in [
            ("--downloads", self.args.downloads),
            ("--processes", self.args.processes),
            ("--seed", self.args.seed),
            ("--worker", worker),
        ] {
            command.args([flag, &value.to_string()]);
        }
        if self.args.planted {
            command.arg("--planted");
        }
        command.args(["--endpoint", &self.endpoint]).arg("--scratch").arg(self.scratch);
        command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("cannot start a process of the soak")
    }

    /// How many have not ended. One that ended badly without having been killed is an error.
    fn working(&mut self) -> anyhow::Result<usize> {
        for (worker, slot) in self.children.iter_mut().enumerate() {
            if let Some(child) = slot
                && let Some(status) = child.try_wait()?
            {
                ensure!(status.success(), "process {worker} of the soak ended with {status}, and nobody killed it");
                *slot = None;
            }
        }
        Ok(self.children.iter().flatten().count())
    }

    /// SIGKILL to one that works, and another in its place. `false` if it was faster.
    fn kill_one(&mut self, random: &mut Noise) -> anyhow::Result<bool> {
        let working: Vec<usize> = (0..self.children.len()).filter(|&i| self.children[i].is_some()).collect();
        if working.is_empty() {
            return Ok(false);
        }
        let worker = working[random.below(working.len())];
        let Some(mut child) = self.children[worker].take() else {
            return Ok(false);
        };
        let alive = child.try_wait()?.is_none();
        child.kill()?;
        let status = child.wait()?;
        if status.success() {
            return Ok(false);
        }
        ensure!(alive, "process {worker} of the soak ended with {status}, and nobody killed it");
        self.children[worker] = Some(self.spawn(worker as u64)?);
        Ok(true)
    }
}

impl Drop for Crew<'_> {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            // It may have ended by itself; either way it is gone.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &[&str]) -> Args {
        Line::parse_from(std::iter::once("soak").chain(line.iter().copied())).args
    }

    #[test]
    fn the_wants_add_up_and_meet() {
        let args = args(&["--downloads", "21", "--processes", "4"]);
        let wants: Vec<Vec<u64>> = (0..4).map(|w| args.wants(w)).collect();
        assert_eq!(wants.iter().map(Vec::len).collect::<Vec<_>>(), [6, 5, 5, 5]);
        for list in &wants {
            let distinct: BTreeSet<_> = list.iter().collect();
            assert_eq!(distinct.len(), list.len(), "a process wants no file twice");
            assert!(list[..4].iter().all(|n| *n < 4), "all begin with the same four files: {list:?}");
        }
        assert_ne!(wants[1], wants[2]);
        assert_eq!(wants[1], args.wants(1));
    }

    #[test]
    fn every_fault_is_understood() {
        for text in FAULTS {
            text.parse::<Rule>().expect(text);
        }
    }
}
