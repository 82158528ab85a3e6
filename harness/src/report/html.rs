//! The matrix as a heat map: one HTML page that needs nothing besides itself.
//!
//! Rows are model::quant::check, columns device x backend. Every cell is a link target (its name), shows
//! its outcome as a letter as well as a colour, and tells reason, figures and time when pointed at.

use std::collections::{BTreeMap, BTreeSet};

use crate::axes::Cell;
use crate::record::Record;
use crate::report::{Report, elsewhere, escape};
use crate::run::origin;
use crate::verdict::Outcome;

const STYLE: &str = "
:root{color-scheme:light dark;--line:#8884;--pass:#2e9e5b;--xfail:#c79a00;--fail:#d43a3a;--unavailable:#8a8f98;--unsupported:#b9bcc2}
body{font:14px/1.45 system-ui,sans-serif;margin:2rem;padding:0 1rem}
h1{font-size:1.4rem}code,.n{font-family:ui-monospace,monospace;font-size:12.5px}
.sum{display:flex;gap:.5rem;flex-wrap:wrap;margin:1rem 0}.sum label{padding:.2rem .7rem;border-radius:1rem;color:#fff;cursor:pointer}
.scroll{overflow:auto;max-height:80vh;border:1px solid var(--line)}table{border-collapse:collapse}
th,td{padding:.2rem .6rem;border:1px solid var(--line);text-align:left}thead th{position:sticky;top:0;background:Canvas}td.n{position:sticky;left:0;background:Canvas;white-space:nowrap}
td.c{text-align:center;color:#fff;cursor:help;min-width:4rem}td.none{opacity:.4;text-align:center}
.pass{background:var(--pass)}.xfail{background:var(--xfail)}.fail{background:var(--fail);font-weight:bold}
.unavailable{background:var(--unavailable)}.unsupported{background:var(--unsupported);color:#333!important}
td.c:target{outline:3px solid Highlight}pre{white-space:pre-wrap;border-left:3px solid var(--fail);padding-left:.8rem}
input[type=search]{width:22rem;max-width:100%;padding:.3rem}";

const SCRIPT: &str = "
const q=document.getElementById('q'),boxes=[...document.querySelectorAll('.sum input')];
function apply(){const t=q.value.toLowerCase(),on=new Set(boxes.filter(b=>b.checked).map(b=>b.value));
document.querySelectorAll('tbody tr').forEach(r=>{const hit=r.dataset.name.includes(t)&&[...r.querySelectorAll('td.c')].some(c=>on.has(c.dataset.o));r.hidden=!hit})}
q.addEventListener('input',apply);boxes.forEach(b=>b.addEventListener('change',apply));";

/// The page.
#[must_use]
pub fn html(report: &Report) -> String {
    let mut out = String::from(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">",
    );
    out += &format!("<title>BitNet.rs matrix</title><style>{STYLE}</style></head><body>\n");
    out += "<h1>BitNet.rs: the matrix</h1>\n";
    out += &format!("<p><code>{}</code></p>\n{}", report.account(), origins(report));
    out += &failures(report);
    out += &legend(report);
    out += &table(report);
    out += &format!("<script>{SCRIPT}</script></body></html>\n");
    out
}

/// Which machines, commits and times the records come from: a page of mixed origin has to say so.
fn origins(report: &Report) -> String {
    let list = |items: Vec<String>| items.iter().map(|item| format!("<li>{}</li>", escape(item))).collect::<String>();
    let lacking = elsewhere(report).lines().map(|line| line.trim().to_owned()).collect();
    format!("<ul>{}</ul><ul>{}</ul>\n", list(report.runs()), list(lacking))
}

fn legend(report: &Report) -> String {
    let account = report.account();
    let mut out = String::from("<div class=\"sum\">");
    for outcome in Outcome::ALL {
        let (name, count) = (outcome.name(), account.of(outcome));
        out += &format!(
            "<label class=\"{name}\"><input type=\"checkbox\" value=\"{name}\" checked> {name} {count}</label>"
        );
    }
    out + "</div>\n<p><input type=\"search\" id=\"q\" placeholder=\"filter rows by name\"></p>\n"
}

fn table(report: &Report) -> String {
    let mut columns: BTreeSet<(String, String)> = BTreeSet::new();
    let mut rows: BTreeMap<String, BTreeMap<(String, String), &Record>> = BTreeMap::new();
    for record in report.records().values() {
        // Records were checked when they were read; one that has no cell name has no place here.
        let Ok(cell) = record.cell() else { continue };
        let row = cell.golden_key();
        let Cell { device, backend, .. } = cell;
        columns.insert((device.clone(), backend.clone()));
        rows.entry(row).or_default().insert((device, backend), record);
    }
    let mut out = String::from("<div class=\"scroll\"><table><thead><tr><th>model::quant::check</th>");
    for (device, backend) in &columns {
        out += &format!("<th>{}<br>{}</th>", escape(device), escape(backend));
    }
    out += "</tr></thead><tbody>\n";
    for (row, cells) in rows {
        let row = escape(&row);
        out += &format!("<tr data-name=\"{row}\"><td class=\"n\">{row}</td>");
        for column in &columns {
            out += &cells.get(column).map_or_else(
                || "<td class=\"none\" title=\"no record\">&middot;</td>".to_owned(),
                |record| cell(record),
            );
        }
        out += "</tr>\n";
    }
    out + "</tbody></table></div>\n"
}

fn cell(record: &Record) -> String {
    let outcome = record.outcome.name();
    let text = match record.outcome {
        Outcome::Pass => format!("{:.1} ms", record.duration_ms),
        _ => outcome.to_owned(),
    };
    format!(
        "<td class=\"c {outcome}\" data-o=\"{outcome}\" id=\"{}\" title=\"{}\">{text}</td>",
        escape(&record.name),
        escape(&tooltip(record)),
    )
}

fn tooltip(record: &Record) -> String {
    let mut lines = vec![record.name.clone(), record.outcome.name().to_owned()];
    lines.extend(record.reason.iter().map(|reason| format!("reason: {reason}")));
    lines.extend(record.mend.iter().map(|mend| format!("to mend it: {mend}")));
    lines.extend(record.expected.iter().map(|e| format!("known: {}", e.why)));
    lines.extend(record.kernel.iter().map(|kernel| format!("kernel: {kernel}")));
    lines.extend(record.reference.iter().map(|r| format!("reference: {r}")));
    lines.extend(record.metrics.iter().map(|(name, value)| format!("{name}: {value}")));
    lines.push(format!("time: {:.1} ms, {}", record.duration_ms, record.timestamp));
    lines.push(format!("on: {}", origin(&record.host, &record.harness)));
    lines.push(format!("again: cargo test --test matrix -- --exact {}", record.name));
    lines.join("\n")
}

fn failures(report: &Report) -> String {
    let mut out = String::new();
    out.extend(report.problems().iter().map(|problem| format!("<pre>{}</pre>\n", escape(problem))));
    for name in report.missing() {
        out += &format!("<h2 class=\"n\">{}</h2><pre>it was to be run, and has no record</pre>\n", escape(name));
    }
    for record in report.with(Outcome::Fail) {
        let name = escape(&record.name);
        let reason = escape(record.reason.as_deref().unwrap_or_default());
        out += &format!("<h2 class=\"n\"><a href=\"#{name}\">{name}</a></h2><pre>{reason}</pre>\n");
    }
    out
}
