//! The run: from command line and data to exit code.
//!
//! `harness/tests/matrix.rs` is this with the real checks; the self tests are this with planted ones. Its
//! user manual is the documentation of `tests/matrix.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Conclusion, Trial};

use crate::account::Account;
use crate::atomic;
use crate::axes::{Axis, Cell};
use crate::check::{self, Check, Context};
use crate::env::{self, Env};
use crate::golden::{Golden, Mode};
use crate::host::Host;
use crate::paths::Paths;
use crate::provenance;
use crate::record;
use crate::report::{self, Report};
use crate::select::{self, CommandLine, UsageError};
use crate::setup::{self, Declaration, Problem};
use crate::trials::{self, Planned, Session};
use crate::verdict::Outcome;

/// Exit code when nothing was run because command line, data or registration are wrong.
const WRONG: u8 = 2;
/// Exit code when a cell failed or the books do not balance, as libtest has it.
const FAILED: u8 = 101;

/// Everything that makes a matrix.
pub struct Suite {
    /// A copy of the environment.
    pub env: Env,
    /// Folders.
    pub paths: Paths,
    /// Devices and backends.
    pub host: Host,
    /// The checks.
    pub checks: Vec<Arc<dyn Check>>,
}

impl Suite {
    /// The matrix of this checkout.
    #[must_use]
    pub fn here() -> Self {
        let env = Env::read();
        let paths = Paths::discover(&env);
        Self { host: Host::here(env.clone(), &paths), paths, checks: check::checks(), env }
    }

    /// Lists or runs, as `argv` (with the program's name) and the environment say.
    #[must_use]
    pub fn main(self, argv: &[String]) -> ExitCode {
        match self.prepare(argv) {
            Ok(Some(run)) => run.go(),
            Ok(None) => ExitCode::SUCCESS,
            Err(problems) => {
                eprintln!("matrix: nothing was run:");
                for problem in problems {
                    eprintln!("  error: {problem}");
                }
                ExitCode::from(WRONG)
            }
        }
    }

    /// Everything that can be wrong before the first cell. `None` if the list was asked for and printed.
    fn prepare(self, argv: &[String]) -> Result<Option<Run>, Vec<String>> {
        let line = CommandLine::parse(argv, &self.env).map_err(|e| vec![e.to_string()])?;
        if line.rest.iter().any(|arg| arg == "-h" || arg == "--help") {
            print!("{}", select::HELP);
        }
        // Exits by itself on `--help` and on flags that it does not know (exit code 2).
        let args = Arguments::from_iter(&line.rest);
        let declaration = setup::declare(&self.paths.golden).map_err(lines)?;
        self.registered(&declaration)?;
        line.validate(&declaration.axes).map_err(lines)?;
        let declared: Vec<Cell> = declaration.cells.iter().map(|d| d.cell.clone()).collect();
        let nextest = self.env.on(env::NEXTEST);
        let ctx = Context {
            golden: Golden::new(self.paths.snapshots(), &self.env),
            matrix: Arc::new(declaration.matrix.clone()),
            paths: self.paths.clone(),
        };
        let planned = self.plan(declaration, &ctx, &line);
        let commit = provenance::commit(&self.paths.root, &self.env);
        let run_id = self.env.get(env::NEXTEST_RUN_ID).map(str::to_owned);
        let session = Arc::new(Session::new(ctx, commit, run_id));
        let trials = trials::trials(&session, &planned, &args, nextest);
        let wanted = wanted(&args, &trials);
        let by_name = args.filter.is_some() || !args.skip.is_empty() || args.ignored;
        let exact_miss = nextest && args.exact && args.filter.is_some() && !args.list;
        // A name filter alone may match nothing: `cargo test foo` hands it to every test binary. With a
        // selection of ours on the command line, or from nextest, which asks for one known cell, an
        // empty set would be a green that checked nothing.
        if wanted.is_empty() && (trials.is_empty() || exact_miss || (by_name && line.by_flag && !args.list)) {
            let filter = args.filter.as_deref().unwrap_or_default();
            let selection = format!("{} {filter}", line.selection());
            return Err(vec![
                UsageError::Empty { selection: format!("`{}`", selection.trim()), declared: declared.len() }
                    .to_string(),
            ]);
        }
        let run = Run { session, args, trials, planned, wanted, declared, paths: self.paths, nextest };
        if run.args.list { run.list().map(|()| None) } else { Ok(Some(run)) }
    }

    fn registered(&self, declaration: &Declaration) -> Result<(), Vec<String>> {
        let mut problems: Vec<Problem> = Vec::new();
        let checks: Vec<&str> = self.checks.iter().map(|check| check.name()).collect();
        let declared = declaration.axes.values(Axis::Check);
        let place = "harness/src/check.rs";
        setup::implementations(Axis::Check, declared, &checks, place, &mut problems);
        self.host.validate(declaration, &mut problems);
        if problems.is_empty() { Ok(()) } else { Err(lines(problems)) }
    }

    fn plan(&self, declaration: Declaration, ctx: &Context, line: &CommandLine) -> Vec<Planned> {
        let survey = self.host.survey(&declaration, &self.paths);
        let mut planned = Vec::new();
        for declared in declaration.cells {
            let name = declared.cell.check.as_str();
            let check = self.checks.iter().find(|check| check.name() == name);
            if let Some(check) = check.filter(|_| line.selects(&declared.cell)) {
                let check = Arc::clone(check);
                planned.push(Planned::new(declared, check, &survey, ctx, line));
            }
        }
        planned
    }
}

