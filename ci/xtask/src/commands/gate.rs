//! `cargo xtask gate`: what the kernels cost, against `golden/gates/`. The work is done by `bitnet_harness::gate`.
//!
//! Exit codes: 0 something was compared and nothing is worse; 1 something is, or an error; 2 wrong usage; 4 nothing could be
//! compared (no valgrind, another compiler) or noise hid the answer; with `--require` already if a kernel set could not.

use crate::crossval::Format;
use crate::root::{cargo, root, target};
use anyhow::{Context, ensure};
use bitnet_golden::GoldenError;
use bitnet_golden::gates::{self, Ratios};
use bitnet_harness::bench::noise::Guard;
use bitnet_harness::gate::driver::{Driver, valgrind};
use bitnet_harness::gate::proof::{self, Proof};
use bitnet_harness::gate::{BLESS, Finding, GateError, GateOutcome, Judgement, Row, instructions, ratios};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const UNAVAILABLE: u8 = 4;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask gate                     instructions, under valgrind\n  cargo xtask gate --paired            kernel sets against plainer ones, in wall time\n  cargo xtask gate --paired --runs 50  fifty of them in a row, a line each\n  cargo xtask gate --self-test         ten quiet runs and a planted slowdown\n  cargo xtask gate --bless             write the baselines; read the diff before you commit it\n\nExit codes: 0 nothing is worse, 1 something is, 4 nothing could be compared, or noise hid the answer."
)]
pub(crate) struct Args {
    /// Wall time of kernel sets against plainer ones, instead of instructions.
    #[arg(long)]
    paired: bool,
    /// Write what is measured now as the figures to hold.
    #[arg(long, conflicts_with_all = ["self_test", "plant", "case", "require"])]
    bless: bool,
    /// Prove that the gate is green without a slowdown and red with one.
    #[arg(long)]
    self_test: bool,
    /// Runs in a row, a line each; of --self-test (10), and of --paired --bless (20).
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: Option<u16>,
    /// Do so many percent of the work once more, in steps of 10.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(10..=1000))]
    plant: Option<u32>,
    /// Only cases whose name begins with this.
    #[arg(long, value_name = "NAME")]
    case: Vec<String>,
    /// A kernel set that cannot be compared is a failure too.
    #[arg(long)]
    require: bool,
    /// Print every case, not only what is worth a look.
    #[arg(long)]
    all: bool,
    /// A driver that is built already [default: it is built, with the release profile].
    #[arg(long, value_name = "FILE")]
    driver: Option<PathBuf>,
    /// Output.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        if !self.paired
            && let Err(GateError::NoValgrind { reason, remedy }) = valgrind()
        {
            return self.unavailable(&reason, remedy);
        }
        let program = self.driver.clone().map_or_else(build, Ok)?;
        let plant = if self.self_test { 0 } else { self.plant.unwrap_or(0) };
        let driver = Driver { program, cases: self.case.clone(), plant, fall_back: false };
        let arch = driver.build()?.arch;
        if self.paired { self.ratios(&driver, &arch) } else { self.instructions(&driver, &arch) }
    }

    fn instructions(&self, driver: &Driver, arch: &str) -> anyhow::Result<ExitCode> {
        let golden = root().join("golden");
        let data = known(gates::instructions(&golden, arch))?;
        if self.self_test {
            let proof = proof::of_counts(driver, data.as_ref(), self.runs(10), self.planted())?;
            return self.prove(&proof);
        }
        let elsewhere = instructions::elsewhere(data.as_ref());
        let build = driver.build()?;
        if self.bless {
            let counts = driver.count(&instructions::sets(&build, &elsewhere))?;
            let new = instructions::data(&counts, data.as_ref())?;
            instructions::bless(&golden, &new, arch)?;
            return written(&gates::instructions_path(&golden, arch), &build.rustc);
        }
        let Some(data) = data else { return self.no_file(&gates::instructions_path(&golden, arch)) };
        self.tell("instructions", || {
            let counts = driver.count(&instructions::sets(&build, &elsewhere))?;
            Ok(instructions::judge(&data, &counts, self.case.is_empty()))
        })
    }

    fn ratios(&self, driver: &Driver, arch: &str) -> anyhow::Result<ExitCode> {
        let golden = root().join("golden");
        let build = driver.build()?;
        let (name, data) = ratios_of(&golden, arch, &build.cpu)?;
        if self.bless {
            let pairs = ratios::arguments(&ratios::pairs(&build));
            let runs = (0..self.runs(20))
                .map(|_| Ok(Guard::USUAL.quiet(|| driver.time(&pairs))?.0))
                .collect::<Result<Vec<_>, GateError>>()?;
            let new = ratios::data(&runs, data.as_ref())?;
            // The figures of another processor stay.
            let other = data.is_some_and(|data| data.made.cpu != build.cpu);
            let name = if other { gates::of_processor(arch, &build.cpu) } else { name };
            ratios::bless(&golden, &new, &name)?;
            return written(&gates::ratios_path(&golden, &name), &build.cpu);
        }
        let Some(data) = data else { return self.no_file(&gates::ratios_path(&golden, arch)) };
        if self.self_test {
            return self.prove(&proof::of_ratios(driver, &data, self.runs(10), self.planted())?);
        }
        self.tell("paired ratios", || Ok(ratios::measure(driver, &data)?.1))
    }

    fn runs(&self, default: u16) -> usize {
        usize::from(self.runs.unwrap_or(default))
    }

    fn planted(&self) -> u32 {
        self.plant.unwrap_or_else(proof::least_plant)
    }

    fn no_file(&self, path: &Path) -> anyhow::Result<ExitCode> {
        self.unavailable(&format!("{} is not there: nothing was blessed for this architecture", path.display()), BLESS)
    }

    /// Nothing can be compared at all.
    fn unavailable(&self, reason: &str, remedy: &str) -> anyhow::Result<ExitCode> {
        match self.format {
            Format::Json => {
                self.json(&serde_json::json!({ "outcome": "unavailable", "reason": reason, "remedy": remedy }))?
            }
            Format::Text => writeln!(std::io::stdout().lock(), "gate: unavailable: {reason}\n  to fix it: {remedy}")?,
        }
        Ok(ExitCode::from(UNAVAILABLE))
    }

    fn tell(&self, what: &str, measure: impl Fn() -> Result<Judgement, GateError>) -> anyhow::Result<ExitCode> {
        if let Some(runs) = self.runs {
            return self.in_a_row(what, runs, &measure);
        }
        let judged = measure()?;
        match self.format {
            Format::Json => self.json(&judged)?,
            Format::Text => std::io::stdout().lock().write_all(text(what, &judged, self.all).as_bytes())?,
        }
        Ok(ExitCode::from(self.code(&judged)))
    }

    /// Several runs, of each what is worth a look and a line. Green is what is green each time.
    fn in_a_row(
        &self,
        what: &str,
        runs: u16,
        measure: &dyn Fn() -> Result<Judgement, GateError>,
    ) -> anyhow::Result<ExitCode> {
        let mut all = Vec::new();
        for run in 1..=runs {
            let (start, judged) = (std::time::Instant::now(), measure()?);
            if self.format == Format::Text {
                let what = format!("{what}, run {run} of {runs}, {:.0} s", start.elapsed().as_secs_f64());
                std::io::stdout().lock().write_all(text(&what, &judged, self.all).as_bytes())?;
            }
            all.push(judged);
        }
        let of = |code: u8| all.iter().filter(|judged| self.code(judged) == code).count();
        match self.format {
            Format::Json => self.json(&all)?,
            Format::Text => {
                writeln!(std::io::stdout().lock(), "{what}: {} of {runs} runs green, {} red", of(0), of(1))?;
            }
        }
        Ok(ExitCode::from(if of(1) > 0 {
            1
        } else if of(0) == all.len() {
            0
        } else {
            UNAVAILABLE
        }))
    }

    fn code(&self, judged: &Judgement) -> u8 {
        match judged.outcome {
            GateOutcome::Red => 1,
            GateOutcome::Green if !(self.require && judged.lacks_a_set()) => 0,
            _ => UNAVAILABLE,
        }
    }

    fn prove(&self, proof: &Proof) -> anyhow::Result<ExitCode> {
        match self.format {
            Format::Json => self.json(proof)?,
            Format::Text => {
                let mut out = std::io::stdout().lock();
                for (i, outcome) in proof.quiet.iter().enumerate() {
                    writeln!(out, "quiet run {}: {outcome:?}", i + 1)?;
                }
                writeln!(out, "largest difference between two quiet runs in any case: {:.4} %", proof.spread_percent)?;
                writeln!(
                    out,
                    "planted {} %: {:?}, seen in {} of {} cases",
                    proof.planted_percent, proof.planted, proof.seen, proof.cases
                )?;
                if proof.gains > 0 {
                    writeln!(out, "the plainer set in its place: seen in {} of {} gains", proof.lost, proof.gains)?;
                }
                writeln!(out, "{}", if proof.holds() { "the gate holds" } else { "THE GATE DOES NOT HOLD" })?;
            }
        }
        let nothing = proof.quiet.iter().all(|outcome| *outcome == GateOutcome::Unavailable);
        Ok(if proof.holds() { ExitCode::SUCCESS } else { ExitCode::from(if nothing { UNAVAILABLE } else { 1 }) })
    }

    fn json(&self, value: &impl serde::Serialize) -> anyhow::Result<()> {
        Ok(writeln!(std::io::stdout().lock(), "{}", serde_json::to_string_pretty(value)?)?)
    }
}

