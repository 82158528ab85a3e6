//! Which of its layouts a file's I2_S tensors have, where nothing tells: all of them hold valid codes, and a model that is read
//! in the wrong one babbles.
//!
//! In order: what was found out before ([`super::memory`]); the user's own prompt, which is computed anyway ([`super::evidence`]);
//! the loss of a short built-in text under each layout. Microsoft's files have the layout of x86, so that the prompt, read in
//! this layout, is all the evidence that is needed, unless it is very short or no ordinary text.

use super::evidence::Evidence;
use super::memory::Memory;
use super::{LoadError, Loaded};
use crate::gguf::GgufFile;
use crate::inference::{Session, SessionOptions, Timings, Want, nll};
use crate::model::{HugePages, Model, ModelError};
use crate::tokenizer::{Diagnostic, EncodeOptions, Severity, Tokenizer};
use bitnet_kernels::quant::I2sLayout;
use bitnet_kernels::{Kernels, Pool};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How the layout of I2_S tensors was found.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct LayoutReport {
    /// `x86`, `arm` or `rows4`.
    pub layout: &'static str,
    /// Whether anything spoke for it, or it is only the usual one.
    pub decided: bool,
    /// Why this one.
    pub why: String,
}

impl LayoutReport {
    pub(super) fn decided(layout: I2sLayout, why: String) -> Self {
        Self { layout: layout.name(), decided: true, why }
    }

    pub(super) fn undecided(why: String) -> Self {
        Self { layout: I2sLayout::default().name(), decided: false, why }
    }

    pub(super) fn diagnostic(&self) -> Diagnostic {
        let LayoutReport { layout, decided, why } = self;
        let (severity, verdict, hint) = if *decided {
            (Severity::Info, "I2_S tensors read as", String::new())
        } else {
            let hint = "if the text is nonsense, try --i2s-layout arm, or rows4".to_owned();
            (Severity::Warning, "nothing tells the layout of the I2_S tensors; they are taken for", hint)
        };
        Diagnostic { severity, code: "i2s_layout", message: format!("{verdict} {layout}: {why}"), hint }
    }
}

/// What a model is built from.
#[derive(Clone)]
pub(super) struct Build {
    pub(super) file: GgufFile,
    pub(super) huge_pages: HugePages,
    pub(super) kernels: &'static dyn Kernels,
    pub(super) pool: Arc<Pool>,
}

impl Build {
    pub(super) fn model(&self, layout: I2sLayout) -> Result<Arc<Model>, ModelError> {
        let mut model = Model::load(&self.file, layout, &self.pool)?;
        model.huge_pages = self.huge_pages;
        Ok(Arc::new(model))
    }
}

/// A layout that nothing tells yet.
#[derive(Clone)]
pub(super) struct Open {
    pub(super) build: Build,
    pub(super) memory: Option<Memory>,
}

/// A session of a model whose layout is settled.
#[derive(Debug)]
pub struct Settled {
    /// The session to go on with. It may hold a beginning of the prompt, and then also the row of its last token.
    pub session: Session,
    /// Tokens that it holds.
    pub tokens: usize,
    /// What it took to compute them.
    pub prefill: Duration,
}

impl Settled {
    /// Adds what was computed here to the times of the generation that followed.
    pub fn count(&self, timings: &mut Timings) {
        timings.prompt_tokens += self.tokens;
        timings.prefill += self.prefill;
    }
}

impl Loaded {
    /// Settles a layout that was left open (`by_prompt` of [`LoadOptions`](super::LoadOptions)), by the beginning of the prompt,
    /// which is computed in `session`, a new one; [`extend`](crate::inference::extend) goes on from there. Where the prompt does
    /// not suffice, a built-in text is asked, and the model and the session may be others then. Diagnostics are added.
    ///
    /// # Errors
    /// The prompt or the built-in text cannot be computed.
    pub fn settle(&mut self, mut session: Session, prompt: &[u32]) -> Result<Settled, LoadError> {
        let nothing = |session| Settled { session, tokens: 0, prefill: Duration::ZERO };
        // A prompt that does not fit is refused by whoever generates.
        if self.open.is_none() || prompt.len() >= session.context() || prompt.is_empty() {
            return Ok(nothing(session));
        }
        let Some(open) = self.open.take() else { return Ok(nothing(session)) };
        let tokens = prompt.len().min(session.options().chunk);
        let started = Instant::now();
        let mut rows = Vec::new();
        session.hold_seen(&prompt[..tokens], &mut rows)?;
        let prefill = started.elapsed();
        let evidence = Evidence::of(&self.model, &*self.tokenizer, &prompt[..tokens], &rows);
        let report = match evidence.filter(Evidence::is_clear) {
            Some(evidence) => {
                let report = LayoutReport::decided(self.model.i2s_layout, evidence.to_string());
                open.keep(&report, &*self.tokenizer);
                report
            }
            None => {
                let (model, report) = probe(&open, &self.model, &*self.tokenizer)?;
                if !Arc::ptr_eq(&model, &self.model) {
                    session = Session::new(Arc::clone(&model), session.options().clone())?;
                    self.model = model;
                    if open.build.huge_pages == HugePages::On {
                        self.model.copy_hot(HugePages::On, &open.build.pool);
                    }
                }
                report
            }
        };
        self.diagnostics.push(report.diagnostic());
        self.layout = Some(report);
        let tokens = session.position();
        Ok(if tokens == 0 { nothing(session) } else { Settled { session, tokens, prefill } })
    }
}

