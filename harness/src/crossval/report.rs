//! What a run of the cross-validation leaves: the one JSON document of its commands, and the body of a receipt.
//!
//! Every part is a [`Section`]: it ran and here is what it found, or it did not run and here is why. There is no third
//! thing, so a report cannot speak of what did not happen. The verdict is a pure function of the sections ([`judge`])
//! and is computed again whenever a receipt is checked.

use bitnet_golden::thresholds::Thresholds;
use serde::{Deserialize, Serialize};

use super::bisect::Bisection;
use super::compare::{Comparison, Exceeded, exceeded};
use super::generation::GenerationParity;
use super::ours;
use super::performance::Performance;
use super::tokens::TokenParity;
use crate::provenance::HostInfo;
use crate::record::HarnessInfo;

pub const SCHEMA: u32 = 1;

/// How a comparison ended; the exit codes of every command that compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Both sides agree in everything that was asked, and that was not nothing.
    Parity,
    /// Logits, a continuation or a step differ beyond the limits.
    Divergence,
    /// The tokens of a text differ; nothing behind them could be compared.
    TokenMismatch,
    /// The command was not used rightly: a file that is not there, an option without sense.
    Usage,
    /// The reference is not built, cannot run the model, or failed.
    Unavailable,
}

impl Verdict {
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Parity => 0,
            Self::Divergence => 1,
            Self::TokenMismatch => 2,
            Self::Usage => 3,
            Self::Unavailable => 4,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Parity => "parity",
            Self::Divergence => "divergence",
            Self::TokenMismatch => "token mismatch",
            Self::Usage => "usage",
            Self::Unavailable => "unavailable",
        }
    }
}

/// A part of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Section<T> {
    Ran(T),
    /// It was not run.
    NotRun {
        reason: String,
    },
    /// It was begun and one side gave no answer.
    Failed {
        side: String,
        reason: String,
    },
}

impl<T> Section<T> {
    /// What was found, if it ran.
    pub fn ran(&self) -> Option<&T> {
        match self {
            Self::Ran(result) => Some(result),
            _ => None,
        }
    }

    /// A part that is left out.
    pub fn not_run(reason: impl Into<String>) -> Self {
        Self::NotRun { reason: reason.into() }
    }
}

/// A model's file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileFacts {
    /// As it was given.
    pub path: String,
    pub bytes: u64,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// `general.architecture`.
    pub architecture: String,
    /// Format of the linear layers.
    pub quant: String,
}

/// The tokenizer of our side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerFacts {
    /// Where it came from.
    pub source: String,
    /// `bpe`, `spm` or `huggingface`.
    pub kind: String,
    pub pre: Option<String>,
    pub tokens: usize,
    /// SHA-256 of its file, where it is one file and not the model's.
    pub sha256: Option<String>,
}

/// The other side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceFacts {
    /// `bitnet` or `llama`.
    pub backend: String,
    /// Why this one.
    pub chosen: String,
    /// What it was: versions, build, instruction sets, as it said itself after it had loaded the model.
    pub version: serde_json::Value,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Positions whose logits are compared: all, or these.
    pub positions: Option<Vec<usize>>,
    pub max_tokens: usize,
    pub trace: bool,
    /// The `--cos-tol` that replaced the limit of the data.
    pub cos_tol: Option<f64>,
}

/// A prompt as it is compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// As it was given.
    pub prompt: String,
    pub template: String,
    /// What was tokenised.
    pub text: String,
    /// Whether the tokenizers add their beginning and end.
    pub add_special: bool,
    /// Whether control tokens are read in the text.
    pub parse_special: bool,
}

/// The logits of a sequence: the prompt and what the reference made of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogitParity {
    /// The tokens that both sides were fed.
    pub sequence: Vec<u32>,
    /// How many of them are the prompt.
    pub prompt_tokens: usize,
    /// Position by position.
    pub comparison: Comparison,
}

/// Seconds of each request, as our side of the pipe saw them; absent where it was not made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seconds {
    pub tokens: Option<f64>,
    pub logits: Option<f64>,
    pub generation: Option<f64>,
    pub trace: Option<f64>,
}

