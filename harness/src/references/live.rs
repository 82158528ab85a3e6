//! Live workers, one for each backend in a process: started when the first cell asks, shared by all of them, and started
//! anew when one died, hung or got out of step, so that a dead worker costs the cell that saw it and no other.
//!
//! What a worker answers depends on the model file and the question alone, not on our device, so each answer is asked for
//! once a process.

use super::questions::{CONTEXT, Subject};
use crate::atomic;
use crate::check::{Context, Failure};
use crate::crossval::answers::Answers;
use crate::crossval::reference::Continuation;
use crate::crossval::{Logits, Positions, Reference, SideError, Traced, live};
use crate::metrics::Metrics;
use crate::verdict::Availability;
use bitnet_engine::gguf::GgufFile;
use cpp_sys::{CppBackend, CppError, Hello, Installed, LoadOptions, Session, SessionOptions, Workers};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Tokens that a worker computes at a time.
pub const CHUNK: usize = 16;
/// Threads of a worker: the cells of a run share the machine, and its answers must not depend on how many there are.
const THREADS: usize = 1;
/// What one answer about these short sequences may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether the worker of a backend is built here.
#[must_use]
pub fn availability(backend: CppBackend, target: &Path) -> Availability {
    match Workers::new(target).preflight(backend) {
        Ok(_) => Availability::Available,
        Err(missing) => Availability::unavailable(backend.name(), missing.what.join("; "), missing.command),
    }
}

/// The place of a backend's worker.
struct Desk {
    installed: Installed,
    open: Mutex<Option<Open>>,
}

/// A worker and the model that it has loaded.
struct Open {
    session: Session,
    model: Option<PathBuf>,
}

/// The worker of a backend, about one subject.
pub struct LiveReference {
    desk: Arc<Desk>,
    backend: CppBackend,
    path: PathBuf,
    subject: Subject,
    version: serde_json::Value,
}

impl std::fmt::Debug for LiveReference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveReference")
            .field("backend", &self.backend)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

static LOGITS: Answers<Logits> = Answers::new();
static CONTINUATIONS: Answers<Continuation> = Answers::new();
static TRACES: Answers<Vec<Traced>> = Answers::new();

/// The key of a subject's answers from a backend.
fn key(backend: &str, subject: &Subject, question: &impl std::fmt::Debug) -> String {
    format!("{backend} {} {question:?}", subject.file.content_hash())
}

/// The worker of a backend, ready for a subject.
///
/// # Errors
/// The worker is not built, or cannot be started.
pub fn reference(ctx: &Context, backend: &str, subject: &Subject) -> Result<LiveReference, Failure> {
    let backend: CppBackend = backend.parse()?;
    let desk = desk(backend, &ctx.paths.target)?;
    let path = staged(&subject.file, &ctx.paths.staged())?;
    let mut reference =
        LiveReference { desk, backend, path, subject: subject.clone(), version: serde_json::Value::Null };
    reference.version = reference.ask("hello", |session| Ok(version(session.hello())))?;
    Ok(reference)
}

/// The figures of a comparison with the name of the reference and the model, for the record.
///
/// # Errors
/// That of the comparison.
pub fn witness(
    found: Result<Metrics, Failure>,
    reference: &dyn Reference,
    subject: &Subject,
) -> Result<Metrics, Failure> {
    let name = |mut metrics: Metrics| {
        metrics.reference = Some(reference.version().to_string());
        metrics.of_model(subject.file.content_hash())
    };
    match found {
        Ok(metrics) => Ok(name(metrics)),
        Err(Failure { message, metrics }) => Err(Failure { message, metrics: name(metrics) }),
    }
}

/// What a recording keeps of a worker: everything that may change its answers.
fn version(hello: &Hello) -> serde_json::Value {
    let build = &hello.build;
    serde_json::json!({
        "source": build.source,
        "version": build.version,
        "edits": build.edits,
        "compiler": build.compiler,
        "flags": build.flags,
        "libraries": build.libraries,
        "cpu": build.cpu,
        "system": hello.system.trim(),
        "threads": THREADS,
    })
}

