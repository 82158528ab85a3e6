//! What a cell's outcome is: pure functions of what the data say, what the host has, and what happened.
//!
//! Kept free of everything else so that every combination can be tested. Two steps, because the first is
//! taken when the cells are listed:
//!
//! - [`before`]: an `unsupported` or `unavailable` cell is settled without a run, unless it is required
//!   or forced; everything else is run.
//! - [`after`]: what the run means under the expectation. An expected failure that passes, or fails for
//!   another reason, is a failure.

use bitnet_golden::expect::Expectation;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It ran and was right.
    Pass,
    /// It ran and failed as `expect.toml` says.
    Xfail,
    /// It ran and was wrong, or what it needs is missing although it was required.
    Fail,
    /// What it needs is not on this host.
    Unavailable,
    /// Declared as meaningless in `matrix.toml`.
    Unsupported,
}

impl Outcome {
    /// All outcomes in the order of the accounting line.
    pub const ALL: [Outcome; 5] =
        [Outcome::Pass, Outcome::Xfail, Outcome::Fail, Outcome::Unavailable, Outcome::Unsupported];

    /// Its name, as in records and reports.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Pass => "pass",
            Outcome::Xfail => "xfail",
            Outcome::Fail => "fail",
            Outcome::Unavailable => "unavailable",
            Outcome::Unsupported => "unsupported",
        }
    }
}

/// Whether this host has what a cell needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Availability {
    /// Everything is here.
    Available,
    /// Something is not.
    Unavailable {
        /// The name of what is missing, as `--require` takes it (a model, device, backend or check).
        missing: String,
        reason: String,
        remedy: String,
    },
}

impl Availability {
    /// Shorthand for [`Availability::Unavailable`].
    pub fn unavailable(missing: impl Into<String>, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Unavailable { missing: missing.into(), reason: reason.into(), remedy: remedy.into() }
    }

    /// Whether everything is here.
    pub fn is_available(&self) -> bool {
        matches!(self, Self::Available)
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ran {
    /// The check was satisfied.
    Passed,
    /// It was not, or it panicked; the message says how.
    Failed(String),
}

/// What is known of a cell before it runs.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The reason of the `[[unsupported]]` entry that matches.
    pub unsupported: Option<&'a str>,
    /// The entry of `expect.toml` that matches.
    pub expectation: Option<&'a Expectation>,
    /// What the host says.
    pub availability: &'a Availability,
    /// Whether `--require` names what is missing.
    pub required: bool,
    /// Whether the run insists on ignored cells (`--ignored`, `--include-ignored`).
    pub forced: bool,
}

/// An outcome with its explanation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub outcome: Outcome,
    /// Why; absent only for a plain pass.
    pub reason: Option<String>,
    /// The command or step that would change it, where one is known.
    pub remedy: Option<String>,
}

impl Verdict {
    fn new(outcome: Outcome, reason: Option<String>) -> Self {
        Self { outcome, reason, remedy: None }
    }
}

/// The verdict of a cell that is not to be run, or `None` if it is to be run.
#[must_use]
pub fn before(situation: &Situation<'_>) -> Option<Verdict> {
    if let Some(reason) = situation.unsupported {
        return Some(if situation.forced {
            let reason = format!("it was asked to run, but is declared unsupported: {reason}");
            Verdict::new(Outcome::Fail, Some(reason))
        } else {
            Verdict::new(Outcome::Unsupported, Some(reason.to_owned()))
        });
    }
    let Availability::Unavailable { missing, reason, remedy } = situation.availability else {
        return None;
    };
    let (outcome, reason) = if situation.required {
        let reason = format!("it is required, but `{missing}` is not available: {reason}");
        (Outcome::Fail, reason)
    } else if situation.forced {
        let reason = format!("it was asked to run, but `{missing}` is not available: {reason}");
        (Outcome::Fail, reason)
    } else {
        (Outcome::Unavailable, reason.clone())
    };
    Some(Verdict { outcome, reason: Some(reason), remedy: Some(remedy.clone()) })
}

