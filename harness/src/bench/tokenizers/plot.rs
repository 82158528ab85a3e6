//! The record as a drawing: the smallest documents, each kind of text that was measured, cold and warm, in units of ours.

use super::super::plot::{Bar, PlotError, draw};
use super::{OURS, State, TokenizersReport, Vocabulary};

/// An SVG of one vocabulary: a bar for each exact engine and kind of text; ours has length 1.
///
/// # Errors
/// There is nothing to draw: no such vocabulary, or no peer has figures.
pub fn svg(report: &TokenizersReport, vocabulary: &str) -> Result<String, PlotError> {
    let found = report.vocabularies.iter().find(|v| v.name == vocabulary).ok_or(PlotError::Nothing)?;
    draw(&format!("{vocabulary}: MB/s of one thread in units of ours"), &bars(found))
}

fn bars(vocabulary: &Vocabulary) -> Vec<Bar> {
    let cells = vocabulary.cells();
    let least = cells.iter().map(|(_, kib)| *kib).min();
    let mut bars = Vec::new();
    for (text, kib) in cells.iter().filter(|(_, kib)| Some(*kib) == least) {
        for state in State::ALL {
            let exact = vocabulary.engines.iter().filter(|engine| engine.inexact.is_none());
            for (engine, rate) in exact.filter_map(|engine| Some((engine, engine.rate(text, *kib, state)?))) {
                let ours = engine.engine == OURS;
                let Some(share) = rate.ours_is.map(|ratio| 1.0 / ratio.median).or(ours.then_some(1.0)) else {
                    continue;
                };
                let ratio = rate.ours_is.map_or_else(String::new, |r| format!(", ours is {:.2}x", r.median));
                bars.push(Bar {
                    label: format!("{text}, {}, {}", state.title(), engine.engine),
                    share,
                    text: format!("{:.0} MB/s{ratio}", rate.megabytes_per_second.median),
                    ours,
                });
            }
        }
    }
    bars
}

#[cfg(test)]
mod tests {
    use super::super::tests::played;
    use super::*;

    #[test]
    fn exact_engines_are_drawn_in_units_of_ours() {
        let report = played();
        let shown: Vec<(String, f64)> = bars(&report.vocabularies[0]).into_iter().map(|b| (b.label, b.share)).collect();
        let expected = [
            ("mixed, cold, ours", 1.0),
            ("mixed, cold, fast", 0.5),
            ("mixed, cold, slow", 0.04),
            ("mixed, warm, ours", 1.0),
            ("mixed, warm, fast", 1.0 / 1.5),
        ];
        assert_eq!(shown, expected.map(|(label, share)| (label.to_owned(), share)));
        assert!(svg(&report, "v").is_ok_and(|svg| svg.contains("200 MB/s, ours is 1.50x")));
        assert!(matches!(svg(&report, "w"), Err(PlotError::Nothing)));
    }
}
