//! A report for people: what was compared, a table of positions, what is wrong and where.

use std::fmt::Write as _;

use super::bisect::{Bisection, StepReport};
use super::compare::PositionReport;
use super::report::{BothSeconds, CrossvalReport, PromptReport, Section, Verdict};
use super::tokens::TokenParity;

/// A column of figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    Cosine,
    L2,
    MaxAbs,
    Kl,
    /// Agreement of the most likely tokens.
    TopK,
    /// The reference's lead.
    Gap,
}

impl Metric {
    pub const ALL: [Self; 6] = [Self::Cosine, Self::L2, Self::MaxAbs, Self::Kl, Self::TopK, Self::Gap];

    /// As the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::L2 => "l2",
            Self::MaxAbs => "max_abs",
            Self::Kl => "kl",
            Self::TopK => "top_k",
            Self::Gap => "gap",
        }
    }

    fn of(self, p: &PositionReport) -> String {
        match self {
            Self::Cosine => format!("{:>10.6}", p.cosine),
            Self::L2 => format!("{:>10.4}", p.l2),
            Self::MaxAbs => format!("{:>10.5}", p.max_abs),
            Self::Kl => format!("{:>10.2e}", p.kl),
            Self::TopK => format!("{:>10.2}", p.top_k),
            Self::Gap => format!("{:>10.3}", p.gap),
        }
    }
}

/// How to write it.
pub struct Style<'a> {
    /// Whether the text goes to a terminal.
    pub colour: bool,
    pub metrics: &'a [Metric],
    /// What a token looks like.
    pub piece: &'a dyn Fn(u32) -> String,
}

const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const BOLD: &str = "\x1b[1m";

