//! The record as Markdown.

use super::{EngineReport, Rate, State, TokenizersReport, Vocabulary};

/// A page: what was measured, and a table for each vocabulary.
pub fn markdown(report: &TokenizersReport) -> String {
    let commit = report.commit.as_deref().unwrap_or("unknown");
    let mut out = format!(
        "{}, commit {commit:.12}, {}. {} rounds in turn, medians. MB/s of CPU time on one thread; cold is the first pass over \
         text that an engine never saw, warm the second. `load` is loading and a prompt of 34 tokens, in ms of CPU time.\n\n",
        report.cpu, report.at, report.rounds
    );
    for text in &report.texts {
        let size = if text.bytes == 0 { String::new() } else { format!(", {:.1} MB", 1e-6 * text.bytes as f64) };
        line!(out, "- {}: {}{size}", text.kind, text.about);
    }
    for peer in &report.absent {
        line!(out, "- {} is not measured: {}", peer.name, peer.about);
    }
    for vocabulary in &report.vocabularies {
        one(&mut out, vocabulary);
    }
    out
}

fn one(out: &mut String, vocabulary: &Vocabulary) {
    let cells = vocabulary.cells();
    let foreign = vocabulary
        .foreign
        .map_or_else(String::new, |share| format!(" Others had {:.0} % of the machine meanwhile.", 100.0 * share));
    line!(out, "\n### {}\n\n{}.{foreign}\n", vocabulary.name, vocabulary.about);
    let titles = cells.iter().map(|(text, kib)| format!("{text} {kib}K cold / warm"));
    let head: Vec<String> = ["engine", "ids", "load"].map(str::to_owned).into_iter().chain(titles).collect();
    row(out, &head);
    line!(out, "|{}", "---|".repeat(head.len()));
    for engine in &vocabulary.engines {
        let load = engine.load_ms.map_or_else(String::new, |ms| figure(ms.median));
        let rates =
            cells.iter().map(|(text, kib)| both(engine, text, *kib, &|rate| figure(rate.megabytes_per_second.median)));
        let fields: Vec<String> = [engine.engine.clone(), ids(engine), load].into_iter().chain(rates).collect();
        row(out, &fields);
    }
    let best = cells.iter().map(|(text, kib)| {
        let ratio = |state| {
            let ours_is = vocabulary.fastest(text, *kib, state).and_then(|(_, rate)| rate.ours_is);
            ours_is.map_or_else(|| "-".to_owned(), |ratio| format!("{:.2}x", ratio.median))
        };
        format!("{} / {}", ratio(State::Cold), ratio(State::Warm))
    });
    let fields = ["ours against the fastest exact peer".to_owned(), String::new(), String::new()];
    row(out, &fields.into_iter().chain(best).collect::<Vec<_>>());
    for engine in &vocabulary.engines {
        if let Some(why) = engine.failure.as_ref().or(engine.inexact.as_ref()) {
            line!(out, "\n{}: {why}", engine.engine);
        }
    }
}

fn ids(engine: &EngineReport) -> String {
    let text = match (&engine.failure, &engine.inexact) {
        (Some(_), _) => "fails",
        (None, Some(_)) => "differ",
        (None, None) => "equal",
    };
    text.to_owned()
}

fn both(engine: &EngineReport, text: &str, kib: u32, show: &dyn Fn(&Rate) -> String) -> String {
    let of = |state| engine.rate(text, kib, state).map(show);
    match (of(State::Cold), of(State::Warm)) {
        (None, None) => String::new(),
        (cold, warm) => format!("{} / {}", cold.unwrap_or("-".into()), warm.unwrap_or("-".into())),
    }
}

/// Three digits that matter.
fn figure(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

fn row(out: &mut String, fields: &[String]) {
    let fields: Vec<String> = fields.iter().map(|field| field.replace('|', "\\|")).collect();
    line!(out, "| {} |", fields.join(" | "));
}

#[cfg(test)]
mod tests {
    use super::super::tests::played;

    #[test]
    fn a_table_says_who_is_exact_and_how_much_ours_is_faster() {
        let page = super::markdown(&played());
        for want in [
            "| engine | ids | load | mixed 4K cold / warm |",
            "| ours | equal | 40.0 | 100 / 300 |",
            "| ours, tokenizer.json | equal | 90.0 |  |",
            "| fast | equal | 400 | 50.0 / 200 |",
            "| slow | equal | 300 | 4.00 / - |",
            "| wrong | differ | 1.00 | 999 / - |",
            "| broken | fails |  |  |",
            "| ours against the fastest exact peer |  |  | 2.00x / 1.50x |",
            "broken: panicked: | here",
            "wrong: mixed text, token 3",
            "- gone is not measured: not built",
            "- english: a book, 5.9 MB",
            "Others had 50 % of the machine meanwhile.",
        ] {
            assert!(page.contains(want), "{want} is not in\n{page}");
        }
    }
}
