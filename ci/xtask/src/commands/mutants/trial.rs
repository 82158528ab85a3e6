//! Builds the tests of a package with all mutants of its rooms inside, learns which test asks for which of them, and runs each
//! mutant against those tests of its room that do.

use super::embed::{Embedded, RUNTIME, embed};
use super::{Mutant, Tally};
use crate::root::{cargo, target};
use anyhow::{Context, bail, ensure};
use bitnet_golden::mutants::Room;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Address space of a test run: a mutant may ask for all memory that there is.
const MEMORY_KIB: u64 = 6 << 20;
/// Tests are run shortest first, in groups of about so much time.
const GROUP: Duration = Duration::from_millis(400);

/// What a mutant came to.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    /// A test turned red: which, and what it said.
    Caught(String, String),
    Hung,
    /// Green, with so many tests that asked for it.
    Missed(usize),
    /// The compiler refuses it.
    Unviable,
    /// It cannot be asked for at run time.
    Apart,
}

/// A test of a binary.
#[derive(Debug)]
struct Test {
    binary: usize,
    name: String,
    time: Duration,
    /// Numbers that it asked for.
    asked: HashSet<u32>,
}

#[derive(Debug)]
struct Binary {
    /// As in the arguments of a room: the name of a test, or `--lib`.
    name: String,
    path: PathBuf,
    /// Where cargo would run it.
    folder: PathBuf,
    /// It takes the name of one test alone: libtest-mimic does so.
    one_name: bool,
}

/// The mutants of a room.
#[derive(Debug)]
pub(super) struct Task<'a> {
    pub(super) room: &'a Room,
    pub(super) mutants: Vec<Mutant>,
}

/// The tests that judge a room, as binaries are named; all if there are none.
fn targets(room: &Room) -> BTreeSet<&str> {
    room.tests.iter().map(String::as_str).filter(|argument| *argument != "--test").collect()
}

