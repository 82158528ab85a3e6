//! The accounting line: every declared cell is in exactly one place, or the run fails.
//!
//! A suite that loses a cell looks exactly like a suite that is green. So the line is checked twice: the
//! cells that should have been settled against those that were, and the sums against what libtest-mimic
//! counted on its own. The parts of the right side are counted by themselves, none as a remainder.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use libtest_mimic::Conclusion;

use crate::verdict::Outcome;

/// How many cells ended where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// Cells that `matrix.toml` declares.
    pub declared: usize,
    pub outcomes: BTreeMap<Outcome, usize>,
    /// Cells of devices that this host does not have: one line for each device, no trial for each cell.
    pub elsewhere: usize,
    /// Cells that were not asked for: by selection, name filter, or because only ignored ones were.
    pub filtered: usize,
    /// Cells that were asked for and have no record; only a report made from records can have any.
    pub missing: usize,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "declared {} =", self.declared)?;
        for outcome in Outcome::ALL {
            write!(f, " {} {} +", outcome.name(), self.of(outcome))?;
        }
        write!(f, " elsewhere {} + filtered {}", self.elsewhere, self.filtered)?;
        if self.missing > 0 { write!(f, " + missing {}", self.missing) } else { Ok(()) }
    }
}

/// Why the books do not balance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the accounting does not add up, so a green of this run means nothing:\n  {}", problems.join("\n  "))]
pub struct Unbalanced {
    pub problems: Vec<String>,
}

impl Account {
    /// Number of cells with that outcome.
    pub fn of(&self, outcome: Outcome) -> usize {
        self.outcomes.get(&outcome).copied().unwrap_or(0)
    }

    pub fn new<'a>(declared: usize, filtered: usize, outcomes: impl IntoIterator<Item = &'a Outcome>) -> Self {
        let mut account = Self { declared, filtered, ..Self::default() };
        for outcome in outcomes {
            *account.outcomes.entry(*outcome).or_default() += 1;
        }
        account
    }

    /// Compares the books with the cells that should have been settled and with the runner's own count.
    ///
    /// # Errors
    /// Everything that does not agree.
    pub fn verify(
        &self,
        wanted: &BTreeSet<String>,
        settled: &BTreeMap<String, Outcome>,
        conclusion: Option<&Conclusion>,
    ) -> Result<(), Unbalanced> {
        let mut problems = Vec::new();
        for name in wanted.iter().filter(|name| !settled.contains_key(*name)) {
            problems.push(format!("{name} should have been settled, but has no outcome"));
        }
        for name in settled.keys().filter(|name| !wanted.contains(*name)) {
            problems.push(format!("{name} has an outcome, but was not asked for"));
        }
        let sum = self.outcomes.values().sum::<usize>() + self.elsewhere + self.filtered + self.missing;
        if sum != self.declared {
            problems.push(format!("{self}, but the right side is {sum}"));
        }
        if let Some(seen) = conclusion {
            let rows = [
                ("passed", seen.num_passed, self.of(Outcome::Pass) + self.of(Outcome::Xfail)),
                ("failed", seen.num_failed, self.of(Outcome::Fail)),
            ];
            for (what, theirs, ours) in rows {
                if theirs != ours as u64 {
                    problems.push(format!("the runner saw {theirs} {what}, the records say {ours}"));
                }
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Unbalanced { problems }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    fn settled(list: &[(&str, Outcome)]) -> BTreeMap<String, Outcome> {
        list.iter().map(|(name, outcome)| ((*name).to_owned(), *outcome)).collect()
    }

    fn conclusion(passed: u64, failed: u64) -> Conclusion {
        Conclusion { num_filtered_out: 0, num_passed: passed, num_failed: failed, num_ignored: 0, num_measured: 0 }
    }

    #[test]
    fn the_line_has_every_place() {
        let settled = settled(&[("a", Outcome::Pass), ("b", Outcome::Xfail), ("c", Outcome::Fail)]);
        let account = Account::new(5, 2, settled.values());
        assert_eq!(
            account.to_string(),
            "declared 5 = pass 1 + xfail 1 + fail 1 + unavailable 0 + unsupported 0 + elsewhere 0 + filtered 2"
        );
        let wanted = names(&["a", "b", "c"]);
        assert_eq!(account.verify(&wanted, &settled, Some(&conclusion(2, 1))), Ok(()));
    }

    #[test]
    fn cells_of_other_hosts_and_lost_ones_count() {
        let settled = settled(&[("a", Outcome::Pass)]);
        let account = Account { elsewhere: 3, missing: 2, ..Account::new(7, 1, settled.values()) };
        assert!(account.to_string().ends_with("+ elsewhere 3 + filtered 1 + missing 2"), "{account}");
        assert_eq!(account.verify(&names(&["a"]), &settled, None), Ok(()));
        let lost = Account { elsewhere: 2, ..account };
        assert!(lost.verify(&names(&["a"]), &settled, None).is_err(), "a cell of another host is lost");
    }

    #[test]
    fn every_way_to_lose_a_cell_is_found() {
        let done = settled(&[("a", Outcome::Pass)]);
        let cases = [
            (Account::new(2, 0, done.values()), names(&["a", "b"]), 1, "b should have been settled"),
            (Account::new(1, 0, done.values()), names(&[]), 1, "a has an outcome, but was not asked"),
            (Account::new(3, 1, done.values()), names(&["a"]), 1, "the right side is 2"),
            (Account::new(1, 0, done.values()), names(&["a"]), 2, "the runner saw 2 passed"),
        ];
        for (account, wanted, passed, want) in cases {
            let error = account.verify(&wanted, &done, Some(&conclusion(passed, 0))).expect_err(want);
            assert!(error.to_string().contains(want), "{error}");
        }
    }
}
