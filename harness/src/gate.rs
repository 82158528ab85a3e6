//! The gate on speed: what the kernels cost, against what they cost when it was last blessed.
//!
//! | module | what |
//! |---|---|
//! | [`driver`] | starts `gate-driver`, under callgrind or not, and reads what it says |
//! | [`instructions`] | exact counts against `golden/gates/instructions-<arch>.toml` |
//! | [`ratios`] | kernel sets against plainer ones, in wall time, against `golden/gates/ratios-<arch>.toml` |
//! | [`proof`] | that it can be red, and is not by itself |
//!
//! Counting comes first because it has no noise: one instruction more in a thousand is seen, on any machine, however busy.
//! What valgrind cannot run (AVX-512) is timed instead, against a yardstick that is counted. Threads, memory and whole models
//! are a matter of the benches, not of this gate.
//!
//! A figure that was made with another compiler, other flags, another C library or another processor binds nothing here: it
//! is [`Finding::Unavailable`], and a run in which nothing was held against anything is not green.

pub mod driver;
pub mod instructions;
pub mod proof;
pub mod ratios;

use bitnet_golden::GoldenError;
use bitnet_golden::gates::Made;
use gate_driver::{ANY, Build};
use serde::Serialize;
use std::path::PathBuf;

/// The command that rewrites the figures.
pub const BLESS: &str = "cargo xtask gate --bless";

#[derive(Debug, thiserror::Error)]
pub enum GateError {
    #[error("{reason}")]
    NoValgrind { reason: String, remedy: &'static str },
    #[error("cannot start {program}: {source}; `cargo build --release -p gate-driver` makes the driver", program = program.display())]
    Start { program: PathBuf, source: std::io::Error },
    #[error("{program} failed ({status}): {said}", program = program.display())]
    Driver { program: PathBuf, status: String, said: String },
    #[error("the driver's line `{line}` is not understood: {problem}; build driver and xtask from one checkout")]
    Line { line: String, problem: String },
    #[error("callgrind's file {problem}; this reads what valgrind 3.19 writes")]
    Callgrind { problem: String },
    #[error(transparent)]
    Golden(#[from] GoldenError),
    #[error("{path}: {source}", path = path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("not blessed: {reason}")]
    NotBlessed { reason: String },
    #[error("no case begins with {}", .names.join(" or "))]
    NoCase { names: Vec<String> },
}

/// The outcome of a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", content = "why", rename_all = "kebab-case")]
pub enum Finding {
    Ok,
    /// Better by more than the limit: not wrong, but to be blessed, so that it cannot be lost unseen.
    Improved,
    /// Better by so much that the data do not hold it: its loss would not be seen before it is blessed.
    NotHeld,
    Regression,
    /// Beyond its limit in some processes and not in others, however often it was measured.
    TooNoisy,
    /// The case is not in the data.
    NoBaseline,
    /// The data have a case that is not run any more.
    NoCase,
    /// It cannot be held against anything here; the reason.
    Unavailable(String),
}

impl Finding {
    /// Whether it turns the gate red.
    pub fn is_red(&self) -> bool {
        matches!(self, Self::Regression | Self::NotHeld | Self::NoBaseline | Self::NoCase)
    }

    /// In a table.
    pub fn text(&self) -> String {
        match self {
            Self::Ok => "ok".to_owned(),
            Self::Improved => format!("improved: {BLESS}"),
            Self::NotHeld => format!("A GAIN THAT IS NOT HELD: {BLESS}"),
            Self::Regression => "REGRESSION".to_owned(),
            Self::TooNoisy => "too noisy to say: run it again in quiet".to_owned(),
            Self::NoBaseline => format!("NO BASELINE: {BLESS}"),
            Self::NoCase => format!("A BASELINE WITHOUT A CASE: {BLESS}"),
            Self::Unavailable(reason) => format!("unavailable: {reason}"),
        }
    }
}

/// A line of the result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The kernel set, or the pair `set:against`.
    pub set: String,
    /// The case; empty where a whole set is meant.
    pub case: String,
    /// What was blessed: instructions of [`gate_driver::CALLS`] calls, or how many times faster.
    pub baseline: Option<f64>,
    /// What was measured now.
    pub now: Option<f64>,
    /// How much more it costs now, in percent of the baseline; less than nothing is better.
    pub percent: Option<f64>,
    #[serde(flatten)]
    pub finding: Finding,
}

/// What a judgement comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GateOutcome {
    /// Something was compared, and nothing is worse.
    Green,
    /// Something is.
    Red,
    /// Nothing could be compared, or noise hides whether something is worse.
    Unavailable,
}

/// All rows, and what they come to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judgement {
    pub outcome: GateOutcome,
    /// What is said beside: differences that need not matter.
    pub notes: Vec<String>,
    pub rows: Vec<Row>,
}

impl Judgement {
    pub fn new(rows: Vec<Row>, notes: Vec<String>) -> Self {
        let outcome = if rows.iter().any(|row| row.finding.is_red()) {
            GateOutcome::Red
        } else if rows.iter().all(|row| row.finding != Finding::TooNoisy)
            && rows.iter().any(|row| matches!(row.finding, Finding::Ok | Finding::Improved))
        {
            GateOutcome::Green
        } else {
            GateOutcome::Unavailable
        };
        Self { outcome, notes, rows }
    }

    /// Whether a kernel set could not be compared. (`any` has the C library in its counts, which is every system's own.)
    pub fn lacks_a_set(&self) -> bool {
        self.rows.iter().any(|row| row.set != ANY && matches!(row.finding, Finding::Unavailable(_)))
    }

    pub fn count(&self, of: impl Fn(&Finding) -> bool) -> usize {
        self.rows.iter().filter(|row| of(&row.finding)).count()
    }
}

/// What this build differs in from the one that the figures were made with; `cpu` if the processor matters too.
fn differences(made: &Made, build: &Build, cpu: bool) -> Option<String> {
    let parts = [
        ("", &made.rustc, &build.rustc, true),
        ("the profile ", &made.profile, &build.profile, true),
        ("RUSTFLAGS ", &made.flags, &build.flags, true),
        ("the processor ", &made.cpu, &build.cpu, cpu),
    ];
    let (what, theirs, ours, _) = parts.into_iter().find(|(_, theirs, ours, matters)| *matters && theirs != ours)?;
    Some(format!("the figures are of {what}`{theirs}`, this is `{ours}`; bless with {BLESS}"))
}

/// What this build is, for a file that is blessed now.
fn made(build: &Build, valgrind: Option<&str>) -> Made {
    Made {
        rustc: build.rustc.clone(),
        profile: build.profile.clone(),
        flags: build.flags.clone(),
        libc: build.libc.clone(),
        cpu: build.cpu.clone(),
        valgrind: valgrind.map(str::to_owned),
    }
}

fn toml_of<T: Serialize>(data: &T) -> Result<String, GateError> {
    toml::to_string(data).map_err(|error| GateError::NotBlessed { reason: format!("no TOML: {error}") })
}

fn write(path: &std::path::Path, text: &str) -> Result<(), GateError> {
    crate::atomic::write(path, text.as_bytes()).map_err(|source| GateError::File { path: path.to_owned(), source })
}

/// A build for the tests of the judges.
#[cfg(test)]
fn sample_build() -> Build {
    let text = str::to_owned;
    Build {
        rustc: text("rustc 1"),
        profile: text("release"),
        flags: String::new(),
        arch: text("x86_64"),
        libc: text("glibc 2"),
        cpu: text("one"),
        sets: vec![text("scalar"), text("avx2"), text("avx512")],
    }
}
