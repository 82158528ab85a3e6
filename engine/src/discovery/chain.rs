//! The record of a discovery: every step, what it looked at, what came of it and why.

use super::compatibility::{Evidence, Recognised};
use super::sizes::{Disagreement, VocabularySizes};
use super::strategy::{TokenizerDownloadInfo, TokenizerStrategy};
use crate::named::named;
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;

named! {
    /// The steps, in their order.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum StepKind {
        /// The file that the caller named.
        Named = "named",
        /// `tokenizer.ggml.*` of the GGUF.
        Embedded = "embedded",
        /// Files beside the model.
        Beside = "beside",
        /// Our cache of downloads.
        Cache = "cache",
        /// A cache in HuggingFace's layout.
        HuggingfaceCache = "huggingface-cache",
        /// The hub.
        Download = "download",
        /// Bytes as ids.
        Mock = "mock",
    }
}

impl StepKind {
    /// Those that run where no file was named.
    pub const CHAIN: [StepKind; 6] =
        [Self::Embedded, Self::Beside, Self::Cache, Self::HuggingfaceCache, Self::Download, Self::Mock];
}

named! {
    /// What came of a step.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum StepOutcome {
        /// Its tokenizer is the one.
        Won = "won",
        /// It has a tokenizer, but something about it is guessed; a better one was looked for.
        Doubtful = "doubtful",
        /// It has something that cannot be used.
        Rejected = "rejected",
        /// It has nothing.
        Absent = "absent",
        /// It could have something, but the settings keep it from looking.
        NotAllowed = "not-allowed",
        /// An earlier step had won.
        NotNeeded = "not-needed",
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Which one.
    pub step: StepKind,
    /// What came of it.
    pub outcome: StepOutcome,
    /// Keys, files, repositories.
    pub looked_at: Vec<String>,
    /// The reason, in words.
    pub why: String,
    /// Microseconds, reading and building included where the step did that.
    pub micros: u64,
}

/// The family that a model was recognised as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FamilyReport {
    /// Stable name.
    pub family: &'static str,
    /// For people.
    pub label: &'static str,
    /// By what.
    pub evidence: Evidence,
    /// Families that it could be as well.
    pub others: Vec<&'static str>,
}

impl From<&Recognised> for FamilyReport {
    fn from(r: &Recognised) -> Self {
        Self { family: r.line.family, label: r.line.label, evidence: r.evidence, others: r.others.clone() }
    }
}

/// A whole discovery.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Chain {
    /// The model, unless it is part of the program.
    #[serde(serialize_with = "crate::shell::text_if_any")]
    pub model: Option<PathBuf>,
    /// `general.architecture`.
    pub architecture: String,
    /// `tokenizer.ggml.model`.
    pub model_type: Option<String>,
    /// The size that counts.
    pub vocab_size: usize,
    /// What each place says.
    pub vocabulary: VocabularySizes,
    /// Where they contradict each other.
    pub disagreements: Vec<Disagreement>,
    /// The family, if it is known.
    pub family: Option<FamilyReport>,
    /// Every step in its order.
    pub steps: Vec<Step>,
    /// The step that won.
    pub winner: Option<StepKind>,
    /// What it came to.
    pub strategy: Option<TokenizerStrategy>,
    /// What would have to be fetched where nothing here works.
    pub needs_download: Option<TokenizerDownloadInfo>,
    /// Microseconds of all steps.
    pub micros: u64,
}

impl Chain {
    /// The step of this kind, if it is part of the chain.
    pub fn step(&self, kind: StepKind) -> Option<&Step> {
        self.steps.iter().find(|step| step.step == kind)
    }
}

impl fmt::Display for Chain {
    /// A table: step, outcome, time, reason, and below it what was looked at.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<18} {:<12} {:>9}  why", "step", "outcome", "us")?;
        for step in &self.steps {
            writeln!(f, "{:<18} {:<12} {:>9}  {}", step.step, step.outcome, step.micros, step.why)?;
            for place in &step.looked_at {
                writeln!(f, "{:<43}looked at {place}", "")?;
            }
        }
        Ok(())
    }
}
