//! The matrix as one HTML page that needs nothing besides itself: no network, light and dark.
//!
//! Failures come first, each with its message and the command that runs it again. Below is the heat map: rows are
//! model::quant::check, the worst first; columns are device and backend. A cell's id is its name, so that a link can
//! point at it. Filters and the panel of a cell need a script (`page.js`); all else is there without it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::axes::{Axis, Cell};
use crate::record::{self, Record};
use crate::report::{Report, elsewhere, escape, weight};
use crate::run::origin;
use crate::verdict::Outcome;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

pub fn html(report: &Report) -> String {
    let (verdict, class) = if report.is_red() { ("RED", "red") } else { ("GREEN", "green") };
    let mut out = String::from(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">",
    );
    out += &format!("<title>{verdict}: BitNet.rs matrix</title><style>{STYLE}</style></head><body>\n");
    out += &format!("<header><span class=\"verdict {class}\">{verdict}</span><h1>BitNet.rs matrix</h1>");
    out += &format!("<code>{}</code></header>\n", escape(&report.account().to_string()));
    out += &failures(report);
    out += &filters(report);
    out += "<div class=\"main\">";
    out += &table(report);
    out += "<aside id=\"cell\" hidden><button class=\"close\" id=\"close\">close</button><div id=\"cell-body\"></div></aside></div>\n";
    out += &origins(report);
    // `<` cannot be in the data: a text must not end the element.
    let data = data(report).to_string().replace('<', "\\u003c");
    out += &format!("<script type=\"application/json\" id=\"data\">{data}</script>\n");
    out += &format!("<script>{SCRIPT}</script></body></html>\n");
    out
}

fn command(record: &Record) -> String {
    format!("cargo test --test matrix -- --exact {}", record.name)
}

/// Which machines, commits and times the records come from, and what none of them could run.
fn origins(report: &Report) -> String {
    let list = |items: Vec<String>| items.iter().map(|item| format!("<li>{}</li>", escape(item))).collect::<String>();
    let lacking = elsewhere(report).lines().map(|line| line.trim().to_owned()).collect();
    format!("<h2>Runs</h2><ul>{}</ul><ul>{}</ul>\n", list(report.runs()), list(lacking))
}

fn failures(report: &Report) -> String {
    let mut out = String::from("<section id=\"failures\">");
    out.extend(report.problems().iter().map(|problem| format!("<pre>{}</pre>\n", escape(problem))));
    for name in report.missing() {
        out += &format!("<article class=\"failure\"><h2 class=\"name\">{}</h2>", escape(name));
        out += "<pre>it was to be run, and has no record</pre></article>\n";
    }
    for record in report.with(Outcome::Fail) {
        let name = escape(&record.name);
        let reason = escape(record.reason.as_deref().unwrap_or("no reason was recorded"));
        out += &format!("<article class=\"failure\"><h2 class=\"name\"><a href=\"#{name}\">{name}</a></h2>");
        out += &format!("<pre>{reason}</pre>");
        out += &format!("<p>Run it again: <code>{}</code></p></article>\n", escape(&command(record)));
    }
    if report.with(Outcome::Fail).next().is_none() {
        out += "<p>No recorded cell failed.</p>";
    }
    out + "</section>\n"
}

fn filters(report: &Report) -> String {
    let cells: Vec<Cell> = report.records().values().filter_map(|record| record.cell().ok()).collect();
    let mut out = String::from("<div class=\"filters\">");
    for axis in Axis::ALL {
        let values: BTreeSet<&str> = cells.iter().map(|cell| cell.get(axis)).collect();
        let name = axis.name();
        out += &format!("<select id=\"{name}\" aria-label=\"{name}\"><option value=\"\">every {name}</option>");
        for value in values {
            out += &format!("<option>{}</option>", escape(value));
        }
        out += "</select>";
    }
    let account = report.account();
    for outcome in Outcome::ALL {
        let (name, count) = (outcome.name(), account.of(outcome));
        out += &format!(
            "<label class=\"{name}\"><input type=\"checkbox\" value=\"{name}\" checked> {name} {count}</label>"
        );
    }
    out + "<input type=\"search\" id=\"q\" placeholder=\"part of a cell's name\"><span id=\"shown\"></span></div>\n"
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
    let mut out = String::from(
        "<div class=\"scroll\"><table class=\"matrix\"><thead><tr><th class=\"name\">model::quant::check</th>",
    );
    for (device, backend) in &columns {
        out += &format!("<th class=\"column\">{} &middot; {}</th>", escape(device), escape(backend));
    }
    out += "</tr></thead><tbody>\n";
    let mut rows: Vec<_> = rows.into_iter().collect();
    // Rows that hold the worst come first, those in which nothing ran last.
    rows.sort_by_key(|(_, cells)| std::cmp::Reverse(cells.values().map(|record| weight(record).0).max()));
    for (row, cells) in rows {
        out += &format!("<tr><th class=\"name\">{}</th>", escape(&row));
        for column in &columns {
            out += &cells.get(column).map_or_else(|| "<td></td>".to_owned(), |record| cell(record));
        }
        out += "</tr>\n";
    }
    out + "</tbody></table></div>\n"
}

fn cell(record: &Record) -> String {
    let (outcome, sign) = match record.outcome {
        Outcome::Pass => ("pass", "&check;"),
        Outcome::Xfail => ("xfail", "x"),
        Outcome::Fail => ("fail", "FAIL"),
        Outcome::Unavailable => ("unavailable", "&ndash;"),
        Outcome::Unsupported => ("unsupported", "&middot;"),
    };
    let reason = record.reason.as_deref().unwrap_or_default();
    let short: String = reason.chars().take(120).collect();
    format!(
        "<td class=\"c {outcome}\" data-o=\"{outcome}\" id=\"{}\" title=\"{outcome} {}\">{sign}</td>",
        escape(&record.name),
        escape(&short),
    )
}

/// What the panel of a cell shows: its records, the one that counts first, then the latest. Texts that repeat are kept
/// once.
fn data(report: &Report) -> serde_json::Value {
    let mut texts: Vec<String> = Vec::new();
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    let mut text = |text: String| {
        *known.entry(text.clone()).or_insert_with(|| {
            texts.push(text);
            texts.len() - 1
        })
    };
    let mut cells = serde_json::Map::new();
    for (name, first) in report.records() {
        let mut all = Vec::new();
        for record in std::iter::once(first).chain(report.others(name)) {
            let Ok(cell) = record.cell() else { continue };
            all.push(json!({
                "outcome": record.outcome.name(),
                "reason": record.reason.clone().map(&mut text),
                "known": record.expected.as_ref().map(|known| text(known.why.clone())),
                "remedy": record.remedy.clone().map(&mut text),
                "command": command(record),
                "file": record::file_name(&cell),
                "kernel": record.kernel,
                "reference": record.reference,
                "model": record.model_sha256.as_ref().map(|sum| format!("sha256 {sum}")),
                "ms": (record.duration_ms * 10.0).round() / 10.0,
                "host": text(origin(&record.host, &record.harness)),
                "commit": record.harness.commit,
                "when": record.timestamp,
                "metrics": record.metrics,
            }));
        }
        cells.insert(name.clone(), all.into());
    }
    json!({ "texts": texts, "cells": cells })
}