/// Tries the mutants of some rooms, all of one package. `tree` is a clean copy of the checkout, and is left with the mutants
/// inside.
pub(super) fn try_all(
    tasks: &[Task<'_>],
    cargo_args: &[String],
    tree: &Path,
    told: &mut dyn FnMut(&Room, &Mutant, &Verdict),
) -> anyhow::Result<Vec<Vec<Verdict>>> {
    let (mut apart, binaries, asked_as) = build(tasks, cargo_args, tree)?;
    let tests = record(&binaries, |name| tasks.iter().any(|task| task.room.judged_by(name)))?;
    eprintln!(
        "{} mutants inside, {} tests, {:.0} s for all tests one by one",
        asked_as.len(),
        tests.len(),
        tests.iter().map(|test| test.time.as_secs_f64()).sum::<f64>()
    );
    let mut numbers = 0..;
    let mut all = Vec::new();
    for Task { room, mutants } in tasks {
        let targets = targets(room);
        let mine = |test: &&Test| {
            let binary = binaries[test.binary].name.as_str();
            (targets.is_empty() || targets.contains(binary)) && room.judged_by(&test.name)
        };
        let mut verdicts = Vec::new();
        for (mutant, number) in mutants.iter().zip(numbers.by_ref()) {
            let verdict = match asked_as.get(&number) {
                Some(asked) => {
                    let mut judges: Vec<&Test> =
                        tests.iter().filter(mine).filter(|test| test.asked.contains(asked)).collect();
                    judges.sort_by_key(|test| test.time);
                    judge(number, &judges, &binaries, room)?
                }
                None => apart.remove(&number).unwrap_or(Verdict::Apart),
            };
            told(room, mutant, &verdict);
            verdicts.push(verdict);
        }
        let Tally { caught, hung, unviable, missed, apart } = tally(mutants, &verdicts);
        eprintln!(
            "{}: {caught} caught, {hung} hung, {} missed, {unviable} do not compile, {} apart",
            room.name,
            missed.len(),
            apart.len()
        );
        all.push(verdicts);
    }
    Ok(all)
}

/// The verdicts of those that are not inside, the test binaries, and for those inside the number that is asked for.
type Built = (BTreeMap<u32, Verdict>, Vec<Binary>, BTreeMap<u32, u32>);

fn build(tasks: &[Task<'_>], cargo_args: &[String], tree: &Path) -> anyhow::Result<Built> {
    let mut by_file: BTreeMap<&str, Vec<(u32, &Mutant)>> = BTreeMap::new();
    let numbered: BTreeMap<u32, &Mutant> = (0..).zip(tasks.iter().flat_map(|task| &task.mutants)).collect();
    for (&number, &mutant) in &numbered {
        by_file.entry(&mutant.file).or_default().push((number, mutant));
    }
    let (first, _) = by_file.first_key_value().context("no mutants")?;
    let (folder, _) = first.split_once("src/").context("a file outside of src")?;
    let crate_root = format!("{folder}src/lib.rs");
    let mut sources = BTreeMap::new();
    for file in by_file.keys().copied().chain([crate_root.as_str()]) {
        let path = tree.join(file);
        sources
            .insert(file, std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    let all = tasks.iter().map(|task| targets(task.room)).collect::<Vec<_>>();
    let names: BTreeSet<&str> = all.iter().flatten().copied().filter(|_| !all.iter().any(BTreeSet::is_empty)).collect();
    let package = tasks.first().map(|task| task.room.package.as_str()).context("no rooms")?;
    let members = members(tree)?;
    let mut verdicts: BTreeMap<u32, Verdict> = BTreeMap::new();
    let mut tests = false;
    loop {
        let mut texts: BTreeMap<&str, Embedded> = BTreeMap::new();
        let mut inside = BTreeMap::new();
        for (file, source) in &sources {
            let mut mine = by_file.get(file).cloned().unwrap_or_default();
            mine.retain(|(number, _)| !verdicts.contains_key(number));
            let embedded = embed(source, &mine).with_context(|| (*file).to_owned())?;
            inside.extend(embedded.inside.clone());
            texts.insert(file, embedded);
        }
        for (file, embedded) in &texts {
            let text = if *file == crate_root {
                format!("#![allow(warnings)]\n{}{RUNTIME}", embedded.text)
            } else {
                embedded.text.clone()
            };
            let path = tree.join(file);
            if !std::fs::read(&path).is_ok_and(|there| there == text.as_bytes()) {
                std::fs::write(&path, text)?;
            }
        }
        let mut command = cargo();
        command.current_dir(tree).env("CARGO_TARGET_DIR", target()).env("CARGO_INCREMENTAL", "1");
        if tests {
            command.args(["test", "--no-run"]);
            for name in &names {
                command.args(if *name == "--lib" { vec![*name] } else { vec!["--test", *name] });
            }
        } else {
            command.args(["check", "--lib"]);
        }
        command.args(["--quiet", "--message-format=json", "--package", package]).args(cargo_args);
        // Cargo names what it builds by the profile and the folder below the workspace: without a profile of its own, what is built
        // here would lie in the place of what other commands build, and be taken for it, whatever is changed there later.
        for name in &members {
            command.arg("--config").arg(format!("profile.dev.package.{name}.codegen-units=255"));
        }
        let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot run {command:?}"))?;
        let messages: Vec<Message> =
            output.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
        if output.status.success() && tests {
            return Ok((verdicts, messages.into_iter().filter_map(Message::binary).collect(), inside));
        }
        if output.status.success() {
            tests = true;
            continue;
        }
        let before = verdicts.len();
        let shift = "#![allow(warnings)]\n".len();
        for error in messages.into_iter().filter_map(|message| message.message).filter(|m| m.level == "error") {
            // What a macro of another crate wrote is where it was called.
            for span in error.spans.iter().flat_map(Place::and_callers) {
                let Some(embedded) = texts.get(span.file_name.as_str()) else { continue };
                let by = if span.file_name == crate_root { shift } else { 0 };
                if error.code.as_ref().is_some_and(|code| code.code == "E0004") {
                    // Without some arm a match is not complete: an arm with a guard does not count as one.
                    let arms = embedded.in_braces(span.byte_end.saturating_sub(by));
                    let arms = arms.filter(|number| numbered[number].genre == "MatchArm");
                    verdicts.extend(arms.map(|number| (number, Verdict::Apart)));
                    break;
                }
                let owners = embedded.owners(span.byte_start.saturating_sub(by)..span.byte_end.saturating_sub(by));
                let constant = error.code.as_ref().is_some_and(|code| code.code == "E0015");
                let verdict = if owners.len() == 1 && !constant { Verdict::Unviable } else { Verdict::Apart };
                if !owners.is_empty() {
                    owners.iter().for_each(|owner| drop(verdicts.insert(*owner, verdict.clone())));
                    // The first span that points into a mutant is the main one, or the nearest to it.
                    break;
                }
            }
            if verdicts.len() == before {
                eprintln!("{}", error.rendered.unwrap_or_default());
            }
        }
        ensure!(verdicts.len() > before, "{package} does not build with its mutants, and not because of one");
    }
}

/// Names of the packages of a workspace.
fn members(tree: &Path) -> anyhow::Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Workspace {
        packages: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
    }
    let mut command = cargo();
    let output = command.current_dir(tree).args(["metadata", "--no-deps", "--format-version", "1"]).output()?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let Workspace { packages } = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    Ok(packages.into_iter().map(|package| package.name).collect())
}

/// A line of `--message-format=json`.
#[derive(Debug, Deserialize)]
struct Message {
    message: Option<Diagnostic>,
    executable: Option<PathBuf>,
    manifest_path: Option<PathBuf>,
    profile: Option<Profile>,
    target: Option<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Profile {
    test: bool,
}

#[derive(Debug, Deserialize)]
struct Diagnostic {
    level: String,
    rendered: Option<String>,
    code: Option<Code>,
    spans: Vec<Place>,
}

#[derive(Debug, Deserialize)]
struct Code {
    code: String,
}

#[derive(Debug, Deserialize)]
struct Place {
    file_name: String,
    byte_start: usize,
    byte_end: usize,
    /// The call of the macro that it is in.
    expansion: Option<Box<Expansion>>,
}

#[derive(Debug, Deserialize)]
struct Expansion {
    span: Place,
}

impl Place {
    fn and_callers(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |place| place.expansion.as_ref().map(|expansion| &expansion.span))
    }
}

impl Message {
    fn binary(self) -> Option<Binary> {
        let folder = self.manifest_path?.parent()?.to_owned();
        self.profile.filter(|profile| profile.test)?;
        let Target { name, kind } = self.target?;
        let name = if kind.iter().any(|kind| kind == "lib") { "--lib".to_owned() } else { name };
        let path = self.executable?;
        let two = Command::new(&path).args(["--list", "--exact", "a", "b"]).current_dir(&folder).output().ok()?;
        Some(Binary { name, path, folder, one_name: !two.status.success() })
    }
}

/// A test binary with a filter, in a group of processes of its own.
fn start(binary: &Binary, arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<Child> {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -v {MEMORY_KIB}; exec \"$0\" \"$@\"")]).arg(&binary.path).args(arguments);
    command.envs(environment.iter().copied()).env("CARGO_MANIFEST_DIR", &binary.folder);
    command.current_dir(&binary.folder).stdin(Stdio::null()).process_group(0);
    let log = std::fs::File::create(binary.log())?;
    command.stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("cannot run {}", binary.path.display()))
}

