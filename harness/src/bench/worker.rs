//! A C++ reference as an engine: the worker of `cpp-sys`, which keeps the model loaded between measurements.
//!
//! Its times are its own clock's, without the transfer of answers. Fewer logits than all are made nowhere: a prompt asks
//! for those of its last token, and a generation computes all of every token's.

use super::engine::{Ask, Engine, EngineError, Rates, Timed};
use super::inputs::ids;
use super::process::peak_rss;
use cpp_sys::{CppBackend, Installed, LoadInfo, LoadOptions, ModelFacts, Positions, Session, SessionOptions, Workers};
use std::path::Path;
use std::time::{Duration, Instant};

/// Tokens a batch, as llama-bench has them.
const CHUNK: usize = 512;
/// Tokens of the prompt and of the generation that are not counted.
const WARM_UP: (usize, usize) = (32, 8);

/// The worker of a backend.
pub struct Worker {
    installed: Installed,
    open: Option<(Session, LoadInfo)>,
}

impl Worker {
    /// The worker of a backend, if it is built and runs such a file.
    ///
    /// # Errors
    /// It is not built (with the command that does), or why it cannot run the file.
    pub fn find(backend: CppBackend, target: &Path, facts: &ModelFacts) -> Result<Self, EngineError> {
        backend.supports(facts).map_err(|error| EngineError::Cannot(error.to_string()))?;
        let missing = |m: cpp_sys::Missing| EngineError::Missing { what: m.line(), command: m.command };
        Ok(Self { installed: Workers::new(target).preflight(backend).map_err(missing)?, open: None })
    }

    /// What it was built from.
    pub fn about(&self) -> String {
        let build = &self.installed.build;
        format!(
            "{}, {}, worker of setup-cpp: started for each wait of a person, model kept loaded when warmed",
            build.source, build.compiler
        )
    }

    fn start(&self, ask: &Ask, context: usize) -> Result<(Session, LoadInfo), EngineError> {
        let options = SessionOptions {
            timeout: ask.limit,
            load_timeout: ask.limit.max(Duration::from_secs(60)),
            threads: ask.threads,
            log: None,
        };
        let mut session = Session::start(&self.installed, options)?;
        let context = context.max(256);
        let info = session.load(&ask.model, LoadOptions { context, ..LoadOptions::default() })?;
        Ok((session, info))
    }
}

fn prompt(session: &mut Session, info: &LoadInfo, tokens: usize) -> Result<f64, EngineError> {
    let before = session.timings().of("logits").worker_seconds;
    let last = Positions::List(vec![tokens.saturating_sub(1)]);
    session.logits(&ids(info.vocab_size, tokens), &last, CHUNK)?;
    rate(tokens, session.timings().of("logits").worker_seconds - before)
}

/// The first of the new tokens comes with the prompt: steps are one less than tokens made.
fn generate(session: &mut Session, info: &LoadInfo, prompt: usize, steps: usize) -> Result<f64, EngineError> {
    let made = session.generate(&ids(info.vocab_size, prompt), steps + 1)?;
    if made.tokens.len() <= steps {
        let found = made.tokens.len();
        let why = format!("it ended its text after {found} tokens, {steps} are measured: ask for fewer (--generate)");
        return Err(EngineError::Cannot(why));
    }
    rate(steps, made.decode_seconds)
}

fn rate(count: usize, seconds: f64) -> Result<f64, EngineError> {
    let rate = count as f64 / seconds;
    if rate.is_finite() && rate > 0.0 {
        return Ok(rate);
    }
    Err(EngineError::Cannot(format!("{count} tokens in {seconds} s are too few to be timed")))
}

impl Engine for Worker {
    fn begin(&mut self, ask: &Ask) -> Result<(), EngineError> {
        let (mut session, info) = self.start(ask, ask.prompt.max(ask.generate + 1))?;
        prompt(&mut session, &info, WARM_UP.0)?;
        generate(&mut session, &info, 1, WARM_UP.1.min(ask.generate))?;
        self.open = Some((session, info));
        Ok(())
    }

    fn measure(&mut self, ask: &Ask) -> Result<Rates, EngineError> {
        let Some((session, info)) = &mut self.open else {
            return Err(EngineError::Cannot("the worker was not started".to_owned()));
        };
        let prefill = prompt(session, info, ask.prompt)?;
        let decode = generate(session, info, 1, ask.generate)?;
        Ok(Rates { prefill, decode, peak_rss: session.process_id().and_then(peak_rss) })
    }

    fn whole(&mut self, ask: &Ask, answer: usize) -> Result<Option<Timed>, EngineError> {
        let started = Instant::now();
        // Room for a text that has more tokens here than in ours.
        let (mut session, _) = self.start(ask, 2 * ask.prompt + answer + 1)?;
        let tokens = session.tokenize(&ask.text, true, false)?;
        let made = session.generate(&tokens, answer)?.tokens.len();
        if made < answer {
            return Err(EngineError::Cannot(format!("it ended its text after {made} tokens of {answer}")));
        }
        Ok(Some(Timed { seconds: started.elapsed().as_secs_f64(), tokens: tokens.len() }))
    }

    fn deep(&mut self, ask: &Ask, depth: usize) -> Result<Option<Timed>, EngineError> {
        let (mut session, info) = self.start(ask, depth + ask.generate + 1)?;
        let rate = generate(&mut session, &info, depth, ask.generate)?;
        Ok(Some(Timed { seconds: ask.generate as f64 / rate, tokens: depth }))
    }

    fn end(&mut self) {
        self.open = None;
    }
}
