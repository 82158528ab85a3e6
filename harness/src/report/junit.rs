//! The report for CI systems: JUnit's XML.
//!
//! JUnit knows passed, failed and skipped. An expected failure is passed, with its reason as output;
//! unavailable and unsupported cells are skipped, with their reason. A cell without a record that was to be run is an error.

use crate::report::{Report, escape};
use crate::verdict::Outcome;

/// One test suite with one test case per record.
pub fn junit(report: &Report) -> String {
    let account = report.account();
    let skipped = account.of(Outcome::Unavailable) + account.of(Outcome::Unsupported);
    let missing = report.missing();
    let errors = missing.len() + report.problems().len();
    let seconds: f64 = report.records().values().map(|r| r.duration_ms / 1e3).sum();
    let counts = format!(
        "tests=\"{}\" failures=\"{}\" skipped=\"{skipped}\" errors=\"{errors}\" time=\"{seconds:.3}\"",
        report.records().len() + errors,
        account.of(Outcome::Fail),
    );
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"bitnet\" {counts}>\n<testsuite name=\"matrix\" {counts}>\n"
    );
    for record in report.records().values() {
        let reason = escape(record.reason.as_deref().unwrap_or_default());
        let first = reason.lines().next().unwrap_or_default();
        let body = match record.outcome {
            Outcome::Pass => String::new(),
            Outcome::Xfail => format!("<system-out>xfail: {reason}</system-out>"),
            Outcome::Fail => format!("<failure message=\"{first}\">{reason}</failure>"),
            Outcome::Unavailable | Outcome::Unsupported => {
                format!("<skipped message=\"{}: {first}\"/>", record.outcome.name())
            }
        };
        out += &format!(
            "<testcase classname=\"matrix\" name=\"{}\" time=\"{:.6}\" timestamp=\"{}\">{body}</testcase>\n",
            escape(&record.name),
            record.duration_ms / 1e3,
            escape(&record.timestamp),
        );
    }
    let lost = missing.iter().map(|name| (*name, "it was to be run, and has no record"));
    for (name, problem) in lost.chain(report.problems().iter().map(|problem| ("records", problem.as_str()))) {
        let (name, problem) = (escape(name), escape(problem));
        out += &format!(
            "<testcase classname=\"matrix\" name=\"{name}\" time=\"0\"><error message=\"{problem}\"/></testcase>\n"
        );
    }
    out + "</testsuite>\n</testsuites>\n"
}