/// A table of what is worth a look, or of everything, and a line that adds up.
fn text(what: &str, judged: &Judgement, all: bool) -> String {
    let mut text = String::new();
    let shown = |row: &&Row| all || row.finding != Finding::Ok;
    let figure = |value: Option<f64>| {
        value.map_or_else(|| "-".to_owned(), |v| if v < 1000.0 { format!("{v:.3}") } else { format!("{v:.0}") })
    };
    if judged.rows.iter().any(|row| shown(&row)) {
        text += &format!("{:<16} {:<24} {:>12} {:>12} {:>9}  finding\n", "set", "case", "baseline", "now", "cost");
    }
    for row in judged.rows.iter().filter(shown) {
        let percent = row.percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent:+.2} %"));
        let (then, now) = (figure(row.baseline), figure(row.now));
        text +=
            &format!("{:<16} {:<24} {then:>12} {now:>12} {percent:>9}  {}\n", row.set, row.case, row.finding.text());
    }
    for note in &judged.notes {
        text += &format!("{note}\n");
    }
    let worst = judged.rows.iter().filter_map(|row| row.percent).fold(f64::NEG_INFINITY, f64::max);
    let worst =
        if worst.is_finite() { format!("; the largest change for the worse is {worst:+.2} %") } else { String::new() };
    text += &format!(
        "{what}: {:?}: {} rows = {} ok + {} improved + {} red + {} too noisy + {} unavailable{worst}\n",
        judged.outcome,
        judged.rows.len(),
        judged.count(|finding| *finding == Finding::Ok),
        judged.count(|finding| *finding == Finding::Improved),
        judged.count(Finding::is_red),
        judged.count(|finding| *finding == Finding::TooNoisy),
        judged.count(|finding| matches!(finding, Finding::Unavailable(_))),
    );
    text
}

