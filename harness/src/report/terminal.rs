//! The report for people at a terminal: what is not green and why, then the accounting line.

use crate::report::{Report, elsewhere, unavailable, verdict};
use crate::verdict::Outcome;

/// How many missing cells are named one by one.
const NAMED: usize = 10;

/// What is missing, expected failures, reasons of what was not run, and the accounting line. Failures come with their
/// whole message where the runner printed them already, so here they are only named.
pub fn terminal(report: &Report) -> String {
    let mut out = String::from("matrix:\n");
    // One run is this one, and everybody knows where it was.
    if report.runs.len() > 1 {
        out.extend(report.runs().iter().map(|run| format!("  run: {run}\n")));
    }
    out.extend(report.problems().iter().map(|problem| format!("  wrong: {problem}\n")));
    let missing = report.missing();
    out.extend(
        missing.iter().take(NAMED).map(|name| format!("  missing: {name}: it was to be run, and has no record\n")),
    );
    if missing.len() > NAMED {
        out += &format!("  missing: {} more\n", missing.len() - NAMED);
    }
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
    out += &elsewhere(report);
    out += &format!("{}\n", report.account());
    out
}