/// Seconds of both sides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BothSeconds {
    pub ours: Seconds,
    pub reference: Seconds,
}

/// Everything about one prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptReport {
    pub prompt: Prompt,
    /// The gate.
    pub tokens: Section<TokenParity>,
    /// Teacher-forced logits.
    pub logits: Section<LogitParity>,
    pub generation: Section<GenerationParity>,
    pub trace: Section<Bisection>,
    pub seconds: BothSeconds,
}

/// One text of the tokenizer parity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextParity {
    pub text: String,
    pub tokens: TokenParity,
}

/// Many short texts, tokens only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerParity {
    pub texts: Vec<TextParity>,
    pub differing: usize,
}

/// A whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrossvalReport {
    pub schema: u32,
    pub command: String,
    pub verdict: Verdict,
    pub exit_code: u8,
    /// In words.
    pub reason: String,
    /// When, UTC.
    pub made_at: String,
    /// What judged.
    pub harness: HarnessInfo,
    pub host: HostInfo,
    /// The file that we ran.
    pub model: FileFacts,
    /// The file that the reference ran, where it was given another one.
    pub reference_model: Option<FileFacts>,
    /// Our tokenizer.
    pub tokenizer: TokenizerFacts,
    /// Our side: version, kernel that ran, threads.
    pub ours: serde_json::Value,
    pub reference: Section<ReferenceFacts>,
    pub asked: Asked,
    pub limits: Thresholds,
    /// Tokens of many texts.
    pub tokenizer_parity: Section<TokenizerParity>,
    pub prompts: Vec<PromptReport>,
    pub performance: Section<Performance>,
}

/// What a report comes to, from its sections alone: the worst thing that was found, and in its absence whether anything
/// was compared at all.
#[must_use]
pub fn judge(report: &CrossvalReport) -> (Verdict, String) {
    let mut found: Vec<(Verdict, String)> = Vec::new();
    if let Some(reason) = missing(&report.reference) {
        found.push((Verdict::Unavailable, reason));
    }
    let mut compared = 0;
    if let (Some(wanted), Some(longest)) = (&report.asked.positions, longest(report))
        && let Some(position) = wanted.iter().find(|&&p| p >= longest)
    {
        let reason = format!("position {position} was asked for, and the longest sequence has {longest} tokens");
        found.push((Verdict::Usage, reason));
    }
    match &report.tokenizer_parity {
        Section::Ran(parity) => {
            compared += parity.texts.len();
            if let Some(text) = parity.texts.iter().find(|t| !t.tokens.equal) {
                let words = text.tokens.problem().unwrap_or_default();
                let reason = format!("{} of {} texts: {:?}: {words}", parity.differing, parity.texts.len(), text.text);
                found.push((Verdict::TokenMismatch, reason));
            }
        }
        section => found.extend(failure(section)),
    }
    for (at, prompt) in report.prompts.iter().enumerate() {
        let named =
            |words: String| if report.prompts.len() > 1 { format!("prompt {}: {words}", at + 1) } else { words };
        let mut add = |verdict, words: Option<String>| found.extend(words.map(|words| (verdict, named(words))));
        if let Some(tokens) = prompt.tokens.ran() {
            add(Verdict::TokenMismatch, tokens.problem());
        }
        if let Some(logits) = prompt.logits.ran() {
            compared += logits.comparison.positions.len();
            if !explained(prompt, &report.limits) {
                add(Verdict::Divergence, logits.comparison.problem());
            }
        }
        if let Some(generation) = prompt.generation.ran() {
            add(Verdict::Divergence, generation.problem());
        }
        if let Some(trace) = prompt.trace.ran() {
            add(Verdict::Divergence, trace.problem());
        }
        let failures =
            [failure(&prompt.tokens), failure(&prompt.logits), failure(&prompt.generation), failure(&prompt.trace)];
        found.extend(failures.into_iter().flatten().map(|(verdict, words)| (verdict, named(words))));
    }
    found.extend(failure(&report.performance));
    let order = [Verdict::Usage, Verdict::TokenMismatch, Verdict::Divergence, Verdict::Unavailable];
    for verdict in order {
        let reasons: Vec<&str> = found.iter().filter(|f| f.0 == verdict).map(|f| f.1.as_str()).collect();
        if !reasons.is_empty() {
            return (verdict, reasons.join("; "));
        }
    }
    if compared == 0 {
        return (Verdict::Unavailable, "nothing was compared".to_owned());
    }
    (Verdict::Parity, parity_words(report))
}

