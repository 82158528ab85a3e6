//! Test targets whose trials are not cells of the matrix, under the same law: everything declared is accounted for,
//! what cannot run says why and what would fix it, and `--require NAME` turns that into a failure.
//!
//! A target hands over its [`Named`] trials and its flags' names; outcomes are those of [`crate::verdict`], the closing
//! line that of [`crate::account`].

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, Conclusion, Trial};

use crate::account::Account;
use crate::env::{self, Env};
use crate::failure::Failure;
use crate::trials::{completion, panic_text};
use crate::verdict::{self, Availability, Outcome, Ran, Situation, Verdict};

/// What a trial does.
pub type Run = Arc<dyn Fn() -> Result<(), Failure> + Send + Sync>;

/// A trial with a name and what it needs.
#[derive(Clone)]
pub struct Named {
    /// Unique; parts are joined by `::`.
    pub name: String,
    /// Whether this host has what it needs.
    pub availability: Availability,
    pub run: Run,
}

/// A test target.
pub struct Roster {
    /// Its name, for messages.
    pub target: &'static str,
    /// The environment twin of `--require`.
    pub require_twin: &'static str,
    /// What can be required.
    pub requirable: Vec<String>,
    /// Its trials.
    pub trials: Vec<Named>,
}

impl Roster {
    /// Lists or runs, as `argv` (with the program's name) and the environment say. Exit codes as the matrix: 0 all is as it
    /// should be, 101 a trial failed or the books do not balance, 2 nothing was run.
    #[must_use]
    pub fn main(self, argv: &[String], env: &Env) -> ExitCode {
        let target = self.target;
        match self.go(argv, env) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::from(101),
            Err(problem) => {
                eprintln!("{target}: nothing was run:\n  error: {problem}");
                ExitCode::from(2)
            }
        }
    }

    fn go(self, argv: &[String], env: &Env) -> Result<bool, String> {
        let (required, rest) = self.requirements(argv, env)?;
        let names: BTreeSet<&str> = self.trials.iter().map(|trial| trial.name.as_str()).collect();
        if names.len() != self.trials.len() {
            return Err("two trials have one name".to_owned());
        }
        // Exits by itself on `--help` and on flags that it does not know.
        let args = Arguments::from_iter(&rest);
        let asked = args.ignored || args.include_ignored;
        let (flagged, forced) = (args.list || asked, asked || env.on(env::NEXTEST));
        let settled: Arc<Mutex<BTreeMap<String, Verdict>>> = Arc::default();
        let trials: Vec<Trial> = self
            .trials
            .iter()
            .map(|named| {
                let requires = match &named.availability {
                    Availability::Unavailable { missing, .. } => required.contains(missing),
                    Availability::Available => false,
                };
                let ignored = flagged
                    && before(named, requires, false).is_some_and(|verdict| verdict.outcome == Outcome::Unavailable);
                let (named, settled) = (named.clone(), Arc::clone(&settled));
                Trial::ignorable_test(named.name.clone(), move || {
                    let verdict =
                        before(&named, requires, forced).unwrap_or_else(|| verdict::after(None, &catch(&named.run)));
                    let mut settled = settled.lock().unwrap_or_else(PoisonError::into_inner);
                    settled.insert(named.name.clone(), verdict.clone());
                    drop(settled);
                    completion(verdict)
                })
                .with_ignored_flag(ignored)
            })
            .collect();
        let wanted: BTreeSet<String> = trials
            .iter()
            .filter(|trial| !args.is_filtered_out(trial) && (args.list || !args.is_ignored(trial)))
            .map(|trial| trial.name().to_owned())
            .collect();
        // nextest asks for one known trial; a name filter from `cargo test foo` may match nothing here.
        if wanted.is_empty() && env.on(env::NEXTEST) && args.exact && !args.list {
            return Err(format!("no trial is called {}", args.filter.unwrap_or_default()));
        }
        let conclusion = libtest_mimic::run(&args, trials);
        if args.list {
            return Ok(true);
        }
        let settled = settled.lock().unwrap_or_else(PoisonError::into_inner);
        let (text, good) = close(self.target, self.trials.len(), &wanted, &settled, &conclusion);
        eprint!("{text}");
        Ok(good)
    }

    /// Takes `--require` out of the command line and adds its twin.
    fn requirements(&self, argv: &[String], env: &Env) -> Result<(BTreeSet<String>, Vec<String>), String> {
        let (mut lists, mut rest) = (Vec::new(), Vec::new());
        let mut args = argv.iter();
        while let Some(arg) = args.next() {
            match arg.strip_prefix("--require") {
                Some("") => {
                    let value = args.next().filter(|value| !value.starts_with("--"));
                    lists.push(value.ok_or("--require needs a value: a name, or names joined by commas")?.clone());
                }
                Some(value) if value.starts_with('=') => lists.push(value[1..].to_owned()),
                _ => rest.push(arg.clone()),
            }
        }
        lists.extend(env.get(self.require_twin).map(str::to_owned));
        let required: BTreeSet<String> =
            lists.iter().flat_map(|list| list.split(',')).map(|name| name.trim().to_owned()).collect();
        match required.iter().find(|name| !self.requirable.contains(name)) {
            Some(name) => Err(format!("--require: unknown name `{name}`; valid: {}", self.requirable.join(", "))),
            None => Ok((required, rest)),
        }
    }
}

