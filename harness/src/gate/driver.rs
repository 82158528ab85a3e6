//! Starts `gate-driver` and reads what it says.

use super::GateError;
use gate_driver::{Build, Line, Paired, trigger};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program, and what to leave out or add.
#[derive(Debug, Clone)]
pub struct Driver {
    pub program: PathBuf,
    /// Only cases that begin with one of these; all if empty.
    pub cases: Vec<String>,
    /// Percent of the work to do once more.
    pub plant: u32,
    /// Time the plainer set in place of the one under test, as if that had lost its kernels.
    pub fall_back: bool,
}

/// Counts of one run.
#[derive(Debug, Clone)]
pub struct Counts {
    pub build: Build,
    pub valgrind: String,
    /// Set, case, instructions of [`gate_driver::CALLS`] calls.
    pub counts: BTreeMap<String, BTreeMap<String, u64>>,
    /// Sets that cannot run here, and why.
    pub unavailable: BTreeMap<String, String>,
}

/// Ratios of one run.
#[derive(Debug, Clone)]
pub struct Timed {
    pub build: Build,
    pub paired: Vec<Paired>,
    pub unavailable: BTreeMap<String, String>,
}

/// The version of valgrind, e.g. `valgrind-3.19.0`.
///
/// # Errors
/// [`GateError::NoValgrind`]: it is not here, does not run, or cannot be spoken to on this architecture.
pub fn valgrind() -> Result<String, GateError> {
    if !gate_driver::requests::SUPPORTED {
        return Err(GateError::NoValgrind {
            reason: format!("valgrind's client requests are written for x86_64, not {}", std::env::consts::ARCH),
            remedy: "cargo xtask gate --paired",
        });
    }
    let missing = |reason: String| GateError::NoValgrind { reason, remedy: "apt-get install valgrind" };
    let out = Command::new("valgrind")
        .arg("--version")
        .output()
        .map_err(|error| missing(format!("valgrind cannot be started: {error}")))?;
    let version = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    if out.status.success() && version.starts_with("valgrind-") {
        Ok(version)
    } else {
        Err(missing(format!("`valgrind --version` says `{version}` ({})", out.status)))
    }
}

impl Driver {
    /// What the program is.
    pub fn build(&self) -> Result<Build, GateError> {
        Ok(self.plain(&[OsStr::new("build")])?.0)
    }

    /// Counts the instructions of these sets, in one run under callgrind.
    ///
    /// # Errors
    /// There is no valgrind; it or the driver fails; an answer is not understood; no case was selected.
    pub fn count(&self, sets: &[&str]) -> Result<Counts, GateError> {
        let valgrind = valgrind()?;
        let file = |path: &Path, source| GateError::File { path: path.to_owned(), source };
        let folder = tempfile::tempdir().map_err(|source| file(&std::env::temp_dir(), source))?;
        let (out, log) = (folder.path().join("counts"), folder.path().join("log"));
        let mut command = Command::new("valgrind");
        command
            .args(["--tool=callgrind", "--instr-atstart=no", "--combine-dumps=yes"])
            .arg(option("--callgrind-out-file=", &out))
            .arg(option("--log-file=", &log))
            .arg(&self.program)
            .arg("count")
            .args(sets);
        let lines = self.run(command, Some(&log))?;
        let text = std::fs::read_to_string(&out).map_err(|source| file(&out, source))?;
        let dumps = dumps(&text)?;
        let (build, lines, unavailable) = split(lines)?;
        let mut counts = BTreeMap::<String, BTreeMap<String, u64>>::new();
        for line in lines {
            if let Line::Counted { set, case } = line {
                let mark = trigger(&set, &case);
                let count = dumps.get(&mark).copied().filter(|count| *count > 0);
                let count =
                    count.ok_or_else(|| GateError::Callgrind { problem: format!("has no count of `{mark}`") })?;
                counts.entry(set).or_default().insert(case, count);
            }
        }
        self.some(counts.is_empty() && unavailable.is_empty())?;
        Ok(Counts { build, valgrind, counts, unavailable })
    }

    /// Times these pairs, each `set:against`.
    ///
    /// # Errors
    /// The driver fails; an answer is not understood; no case was selected.
    pub fn time(&self, pairs: &[String]) -> Result<Timed, GateError> {
        let mut arguments = vec![OsStr::new("pairs")];
        arguments.extend(self.fall_back.then_some(OsStr::new("--fall-back")));
        arguments.extend(pairs.iter().map(OsStr::new));
        let (build, lines, unavailable) = self.plain(&arguments)?;
        let paired: Vec<Paired> = lines
            .into_iter()
            .filter_map(|line| if let Line::Paired(paired) = line { Some(paired) } else { None })
            .collect();
        self.some(paired.is_empty() && unavailable.is_empty())?;
        Ok(Timed { build, paired, unavailable })
    }

    fn some(&self, nothing: bool) -> Result<(), GateError> {
        if nothing { Err(GateError::NoCase { names: self.cases.clone() }) } else { Ok(()) }
    }