/// The ratios of this processor and the name of their file; if it was never blessed, those of the architecture.
fn ratios_of(golden: &Path, arch: &str, cpu: &str) -> Result<(String, Option<Ratios>), GateError> {
    let own = gates::of_processor(arch, cpu);
    if let Some(data) = known(gates::ratios(golden, &own))? {
        return Ok((own, Some(data)));
    }
    Ok((arch.to_owned(), known(gates::ratios(golden, arch))?))
}

/// A data file, or none if it was never written. One that cannot be understood is an error.
fn known<T>(read: Result<T, GoldenError>) -> Result<Option<T>, GateError> {
    match read {
        Ok(data) => Ok(Some(data)),
        Err(GoldenError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn written(path: &Path, with: &str) -> anyhow::Result<ExitCode> {
    eprintln!("wrote {} ({with}); read the diff before you commit it", path.display());
    Ok(ExitCode::SUCCESS)
}

/// Builds the driver and the kernels, nothing more.
fn build() -> anyhow::Result<PathBuf> {
    let mut cargo = cargo();
    cargo.args(["build", "--release", "--quiet", "-p", "gate-driver"]);
    let status =
        cargo.status().with_context(|| format!("cannot start {}", Path::new(cargo.get_program()).display()))?;
    ensure!(status.success(), "the driver cannot be built ({status}): cargo build --release -p gate-driver");
    Ok(target().join("release/gate-driver"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_has_its_own_ratios_where_they_are_blessed() {
        let dir = tempfile::tempdir().expect("a folder");
        let golden = dir.path();
        let found = |cpu: &str| ratios_of(golden, "toy", cpu).map(|(name, data)| (name, data.map(|d| d.made.cpu)));
        assert_eq!(found("Two 7").expect("none"), ("toy".to_owned(), None));
        let ratios = |cpu: &str| {
            let made = gates::Made {
                rustc: String::new(),
                profile: String::new(),
                flags: String::new(),
                libc: String::new(),
                cpu: cpu.to_owned(),
                valgrind: None,
            };
            let pair = gates::Pair {
                set: "b".to_owned(),
                against: "a".to_owned(),
                floor: 0.8,
                floor_reason: "why".to_owned(),
                cases: [("add".to_owned(), gates::Limit { measured: 2.0, spread_percent: 1.0, limit: 1.9 })].into(),
            };
            Ratios { schema: gates::SCHEMA, reason: String::new(), runs: 1, made, elsewhere: vec![], pair: vec![pair] }
        };
        ratios::bless(golden, &ratios("One 6"), "toy").expect("written");
        assert_eq!(found("Two 7").expect("the other's"), ("toy".to_owned(), Some("One 6".to_owned())));
        ratios::bless(golden, &ratios("Two 7"), "toy-two-7").expect("written");
        assert_eq!(found("Two 7").expect("its own"), ("toy-two-7".to_owned(), Some("Two 7".to_owned())));
        assert_eq!(found("One 6").expect("its own"), ("toy".to_owned(), Some("One 6".to_owned())));
    }

    #[test]
    fn the_table_shows_what_is_worth_a_look_and_adds_up() {
        let row = |case: &str, percent: f64, finding| Row {
            set: "avx2".to_owned(),
            case: case.to_owned(),
            baseline: Some(1000.0),
            now: Some(1000.0 + 10.0 * percent),
            percent: Some(percent),
            finding,
        };
        let rows = vec![row("add", 0.0, Finding::Ok), row("rope", 10.0, Finding::Regression)];
        let judged = Judgement::new(rows, vec!["not counted: avx512".to_owned()]);
        let few = text("instructions", &judged, false);
        assert!(few.contains("rope") && few.contains("+10.00 %  REGRESSION") && !few.contains("add "), "{few}");
        assert!(few.contains("not counted: avx512\n"), "{few}");
        assert!(
            few.contains("Red: 2 rows = 1 ok + 0 improved + 1 red + 0 too noisy + 0 unavailable; the largest"),
            "{few}"
        );
        assert!(text("instructions", &judged, true).contains("add "));
    }
}