impl Open {
    fn keep(&self, report: &LayoutReport, tokenizer: &dyn Tokenizer) {
        if let Some(memory) = &self.memory {
            memory.write(report, tokenizer);
        }
    }
}

/// A text that every English model has seen; its loss under the right layout is far below that of noise.
const PROBE: &str = "In the beginning God created the heavens and the earth. Now the earth was formless and empty, and \
                     darkness was over the surface of the deep.";
const PROBE_TOKENS: usize = 24;

/// The ids of the built-in text.
pub(super) fn probe_ids(tokenizer: &dyn Tokenizer) -> Vec<u32> {
    let options = EncodeOptions { add_special: true, parse_special: false };
    let mut ids = tokenizer.encode(PROBE, options).unwrap_or_default();
    ids.truncate(PROBE_TOKENS);
    ids
}

/// Finds the layout by the built-in text, and remembers it.
pub(super) fn probe(
    open: &Open,
    model: &Arc<Model>,
    tokenizer: &dyn Tokenizer,
) -> Result<(Arc<Model>, LayoutReport), LoadError> {
    let (model, report) = try_all(open, model, tokenizer)?;
    open.keep(&report, tokenizer);
    Ok((model, report))
}

/// `model` was read as x86 has it.
fn try_all(
    open: &Open,
    model: &Arc<Model>,
    tokenizer: &dyn Tokenizer,
) -> Result<(Arc<Model>, LayoutReport), LoadError> {
    let Build { kernels, pool, .. } = &open.build;
    let mut ids = probe_ids(tokenizer);
    ids.truncate(model.config.context_length);
    if ids.len() < PROBE_TOKENS / 2 {
        let why = format!("the probe text has only {} tokens here", ids.len());
        return Ok((Arc::clone(model), LayoutReport::undecided(why)));
    }
    let loss = |model: &Arc<Model>| -> Result<f64, LoadError> {
        let options = SessionOptions { context: Some(PROBE_TOKENS), ..SessionOptions::new(*kernels, Arc::clone(pool)) };
        let mut session = Session::new(Arc::clone(model), options)?;
        let mut nats = 0.0;
        session.forward(&ids, Want::All, &mut |position, logits| {
            if let Some(&target) = ids.get(position + 1) {
                nats += nll(logits, target as usize);
            }
        })?;
        Ok(nats / (ids.len().max(2) - 1) as f64)
    };
    let noise = (model.config.vocab_size as f64).ln();
    let x86 = loss(model)?;
    if x86 < 0.7 * noise {
        let why = format!("a probe text has {x86:.2} nats a token, noise would have {noise:.2}");
        return Ok((Arc::clone(model), LayoutReport::decided(I2sLayout::X86, why)));
    }
    let mut tried = format!("{x86:.2} nats a token read as x86");
    let mut best: Option<(f64, I2sLayout, Arc<Model>)> = None;
    for layout in [I2sLayout::Arm, I2sLayout::Rows4] {
        // One that does not fit the shapes, or has codes that are none, is not it.
        let Ok(other) = open.build.model(layout) else { continue };
        let nats = loss(&other)?;
        tried += &format!(", {nats:.2} as {}", layout.name());
        if best.as_ref().is_none_or(|(least, ..)| nats < *least) {
            best = Some((nats, layout, other));
        }
    }
    let why = format!("a probe text has {tried}");
    if let Some((nats, layout, other)) = best
        && nats + 1.0 < x86
    {
        return Ok((other, LayoutReport::decided(layout, why)));
    }
    Ok((Arc::clone(model), LayoutReport::undecided(why)))
}
