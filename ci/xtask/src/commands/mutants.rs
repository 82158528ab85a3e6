//! `cargo xtask mutants`: changes the code a little, over and over, and asks the tests whether they see it.
//!
//! cargo-mutants makes the mutants. They are put side by side into a copy of the tracked files under `target/mutants` and asked
//! for when the program runs ([`embed`]), so that a room is built once for all of them, and each is run against the tests alone
//! that ask for it ([`trial`]). `--one-by-one` lets cargo-mutants build each by itself. `golden/mutants.toml` says which tests
//! judge which files, and which mutants are equivalent to the code. The faults of `golden/planted.toml` are tried in the same way. Exit codes: 0 every mutant was caught or is listed, 1 a survivor that is not listed, or a share below the goal,
//! 2 wrong usage, 4 cargo-mutants is not installed.

mod embed;
mod trial;

use super::setup_cpp::UNAVAILABLE;
use crate::root::{cargo, root, target};
use anyhow::{Context, ensure};
use bitnet_golden::mutants::{self, Mutants, Room};
use bitnet_golden::planted;
use bitnet_harness::env::Env;
use bitnet_harness::provenance::commit;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use trial::{Task, Verdict};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask mutants --room engine/gguf\n  cargo xtask mutants --sample 3\n  cargo xtask mutants --planted\n\nExit codes: 0 all caught or listed, 1 a survivor or a share below the goal, 4 cargo-mutants is not installed."
)]
pub(crate) struct Args {
    /// Only these rooms of golden/mutants.toml [default: all].
    #[arg(long, value_name = "NAME")]
    room: Vec<String>,
    /// Only mutants of files whose path contains this.
    #[arg(long, value_name = "TEXT")]
    file: Vec<String>,
    /// Only so many mutants over all rooms, drawn by the commit's hash.
    #[arg(long, value_name = "N")]
    sample: Option<usize>,
    /// What the sample is drawn by [default: the commit's hash].
    #[arg(long, value_name = "TEXT", requires = "sample")]
    seed: Option<String>,
    /// Only part K of N of each room, K from 0.
    #[arg(long, value_name = "K/N", conflicts_with = "sample", value_parser = shard)]
    shard: Option<(usize, usize)>,
    /// Only what the last run of each room missed.
    #[arg(long, conflicts_with_all = ["sample", "shard"])]
    missed: bool,
    /// Build each mutant by itself.
    #[arg(long)]
    one_by_one: bool,
    /// Only the faults of golden/planted.toml.
    #[arg(long, conflicts_with_all = ["sample", "shard", "missed", "one_by_one", "file"])]
    planted: bool,
    /// Write the table and the survivors to this file.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Only list the mutants.
    #[arg(long)]
    list: bool,
}

/// The genre of faults by hand, beside those of cargo-mutants.
const PLANTED: &str = "Planted";

/// The outcome of the mutants of one room, by name without line.
#[derive(Debug, Default, PartialEq)]
struct Tally {
    caught: usize,
    hung: usize,
    unviable: usize,
    missed: Vec<String>,
    /// With line: those that can only be built by themselves.
    apart: Vec<String>,
}

/// `outcomes.json` of cargo-mutants 27.
#[derive(Deserialize)]
struct Outcomes {
    outcomes: Vec<Outcome>,
}

#[derive(Deserialize)]
struct Outcome {
    scenario: Scenario,
    summary: String,
}

#[derive(Deserialize)]
enum Scenario {
    Baseline,
    Mutant(Mutant),
}

/// A mutant as `cargo mutants --list --json` tells it. The outcomes have its name alone.
#[derive(Debug, Deserialize, Clone, Default)]
#[serde(default)]
struct Mutant {
    name: String,
    file: String,
    genre: String,
    replacement: String,
    span: Span,
    /// What a planted fault replaces.
    #[serde(skip)]
    original: String,
}

#[derive(Debug, Deserialize, Clone, Copy, Default)]
struct Span {
    start: Position,
}

/// From 1.
#[derive(Debug, Deserialize, Clone, Copy, Default)]
struct Position {
    line: usize,
    column: usize,
}

fn shard(text: &str) -> Result<(usize, usize), String> {
    let (k, n) = text.split_once('/').ok_or("expected K/N")?;
    match (k.parse(), n.parse()) {
        (Ok(k), Ok(n)) if k < n => Ok((k, n)),
        _ => Err("expected K/N with K below N".to_owned()),
    }
}

