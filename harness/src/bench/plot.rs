//! A report as a drawing: ours against the others, in units of ours, so that one scale fits all.

use super::peers::{PeersReport, Row, Series};
use plotters::prelude::*;

/// Why there is no drawing.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// No engine has figures.
    #[error("there is nothing to draw: no engine has figures beside ours")]
    Nothing,
    #[error("cannot draw: {0}")]
    Draw(String),
}

/// Width, and height of one bar and of what stands around the bars.
const SIZE: (u32, u32, u32) = (860, 22, 110);
const OURS: RGBColor = RGBColor(0x1b, 0x6a, 0xa5);
const THEIRS: RGBColor = RGBColor(0x9a, 0x9a, 0x9a);

pub(super) struct Bar {
    pub(super) label: String,
    /// In units of ours.
    pub(super) share: f64,
    pub(super) text: String,
    pub(super) ours: bool,
}

/// An SVG with a bar for each engine and kind of work; ours has length 1.
pub fn svg(report: &PeersReport) -> Result<String, PlotError> {
    draw(&format!("{}: tokens/s in units of ours", report.model.name), &bars(report))
}

/// The longest bar: a record that somebody else wrote may hold any number.
const LONGEST: f64 = 1e4;

/// An SVG of some bars; ours has length 1. Bars without a length that can be drawn are left out.
pub(super) fn draw(title: &str, bars: &[Bar]) -> Result<String, PlotError> {
    let bars: Vec<&Bar> = bars.iter().filter(|bar| (0.0..=LONGEST).contains(&bar.share)).collect();
    if !bars.iter().any(|bar| !bar.ours) {
        return Err(PlotError::Nothing);
    }
    let (width, bar_height, around) = SIZE;
    let count = bars.len();
    let mut out = String::new();
    let longest = bars.iter().fold(1.0f64, |longest, bar| longest.max(bar.share)) * 1.25;
    {
        let rows = u32::try_from(count).unwrap_or(u32::MAX);
        let height = bar_height.saturating_mul(rows).saturating_add(around);
        let area = SVGBackend::with_string(&mut out, (width, height)).into_drawing_area();
        let failed = |error: &dyn std::fmt::Display| PlotError::Draw(error.to_string());
        area.fill(&WHITE).map_err(|e| failed(&e))?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(30)
            .y_label_area_size(290)
            .build_cartesian_2d(0.0..longest, 0.0..count as f64)
            .map_err(|e| failed(&e))?;
        chart.configure_mesh().disable_y_mesh().disable_y_axis().y_labels(0).draw().map_err(|e| failed(&e))?;
        // The first bar on top.
        for (i, bar) in bars.iter().enumerate() {
            let (low, middle) = ((count - 1 - i) as f64, (count - 1 - i) as f64 + 0.5);
            let colour = if bar.ours { OURS } else { THEIRS };
            let body = Rectangle::new([(0.0, low + 0.12), (bar.share, low + 0.88)], colour.filled());
            let figure = Text::new(bar.text.clone(), (bar.share + 0.01, middle + 0.25), ("sans-serif", 13));
            chart.draw_series([body]).map_err(|e| failed(&e))?;
            chart.draw_series([figure]).map_err(|e| failed(&e))?;
            let (_, y) = chart.backend_coord(&(0.0, middle));
            let style = ("sans-serif", 13).into_text_style(&area);
            area.draw_text(&bar.label, &style, (12, y - 7)).map_err(|e| failed(&e))?;
        }
        area.present().map_err(|e| failed(&e))?;
    }
    Ok(out)
}

fn bars(report: &PeersReport) -> Vec<Bar> {
    type Pick = fn(&Row) -> Option<&Series>;
    let kinds: [(String, Pick); 2] = [
        (format!("prompt {}", report.prompt), |row| row.prefill.as_ref()),
        (format!("generate {}", report.generate), |row| row.decode.as_ref()),
    ];
    let mut bars = Vec::new();
    for (kind, pick) in kinds {
        for row in &report.rows {
            let Some(series) = pick(row) else { continue };
            let share = match series.ours_is {
                Some(ratio) => 1.0 / ratio.median,
                None if report.engines.first().is_some_and(|ours| ours.name == row.engine) => 1.0,
                None => continue,
            };
            let ratio = series.ours_is.map_or_else(String::new, |r| format!(", ours is {:.2}x", r.median));
            bars.push(Bar {
                label: format!("{kind}, {} threads, {}", row.threads, row.engine),
                share,
                text: format!("{:.1}/s{ratio}", series.spread.median),
                ours: series.ours_is.is_none(),
            });
        }
    }
    bars
}

#[cfg(test)]
mod tests {
    use super::super::peers::tests::played;
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn bars_are_in_units_of_ours() {
        let report = played(&RefCell::default());
        let shares: Vec<(String, f64)> = bars(&report).into_iter().map(|bar| (bar.label, bar.share)).collect();
        let expected = [
            ("prompt 512, 1 threads, ours", 1.0),
            ("prompt 512, 1 threads, peer", 0.5),
            ("generate 32, 1 threads, ours", 1.0),
            ("generate 32, 1 threads, peer", 0.5),
        ];
        assert_eq!(shares, expected.map(|(label, share)| (label.to_owned(), share)));
        let svg = svg(&report).expect("a drawing");
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
        assert!(svg.contains("generate 32, 1 threads, peer") && svg.contains("3.0/s, ours is 2.00x"), "{svg}");
    }

    #[test]
    fn what_has_no_length_is_left_out() {
        let bar = |share: f64, ours| Bar { label: format!("bar {share}"), share, text: String::new(), ours };
        let bars =
            [bar(1.0, true), bar(0.5, false), bar(f64::INFINITY, false), bar(f64::NAN, false), bar(1e300, false)];
        let svg = draw("t", &bars).expect("a drawing");
        assert!(
            svg.contains("bar 0.5")
                && !svg.contains("bar inf")
                && !svg.contains("bar NaN")
                && !svg.contains("bar 1000")
        );
        assert!(matches!(draw("t", &bars[2..]), Err(PlotError::Nothing)));
    }

    #[test]
    fn ours_alone_is_no_drawing() {
        let mut report = played(&RefCell::default());
        report.rows.truncate(1);
        assert!(matches!(svg(&report), Err(PlotError::Nothing)));
    }
}