fn lines<E: std::fmt::Display>(errors: Vec<E>) -> Vec<String> {
    errors.iter().map(E::to_string).collect()
}

/// Names of the cells that libtest-mimic will really settle.
fn wanted(args: &Arguments, trials: &[Trial]) -> BTreeSet<String> {
    trials
        .iter()
        .filter(|trial| !args.is_filtered_out(trial) && (args.list || !args.is_ignored(trial)))
        .map(|trial| trial.name().to_owned())
        .collect()
}

/// A run that is ready to go.
struct Run {
    session: Arc<Session>,
    args: Arguments,
    trials: Vec<Trial>,
    planned: Vec<Planned>,
    wanted: BTreeSet<String>,
    declared: Vec<Cell>,
    paths: Paths,
    nextest: bool,
}

impl Run {
    /// Prints the list. Availability is decided here, so this is also where nextest's runs get the
    /// records of ignored cells: nextest never starts a process for them.
    fn list(self) -> Result<(), Vec<String>> {
        let ignored =
            self.planned.iter().filter(|p| p.settled(false).is_some_and(|verdict| verdict.outcome != Outcome::Fail));
        if self.nextest {
            for planned in ignored {
                let verdict = self.session.settle(planned, false);
                if verdict.outcome == Outcome::Fail {
                    return Err(verdict.reason.into_iter().collect());
                }
            }
        } else {
            let settled = ignored.filter_map(|p| Some((p.cell().to_string(), p.settled(false)?)));
            eprint!("{}", report::unavailable(settled));
        }
        // In list mode the conclusion is a dummy.
        let _ = libtest_mimic::run(&self.args, self.trials);
        Ok(())
    }

    fn go(self) -> ExitCode {
        if self.session.blessing() {
            eprintln!("matrix: BLESSING: snapshots are written, not compared");
        }
        if !self.nextest {
            let cells: Vec<&Cell> = self.declared.iter().collect();
            if let Err(error) = record::remove_strangers(&self.paths.records(), &cells) {
                eprintln!("matrix: {error}");
                return ExitCode::from(FAILED);
            }
        }
        let conclusion = libtest_mimic::run(&self.args, self.trials);
        let names = self.declared.iter().map(Cell::to_string);
        let report = Report::of(self.session.records(), names);
        let (text, mut failed) = close(&report, &self.wanted, &conclusion);
        eprint!("{text}");
        // nextest runs one process per cell: none of them has a summary to write.
        if !self.nextest {
            let path = self.paths.out.join("summary.md");
            if let Err(error) = atomic::write(&path, report::markdown(&report).as_bytes()) {
                eprintln!("matrix: cannot write {}: {error}", path.display());
                failed = true;
            }
        }
        if failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS }
    }
}

/// Closes the books of a run: what to print, and whether the run is red. The accounting line is the last
/// line unless it does not add up.
fn close(report: &Report, wanted: &BTreeSet<String>, seen: &Conclusion) -> (String, bool) {
    let account = report.account();
    let settled: BTreeMap<String, Outcome> =
        report.records().iter().map(|(name, record)| (name.clone(), record.outcome)).collect();
    let mut text = report::terminal(report);
    let mut red = seen.has_failed() || account.of(Outcome::Fail) > 0;
    // `filtered` of the report is what has no record; here it is known what should have none, and the
    // difference is what the books are for.
    let filtered = account.declared.saturating_sub(wanted.len());
    let account = Account { filtered, ..account };
    if let Err(unbalanced) = account.verify(wanted, &settled, Some(seen)) {
        text += &format!("matrix: {unbalanced}\n");
        red = true;
    }
    (text, red)
}

impl Session {
    fn blessing(&self) -> bool {
        self.context().golden.mode() == Mode::Bless
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::sample;

    const CELLS: [&str; 3] = ["m::q::d::b::a", "m::q::d::b::b", "m::q::d::b::c"];

    fn report(settled: &[(&str, Outcome)]) -> Report {
        let record = |(name, outcome): &(&str, Outcome)| ((*name).to_owned(), sample(name, *outcome));
        Report::of(settled.iter().map(record).collect(), CELLS.map(str::to_owned))
    }

    fn seen(passed: u64) -> Conclusion {
        Conclusion { num_filtered_out: 0, num_passed: passed, num_failed: 0, num_ignored: 0, num_measured: 0 }
    }

    #[test]
    fn a_run_that_loses_a_cell_is_red() {
        let wanted = BTreeSet::from([CELLS[0].to_owned(), CELLS[1].to_owned()]);
        let both = report(&[(CELLS[0], Outcome::Pass), (CELLS[1], Outcome::Pass)]);
        let (text, red) = close(&both, &wanted, &seen(2));
        assert!(!red && text.ends_with("filtered 1\n"), "{text}");
        let one = report(&[(CELLS[0], Outcome::Pass)]);
        let (text, red) = close(&one, &wanted, &seen(2));
        assert!(red, "{text}");
        assert!(text.contains("the accounting does not add up"), "{text}");
        assert!(text.contains("m::q::d::b::b should have been settled"), "{text}");
        assert!(text.contains("the runner saw 2 passed, the records say 1"), "{text}");
    }

    #[test]
    fn a_failed_record_is_red_whatever_the_runner_saw() {
        let wanted = BTreeSet::from([CELLS[0].to_owned()]);
        let (text, red) = close(&report(&[(CELLS[0], Outcome::Fail)]), &wanted, &seen(1));
        assert!(red && text.contains("the runner saw 0 failed"), "{text}");
    }
}
