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
use crate::check::{self, Check};
use crate::context::Context;
use crate::env::{self, Env};
use crate::golden::{Golden, Mode};
use crate::host::Host;
use crate::paths::Paths;
use crate::provenance::{self, HostInfo};
use crate::record::HarnessInfo;
use crate::report::{self, Report};
use crate::run::{self, Elsewhere, Run};
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
    pub env: Env,
    pub paths: Paths,
    pub host: Host,
    pub checks: Vec<Arc<dyn Check>>,
}

impl Suite {
    /// The matrix of this checkout.
    pub fn here() -> Self {
        let env = Env::read();
        let paths = Paths::discover(&env);
        Self { host: Host::here(env.clone(), &paths), paths, checks: check::checks(), env }
    }

    /// Lists or runs, as `argv` (with the program's name) and the environment say.
    #[must_use]
    pub fn main(self, argv: &[String]) -> ExitCode {
        match self.prepare(argv) {
            Ok(Some(ready)) => ready.go(),
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
    fn prepare(self, argv: &[String]) -> Result<Option<Ready>, Vec<String>> {
        let line = CommandLine::parse(argv, &self.env).map_err(|e| vec![e.to_string()])?;
        if line.rest.iter().any(|arg| arg == "-h" || arg == "--help") {
            print!("{}", select::HELP);
        }
        // Exits by itself on `--help` and on flags that it does not know (exit code 2).
        let mut args = Arguments::from_iter(&line.rest);
        // One more than there are processors: some cells wait for a network that is slow on purpose.
        args.test_threads = args.test_threads.or(std::thread::available_parallelism().ok().map(|n| n.get() + 1));
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
        let unknown = unknown(&declaration, &line);
        let deselected = declared.iter().filter(|cell| !line.selects(cell)).count();
        let Sorted { here, elsewhere } = self.plan(declaration, &ctx, &line, &args);
        let harness = HarnessInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: provenance::commit(&self.paths.root, &self.env),
        };
        let timestamp = provenance::now();
        // The processes of a nextest run share its name.
        let own = (!nextest).then(|| format!("{timestamp} {}", std::process::id()));
        let id = self.env.get(env::NEXTEST_RUN_ID).map(str::to_owned).or(own);
        let session = Arc::new(Session::new(ctx, harness.clone(), id.clone()));
        let trials = trials::trials(&session, &here, &args, nextest);
        let wanted = wanted(&args, &trials);
        let by_name = args.filter.is_some() || !args.skip.is_empty() || args.ignored;
        let exact_miss = nextest && args.exact && args.filter.is_some() && !args.list;
        let (elsewhere, named_away) = named(&args, elsewhere);
        let none = wanted.is_empty() && elsewhere.is_empty();
        // A name filter alone may match nothing: `cargo test foo` hands it to every test binary. With a
        // selection of ours on the command line, or from nextest, which asks for one known cell, an
        // empty set would be a green that checked nothing.
        if (wanted.is_empty() && exact_miss) || none && (trials.is_empty() || (by_name && line.by_flag && !args.list)) {
            let filter = args.filter.as_deref().unwrap_or_default();
            let selection = format!("{} {filter}", line.selection());
            let empty = UsageError::Empty { selection: format!("`{}`", selection.trim()), declared: declared.len() };
            return Err(std::iter::once(empty.to_string()).chain(unknown).collect());
        }
        let filtered = deselected + (trials.len() - wanted.len()) + named_away;
        let run = Run {
            schema: run::SCHEMA,
            // Nextest may not tell its name to the process that lists.
            id: id.filter(|_| !nextest),
            selection: line.selection(),
            host: HostInfo::here(),
            harness,
            timestamp,
            cells: wanted.iter().cloned().collect(),
            elsewhere,
        };
        let ready = Ready { session, args, trials, here, wanted, filtered, run, declared, paths: self.paths, nextest };
        if ready.args.list { ready.list().map(|()| None) } else { Ok(Some(ready)) }
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

    /// What happens to the selected cells: a test each, but for those of devices that are not here. These are counted by
    /// device, unless the command line insists on them: by `--all-devices`, `--ignored`, the device's or the cell's name.
    fn plan(&self, declaration: Declaration, ctx: &Context, line: &CommandLine, args: &Arguments) -> Sorted {
        let survey = self.host.survey(&declaration, &self.paths);
        let all = line.all_devices || ((args.ignored || args.include_ignored) && !args.list);
        let exactly = |name: &str| args.exact && args.filter.as_deref() == Some(name);
        let mut plan = Sorted::default();
        for declared in declaration.cells {
            let name = declared.cell.check.as_str();
            let check = self.checks.iter().find(|check| check.name() == name);
            let Some(check) = check.filter(|_| line.selects(&declared.cell)) else { continue };
            let planned = Planned::new(declared, Arc::clone(check), &survey, ctx, line);
            let (cell, name) = (planned.cell(), planned.cell().to_string());
            match planned.lacks_device() {
                Some((reason, remedy)) if !all && !line.names(Axis::Device, &cell.device) && !exactly(&name) => {
                    let lack = || Elsewhere { reason: reason.to_owned(), remedy: remedy.to_owned(), cells: Vec::new() };
                    plan.elsewhere.entry(cell.device.clone()).or_insert_with(lack).cells.push(name);
                }
                _ => plan.here.push(planned),
            }
        }
        plan
    }
}

/// The selected cells.
#[derive(Default)]
struct Sorted {
    here: Vec<Planned>,
    elsewhere: BTreeMap<String, Elsewhere>,
}

/// Why selected pairs of model and backend have no cell, where the data say so.
fn unknown(declaration: &Declaration, line: &CommandLine) -> BTreeSet<String> {
    let selected = |axis, value: &str| !line.selects_on(axis) || line.names(axis, value);
    let mut out = BTreeSet::new();
    // Only where both were asked for by name.
    if !line.selects_on(Axis::Backend) || !(line.selects_on(Axis::Model) || line.selects_on(Axis::Quant)) {
        return out;
    }
    for backend in declaration.matrix.backends.iter().filter(|b| selected(Axis::Backend, &b.name)) {
        for model in declaration.matrix.models.iter().filter(|m| selected(Axis::Model, &m.name)) {
            let quants = model.quants.iter().filter(|quant| selected(Axis::Quant, quant));
            let unknown = quants.filter_map(|quant| backend.unknown(model, quant));
            out.extend(
                unknown.map(|unknown| format!("{} has no cell of {}: {}", backend.name, model.name, unknown.reason)),
            );
        }
    }
    out
}

/// The cells of other hosts that the name filters of the command line leave in, and how many they leave out.
fn named(args: &Arguments, mut elsewhere: BTreeMap<String, Elsewhere>) -> (BTreeMap<String, Elsewhere>, usize) {
    let count = |all: &BTreeMap<String, Elsewhere>| all.values().map(|lack| lack.cells.len()).sum::<usize>();
    let before = count(&elsewhere);
    for lack in elsewhere.values_mut() {
        lack.cells.retain(|name| settles(args, &Trial::test(name.clone(), || Ok(()))));
    }
    elsewhere.retain(|_, lack| !lack.cells.is_empty());
    let left = count(&elsewhere);
    (elsewhere, before - left)
}

fn lines<E: std::fmt::Display>(errors: Vec<E>) -> Vec<String> {
    errors.iter().map(E::to_string).collect()
}

/// Whether libtest-mimic will really settle a trial.
fn settles(args: &Arguments, trial: &Trial) -> bool {
    !args.is_filtered_out(trial) && (args.list || !args.is_ignored(trial))
}

/// Names of the cells that libtest-mimic will really settle.
fn wanted(args: &Arguments, trials: &[Trial]) -> BTreeSet<String> {
    trials.iter().filter(|trial| settles(args, trial)).map(|trial| trial.name().to_owned()).collect()
}

struct Ready {
    session: Arc<Session>,
    args: Arguments,
    trials: Vec<Trial>,
    here: Vec<Planned>,
    wanted: BTreeSet<String>,
    filtered: usize,
    run: Run,
    declared: Vec<Cell>,
    paths: Paths,
    nextest: bool,
}

impl Ready {
    /// Prints the list. Availability is decided here, so this is also where nextest's runs get the
    /// records of ignored cells, and what was to be run: nextest never starts a process for the one and has none for the other.
    fn list(self) -> Result<(), Vec<String>> {
        let ignored =
            || self.here.iter().filter(|p| p.settled(false).is_some_and(|verdict| verdict.outcome != Outcome::Fail));
        // The second list, of the ignored ones alone, is not a run's.
        if self.nextest && !self.args.ignored {
            run::begin(&self.paths.records(), &self.run).map_err(|error| vec![error.to_string()])?;
            for planned in ignored() {
                let verdict = self.session.settle(planned, false);
                if verdict.outcome == Outcome::Fail {
                    return Err(verdict.reason.into_iter().collect());
                }
            }
        } else if !self.nextest {
            let settled = ignored().filter_map(|p| Some((p.cell().to_string(), p.settled(false)?)));
            eprint!("{}", report::unavailable(settled));
            eprint!("{}", report::elsewhere(&Report::of(BTreeMap::new(), self.run.clone(), self.names())));
        }
        // In list mode the conclusion is a dummy.
        let _ = libtest_mimic::run(&self.args, self.trials);
        Ok(())
    }

    fn names(&self) -> Vec<String> {
        self.declared.iter().map(Cell::to_string).collect()
    }

    fn go(self) -> ExitCode {
        if self.session.blessing() {
            eprintln!("matrix: BLESSING: snapshots are written, not compared");
        }
        // A run of nothing (`cargo test name`, for another test) leaves the last one's records alone.
        if !self.nextest
            && !self.wanted.is_empty()
            && let Err(error) = run::begin(&self.paths.records(), &self.run)
        {
            eprintln!("matrix: {error}");
            return ExitCode::from(FAILED);
        }
        let names = self.names();
        let conclusion = libtest_mimic::run(&self.args, self.trials);
        let report = Report::of(self.session.records(), self.run, names);
        let (text, mut failed) = close(&report, &self.wanted, self.filtered, &conclusion);
        eprint!("{text}");
        // nextest runs one process per cell: none of them has a summary to write.
        if !self.nextest && !self.wanted.is_empty() {
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
fn close(report: &Report, wanted: &BTreeSet<String>, filtered: usize, seen: &Conclusion) -> (String, bool) {
    let account = report.account();
    let settled: BTreeMap<String, Outcome> =
        report.records().iter().map(|(name, record)| (name.clone(), record.outcome)).collect();
    let mut text = report::terminal(report);
    let mut red = seen.has_failed() || account.of(Outcome::Fail) > 0;
    // `filtered` of the report is a remainder. Here it was counted, cell by cell, and a cell that is nowhere is missed.
    let account = Account { filtered, missing: 0, ..account };
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
        let run = crate::run::tests::sample(&CELLS[..2], &[]);
        Report::of(settled.iter().map(record).collect(), run, CELLS.map(str::to_owned))
    }

    fn seen(passed: u64) -> Conclusion {
        Conclusion { num_filtered_out: 0, num_passed: passed, num_failed: 0, num_ignored: 0, num_measured: 0 }
    }

    #[test]
    fn a_run_that_loses_a_cell_is_red() {
        let wanted = BTreeSet::from([CELLS[0].to_owned(), CELLS[1].to_owned()]);
        let both = report(&[(CELLS[0], Outcome::Pass), (CELLS[1], Outcome::Pass)]);
        let (text, red) = close(&both, &wanted, 1, &seen(2));
        assert!(!red && text.ends_with("filtered 1\n"), "{text}");
        // The third cell is in no place: not selected away, not elsewhere, not a test.
        let (text, red) = close(&both, &wanted, 0, &seen(2));
        assert!(red && text.contains("declared 3 = pass 2") && text.contains("but the right side is 2"), "{text}");
        let one = report(&[(CELLS[0], Outcome::Pass)]);
        let (text, red) = close(&one, &wanted, 1, &seen(2));
        assert!(red, "{text}");
        assert!(text.contains("the accounting does not add up"), "{text}");
        assert!(text.contains("m::q::d::b::b should have been settled"), "{text}");
        assert!(text.contains("the runner saw 2 passed, the records say 1"), "{text}");
    }

    #[test]
    fn a_failed_record_is_red_whatever_the_runner_saw() {
        let wanted = BTreeSet::from([CELLS[0].to_owned()]);
        let (text, red) = close(&report(&[(CELLS[0], Outcome::Fail)]), &wanted, 2, &seen(1));
        assert!(red && text.contains("the runner saw 0 failed"), "{text}");
    }
}