impl Binary {
    /// What it printed last.
    fn log(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        target().join("mutants").join(format!("{name}.log"))
    }
}

/// Whether it was green; none if it did not end in time. On a machine that is busy or was stopped, time in which the test
/// waited for a processor does not count: it would make a mutant that is missed look as if it hung.
fn wait(child: &mut Child, limit: Duration) -> anyhow::Result<Option<bool>> {
    let (mut waited, mut pause) = (Duration::ZERO, Duration::from_micros(500));
    while waited < limit || waited < limit + delayed(child.id()) {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        let begin = Instant::now();
        std::thread::sleep(pause);
        // A longer one is that of a machine that was stopped.
        waited += begin.elapsed().min(Duration::from_secs(1));
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    // What it started is in its group.
    Command::new("kill").args(["-9", "--", &format!("-{}", child.id())]).status()?;
    child.wait()?;
    Ok(None)
}

/// How long the thread of a process that waited most was ready and had no processor; nothing where the kernel does not tell.
fn delayed(process: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let texts = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("schedstat")).ok());
    let delays = texts.filter_map(|text| text.split(' ').nth(1)?.parse().ok());
    Duration::from_nanos(delays.max().unwrap_or(0))
}

/// The tests that judge a room, each run once by itself.
fn record(binaries: &[Binary], judges: impl Fn(&str) -> bool) -> anyhow::Result<Vec<Test>> {
    let folder = tempfile::tempdir()?;
    let mut tests = Vec::new();
    for (index, binary) in binaries.iter().enumerate() {
        let output =
            Command::new(&binary.path).args(["--list", "--format", "terse"]).current_dir(&binary.folder).output()?;
        let listed = String::from_utf8(output.stdout)?;
        for name in listed.lines().filter_map(|line| line.strip_suffix(": test")).filter(|name| judges(name)) {
            let file = folder.path().join(tests.len().to_string());
            let begin = Instant::now();
            let reached = [("MUTANTS_REACHED", file.to_str().context("a path that is not text")?)];
            let mut child = start(binary, &["--exact", name], &reached)?;
            let green = wait(&mut child, Duration::from_secs(300))?;
            if green != Some(true) {
                eprintln!("left out, since it is red by itself and without a mutant: {} {name}", binary.path.display());
                continue;
            }
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            let asked = text.lines().filter_map(|line| line.parse().ok()).collect();
            tests.push(Test { binary: index, name: name.to_owned(), time: begin.elapsed(), asked });
        }
    }
    if tests.is_empty() {
        bail!("no test is green without a mutant");
    }
    Ok(tests)
}