impl Style<'_> {
    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colour { format!("{colour}{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A token's id and text, shortened to `width` characters and filled up to it.
    fn token(&self, id: Option<u32>, width: usize) -> String {
        let text = id.map_or_else(|| "none".to_owned(), |id| format!("{id} {:?}", (self.piece)(id)));
        let count = text.chars().count();
        if count > width {
            text.chars().take(width.saturating_sub(1)).chain(['~']).collect()
        } else {
            text + &" ".repeat(width - count)
        }
    }
}

pub fn render(report: &CrossvalReport, style: &Style<'_>) -> String {
    let mut out = String::new();
    let reference =
        report.reference.ran().map_or_else(|| "no reference".to_owned(), |r| format!("{} ({})", r.backend, r.chosen));
    let build = report.reference.ran().map(|r| &r.version["build"]);
    let built = build.and_then(|b| Some((b["source"].as_str()?, b["version"].as_str()?)));
    let m = &report.model;
    let _ = writeln!(out, "{}: {} ({}, {}) against {reference}", report.command, m.path, m.architecture, m.quant);
    if let Some((source, version)) = built {
        // A crate's name has its version, a checkout has a commit.
        let version = if source.contains(version) { String::new() } else { format!(", {version}") };
        let _ = writeln!(out, "the reference is built from {source}{version}");
    }
    if let Some(other) = &report.reference_model {
        let _ = writeln!(out, "the reference runs another file: {} ({})", other.path, other.quant);
    }
    let l = &report.limits;
    let _ = writeln!(
        out,
        "limits: cosine >= {}, KL <= {}, max abs <= {}, top-1 where the lead is above {}, steps <= {} rms (drift {})",
        l.least_cosine, l.largest_kl, l.largest_abs, l.clear_gap, l.step_peak, l.drift_peak
    );
    if let Section::Ran(parity) = &report.tokenizer_parity {
        let _ = writeln!(out, "\ntokenizer: {} texts, {} differ", parity.texts.len(), parity.differing);
        for text in parity.texts.iter().filter(|t| !t.tokens.equal) {
            let _ = writeln!(out, "  {:?}", text.text);
            mismatch(&mut out, &text.tokens, style);
        }
    } else {
        absent(&mut out, "tokenizer parity", &report.tokenizer_parity);
    }
    for prompt in &report.prompts {
        write_prompt(&mut out, prompt, report, style);
    }
    match &report.performance {
        Section::Ran(p) => {
            let _ = writeln!(
                out,
                "\nspeed, {} prompt tokens and up to {} new ones, {} runs in turn",
                p.prompt_tokens,
                p.max_tokens,
                p.ours.generate_s.len()
            );
            for (name, s) in [("ours", &p.ours), (backend(report), &p.reference)] {
                let (prefill, decode) = (s.prefill_tokens_per_s, s.decode_tokens_per_s);
                let (prefill, decode) = (measured(prefill, 1), measured(decode, 1));
                let _ = writeln!(out, "  {name:<10} prefill {prefill:>9} tokens/s   decode {decode:>9} tokens/s");
            }
            let _ = writeln!(
                out,
                "  ours / {}: prefill {}, decode {}",
                backend(report),
                measured(p.prefill_ratio, 2),
                measured(p.decode_ratio, 2)
            );
        }
        section => absent(&mut out, "performance", section),
    }
    let colour = match report.verdict {
        Verdict::Parity => GREEN,
        Verdict::Divergence | Verdict::TokenMismatch => RED,
        Verdict::Usage | Verdict::Unavailable => YELLOW,
    };
    let verdict = style.paint(colour, report.verdict.name());
    let _ = writeln!(out, "\n{verdict} (exit {}): {}", report.exit_code, report.reason);
    out
}

fn backend(report: &CrossvalReport) -> &str {
    report.reference.ran().map_or("reference", |r| &r.backend)
}

/// A rate or ratio; of what was over before it could be timed there is none.
fn measured(value: f64, digits: usize) -> String {
    if value.is_finite() { format!("{value:.digits$}") } else { "untimed".to_owned() }
}

/// What did not run, unless nobody asked for it.
fn absent<T>(out: &mut String, what: &str, section: &Section<T>) {
    match section {
        Section::Failed { reason, .. } => {
            let _ = writeln!(out, "{what}: failed: {reason}");
        }
        Section::NotRun { reason } => {
            let _ = writeln!(out, "{what}: not run ({reason})");
        }
        Section::Ran(_) => {}
    }
}

fn write_prompt(out: &mut String, prompt: &PromptReport, report: &CrossvalReport, style: &Style<'_>) {
    let _ = writeln!(out, "\nprompt {:?} ({})", prompt.prompt.prompt, prompt.prompt.template);
    match &prompt.tokens {
        Section::Ran(tokens) if tokens.equal => {
            let _ = writeln!(out, "tokens: {} on both sides, the same", tokens.ours.len());
        }
        Section::Ran(tokens) => {
            let _ = writeln!(out, "{}", style.paint(RED, "the tokens differ"));
            mismatch(out, tokens, style);
        }
        section => absent(out, "tokens", section),
    }
    match &prompt.logits {
        Section::Ran(logits) => {
            let c = &logits.comparison;
            table(out, &c.positions, logits.prompt_tokens, backend(report), style);
            let _ = writeln!(
                out,
                "logits: least cosine {:.6}, largest KL {:.2e}, largest distance {:.4}; {} of {} positions clear, top-1 \
                 differs at {}",
                c.least_cosine,
                c.largest_kl,
                c.largest_abs,
                c.clear,
                c.positions.len(),
                c.top1_differs
            );
        }
        section => absent(out, "logits", section),
    }
    match &prompt.generation {
        Section::Ran(g) => {
            let how = match (g.equal, g.agrees) {
                (true, _) => "the same".to_owned(),
                (false, true) => {
                    format!("they part at token {}, where the reference is not clear", g.first_difference.unwrap_or(0))
                }
                (false, false) => style.paint(RED, &g.problem().unwrap_or_default()),
            };
            let _ = writeln!(out, "generated: {} tokens, {how}: {:?}", g.ours.tokens.len(), g.text);
        }
        section => absent(out, "generation", section),
    }
    match &prompt.trace {
        Section::Ran(trace) => write_trace(out, trace, backend(report), style),
        section => absent(out, "trace", section),
    }
    times(out, &prompt.seconds, backend(report));
}

fn mismatch(out: &mut String, tokens: &TokenParity, style: &Style<'_>) {
    for (name, ids) in [("ours", &tokens.ours), ("reference", &tokens.reference)] {
        let ids: Vec<String> = ids
            .iter()
            .enumerate()
            .map(|(i, id)| {
                let text = id.to_string();
                if Some(i) == tokens.first_difference { style.paint(RED, &format!(">{text}<")) } else { text }
            })
            .collect();
        let _ = writeln!(out, "  {name:<10} {}", ids.join(" "));
    }
    if let Some(problem) = tokens.problem() {
        let _ = writeln!(out, "  {problem}");
    }
    if let Some(at) = tokens.first_difference {
        let (a, b) = (tokens.ours.get(at).copied(), tokens.reference.get(at).copied());
        let _ = writeln!(
            out,
            "  there: ours {}, reference {}",
            style.token(a, 24).trim_end(),
            style.token(b, 24).trim_end()
        );
    }
    for hint in &tokens.hints {
        let _ = writeln!(out, "  hint ({}): {}", hint.code, hint.message);
    }
}

fn table(out: &mut String, positions: &[PositionReport], prompt: usize, backend: &str, style: &Style<'_>) {
    let metrics: String = style.metrics.iter().map(|m| format!(" {:>10}", m.name())).collect();
    let head = format!("{:>4}  {:<16} {:<16} {:<16}{metrics}  verdict", "pos", "token", "ours", backend);
    let _ = writeln!(out, "{}", style.paint(BOLD, &head));
    for p in positions {
        let figures: String = style.metrics.iter().map(|m| format!(" {}", m.of(p))).collect();
        let verdict = if !p.agrees() {
            style.paint(RED, &p.exceeded.iter().map(|e| e.name()).collect::<Vec<_>>().join(","))
        } else if p.top1_ours != p.top1_reference {
            style.paint(YELLOW, &format!("ok (lead {:.3})", p.gap))
        } else {
            style.paint(GREEN, "ok")
        };
        // What comes after the prompt was made by the reference.
        let mark = if p.position < prompt { ' ' } else { '+' };
        let _ = writeln!(
            out,
            "{:>4}{mark} {} {} {}{figures}  {verdict}",
            p.position,
            style.token(Some(p.token), 16),
            style.token(p.top1_ours, 16),
            style.token(p.top1_reference, 16)
        );
    }
}

fn write_trace(out: &mut String, trace: &Bisection, backend: &str, style: &Style<'_>) {
    let own = trace.steps.iter().filter(|s| s.own.is_some()).count();
    let _ = writeln!(
        out,
        "trace: {} steps of {} tokens compared, {own} of them computed from the reference's own input; {} not shown \
         by it",
        trace.steps.len(),
        trace.tokens,
        trace.not_shown.len()
    );
    let worst = |of: &dyn Fn(&StepReport) -> Option<f64>| {
        let found = trace.steps.iter().filter_map(|s| Some((of(s)?, s.step.as_str())));
        found.max_by(|a, b| a.0.total_cmp(&b.0)).map_or_else(|| "none".to_owned(), |(e, s)| format!("{e:.2e} ({s})"))
    };
    let (own, whole) = (worst(&|s| s.own.map(|d| d.peak)), worst(&|s| Some(s.whole.peak)));
    let _ = writeln!(out, "  largest error of a value in units of its row: own {own}, whole {whole}");
    let Some(first) = &trace.first else { return };
    let at = trace.steps.iter().position(|s| s.step == first.step).unwrap_or(0);
    let head = format!("  {:<22} {:>11} {:>11} {:>11}", "step", "own rms", "whole rms", "max abs");
    let _ = writeln!(out, "{}", style.paint(BOLD, &head));
    for step in trace.steps.iter().skip(at.saturating_sub(3)).take(6) {
        let own = step.own.map_or_else(|| "-".to_owned(), |d| format!("{:.3e}", d.peak));
        let line = format!("  {:<22} {own:>11} {:>11.3e} {:>11.3e}", step.step, step.whole.peak, step.whole.max_abs);
        let line = if step.diverges { style.paint(RED, &line) } else { line };
        let _ = writeln!(out, "{line}");
    }
    if let Some(problem) = trace.problem() {
        let _ = writeln!(out, "  {}", style.paint(RED, &problem));
    }
    let layer = first.layer.map_or_else(|| "no layer".to_owned(), |l| format!("layer {l}"));
    let _ = writeln!(
        out,
        "  {layer}, worst value: token {}, column {} ({} of {} tokens are beyond the limit in that column)",
        first.row, first.column, first.rows_beyond, trace.tokens
    );
    let line = |name: &str, values: Vec<String>| format!("    {name:<10} {}", values.join(" "));
    let _ = writeln!(out, "{}", line("column", first.around.iter().map(|e| format!("{:>12}", e.column)).collect()));
    let _ = writeln!(out, "{}", line("ours", first.around.iter().map(|e| format!("{:>12.5}", e.ours)).collect()));
    let _ = writeln!(out, "{}", line(backend, first.around.iter().map(|e| format!("{:>12.5}", e.reference)).collect()));
}

fn times(out: &mut String, seconds: &BothSeconds, backend: &str) {
    for (name, s) in [("ours", &seconds.ours), (backend, &seconds.reference)] {
        let parts = [("tokens", s.tokens), ("generation", s.generation), ("logits", s.logits), ("trace", s.trace)];
        let parts: Vec<String> =
            parts.iter().filter_map(|(what, s)| s.map(|s| format!("{what} {:.1} ms", s * 1e3))).collect();
        if !parts.is_empty() {
            let _ = writeln!(out, "time {name}: {}", parts.join(", "));
        }
    }
}