/// The verdict of a cell that was run.
#[must_use]
pub fn after(expectation: Option<&Expectation>, ran: &Ran) -> Verdict {
    match (expectation, ran) {
        (None, Ran::Passed) => Verdict::new(Outcome::Pass, None),
        (None, Ran::Failed(message)) => Verdict::new(Outcome::Fail, Some(message.clone())),
        (Some(entry), Ran::Failed(message)) if message.contains(&entry.reason) => {
            Verdict::new(Outcome::Xfail, Some(message.clone()))
        }
        (Some(entry), Ran::Failed(message)) => Verdict::new(
            Outcome::Fail,
            Some(format!(
                "it failed, but not for the expected reason\n  expected (expect.toml): {}\n  got: {message}",
                entry.reason
            )),
        ),
        (Some(entry), Ran::Passed) => Verdict {
            outcome: Outcome::Fail,
            reason: Some(format!("it passed unexpectedly; expect.toml expects it to fail with: {}", entry.reason)),
            remedy: Some(format!("remove the entry `{}` from golden/expect.toml", entry.cells)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet_golden::expect::Kind;

    fn entry() -> Expectation {
        Expectation {
            cells: "m::q::d::b::c".parse().expect("pattern"),
            kind: Kind::Xfail,
            reason: "wraps at i16".to_owned(),
            why: "known".to_owned(),
            link: None,
        }
    }

    /// Every combination of every input, against a table written by hand.
    #[test]
    fn every_combination() {
        let entry = entry();
        let available = Availability::Available;
        let gone = Availability::unavailable("gpu", "no driver", "install it");
        let runs =
            [Ran::Passed, Ran::Failed("the sum wraps at i16 here".to_owned()), Ran::Failed("another".to_owned())];
        let mut combinations = 0;
        for unsupported in [None, Some("no such format")] {
            for expectation in [None, Some(&entry)] {
                for availability in [&available, &gone] {
                    for required in [false, true] {
                        for forced in [false, true] {
                            for (run, ran) in runs.iter().enumerate() {
                                let situation = Situation { unsupported, expectation, availability, required, forced };
                                let verdict = before(&situation).unwrap_or_else(|| after(expectation, ran));
                                let here = availability.is_available();
                                let want = match (unsupported.is_some(), here, required, forced) {
                                    (true, _, _, true) => Outcome::Fail,
                                    (true, _, _, false) => Outcome::Unsupported,
                                    (false, false, false, false) => Outcome::Unavailable,
                                    (false, false, _, _) => Outcome::Fail,
                                    (false, true, _, _) => match (expectation.is_some(), run) {
                                        (false, 0) => Outcome::Pass,
                                        (true, 1) => Outcome::Xfail,
                                        _ => Outcome::Fail,
                                    },
                                };
                                assert_eq!(verdict.outcome, want, "{situation:?} {ran:?}");
                                let plain = verdict.outcome == Outcome::Pass;
                                assert_eq!(verdict.reason.is_none(), plain, "{situation:?} {ran:?}");
                                combinations += 1;
                            }
                        }
                    }
                }
            }
        }
        assert_eq!(combinations, 2 * 2 * 2 * 2 * 2 * 3);
    }

    #[test]
    fn another_reason_shows_both() {
        let verdict = after(Some(&entry()), &Ran::Failed("shape mismatch".to_owned()));
        let reason = verdict.reason.expect("reason");
        assert!(reason.contains("wraps at i16") && reason.contains("shape mismatch"), "{reason}");
    }

    #[test]
    fn an_unexpected_pass_names_the_entry_to_remove() {
        let verdict = after(Some(&entry()), &Ran::Passed);
        assert_eq!(verdict.outcome, Outcome::Fail);
        assert!(verdict.remedy.expect("remedy").contains("m::q::d::b::c"));
    }

    #[test]
    fn what_is_missing_comes_with_its_remedy() {
        let gone = Availability::unavailable("gpu", "no driver", "install it");
        let situation =
            Situation { unsupported: None, expectation: None, availability: &gone, required: true, forced: false };
        let verdict = before(&situation).expect("settled");
        assert_eq!(verdict.outcome, Outcome::Fail);
        assert_eq!(verdict.remedy.as_deref(), Some("install it"));
        assert!(verdict.reason.expect("reason").contains("it is required, but `gpu` is not available"));
    }
}
