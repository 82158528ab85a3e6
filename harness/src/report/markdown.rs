//! The report for pull requests and job summaries.

use std::collections::BTreeMap;

use crate::report::{Report, groups, verdict};
use crate::verdict::Outcome;

/// The accounting line, a table of checks by outcome, and every cell that is not green.
pub fn markdown(report: &Report) -> String {
    let verdict_line = if report.is_red() { "red" } else { "green" };
    let mut out = format!("# The matrix is {verdict_line}\n\n`{}`\n", report.account());
    out.extend(report.runs().iter().map(|run| format!("\n- {run}")));
    out += "\n";
    out += &by_check(report);
    let missing = report.missing();
    if !missing.is_empty() || !report.problems().is_empty() {
        out += "\n## Missing and wrong records\n\n";
        out.extend(report.problems().iter().map(|problem| format!("- {problem}\n")));
        out.extend(missing.iter().map(|name| format!("- `{name}` was to be run, and has no record\n")));
    }
    let failures: Vec<_> = report.with(Outcome::Fail).collect();
    if !failures.is_empty() {
        out += "\n## Failures\n";
        for record in failures {
            let reason = record.reason.as_deref().unwrap_or_default();
            out += &format!("\n### `{}`\n\n", record.name);
            // Four spaces make it a block whatever the message holds.
            out.extend(reason.lines().map(|line| format!("    {line}\n")));
            if let Some(remedy) = &record.remedy {
                out += &format!("\nTo remedy it: `{remedy}`\n");
            }
        }
    }
    let expected: Vec<_> = report.with(Outcome::Xfail).collect();
    if !expected.is_empty() {
        out += "\n## Expected failures\n\n| cell | why |\n|---|---|\n";
        for record in expected {
            let why = record.expected.as_ref().map_or("", |expected| &expected.why);
            out += &format!("| `{}` | {} |\n", record.name, cell_text(why));
        }
    }
    let ignored = [Outcome::Unavailable, Outcome::Unsupported];
    let groups = groups(ignored.into_iter().flat_map(|o| report.with(o)).map(verdict));
    let elsewhere = report.elsewhere();
    if !groups.is_empty() || !elsewhere.is_empty() {
        out += "\n## Not run\n\n| outcome | cells | reason | to run them |\n|---|---:|---|---|\n";
        for group in groups {
            let remedy = group.remedy.map_or_else(String::new, |remedy| format!("`{remedy}`"));
            out += &format!(
                "| {} | {} | {} | {} |\n",
                group.outcome.name(),
                group.cells.len(),
                cell_text(&group.reason),
                cell_text(&remedy)
            );
        }
        for ((device, reason, remedy), cells) in elsewhere {
            let reason = cell_text(&format!("{device}: {reason}"));
            out += &format!("| elsewhere | {} | {reason} | {} |\n", cells.len(), cell_text(remedy));
        }
    }
    out
}

fn by_check(report: &Report) -> String {
    let mut rows: BTreeMap<&str, BTreeMap<Outcome, usize>> = BTreeMap::new();
    for record in report.records().values() {
        let check = record.name.rsplit("::").next().unwrap_or_default();
        *rows.entry(check).or_default().entry(record.outcome).or_default() += 1;
    }
    let names = Outcome::ALL.map(Outcome::name).join(" | ");
    let mut out = format!("\n| check | {names} |\n|---|---:|---:|---:|---:|---:|\n");
    for (check, counts) in rows {
        let counts = Outcome::ALL.map(|o| counts.get(&o).copied().unwrap_or(0).to_string());
        out += &format!("| {check} | {} |\n", counts.join(" | "));
    }
    out
}

/// Text inside a table: one line, no column separators.
fn cell_text(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
