//! What a person waits, drawn over the number of new tokens: where two lines cross, a preparation has paid.
//!
//! A panel for each prompt, on the largest number of threads; both axes are logarithmic, medians are joined by lines.

use super::peers::PeersReport;
use super::person::Wait;
use super::plot::PlotError;
use plotters::prelude::*;

/// Width, and height of a panel.
const SIZE: (u32, u32) = (860, 380);
/// Ours first and strong, the others in turn.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0x1b, 0x6a, 0xa5),
    RGBColor(0xc4, 0x4e, 0x1b),
    RGBColor(0x2f, 0x8f, 0x4e),
    RGBColor(0x8e, 0x5b, 0xb5),
    RGBColor(0x9a, 0x9a, 0x9a),
    RGBColor(0xb8, 0x9b, 0x1f),
    RGBColor(0x4a, 0xa8, 0xb0),
];

/// The line of an engine: new tokens and seconds.
type Line = (String, Vec<(f64, f64)>);

/// An SVG of the waits of a report.
pub fn svg(report: &PeersReport) -> Result<String, PlotError> {
    let panels = panels(report);
    let height = SIZE.1.saturating_mul(u32::try_from(panels.len()).unwrap_or(u32::MAX));
    if panels.is_empty() {
        return Err(PlotError::Nothing);
    }
    let failed = |error: &dyn std::fmt::Display| PlotError::Draw(error.to_string());
    let mut out = String::new();
    {
        let area = SVGBackend::with_string(&mut out, (SIZE.0, height)).into_drawing_area();
        area.fill(&WHITE).map_err(|e| failed(&e))?;
        for (part, (title, lines)) in area.split_evenly((panels.len(), 1)).iter().zip(&panels) {
            panel(part, title, lines).map_err(|e| failed(&e))?;
        }
        area.present().map_err(|e| failed(&e))?;
    }
    Ok(out)
}

fn panel<B: DrawingBackend>(
    area: &DrawingArea<B, plotters::coord::Shift>,
    title: &str,
    lines: &[Line],
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let points = || lines.iter().flat_map(|(_, points)| points);
    let ends = |value: fn(&(f64, f64)) -> f64| {
        let (low, high) = points().map(value).fold((f64::MAX, 0.0f64), |(l, h), x| (l.min(x), h.max(x)));
        (low * 0.9)..(high * 1.1)
    };
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(60)
        .build_cartesian_2d(ends(|p| p.0).log_scale(), ends(|p| p.1).log_scale())?;
    chart.configure_mesh().x_desc("new tokens").y_desc("seconds from the start").draw()?;
    for (i, (engine, points)) in lines.iter().enumerate() {
        let style = COLOURS[i % COLOURS.len()].stroke_width(if i == 0 { 3 } else { 1 });
        chart
            .draw_series([PathElement::new(points.clone(), style)])?
            .label(engine.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, style.filled())))?;
    }
    let labels = SeriesLabelPosition::UpperLeft;
    chart.configure_series_labels().position(labels).background_style(WHITE.mix(0.8)).border_style(BLACK).draw()
}

/// Of the largest number of threads: a title and its lines for each prompt.
fn panels(report: &PeersReport) -> Vec<(String, Vec<Line>)> {
    let Some(threads) = report.waits.iter().map(|wait| wait.threads).max() else { return Vec::new() };
    let mut panels: Vec<(usize, Vec<Line>)> = Vec::new();
    for wait in report.waits.iter().filter(|wait| wait.threads == threads) {
        let Wait { prompt, answer, engine, seconds: Some(seconds), .. } = wait else { continue };
        let at = panels.iter().position(|panel| panel.0 == *prompt).unwrap_or_else(|| {
            panels.push((*prompt, Vec::new()));
            panels.len() - 1
        });
        let lines = &mut panels[at].1;
        let point = (*answer as f64, seconds.spread.median);
        match lines.iter_mut().find(|line| line.0 == *engine) {
            Some(line) => line.1.push(point),
            None => lines.push((engine.clone(), vec![point])),
        }
    }
    let title = |prompt| format!("{}, {threads} threads: an answer to {prompt} tokens", report.model.name);
    panels.into_iter().map(|(prompt, lines)| (title(prompt), lines)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::peers::tests::played;
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn lines_are_of_medians() {
        let mut report = played(&RefCell::default());
        let [(title, lines)] = &panels(&report)[..] else { panic!("{:?}", panels(&report)) };
        assert!(title.ends_with("1 threads: an answer to 32 tokens"), "{title}");
        assert_eq!(lines[0], ("ours".to_owned(), vec![(1.0, 2.0), (64.0, 8.0)]));
        assert_eq!(lines[1], ("peer".to_owned(), vec![(1.0, 3.0)]));
        let svg = svg(&report).expect("a drawing");
        assert!(svg.starts_with("<svg") && svg.contains("ours") && svg.contains("new tokens"), "{svg}");
        report.waits.clear();
        assert!(matches!(super::svg(&report), Err(PlotError::Nothing)));
    }
}