fn desk(backend: CppBackend, target: &Path) -> Result<Arc<Desk>, Failure> {
    type Desks = HashMap<(&'static str, PathBuf), Arc<Desk>>;
    static DESKS: OnceLock<Mutex<Desks>> = OnceLock::new();
    let mut desks = DESKS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    let key = (backend.name(), target.to_owned());
    if let Some(desk) = desks.get(&key) {
        return Ok(Arc::clone(desk));
    }
    let installed = Workers::new(target).preflight(backend)?;
    let desk = Arc::new(Desk { installed, open: Mutex::new(None) });
    desks.insert(key, Arc::clone(&desk));
    Ok(desk)
}

/// The path of a file's bytes: its own, or a copy named by its hash.
fn staged(file: &GgufFile, folder: &Path) -> Result<PathBuf, Failure> {
    if let Some(path) = file.path() {
        return Ok(path.to_owned());
    }
    let path = folder.join(format!("{}.gguf", file.content_hash()));
    let there = std::fs::metadata(&path).is_ok_and(|found| found.len() == file.file_len());
    if !there {
        let mut bytes = Vec::new();
        file.copy_to(&mut bytes)?;
        atomic::write(&path, &bytes)
            .map_err(|e| Failure::new(format_args!("cannot write {} for the worker: {e}", path.display())))?;
    }
    Ok(path)
}

impl LiveReference {
    /// Asks the worker.
    fn ask<T>(
        &self,
        what: &'static str,
        question: impl FnOnce(&mut Session) -> Result<T, CppError>,
    ) -> Result<T, SideError> {
        let mut open = self.desk.open.lock().unwrap_or_else(PoisonError::into_inner);
        self.question(&mut open, question).map_err(|e| SideError::failed(self.backend.title(), what, e))
    }

    /// A worker that died, hung or got out of step is forgotten, and so is one during whose answer we panicked: the next
    /// question starts another.
    fn question<T>(
        &self,
        slot: &mut Option<Open>,
        question: impl FnOnce(&mut Session) -> Result<T, CppError>,
    ) -> Result<T, CppError> {
        let mut open = match slot.take() {
            Some(open) => open,
            None => {
                let options = SessionOptions { timeout: PATIENCE, threads: THREADS, ..SessionOptions::default() };
                Open { session: Session::start(&self.desk.installed, options)?, model: None }
            }
        };
        let mut answer = Ok(());
        if open.model.as_ref() != Some(&self.path) {
            open.model = None;
            let options =
                LoadOptions { context: CONTEXT, vocab_only: self.subject.vocabulary_only, ..LoadOptions::default() };
            answer = open.session.load(&self.path, options).map(|_| ());
            if answer.is_ok() {
                open.model = Some(self.path.clone());
            }
        }
        let answer = answer.and_then(|()| question(&mut open.session));
        if !answer.as_ref().is_err_and(CppError::is_final) {
            *slot = Some(open);
        }
        answer
    }
}

impl Reference for LiveReference {
    fn name(&self) -> &str {
        self.backend.title()
    }

    fn version(&self) -> serde_json::Value {
        self.version.clone()
    }

    fn tokenize(&mut self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>, SideError> {
        self.ask("tokens", |session| session.tokenize(text, add_special, parse_special))
    }

    fn logits(&mut self, tokens: &[u32], positions: &Positions) -> Result<Logits, SideError> {
        let wanted = positions.of(tokens.len());
        let found = LOGITS.get(key(self.backend.name(), &self.subject, &(tokens, &wanted)), || {
            self.ask("logits", |session| live::logits(session, tokens, positions, CHUNK))
        })?;
        Ok(Logits::clone(&found))
    }

    fn generate(&mut self, prompt: &[u32], max_tokens: usize) -> Result<Continuation, SideError> {
        let found = CONTINUATIONS.get(key(self.backend.name(), &self.subject, &(prompt, max_tokens)), || {
            self.ask("generation", |session| live::continuation(session, prompt, max_tokens))
        })?;
        Ok(Continuation::clone(&found))
    }

    fn trace(&mut self, tokens: &[u32]) -> Result<Vec<Traced>, SideError> {
        let found = TRACES.get(key(self.backend.name(), &self.subject, &tokens), || {
            self.ask("trace", |session| live::trace(session, tokens))
        })?;
        Ok(found.to_vec())
    }
}