/// Runs the tests that ask for a mutant, until one is red.
fn judge(number: u32, tests: &[&Test], binaries: &[Binary], room: &Room) -> anyhow::Result<Verdict> {
    let chosen = number.to_string();
    let mut rest = tests;
    while !rest.is_empty() {
        let mut sum = Duration::ZERO;
        let mut count = 0;
        while count < rest.len() && sum < GROUP {
            sum += rest[count].time;
            count += 1;
        }
        let (group, behind) = rest.split_at(count);
        rest = behind;
        for (index, names) in runs(group, binaries) {
            let binary = &binaries[index];
            let arguments: Vec<&str> = std::iter::once("--exact").chain(names).collect();
            let limit = (sum * 4 + Duration::from_secs(5)).min(Duration::from_secs(room.timeout.into()));
            let mut child = start(binary, &arguments, &[("MUTANTS_CHOSEN", &chosen)])?;
            match wait(&mut child, limit)? {
                None => return Ok(Verdict::Hung),
                Some(false) => {
                    let (test, words) = words(&String::from_utf8_lossy(&std::fs::read(binary.log())?));
                    return Ok(Verdict::Caught(test, words));
                }
                Some(true) => {}
            }
        }
    }
    Ok(Verdict::Missed(tests.len()))
}

/// The tests of a group by binary, in as few runs as the binaries take.
fn runs<'a>(group: &[&'a Test], binaries: &[Binary]) -> Vec<(usize, Vec<&'a str>)> {
    let mut out: Vec<(usize, Vec<&str>)> = Vec::new();
    for test in group {
        match out.iter_mut().find(|(index, _)| *index == test.binary && !binaries[*index].one_name) {
            Some((_, names)) => names.push(&test.name),
            None => out.push((test.binary, vec![&test.name])),
        }
    }
    out
}

/// The first test that is red in what a binary printed, and what it said.
fn words(log: &str) -> (String, String) {
    let red = |line: &&str| line.starts_with("test ") && line.ends_with("FAILED");
    let test = log.lines().find(red).and_then(|line| line.split_whitespace().nth(1));
    let test = test.unwrap_or("the process died").to_owned();
    let mut lines = log
        .lines()
        .skip_while(|line| *line != format!("---- {test} stdout ----") && *line != format!("---- {test} ----"));
    let said: Vec<&str> = lines
        .by_ref()
        .skip(1)
        .take_while(|line| !line.starts_with("----") && !line.starts_with("failures:"))
        .filter(|line| !line.trim().is_empty() && !line.starts_with("thread '") && !line.starts_with("note:"))
        .take(3)
        .collect();
    (test, said.join(" ").chars().take(240).collect())
}

/// The counts of a room.
pub(super) fn tally(mutants: &[Mutant], verdicts: &[Verdict]) -> Tally {
    let mut tally = Tally::default();
    for (mutant, verdict) in mutants.iter().zip(verdicts) {
        match verdict {
            _ if mutant.is_planted() => {}
            Verdict::Caught(..) => tally.caught += 1,
            Verdict::Hung => tally.hung += 1,
            Verdict::Unviable => tally.unviable += 1,
            Verdict::Apart => tally.apart.push(mutant.name.clone()),
            Verdict::Missed(_) => tally.missed.push(mutant.key()),
        }
    }
    tally
}

/// The names of the mutants that a room's last run missed.
pub(super) fn missed_before(room: &Room) -> anyhow::Result<BTreeSet<String>> {
    let path = missed_file(room);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.lines().filter_map(|line| Some(line.split_once('\t')?.1.to_owned())).collect())
}

/// Where a run of a room leaves what was missed.
pub(super) fn missed_file(room: &Room) -> PathBuf {
    target().join("mutants").join(format!("{}.missed", room.name.replace('/', "-")))
}

#[cfg(test)]
mod tests {
    use super::{delayed, wait, words};
    use std::os::unix::process::CommandExt;
    use std::process::Command;
    use std::time::Duration;

    #[test]
    fn a_test_that_sleeps_too_long_hangs() {
        let mut child = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        assert_eq!(wait(&mut child, Duration::from_millis(50)).unwrap(), None);
        let mut child = Command::new("true").process_group(0).spawn().unwrap();
        assert_eq!(wait(&mut child, Duration::from_secs(60)).unwrap(), Some(true));
        assert_eq!(delayed(u32::MAX), Duration::ZERO);
    }

    #[test]
    fn the_first_red_test_is_named_with_its_words() {
        let log = "running 2 tests\ntest a ... ok\ntest b::c ... FAILED\n\nfailures:\n\n---- b::c stdout ----\n\nthread 'b::c' (7) panicked at x.rs:1:1:\nassertion failed: 1 == 2\nnote: run with\n\n\nfailures:\n    b::c\n";
        assert_eq!(words(log), ("b::c".to_owned(), "assertion failed: 1 == 2".to_owned()));
        assert_eq!(words("running 1 test\n").0, "the process died");
    }
}