impl Mutant {
    fn planted(fault: planted::Planted) -> Self {
        let planted::Planted { about, file, from, to, .. } = fault;
        Self { name: about, file, genre: PLANTED.to_owned(), replacement: to, original: from, ..Self::default() }
    }

    fn is_planted(&self) -> bool {
        self.genre == PLANTED
    }

    /// `PATH:LINE:COLUMN: what` without line and column.
    fn key(&self) -> String {
        match self.name.split_once(": ") {
            Some((place, what)) => format!("{}: {what}", place.split(':').next().unwrap_or(place)),
            None => self.name.clone(),
        }
    }
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let data = mutants::read(&root().join("golden"))?;
        let rooms = self.rooms(&data)?;
        let version = cargo().args(["mutants", "--version"]).output();
        if !version.is_ok_and(|output| output.status.success()) {
            eprintln!("unavailable: cargo-mutants is not installed; to fix it: cargo install --locked cargo-mutants");
            return Ok(ExitCode::from(UNAVAILABLE));
        }
        let mut listed = Vec::new();
        for room in &rooms {
            let mut all = list(room)?;
            ensure!(!all.is_empty(), "golden/mutants.toml: room {} has no mutants: are its files right?", room.name);
            all.retain(|mutant| self.file.is_empty() || self.file.iter().any(|text| mutant.file.contains(text)));
            listed.push((*room, all));
        }
        ensure!(
            listed.iter().any(|(_, all)| !all.is_empty()),
            "--file {}: no file of these rooms has that in its path",
            self.file.join(", ")
        );
        if let Some(count) = self.sample {
            let seed = match &self.seed {
                Some(seed) => seed.clone(),
                None => commit(&root(), &Env::read())
                    .context("no commit is known here; --seed TEXT draws the sample by another text")?,
            };
            draw(&mut listed, count, &seed);
        }
        if let Some((k, n)) = self.shard {
            for (_, all) in &mut listed {
                let mut at = 0..;
                all.retain(|_| at.next().is_some_and(|at: usize| at % n == k));
            }
        }
        if self.missed {
            for (room, all) in &mut listed {
                let missed = trial::missed_before(room)?;
                all.retain(|mutant| missed.contains(&mutant.key()));
            }
        }
        if self.planted {
            listed.iter_mut().for_each(|(_, all)| all.clear());
        }
        if self.sample.is_none() && self.file.is_empty() && !self.missed && !self.one_by_one {
            for fault in planted::read(&root().join("golden"))? {
                if let Some((_, all)) = listed.iter_mut().find(|(room, _)| room.name == fault.room) {
                    all.push(Mutant::planted(fault));
                }
            }
        }
        if self.list {
            listed.iter().flat_map(|(_, all)| all).for_each(|mutant| println!("{}", mutant.name));
            return Ok(ExitCode::SUCCESS);
        }
        let known: BTreeSet<&str> = data.survivors.iter().map(|survivor| survivor.mutant.as_str()).collect();
        let (mut tallies, mut faults) = (Vec::new(), Vec::new());
        listed.retain(|(_, chosen)| !chosen.is_empty());
        if self.one_by_one {
            for (room, chosen) in &listed {
                tallies.push((room.name.as_str(), self.judge(&data, room, chosen)?));
            }
        } else {
            let packages: BTreeSet<&str> = listed.iter().map(|(room, _)| room.package.as_str()).collect();
            for package in packages {
                let tasks = listed.iter().filter(|(room, _)| room.package == package);
                let tasks: Vec<Task<'_>> =
                    tasks.map(|(room, mutants)| Task { room, mutants: mutants.clone() }).collect();
                side_by_side(&data, package, &tasks, &mut tallies, &mut faults)?;
            }
        }
        let (mut page, mut red) = page(&tallies, &known, data.goal);
        red &= !tallies.is_empty() || faults.is_empty();
        if !faults.is_empty() {
            let unseen = faults.iter().filter(|(seen, _)| !seen).count();
            red |= unseen > 0;
            let _ = writeln!(page, "\n{} of {} planted faults turn a test red.\n", faults.len() - unseen, faults.len());
            page += "| room | fault | red | what it says |\n|---|---|---|---|\n";
            faults.iter().for_each(|(_, line)| page += line);
        }
        print!("{page}");
        if let Some(path) = &self.record {
            std::fs::write(path, &page).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(ExitCode::from(u8::from(red)))
    }