    fn plain(&self, arguments: &[&OsStr]) -> Result<Said, GateError> {
        let mut command = Command::new(&self.program);
        command.args(arguments);
        split(self.run(command, None)?)
    }

    /// Runs with nothing of the caller's environment but the path: neither its size nor its settings shall count.
    fn run(&self, mut command: Command, log: Option<&Path>) -> Result<Vec<Line>, GateError> {
        let program = PathBuf::from(command.get_program());
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.arg("--plant").arg(self.plant.to_string());
        self.cases.iter().for_each(|case| {
            command.arg("--case").arg(case);
        });
        let out = command.output().map_err(|source| GateError::Start { program: program.clone(), source })?;
        if !out.status.success() {
            let log = log.and_then(|log| std::fs::read_to_string(log).ok()).unwrap_or_default();
            let said = format!("{}{log}", String::from_utf8_lossy(&out.stderr));
            let start = said.len().saturating_sub(2000);
            let said = said.get(said.ceil_char_boundary(start)..).unwrap_or_default().trim().to_owned();
            return Err(GateError::Driver { program: self.program.clone(), status: out.status.to_string(), said });
        }
        String::from_utf8_lossy(&out.stdout)
            .lines()
            .map(|line| {
                serde_json::from_str(line)
                    .map_err(|error| GateError::Line { line: line.to_owned(), problem: error.to_string() })
            })
            .collect()
    }
}

fn option(name: &str, path: &Path) -> std::ffi::OsString {
    let mut option = std::ffi::OsString::from(name);
    option.push(path);
    option
}

type Said = (Build, Vec<Line>, BTreeMap<String, String>);

/// The first line, the results, and the sets that are missing.
fn split(lines: Vec<Line>) -> Result<Said, GateError> {
    let (mut build, mut results, mut unavailable) = (None, Vec::new(), BTreeMap::new());
    for line in lines {
        match line {
            Line::Build(line) => build = Some(line),
            Line::Unavailable { set, reason } => {
                unavailable.insert(set, reason);
            }
            line => results.push(line),
        }
    }
    let nothing = || GateError::Line { line: String::new(), problem: "it did not say what it is".to_owned() };
    Ok((build.ok_or_else(nothing)?, results, unavailable))
}

/// The counts of a file of callgrind's with several parts, by what triggered each: `desc: Trigger: Client Request: NAME`,
/// then `totals: COUNT`. The format is that of the manual's chapter "Callgrind Format Specification". (`summary:` is 0 there,
/// since it leaves out what was counted before callgrind saw a call.)
fn dumps(text: &str) -> Result<BTreeMap<String, u64>, GateError> {
    let problem = |problem: String| GateError::Callgrind { problem };
    let (mut counts, mut trigger) = (BTreeMap::new(), None);
    for line in text.lines() {
        if line.starts_with("part: ") {
            trigger = None;
        } else if let Some(name) = line.strip_prefix("desc: Trigger: Client Request: ") {
            trigger = Some(name.trim().to_owned());
        } else if let (Some(events), Some(name)) = (line.strip_prefix("events: "), &trigger) {
            if events.trim() != "Ir" {
                return Err(problem(format!("counts `{events}` for `{name}`, not instructions")));
            }
        } else if let Some(count) = line.strip_prefix("totals: ")
            && let Some(name) = trigger.take()
        {
            let count = count.trim().parse().map_err(|_| problem(format!("has the count `{count}` for `{name}`")))?;
            if counts.insert(name.clone(), count).is_some() {
                return Err(problem(format!("counts `{name}` twice")));
            }
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# callgrind format\nversion: 1\ncreator: callgrind-3.19.0\npid: 1\ncmd:  x\npart: 1\n\n\
        desc: I1 cache: \ndesc: Trigger: Client Request: avx2 gemv/i2_s\n\npositions: line\nevents: Ir\nsummary: 0\n\n\
        fn=(1) f\n1 1234\n\ntotals: 1234\npart: 2\n\ndesc: Trigger: Program termination\n\nevents: Ir\nsummary: 0\n\ntotals: 0\n";

    #[test]
    fn parts_are_found_by_their_trigger() {
        let found = dumps(FILE).expect("a file");
        assert_eq!(found, BTreeMap::from([("avx2 gemv/i2_s".to_owned(), 1234)]));
    }

    #[test]
    fn a_file_that_is_not_understood_is_an_error() {
        let error = |from: &str, to: &str| dumps(&FILE.replace(from, to)).expect_err(to).to_string();
        assert!(error("totals: 1234", "totals: many").contains("`many`"));
        assert!(error("events: Ir\nsummary: 0\n\nfn", "events: Ir Dr\nsummary: 0\n\nfn").contains("Ir Dr"));
        assert!(
            error("desc: Trigger: Program termination", "desc: Trigger: Client Request: avx2 gemv/i2_s")
                .contains("twice")
        );
    }
}
