//! A report as one page of text.

use super::peers::{PeersReport, Row, Series};
use super::person::Wait;
use super::ratio::Spread;

pub fn table(report: &PeersReport) -> String {
    let PeersReport { model, prompt, generate, rounds, .. } = report;
    let commit = report.commit.as_deref().unwrap_or("unknown");
    let mut out = format!(
        "{} ({}, {}), {:.2} GB, of which {:.2} GB are read a token\n{}, commit {:.12}, {}\n{rounds} rounds in turn; \
         medians (least..most); \"ours is\" is the ratio within a round: above 1 ours is better\n",
        model.name,
        model.architecture,
        model.quant,
        1e-9 * model.bytes as f64,
        1e-9 * model.weight_bytes as f64,
        report.cpu,
        commit,
        report.at,
    );
    for engine in &report.engines {
        line!(out, "- {}: {}", engine.name, engine.about);
    }
    for memory in &report.memory {
        let Spread { median, least, most } = memory.bytes_per_second.spread;
        line!(
            out,
            "- memory is read at {:.1} GB/s ({:.1}..{:.1}) by {} threads: at most {:.2} tokens/s with all weights read \
                 once (a screened head reads fewer)",
            1e-9 * median,
            1e-9 * least,
            1e-9 * most,
            memory.threads,
            memory.bound_tokens_per_second
        );
    }
    person(&mut out, report);
    depths(&mut out, report);
    if report.rows.is_empty() {
        return out;
    }
    let rate = "tokens/s without load and preparation";
    let measured = format!("prompt {prompt}, {rate} | ours is | generate {generate}, {rate} | ours is | of the bound");
    let rest = "first token, ms | ours is | peak RSS, MB | foreign load";
    line!(out, "\n| threads | engine | {measured} | {rest} |\n|{}", "---|".repeat(11));
    for row in &report.rows {
        line!(out, "| {} |", cells(report, row).join(" | "));
    }
    for row in report.rows.iter().filter(|row| row.failure.is_some()) {
        let why = row.failure.as_deref().unwrap_or_default();
        line!(out, "{}, {} threads: unavailable: {why}", row.engine, row.threads);
        if let Some(remedy) = &row.remedy {
            line!(out, "  to fix it: {remedy}");
        }
    }
    if let Some(tokens) = report.rows.iter().find_map(|row| row.first_token_prompt) {
        line!(out, "first token: of a text of {tokens} tokens, from the start of the process");
    }
    out
}

fn cells(report: &PeersReport, row: &Row) -> Vec<String> {
    let bound = report.memory.iter().find(|m| m.threads == row.threads).map(|m| m.bound_tokens_per_second);
    let share = row.decode.as_ref().zip(bound).map(|(decode, bound)| decode.spread.median / bound);
    let or = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let rate = |series: &Option<Series>, unit: f64| {
        or(series.as_ref().map(|Series { spread: s, .. }| {
            format!("{} ({}..{})", digits(unit * s.median), digits(unit * s.least), digits(unit * s.most))
        }))
    };
    let ratio = |series: &Option<Series>| {
        let ratio = series.as_ref().and_then(|s| s.ours_is);
        or(ratio.map(|r| format!("{:.2}x ({:.2}..{:.2})", r.median, r.least, r.most)))
    };
    vec![
        row.threads.to_string(),
        row.engine.clone(),
        rate(&row.prefill, 1.0),
        ratio(&row.prefill),
        rate(&row.decode, 1.0),
        ratio(&row.decode),
        or(share.map(|share| format!("{:.0} %", 100.0 * share))),
        rate(&row.first_token, 1e3),
        ratio(&row.first_token),
        or(row.peak_rss.map(|bytes| format!("{:.0}", 1e-6 * bytes as f64))),
        load(row.foreign, row.noisy),
    ]
}

/// The highest foreign load, and whether it was more than the guard allows.
fn load(foreign: Option<f64>, noisy: usize) -> String {
    let share = foreign.map_or_else(|| "unknown".to_owned(), |foreign| format!("{:.0} %", 100.0 * foreign));
    if noisy == 0 { share } else { format!("{share}: NOISY in {noisy}") }
}