    fn rooms<'a>(&self, data: &'a Mutants) -> anyhow::Result<Vec<&'a Room>> {
        for name in &self.room {
            ensure!(
                data.rooms.iter().any(|room| room.name == *name),
                "golden/mutants.toml has no room `{name}`; it has {}",
                data.rooms.iter().map(|room| room.name.as_str()).collect::<Vec<_>>().join(", ")
            );
        }
        Ok(data.rooms.iter().filter(|room| self.room.is_empty() || self.room.contains(&room.name)).collect())
    }

    /// Runs the tests of a room against the mutants that were chosen.
    fn judge(&self, data: &Mutants, room: &Room, chosen: &[Mutant]) -> anyhow::Result<Tally> {
        let tree = &target().join("mutants/tree");
        copy_tracked(&root(), tree)?;
        let out = target().join("mutants").join(room.name.replace('/', "-"));
        std::fs::create_dir_all(&out)?;
        let mut command = cargo_mutants(room, tree);
        command.args(["--in-place", "--no-shuffle", "--caught", "--unviable"]);
        command.args(["--timeout", &room.timeout.to_string(), "--output"]).arg(&out);
        // What others wrote is compiled already; ours has another path there, and so other files.
        command.env("CARGO_TARGET_DIR", target());
        // The tests too: an argument of the test run alone would leave all others to be built.
        for argument in data.cargo_args.iter().chain(&room.tests) {
            command.arg(format!("--cargo-arg={argument}"));
        }
        if self.sample.is_some() || self.missed || self.shard.is_some() || !self.file.is_empty() {
            let names: Vec<String> = chosen.iter().map(|mutant| escaped(&mutant.name)).collect();
            command.arg("--re").arg(format!("^({})$", names.join("|")));
        }
        let status = command.status().context("cargo mutants")?;
        // 0 all caught, 2 some were missed, 3 some hung. 4 and others: the tests fail without a mutant, or wrong usage.
        ensure!(
            matches!(status.code(), Some(0 | 2 | 3)),
            "{}: cargo mutants: {status}; its logs are in {}",
            room.name,
            out.join("mutants.out/log").display()
        );
        let path = out.join("mutants.out/outcomes.json");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        tally(&text).with_context(|| path.display().to_string())
    }
}