fn before(named: &Named, required: bool, forced: bool) -> Option<Verdict> {
    let availability = &named.availability;
    verdict::before(&Situation { unsupported: None, expectation: None, availability, required, forced })
}

fn catch(run: &Run) -> Ran {
    match catch_unwind(AssertUnwindSafe(|| run())) {
        Ok(Ok(())) => Ran::Passed,
        Ok(Err(failure)) => Ran::Failed(failure.message),
        Err(payload) => Ran::Failed(format!("it panicked: {}", panic_text(&*payload))),
    }
}

/// What to print at the end, and whether all is as it should be.
fn close(
    target: &str,
    declared: usize,
    wanted: &BTreeSet<String>,
    settled: &BTreeMap<String, Verdict>,
    seen: &Conclusion,
) -> (String, bool) {
    let mut text = format!("{target}:\n");
    let mut missing: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for verdict in settled.values().filter(|verdict| verdict.outcome == Outcome::Unavailable) {
        *missing
            .entry((verdict.reason.as_deref().unwrap_or_default(), verdict.remedy.as_deref().unwrap_or_default()))
            .or_default() += 1;
    }
    for ((reason, remedy), count) in missing {
        text += &format!("  unavailable: {count} trials: {reason}\n    to fix it: {remedy}\n");
    }
    let outcomes: BTreeMap<String, Outcome> = settled.iter().map(|(name, v)| (name.clone(), v.outcome)).collect();
    let account = Account::new(declared, declared.saturating_sub(wanted.len()), outcomes.values());
    let mut good = !seen.has_failed() && account.of(Outcome::Fail) == 0;
    text += &format!("{account}\n");
    if let Err(unbalanced) = account.verify(wanted, &outcomes, Some(seen)) {
        text += &format!("{target}: {unbalanced}\n");
        good = false;
    }
    (text, good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_books_must_balance() {
        let seen = Conclusion { num_filtered_out: 0, num_passed: 1, num_failed: 0, num_ignored: 0, num_measured: 0 };
        let wanted = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        let verdict = Verdict { outcome: Outcome::Pass, reason: None, remedy: None };
        let mut settled = BTreeMap::from([("a".to_owned(), verdict.clone())]);
        let (text, good) = close("t", 3, &wanted, &settled, &seen);
        assert!(!good && text.contains("b should have been settled"), "{text}");
        settled.insert("b".to_owned(), verdict);
        let (text, good) = close("t", 3, &wanted, &settled, &Conclusion { num_passed: 2, ..seen });
        assert!(good && text.contains("declared 3 = pass 2"), "{text}");
    }
}