fn person(out: &mut String, report: &PeersReport) {
    if report.waits.is_empty() {
        return;
    }
    line!(
        out,
        "\nFrom the start of a process to the last new token: nothing is left out (the file is in the system's cache)"
    );
    line!(
        out,
        "\n| threads | prompt | new tokens | engine | seconds | ours is | foreign load |\n|{}",
        "---|".repeat(7)
    );
    for wait in &report.waits {
        let [seconds, ratio] = spreads(wait, |seconds| seconds);
        let prompt = match wait.prompt_tokens {
            Some(tokens) if tokens != wait.prompt => format!("{} ({tokens} there)", wait.prompt),
            _ => wait.prompt.to_string(),
        };
        let load = load(wait.foreign, wait.noisy);
        line!(
            out,
            "| {} | {prompt} | {} | {} | {seconds} | {ratio} | {load} |",
            wait.threads,
            wait.answer,
            wait.engine
        );
    }
    unavailable(out, &report.waits);
}

/// Tokens a second by how many tokens came before.
fn depths(out: &mut String, report: &PeersReport) {
    if report.depths.is_empty() {
        return;
    }
    let columns = "threads | tokens before | new tokens | engine | tokens/s without load and preparation | ours is | foreign load";
    line!(out, "\n| {columns} |\n|{}", "---|".repeat(7));
    for wait in &report.depths {
        let [rate, ratio] = spreads(wait, |seconds| wait.answer as f64 / seconds);
        let load = load(wait.foreign, wait.noisy);
        line!(
            out,
            "| {} | {} | {} | {} | {rate} | {ratio} | {load} |",
            wait.threads,
            wait.prompt,
            wait.answer,
            wait.engine
        );
    }
    unavailable(out, &report.depths);
}

/// The seconds of a wait in some unit, and how many times better ours is.
fn spreads(wait: &Wait, unit: impl Fn(f64) -> f64) -> [String; 2] {
    let or = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let figures = wait.seconds.as_ref().map(|Series { spread: s, .. }| {
        let (a, b) = (unit(s.least), unit(s.most));
        format!("{} ({}..{})", digits(unit(s.median)), digits(a.min(b)), digits(a.max(b)))
    });
    let ratio = wait.seconds.as_ref().and_then(|s| s.ours_is);
    [or(figures), or(ratio.map(|r| format!("{:.2}x ({:.2}..{:.2})", r.median, r.least, r.most)))]
}

/// Why some have no figures, each reason once.
fn unavailable(out: &mut String, waits: &[Wait]) {
    let mut said: Vec<(&str, &str)> = Vec::new();
    for wait in waits {
        let why = wait.failure.as_deref().map(|why| (wait.engine.as_str(), why));
        if let Some(why) = why.filter(|why| !said.contains(why)) {
            line!(out, "{}: unavailable: {}", why.0, why.1);
            said.push(why);
        }
    }
}

/// Three or four figures that mean something.
pub(super) fn digits(value: f64) -> String {
    match value {
        v if v >= 1000.0 => format!("{v:.0}"),
        v if v >= 100.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::peers::tests::played;
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn a_page_has_figures_and_what_is_missing() {
        let page = table(&played(&RefCell::default()));
        for words in [
            "m.gguf (bitnet, i2_s), 2.10 GB, of which 2.00 GB are read a token",
            "commit 0123456789ab,",
            "- peer: plays peer",
            "memory is read at 12.0 GB/s (10.0..14.0) by 1 threads: at most 6.00 tokens/s",
            "| 1 | ours | 60.00 (40.00..80.00) | - | 6.00 (4.00..8.00) | - | 100 % | 187.5 (125.0..250.0) | - | 0 |",
            "| 1 | peer | 30.00 (20.00..40.00) | 2.00x (2.00..2.00) | 3.00 (2.00..4.00) | 2.00x (2.00..2.00) | 50 % |",
            "| 1 | none | - | - | - | - | - | - | - | - |",
            "mute, 1 threads: unavailable: no more figures",
            "none, 1 threads: unavailable: not built\n  to fix it: cargo build it",
            "of a text of 34 tokens",
            "generate 32, tokens/s without load and preparation",
            "nothing is left out",
            "| 1 | 32 (34 there) | 1 | peer | 3.00 (3.00..3.00) | 1.50x (1.50..1.50) | unknown |",
            "| 1 | 32 (34 there) | 64 | ours | 8.00 (8.00..8.00) | - | 25 %: NOISY in 1 |",
            "mute: unavailable: out of memory",
            "| 1 | 32 | 16 | ours | 32.00 (32.00..32.00) | - | unknown |",
            "| 1 | 32 | 16 | peer | 20.00 (20.00..20.00) | 1.50x (1.50..1.50) | unknown |",
        ] {
            assert!(page.contains(words), "{words:?} is not in\n{page}");
        }
        assert!(page.lines().count() < 40, "one page");
    }
}