/// Builds all mutants of a package into one program and runs them.
fn side_by_side<'a>(
    data: &Mutants,
    package: &str,
    tasks: &[Task<'a>],
    tallies: &mut Vec<(&'a str, Tally)>,
    faults: &mut Vec<(bool, String)>,
) -> anyhow::Result<()> {
    // One tree for each package: what was built with other mutants is of use for the next run.
    let tree = target().join("mutants").join(package);
    copy_tracked(&root(), &tree)?;
    let mut missed: BTreeMap<&str, String> = BTreeMap::new();
    let verdicts = trial::try_all(tasks, &data.cargo_args, &tree, &mut |room, mutant, verdict| {
        if let Verdict::Missed(tests) = verdict {
            println!("missed by {tests} tests: {}", mutant.name);
            let name = tasks.iter().map(|task| task.room.name.as_str()).find(|name| *name == room.name);
            let _ = writeln!(missed.entry(name.unwrap_or_default()).or_default(), "{tests}\t{}", mutant.key());
        }
    })?;
    copy_tracked(&root(), &tree)?;
    for (Task { room, mutants }, verdicts) in tasks.iter().zip(verdicts) {
        let file = trial::missed_file(room);
        std::fs::write(&file, missed.get(room.name.as_str()).map_or("", String::as_str))
            .with_context(|| format!("cannot write {}", file.display()))?;
        for (fault, verdict) in mutants.iter().zip(&verdicts).filter(|(mutant, _)| mutant.is_planted()) {
            let seen = matches!(verdict, Verdict::Caught(..) | Verdict::Hung);
            let (red, words) = match verdict {
                Verdict::Caught(test, words) => (format!("`{test}`"), words.replace('|', "\\|")),
                Verdict::Hung => ("time out".to_owned(), "the tests did not end".to_owned()),
                Verdict::Missed(tests) => ("**nothing**".to_owned(), format!("{tests} tests ran it and were green")),
                Verdict::Unviable => ("**nothing**".to_owned(), "it does not compile".to_owned()),
                Verdict::Apart => ("**nothing**".to_owned(), "it cannot be asked for at run time".to_owned()),
            };
            faults.push((seen, format!("| {} | {} | {red} | {words} |\n", room.name, fault.name)));
        }
        if mutants.iter().any(|mutant| !mutant.is_planted()) {
            tallies.push((&room.name, trial::tally(mutants, &verdicts)));
        }
    }
    Ok(())
}

/// The command for the files of a room, which differs only in what it is to do.
fn cargo_mutants(room: &Room, tree: &Path) -> Command {
    let mut command = cargo();
    command.arg("mutants").arg("--dir").arg(tree).args(["--package", &room.package]);
    for file in &room.files {
        command.args(["--file", file]);
    }
    command
}

fn list(room: &Room) -> anyhow::Result<Vec<Mutant>> {
    let output = cargo_mutants(room, &root()).args(["--list", "--json"]).output().context("cargo mutants --list")?;
    ensure!(output.status.success(), "cargo mutants --list: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("cargo mutants --list --json")
}

/// Keeps `count` of all mutants, those with the lowest hashes. Another seed is another sample.
fn draw(listed: &mut [(&Room, Vec<Mutant>)], count: usize, seed: &str) {
    let hash = |mutant: &Mutant| Sha256::digest(format!("{seed}\n{}", mutant.name).as_bytes());
    let mut order: Vec<_> = listed.iter().flat_map(|(_, all)| all.iter().map(hash)).collect();
    order.sort_unstable();
    if let Some(limit) = order.get(count).cloned() {
        listed.iter_mut().for_each(|(_, all)| all.retain(|mutant| hash(mutant) < limit));
    }
}

/// A regular expression for the text itself. (`\<` would be the start of a word, so only what must be is escaped.)
fn escaped(text: &str) -> String {
    const META: &str = r"\.+*?()|[]{}^$#&-~";
    text.chars().flat_map(|c| META.contains(c).then_some('\\').into_iter().chain([c])).collect()
}

fn tally(outcomes: &str) -> anyhow::Result<Tally> {
    let outcomes: Outcomes = serde_json::from_str(outcomes)?;
    let mut tally = Tally::default();
    for outcome in outcomes.outcomes {
        let Scenario::Mutant(mutant) = outcome.scenario else { continue };
        match outcome.summary.as_str() {
            "CaughtMutant" => tally.caught += 1,
            "Timeout" => tally.hung += 1,
            "Unviable" => tally.unviable += 1,
            "MissedMutant" => tally.missed.push(mutant.key()),
            other => anyhow::bail!("{}: unknown outcome `{other}`", mutant.name),
        }
    }
    Ok(tally)
}

/// A table of the rooms and the survivors, and whether it is red.
fn page(tallies: &[(&str, Tally)], known: &BTreeSet<&str>, goal: f64) -> (String, bool) {
    let (mut text, mut red) = (String::new(), tallies.is_empty());
    text += "| room | caught | hung | missed | listed as equivalent | do not compile | built apart only | share |\n|---|---|---|---|---|---|---|---|\n";
    let mut survivors: BTreeMap<&str, usize> = BTreeMap::new();
    for (room, tally) in tallies {
        let (listed, missed): (Vec<&str>, Vec<&str>) =
            tally.missed.iter().map(String::as_str).partition(|key| known.contains(key));
        let seen = tally.caught + tally.hung;
        let all = seen + missed.len();
        let share = if all == 0 { 1.0 } else { seen as f64 / all as f64 };
        red |= share < goal || !missed.is_empty();
        let Tally { caught, hung, unviable, .. } = tally;
        let _ = writeln!(
            text,
            "| {room} | {caught} | {hung} | {} | {} | {unviable} | {} | {:.1} % |",
            missed.len(),
            listed.len(),
            tally.apart.len(),
            share * 100.0
        );
        missed.into_iter().for_each(|key| *survivors.entry(key).or_default() += 1);
    }
    if !survivors.is_empty() {
        text +=
            "\nSurvivors. Each wants a test that fails, or a line in golden/mutants.toml that says why none can:\n\n";
        for (key, count) in survivors {
            let times = if count > 1 { format!(" ({count} times)") } else { String::new() };
            let _ = writeln!(text, "- `{key}`{times}");
        }
    }
    (text, red)
}

/// Makes `tree` a copy of the tracked files as they are now. What is the same is left alone, so that nothing is rebuilt.
fn copy_tracked(root: &Path, tree: &Path) -> anyhow::Result<()> {
    let output = Command::new("git").arg("-C").arg(root).args(["ls-files", "-z"]).output().context("git")?;
    ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let files: BTreeSet<PathBuf> =
        String::from_utf8(output.stdout)?.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect();
    for file in &files {
        let (from, to) = (root.join(file), tree.join(file));
        if let Some(folder) = to.parent() {
            std::fs::create_dir_all(folder)?;
        }
        match std::fs::read(&from) {
            Ok(bytes) if std::fs::read(&to).is_ok_and(|there| there == bytes) => {}
            Ok(bytes) => std::fs::write(&to, bytes)?,
            // Tracked and removed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => drop(std::fs::remove_file(&to)),
            Err(error) => return Err(error).with_context(|| from.display().to_string()),
        }
    }
    remove_strangers(tree, tree, &files)
}

fn remove_strangers(tree: &Path, folder: &Path, files: &BTreeSet<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_strangers(tree, &path, files)?;
        } else if !files.contains(path.strip_prefix(tree)?) {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTCOMES: &str = r#"{"outcomes": [
        {"scenario": "Baseline", "summary": "Success", "phase_results": []},
        {"scenario": {"Mutant": {"name": "a/b.rs:7:9: replace + with - in f", "package": "p"}}, "summary": "CaughtMutant"},
        {"scenario": {"Mutant": {"name": "a/b.rs:8:9: replace + with - in f"}}, "summary": "MissedMutant"},
        {"scenario": {"Mutant": {"name": "a/b.rs:9:1: replace g -> bool with true"}}, "summary": "MissedMutant"},
        {"scenario": {"Mutant": {"name": "a/b.rs:9:1: replace g -> bool with false"}}, "summary": "Unviable"},
        {"scenario": {"Mutant": {"name": "a/b.rs:12:1: replace h with ()"}}, "summary": "Timeout"}
    ], "total_mutants": 5}"#;

    #[test]
    fn outcomes_are_counted_and_survivors_named() {
        let tally = tally(OUTCOMES).unwrap();
        let keys = ["a/b.rs: replace + with - in f", "a/b.rs: replace g -> bool with true"];
        assert_eq!(
            tally,
            Tally { caught: 1, hung: 1, unviable: 1, missed: keys.map(str::to_owned).to_vec(), apart: Vec::new() }
        );
        assert!(super::tally(&OUTCOMES.replace("Timeout", "Other")).is_err());

        let tallies = [("room", tally)];
        let (text, red) = page(&tallies, &BTreeSet::new(), 0.4);
        assert!(red && text.contains("| room | 1 | 1 | 2 | 0 | 1 | 0 | 50.0 % |") && text.contains(keys[1]), "{text}");
        let (text, red) = page(&tallies, &BTreeSet::from(keys), 0.95);
        assert!(!red && text.contains("| room | 1 | 1 | 0 | 2 | 1 | 0 | 100.0 % |"), "{text}");
        let (_, red) = page(&tallies, &BTreeSet::from([keys[0]]), 0.95);
        assert!(red, "one is not listed");
        assert!(page(&[], &BTreeSet::new(), 0.95).1, "nothing was tried");
    }

    #[test]
    fn a_sample_is_of_its_seed_and_size() {
        let room = |name: &str| Room {
            name: name.to_owned(),
            package: String::new(),
            files: Vec::new(),
            tests: Vec::new(),
            only: Vec::new(),
            except: Vec::new(),
            timeout: 1,
        };
        let (a, b) = (room("a"), room("b"));
        let all = |n: usize| {
            (0..n).map(|i| Mutant { name: format!("f.rs:{i}:1: x"), ..Mutant::default() }).collect::<Vec<_>>()
        };
        let sample = |count, seed: &str| {
            let mut listed = vec![(&a, all(40)), (&b, all(60))];
            listed[1].1.iter_mut().for_each(|mutant| mutant.name.push('b'));
            draw(&mut listed, count, seed);
            listed.into_iter().flat_map(|(_, all)| all).map(|mutant| mutant.name).collect::<Vec<_>>()
        };
        assert_eq!(sample(7, "one").len(), 7);
        assert_eq!(sample(7, "one"), sample(7, "one"));
        assert_ne!(sample(7, "one"), sample(7, "two"));
        assert_eq!(sample(1000, "one").len(), 100);
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(
            escaped("a/b.rs:7:9: replace -> Vec<u8> with vec![0]"),
            r"a/b\.rs:7:9: replace \-> Vec<u8> with vec!\[0\]"
        );
    }
}
