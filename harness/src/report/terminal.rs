//! The report for people at a terminal: what is not green and why, then the accounting line.

use crate::report::{Report, unavailable, verdict};
use crate::verdict::Outcome;

/// Expected failures, reasons of what was not run, and the accounting line. Failures come with their
/// whole message where the runner printed them already, so here they are only named.
#[must_use]
pub fn terminal(report: &Report) -> String {
    let mut out = String::from("matrix:\n");
    for record in report.with(Outcome::Fail) {
        let reason = record.reason.as_deref().unwrap_or_default();
        let first = reason.lines().next().unwrap_or_default();
        out += &format!("  fail: {}: {first}\n", record.name);
    }
    for record in report.with(Outcome::Xfail) {
        let why = record.expected.as_ref().map_or("", |expected| &expected.why);
        out += &format!("  xfail: {}: {why}\n", record.name);
    }
    let ignored = [Outcome::Unavailable, Outcome::Unsupported];
    out += &unavailable(ignored.into_iter().flat_map(|o| report.with(o)).map(verdict));
    out += &format!("{}\n", report.account());
    out
}