/// How far beyond their limits logits may be where every step agrees.
const PILED_UP: f64 = 4.0;

/// Whether roundings explain that logits are beyond their limits: every step agrees when it is computed from the reference's own
/// input, so nothing but what piles up over the layers is left, and the logits are not further off than that may come to. Another
/// clear token is never explained.
fn explained(prompt: &PromptReport, limits: &Thresholds) -> bool {
    let (Some(logits), Some(trace)) = (prompt.logits.ran(), prompt.trace.ran()) else { return false };
    let wide = Thresholds {
        least_cosine: 1.0 - PILED_UP * (1.0 - limits.least_cosine),
        largest_kl: PILED_UP * limits.largest_kl,
        largest_abs: PILED_UP * limits.largest_abs,
        ..limits.clone()
    };
    let found = &logits.comparison.positions;
    let all_shown = trace.agrees && trace.steps.iter().all(|step| step.own.is_some());
    let all_near = found.iter().all(|at| !at.exceeded.contains(&Exceeded::Missing) && exceeded(at, &wide).is_empty());
    !logits.comparison.agrees && !found.is_empty() && all_shown && all_near
}

fn longest(report: &CrossvalReport) -> Option<usize> {
    report.prompts.iter().filter_map(|p| p.logits.ran()).map(|l| l.sequence.len()).max()
}

fn parity_words(report: &CrossvalReport) -> String {
    let mut words = Vec::new();
    if let Some(parity) = report.tokenizer_parity.ran() {
        words.push(format!("tokens of {} texts", parity.texts.len()));
    }
    let count = |f: fn(&PromptReport) -> usize| report.prompts.iter().map(f).sum::<usize>();
    let parts = [
        (count(|p| p.logits.ran().map_or(0, |l| l.comparison.positions.len())), "positions"),
        (count(|p| p.generation.ran().map_or(0, |g| g.reference.tokens.len())), "generated tokens"),
        (count(|p| p.trace.ran().map_or(0, |t| t.steps.len())), "steps"),
    ];
    words.extend(parts.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")));
    let beyond = |p: &PromptReport| match p.logits.ran().filter(|_| explained(p, &report.limits)) {
        Some(logits) => logits.comparison.positions.iter().filter(|at| !at.agrees()).count(),
        None => 0,
    };
    let beyond: usize = report.prompts.iter().map(beyond).sum();
    let rounding = match beyond {
        0 => String::new(),
        n => {
            format!("; the logits of {n} positions are beyond their limits, which roundings explain: every step agrees")
        }
    };
    format!("{} agree{rounding}", words.join(", "))
}

fn missing<T>(section: &Section<T>) -> Option<String> {
    match section {
        Section::Ran(_) => None,
        Section::NotRun { reason } | Section::Failed { reason, .. } => Some(reason.clone()),
    }
}

/// A side that gave no answer: the reference is unavailable then; that we have none is a divergence.
fn failure<T>(section: &Section<T>) -> Option<(Verdict, String)> {
    match section {
        Section::Failed { side, reason } if side == ours::NAME => Some((Verdict::Divergence, reason.clone())),
        Section::Failed { reason, .. } => Some((Verdict::Unavailable, reason.clone())),
        _ => None,
    }
}

impl CrossvalReport {
    /// The report with its verdict.
    #[must_use]
    pub fn judged(mut self) -> Self {
        let (verdict, reason) = judge(&self);
        self.verdict = verdict;
        self.exit_code = verdict.exit_code();
        self.reason = reason;
        self
    }
}
